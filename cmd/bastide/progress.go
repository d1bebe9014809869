// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"
)

// progress shows the steps of long work with their times. On a terminal a
// running step shows how long it takes already.
type progress struct {
	out      io.Writer
	terminal bool
}

func newProgress(out io.Writer) *progress {
	f, ok := out.(*os.File)
	if !ok {
		return &progress{out: out}
	}
	info, err := f.Stat()
	return &progress{out: out, terminal: err == nil && info.Mode()&os.ModeCharDevice != 0}
}

func (p *progress) say(format string, args ...any) { fmt.Fprintf(p.out, format+"\n", args...) }

// step runs one step and prints its name, its time and whether it worked.
func (p *progress) step(name string, do func() error) error {
	started := time.Now()
	stop := p.tick(name, started)
	err := do()
	stop()
	mark := "✓"
	if err != nil {
		mark = "✗"
	}
	fmt.Fprintf(p.out, "%s %-48s %8s\n", mark, name, seconds(time.Since(started)))
	return err
}

func (p *progress) tick(name string, started time.Time) (stop func()) {
	if !p.terminal {
		return func() {}
	}
	done := make(chan struct{})
	var ticking sync.WaitGroup
	ticking.Go(func() {
		ticker := time.NewTicker(time.Second / 5)
		defer ticker.Stop()
		for {
			fmt.Fprintf(p.out, "\r… %-48s %8s", name, seconds(time.Since(started)))
			select {
			case <-done:
				fmt.Fprint(p.out, "\r\x1b[K")
				return
			case <-ticker.C:
			}
		}
	})
	return func() { close(done); ticking.Wait() }
}

func seconds(d time.Duration) string {
	if d >= time.Minute {
		return d.Round(time.Second).String()
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
