// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"bastide.dev/instance"
)

// execOutside becomes the command, in a terminal's network namespace and a
// mount namespace of its own where the terminal's resolver is /etc/resolv.conf.
// It returns only when that fails.
func execOutside(in *instance.Instance, namespace string, command []string) error {
	path, err := exec.LookPath(command[0])
	if err != nil {
		return fmt.Errorf("run in the terminal: %w", err)
	}
	// The thread keeps what it entered: a process that is exec'ed by it has it all.
	runtime.LockOSThread()
	if err := enterTerminal(filepath.Join(in.RunDir(), "netns", namespace), filepath.Join(in.RunDir(), "terminals", namespace, "resolv.conf")); err != nil {
		return err
	}
	if err := unix.Exec(path, command, os.Environ()); err != nil {
		return fmt.Errorf("run %s: %w", path, err)
	}
	return nil
}

// enterTerminal moves this thread; the rest of the machine sees none of it.
func enterTerminal(netns, resolver string) error {
	ns, err := os.Open(netns)
	if err != nil {
		return fmt.Errorf("terminal's network: %w", err)
	}
	defer ns.Close() // only read
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("terminal's network: %w", err)
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("mount namespace: %w", err)
	}
	if err := unix.Mount(resolver, "/etc/resolv.conf", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("terminal's resolver: %w", err)
	}
	return nil
}
