// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// alive is a running process.
type alive struct {
	pid     int
	started time.Time
	exited  chan string // receives how it ended
	pidfd   *os.File
	waiter  sync.WaitGroup
}

// follow waits for the end of a process, child or not, through its pidfd, which
// it takes over and which must be non-blocking: so the runtime's poller waits,
// and no thread does. Reap is called then, and says how the process ended.
func follow(fd, pid int, started time.Time, reap func() string) *alive {
	a := &alive{pid: pid, started: started, exited: make(chan string, 1), pidfd: os.NewFile(uintptr(fd), "pidfd")}
	a.waiter.Go(func() {
		defer a.pidfd.Close()
		conn, err := a.pidfd.SyscallConn()
		if err != nil {
			a.exited <- err.Error()
			return
		}
		ended := false
		// An error says that release closed the file.
		_ = conn.Read(func(fd uintptr) bool {
			fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			n, err := unix.Poll(fds, 0)
			ended = err == nil && n > 0
			return ended
		})
		if ended {
			a.exited <- reap()
			return
		}
	})
	return a
}

// release stops waiting for the process, which goes on.
func (a *alive) release() {
	a.pidfd.Close()
	a.waiter.Wait()
}
