// SPDX-License-Identifier: Apache-2.0

// Package linux runs a node: as PID 1 of a machine it sets the machine up,
// keeps containerd, kubelet and kube-proxy running, reaps orphans, and ends
// all of it cleanly when the machine is stopped or rebooted.
//
// Only the agent binary calls it, by Main.
package linux

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// viewCommand is the argument under which Main starts kubelet in its view of the machine.
const viewCommand = "view"

// Main is the hidden command "node" of the agent. As PID 1 it returns only
// when the machine can't be set up; the end of PID 1 is the end of the machine.
func Main(args []string) error {
	if len(args) > 1 && args[0] == viewCommand {
		return view(args[1:])
	}
	if os.Getpid() != 1 {
		return errors.New("node: only a machine's PID 1 may be one")
	}
	// It lives as long as its machine and does little after the start: its
	// garbage isn't worth the 4 MiB that the runtime would let gather.
	debug.SetGCPercent(20)
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	stop := make(chan os.Signal, 4)
	signal.Notify(stop, unix.SIGTERM, unix.SIGINT)
	ctx, cancel := context.WithCancel(context.Background())
	kids := newReaper(log)
	done := make(chan error, 1)
	go func() { done <- run(ctx, kids, log) }()
	select {
	case err := <-done:
		cancel()
		return err
	case sig := <-stop:
		log.Info("stopping", "signal", sig.String())
		cancel()
		err := <-done
		kids.killAll(time.Second)
		if sig == unix.SIGINT { // as Ctrl-Alt-Del asks an init
			return errors.Join(err, syscall.Reboot(unix.LINUX_REBOOT_CMD_RESTART))
		}
		return err
	}
}
