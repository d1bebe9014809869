// SPDX-License-Identifier: Apache-2.0

// Package linux does things in the network namespaces of terminals: dials,
// listens, and starts programs. Only package drill imports it.
package linux

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// In runs do on a thread in the network namespace at path. Sockets that do opens
// itself, and programs that it starts, stay there.
func In(path string, do func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked unless the thread is back: a thread that isn't dies with its goroutine
		done <- in(path, do)
	}()
	return <-done
}

func in(path string, do func() error) error {
	target, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("namespace: %w", err)
	}
	defer func() { _ = target.Close() }()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return fmt.Errorf("own namespace: %w", err)
	}
	defer func() { _ = own.Close() }()
	if err := unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter namespace %s: %w", path, err)
	}
	err = do()
	if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back != nil {
		return errors.Join(err, back)
	}
	runtime.UnlockOSThread()
	return err
}

// Dial connects by TCP to an address, not a name, from the namespace at path.
func Dial(ctx context.Context, path, address string) (net.Conn, error) {
	return DialNetwork(ctx, path, "tcp4", address)
}

// DialNetwork is Dial over a network of package net.
func DialNetwork(ctx context.Context, path, network, address string) (net.Conn, error) {
	var conn net.Conn
	err := In(path, func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Listen listens on an address in the namespace at path.
func Listen(ctx context.Context, path, address string) (net.Listener, error) {
	var l net.Listener
	err := In(path, func() (err error) {
		l, err = (&net.ListenConfig{}).Listen(ctx, "tcp4", address)
		return err
	})
	return l, err
}

// Start starts a program in the namespace at path.
func Start(path string, cmd *exec.Cmd) error { return In(path, cmd.Start) }
