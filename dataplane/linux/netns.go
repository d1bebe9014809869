// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// threadNetns is the network namespace of the calling thread.
const threadNetns = "/proc/thread-self/ns/net"

// aside runs do on a thread of its own that may change its namespaces; home
// brings it back. A thread that can't go home ends with its goroutine.
func aside(enter func() error, do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open(threadNetns)
		if err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("own network namespace: %w", err)
			return
		}
		if err = enter(); err == nil {
			err = do()
		}
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back == nil {
			runtime.UnlockOSThread()
		}
		done <- errors.Join(err, home.Close())
	}()
	return <-done
}

// within runs do inside a network namespace.
func within(ns *os.File, do func() error) error {
	return aside(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", ns.Name(), err)
		}
		return nil
	}, do)
}

// createNetns makes a network namespace and keeps it with a mount on path. No
// process lives in it, and nothing else of the thread changes: a fresh /sys, as
// `ip netns exec` mounts it, would hide the cgroups.
func createNetns(path string) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil {
		return fmt.Errorf("network namespace: %w", err)
	}
	if err := file.Close(); err != nil {
		return fmt.Errorf("network namespace: %w", err)
	}
	return aside(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare network namespace: %w", err)
		}
		return nil
	}, func() error {
		if err := unix.Mount(threadNetns, path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount network namespace on %s: %w", path, err)
		}
		return nil
	})
}

// openNetns opens the namespace kept at path. A path without one is
// fs.ErrNotExist, also when the bare file is left from a mount that is gone,
// or when the process whose namespace it is dies at this moment.
func openNetns(path string) (*os.File, error) {
	file, err := os.Open(path)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.ESRCH) {
		return nil, fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	if err != nil {
		return nil, err
	}
	var stat unix.Statfs_t
	if err := unix.Fstatfs(int(file.Fd()), &stat); err != nil {
		return nil, errors.Join(fmt.Errorf("statfs %s: %w", path, err), file.Close())
	}
	if stat.Type != unix.NSFS_MAGIC {
		return nil, errors.Join(fmt.Errorf("%s holds no namespace: %w", path, fs.ErrNotExist), file.Close())
	}
	return file, nil
}

// removeNetns gives up the namespace kept at path; the kernel destroys it when
// nobody else uses it.
func removeNetns(path string) error {
	for {
		err := unix.Unmount(path, unix.MNT_DETACH)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break
		}
		if err != nil {
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("network namespace: %w", err)
	}
	return nil
}

// space is an open network namespace and a way to configure it.
type space struct {
	path string
	ns   *os.File
	nl   *netlink.Handle
}

// openSpace opens the namespace at path.
func openSpace(path string) (*space, error) {
	ns, err := openNetns(path)
	if err != nil {
		return nil, err
	}
	nl, err := netlink.NewHandleAt(netns.NsHandle(ns.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("netlink in %s: %w", path, err), ns.Close())
	}
	return &space{path: path, ns: ns, nl: nl}, nil
}

// ensureSpace opens the namespace at path, and makes it first when there is none.
func ensureSpace(path string) (*space, error) {
	s, err := openSpace(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	if err := createNetns(path); err != nil {
		return nil, err
	}
	return openSpace(path)
}

// current tells whether the namespace is still the one kept at its path.
func (s *space) current() bool {
	at, err := os.Stat(s.path)
	if err != nil {
		return false
	}
	open, err := s.ns.Stat()
	return err == nil && os.SameFile(at, open)
}

func (s *space) close() error {
	s.nl.Close()
	if err := s.ns.Close(); err != nil {
		return fmt.Errorf("network namespace: %w", err)
	}
	return nil
}
