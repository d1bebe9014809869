// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
)

// trash takes directories out of the way at once and empties itself behind the
// caller's back; what a restart leaves in it goes the same way.
type trash struct {
	dir    string
	log    *slog.Logger
	wake   chan struct{}
	done   chan struct{}
	closed chan struct{}
	once   sync.Once
}

func newTrash(dir string, log *slog.Logger) *trash {
	t := &trash{dir: dir, log: log, wake: make(chan struct{}, 1), done: make(chan struct{}), closed: make(chan struct{})}
	t.wake <- struct{}{}
	go t.run()
	return t
}

// take moves path into the trash. What isn't there is no error.
func (t *trash) take(path string) error {
	bin, err := os.MkdirTemp(t.dir, "")
	if err != nil {
		return err
	}
	if err := os.Rename(path, filepath.Join(bin, filepath.Base(path))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, os.Remove(bin))
	}
	select {
	case t.wake <- struct{}{}:
	default:
	}
	return nil
}

func (t *trash) run() {
	defer close(t.closed)
	for {
		select {
		case <-t.done:
			return
		case <-t.wake:
			if err := t.remove(t.dir, 0); err != nil {
				t.log.Warn("empty the machines' trash", "dir", t.dir, "error", err)
			}
		}
	}
}

// remove empties dir piece by piece, so that close needn't wait for a whole image.
func (t *trash) remove(dir string, depth int) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var problems []error
	for _, entry := range entries {
		select {
		case <-t.done:
			return nil
		default:
		}
		path := filepath.Join(dir, entry.Name())
		if entry.IsDir() && depth < 5 {
			problems = append(problems, t.remove(path, depth+1))
		}
		problems = append(problems, os.RemoveAll(path))
	}
	return errors.Join(problems...)
}

func (t *trash) close() {
	t.once.Do(func() { close(t.done) })
	<-t.closed
}
