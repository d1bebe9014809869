// SPDX-License-Identifier: Apache-2.0

//go:build bench

package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// inside does something in a network namespace: sockets made and programs
// started by it, in its own goroutine, are there.
func inside(namespace string, do func() error) error {
	f, err := os.Open(namespace)
	if err != nil {
		return err
	}
	defer f.Close()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter %s: %w", namespace, err)
			return
		}
		done <- do()
	}()
	return <-done
}

// freshNamespace makes a network namespace that lasts as long as the file is open.
func freshNamespace() (*os.File, error) {
	type result struct {
		file *os.File
		err  error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- result{err: fmt.Errorf("new network namespace: %w", err)}
			return
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		done <- result{f, err}
	}()
	r := <-done
	return r.file, r.err
}

// podNamespace finds a pod's network namespace by its processes' control group.
func podNamespace(uid string) (string, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return "", err
	}
	for _, dir := range dirs {
		if strings.Contains(text(dir+"/cgroup"), "/pod"+uid+"/") {
			if _, err := strconv.Atoi(filepath.Base(dir)); err == nil {
				return dir + "/ns/net", nil
			}
		}
	}
	return "", fmt.Errorf("pod %s has no process", uid)
}
