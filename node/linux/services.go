// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"gopkg.in/natefinch/lumberjack.v2"

	"bastide.dev/netpolicy"
	"bastide.dev/node"
)

// service is one of the processes that make a node.
type service struct {
	name  string
	args  []string
	env   []string
	ready func(ctx context.Context) // waits until it makes sense to start
	grace time.Duration             // to end after SIGTERM
	conn  *os.File                  // a connection that it serves as input and output; else it has neither
}

type services struct {
	kids *reaper
	log  *slog.Logger
	list []service
	door *door // nil when nobody may come in
}

// newServices: heaps are held small by collecting more often; a node idles
// most of its life, and its memory is what a machine has less of.
func newServices(config node.Config, kids *reaper, log *slog.Logger) *services {
	s := &services{kids: kids, log: log}
	if config.Role != node.RoleVM {
		s.list = nodeServices(config)
	}
	if config.SSH() {
		s.door = newDoor(config, s)
	}
	return s
}

// nodeServices are those of a Kubernetes node.
func nodeServices(config node.Config) []service {
	server := newProbe(config)
	list := []service{
		{
			name: "containerd", args: []string{"containerd", "--config=" + node.ContainerdPath},
			env: []string{"GOGC=50", "GOMEMLIMIT=64MiB"}, grace: 500 * time.Millisecond,
		}, {
			name: "kubelet", args: append([]string{"/proc/self/exe", "node", viewCommand, "kubelet"}, node.KubeletArgs(config)...),
			env: []string{"GOGC=50", "GOMEMLIMIT=96MiB"}, grace: time.Second,
			ready: func(ctx context.Context) {
				awaitSocket(ctx, node.ContainerdSocket)
				if _, err := os.Stat(node.KubeconfigPath); err != nil {
					server.await(ctx) // it joins now; later it does without
				}
			},
		}, {
			name: "kube-proxy", args: append([]string{"kube-proxy"}, node.ProxyArgs()...),
			env: []string{"GOGC=50", "GOMEMLIMIT=48MiB"}, grace: 500 * time.Millisecond,
			ready: server.await,
		},
	}
	if config.Enforces() {
		list = append(list, service{
			name: "netpolicy", args: append([]string{netpolicy.ProgramPath}, node.PolicyArgs()...),
			env: []string{"GOGC=50", "GOMEMLIMIT=24MiB"}, grace: 500 * time.Millisecond,
			ready: server.await,
		})
	}
	return list
}

// run keeps all services running until ctx ends, and returns when they have.
func (s *services) run(ctx context.Context) {
	var all sync.WaitGroup
	for _, one := range s.list {
		all.Go(func() { s.keep(ctx, one) })
	}
	if s.door != nil {
		all.Go(func() { s.door.keep(ctx) })
	}
	all.Wait()
}

// openLog gives a service's log, and what closes it.
func (s *services) openLog(name string) (io.Writer, func()) {
	logFile := &lumberjack.Logger{Filename: "/var/log/" + name + ".log", MaxSize: 20, MaxBackups: 1}
	return logFile, func() {
		if err := logFile.Close(); err != nil {
			s.log.Warn("closing a service's log", "service", name, "error", err)
		}
	}
}

const (
	firstPause = 100 * time.Millisecond
	lastPause  = 5 * time.Second
)

// keep starts the service again and again, with pauses that grow while it
// doesn't last.
func (s *services) keep(ctx context.Context, one service) {
	logFile, closeLog := s.openLog(one.name)
	defer closeLog()
	for pause := firstPause; ctx.Err() == nil; pause = min(2*pause, lastPause) {
		if one.ready != nil {
			one.ready(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		begin := time.Now()
		why, err := s.once(ctx, one, logFile)
		if ctx.Err() != nil {
			return
		}
		s.log.Warn("service ended", "service", one.name, "status", why, "error", err, "after", time.Since(begin).Round(time.Millisecond))
		if time.Since(begin) > 30*time.Second {
			pause = firstPause
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// once runs the service until it ends or ctx does.
func (s *services) once(ctx context.Context, one service, logFile io.Writer) (int, error) {
	out, in, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(one.args[0], one.args[1:]...)
	cmd.Env = append(os.Environ(), one.env...)
	cmd.Stdout, cmd.Stderr = in, in
	if one.conn != nil {
		cmd.Stdin, cmd.Stdout = one.conn, one.conn
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	ended, err := s.kids.start(cmd)
	if err != nil {
		return 0, errors.Join(err, in.Close(), out.Close())
	}
	if one.conn == nil { // connections are in the service's own log
		s.log.Info("service started", "service", one.name, "pid", cmd.Process.Pid)
	}
	var copying sync.WaitGroup
	copying.Go(func() { _, _ = io.Copy(logFile, out) }) // ends with the pipe
	defer func() {
		// Shims inherit containerd's end of the pipe, so that it may stay open.
		_ = in.Close()
		_ = out.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		copying.Wait()
		_ = out.Close()
	}()
	select {
	case status := <-ended:
		return int(status), nil
	case <-ctx.Done():
	}
	_ = cmd.Process.Signal(unix.SIGTERM) // it ended already: then ended says so
	select {
	case status := <-ended:
		return int(status), nil
	case <-time.After(one.grace):
	}
	_ = cmd.Process.Kill()
	return int(<-ended), nil
}

// awaitSocket waits until somebody listens.
func awaitSocket(ctx context.Context, path string) {
	for ctx.Err() == nil {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
		if err == nil {
			_ = conn.Close()
			return
		}
		sleep(ctx, 5*time.Millisecond)
	}
}

func sleep(ctx context.Context, pause time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(pause):
	}
}
