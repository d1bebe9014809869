// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"bastide.dev/cgroup"
)

// terminate ends the process behind a pidfd: by its stop signal, then by
// SIGKILL, and by killing its group. It returns when the process is gone.
func terminate(ctx context.Context, fd int, p *Process, kill bool) error {
	if !kill {
		if err := unix.PidfdSendSignal(fd, p.stopSignal(), nil, 0); err != nil {
			return ignoreGone(err)
		}
		if gone(ctx, fd, p.stopTimeout()) {
			return killGroup(p.Cgroup)
		}
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); ignoreGone(err) != nil {
		return err
	}
	if err := killGroup(p.Cgroup); err != nil {
		return err
	}
	if !gone(context.WithoutCancel(ctx), fd, 5*time.Second) {
		return errors.New("it survives SIGKILL")
	}
	return nil
}

// gone waits for the end of the process behind a pidfd; a zombie counts as ended.
func gone(ctx context.Context, fd int, d time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	for ctx.Err() == nil {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		// Short turns, so that an end of ctx is seen.
		if n, err := unix.Poll(fds, 50); err == nil && n > 0 {
			return true
		}
	}
	return false
}

func killGroup(group string) error {
	if group == "" {
		return nil
	}
	return cgroup.Delete(group) // not Kill: see prepare
}

func ignoreGone(err error) error {
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// endRecorded ends what a record names, and removes its group and the record.
func endRecorded(ctx context.Context, dir, name string, kill bool) error {
	rec := readRecord(dir, name)
	if fd, ok := rec.open(); ok {
		err := terminate(ctx, fd, &Process{Name: name, Cgroup: rec.Cgroup}, kill)
		unix.Close(fd)
		if err != nil {
			return err
		}
	}
	if rec.Cgroup != "" {
		if err := cgroup.Delete(rec.Cgroup); err != nil {
			return err
		}
	}
	return removeRecord(dir, name)
}
