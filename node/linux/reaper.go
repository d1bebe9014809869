// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// reaper is PID 1's oldest duty: it waits for every process that ends,
// its own children and orphans alike, and tells those who asked.
type reaper struct {
	log *slog.Logger

	mu   sync.Mutex // guards kids, and is held from a start until the child is known
	kids map[int]chan unix.WaitStatus
}

func newReaper(log *slog.Logger) *reaper {
	i := &reaper{log: log, kids: map[int]chan unix.WaitStatus{}}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGCHLD)
	go func() { // as long as the machine
		for range ended {
			i.reap()
		}
	}()
	return i
}

func (i *reaper) reap() {
	i.mu.Lock()
	defer i.mu.Unlock()
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if kid := i.kids[pid]; kid != nil {
			kid <- status
			delete(i.kids, pid)
		}
	}
}

// start starts cmd, whose standard streams must be files; its end comes over
// the channel. cmd.Wait must not be called.
func (i *reaper) start(cmd *exec.Cmd) (<-chan unix.WaitStatus, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan unix.WaitStatus, 1)
	i.kids[cmd.Process.Pid] = ended
	return ended, nil
}

// killAll ends every other process: politely, and after grace for good.
func (i *reaper) killAll(grace time.Duration) {
	_ = unix.Kill(-1, unix.SIGTERM) // ESRCH: nobody else is left
	deadline := time.Now().Add(grace)
	for time.Now().Before(deadline) {
		if errors.Is(unix.Kill(-1, 0), unix.ESRCH) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	_ = unix.Kill(-1, unix.SIGKILL)
}
