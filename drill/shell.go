// SPDX-License-Identifier: Apache-2.0

package drill

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"
)

// commandTime bounds one command in a shell.
const commandTime = 15 * time.Second

// shell is a remote shell that stays open, over ssh or kubectl exec, so that a
// command costs a millisecond and not a connection. Commands run one at a time.
type shell struct {
	command func() *exec.Cmd // what opens it; it reads commands from its input
	start   func(*exec.Cmd) error

	mu   sync.Mutex // guards what follows
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	pipe io.Closer // of out
	errs *tailWriter
	n    int
}

// run runs a command of the remote shell's language and returns what it printed
// and its exit code. A shell that has broken since is opened again, once.
func (s *shell) run(ctx context.Context, command string) (string, int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fresh := s.cmd == nil
	out, code, err := s.once(ctx, command)
	if err != nil && !fresh && ctx.Err() == nil {
		out, code, err = s.once(ctx, command)
	}
	return out, code, err
}

func (s *shell) once(ctx context.Context, command string) (string, int, error) {
	if s.cmd == nil {
		if err := s.open(); err != nil {
			return "", 0, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	cmd, pipe := s.cmd, s.pipe
	stop := context.AfterFunc(ctx, func() {
		_ = cmd.Process.Kill()
		_ = pipe.Close() // children of the shell may hold its other end
	})
	defer stop()
	s.n++
	mark := "bastide-drill-" + strconv.Itoa(s.n)
	_, err := fmt.Fprintf(s.in, "{ %s\n} </dev/null 2>&1; code=$?; echo; echo %s $code\n", command, mark)
	var out strings.Builder
	for err == nil {
		var line string
		line, err = s.out.ReadString('\n')
		if code, ours := strings.CutPrefix(strings.TrimSpace(line), mark+" "); ours {
			n, bad := strconv.Atoi(code)
			return strings.TrimSuffix(out.String(), "\n"), n, bad
		}
		out.WriteString(line)
	}
	s.close()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return "", 0, fmt.Errorf("shell %s: %w: %s", cmd.Args[0], err, strings.TrimSpace(s.errs.String()))
}

func (s *shell) open() error {
	cmd := s.command()
	in, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("shell: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("shell: %w", err)
	}
	s.errs = &tailWriter{}
	cmd.Stderr = s.errs
	cmd.WaitDelay = time.Second
	start := s.start
	if start == nil {
		start = (*exec.Cmd).Start
	}
	if err := start(cmd); err != nil {
		return fmt.Errorf("shell: %w", err)
	}
	s.cmd, s.in, s.out, s.pipe = cmd, in, bufio.NewReader(out), out
	return nil
}

// close ends the shell; the next command opens it again.
func (s *shell) close() {
	if s.cmd == nil {
		return
	}
	_ = s.in.Close()
	_ = s.cmd.Process.Kill()
	var exited *exec.ExitError
	if err := s.cmd.Wait(); err != nil && !errors.As(err, &exited) {
		_, _ = fmt.Fprintf(s.errs, " (%v)", err)
	}
	s.cmd = nil
}

// Close ends the shell.
func (s *shell) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.close()
}

// tailWriter keeps the end of what is written.
type tailWriter struct {
	mu   sync.Mutex // guards text
	text []byte
}

func (w *tailWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = append(w.text, p...)
	if len(w.text) > 2000 {
		w.text = w.text[len(w.text)-2000:]
	}
	return len(p), nil
}

func (w *tailWriter) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.text)
}
