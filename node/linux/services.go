// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
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
	reads []string                  // the files that it reads only when it starts
	wants string                    // whatever else wants another start when it changes
	first func() error              // done before each start
}

// services are those that run, and change when the node's config does.
type services struct {
	kids   *reaper
	log    *slog.Logger
	teller *teller

	// The rest belongs to who calls apply and wait.
	running map[string]*kept
	door    *kept // nil when nobody may come in
	way     *door
}

// kept is something that runs until it is ended.
type kept struct {
	print string // of all that it was started with
	end   context.CancelFunc
	done  chan struct{}
}

func newServices(kids *reaper, log *slog.Logger, t *teller) *services {
	return &services{kids: kids, log: log, teller: t, running: map[string]*kept{}}
}

// keepUntil runs do until the context or what it returns ends it.
func keepUntil(ctx context.Context, print string, do func(context.Context)) *kept {
	ctx, cancel := context.WithCancel(ctx)
	k := &kept{print: print, end: cancel, done: make(chan struct{})}
	go func() {
		defer close(k.done)
		defer cancel()
		do(ctx)
	}()
	return k
}

// stop is nothing for what doesn't run.
func (k *kept) stop() {
	if k != nil {
		k.end()
		<-k.done
	}
}

// apply runs the services of config until ctx ends. Those that run as they
// would now be started are left alone: digests are those of the files.
func (s *services) apply(ctx context.Context, config node.Config, digests map[string]string) {
	wanted := map[string]bool{}
	if config.Role != node.RoleVM {
		for _, one := range nodeServices(config) {
			wanted[one.name] = true
			print := one.print(digests)
			if now := s.running[one.name]; now == nil || now.print != print {
				now.stop()
				s.teller.part(one.name, false, false)
				s.running[one.name] = keepUntil(ctx, print, func(ctx context.Context) { s.keep(ctx, one) })
			}
		}
	}
	for name, k := range s.running {
		if !wanted[name] {
			k.stop()
			delete(s.running, name)
			s.teller.part(name, false, true)
		}
	}
	s.applyDoor(ctx, config)
}

// applyDoor: who is in stays in when only the keys of others change.
func (s *services) applyDoor(ctx context.Context, config node.Config) {
	switch {
	case !config.SSH():
		s.door.stop()
		s.door = nil
	case s.door == nil || s.door.print != config.AdminUser:
		s.door.stop()
		s.way = newDoor(config, s)
		s.door = keepUntil(ctx, config.AdminUser, s.way.keep)
	default:
		if err := s.way.change(config); err != nil {
			s.log.Warn("keys for ssh aren't taken on", "error", err)
		}
	}
}

// wait returns when nothing runs any more; the context that apply got has ended.
func (s *services) wait() {
	for _, k := range s.running {
		k.stop()
	}
	s.door.stop()
}

// print is a digest of all that the service is started with.
func (one service) print(digests map[string]string) string {
	sum := sha256.New()
	for _, list := range [][]string{one.args, one.env, {one.wants}} {
		fmt.Fprintf(sum, "%q\n", list)
	}
	for _, path := range one.reads {
		fmt.Fprintf(sum, "%s %s\n", path, digests[path])
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// nodeServices are those of a Kubernetes node. Heaps are held small by
// collecting more often; a node idles most of its life, and its memory is what
// a machine has less of.
func nodeServices(config node.Config) []service {
	server := newProbe(config)
	list := []service{
		{
			name: "containerd", args: []string{"containerd", "--config=" + node.ContainerdPath},
			env: []string{"GOGC=50", "GOMEMLIMIT=64MiB"}, grace: 500 * time.Millisecond,
			reads: node.ContainerdReads(),
		}, {
			name: "kubelet", args: append([]string{"/proc/self/exe", "node", viewCommand, "kubelet"}, node.KubeletArgs(config)...),
			env: []string{"GOGC=50", "GOMEMLIMIT=96MiB"}, grace: time.Second,
			reads: node.KubeletReads(), wants: config.Authority,
			first: func() error { return keepAuthority(config.Authority) },
			ready: func(ctx context.Context) {
				awaitSocket(ctx, node.ContainerdSocket)
				if _, err := os.Stat(node.KubeconfigPath); err != nil {
					server.await(ctx) // it joins now; later it does without
				}
			},
		}, {
			name: "kube-proxy", args: append([]string{"kube-proxy"}, node.ProxyArgs()...),
			env: []string{"GOGC=50", "GOMEMLIMIT=48MiB"}, grace: 500 * time.Millisecond,
			reads: node.ProxyReads(), ready: server.await,
		},
	}
	if config.Enforces() {
		list = append(list, service{
			name: "netpolicy", args: append([]string{netpolicy.ProgramPath}, node.PolicyArgs()...),
			env: []string{"GOGC=50", "GOMEMLIMIT=24MiB"}, grace: 500 * time.Millisecond,
			reads: node.PolicyReads(), ready: server.await,
		})
	}
	return list
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
		if one.first != nil {
			if err := one.first(); err != nil {
				s.log.Warn("service not started", "service", one.name, "error", err)
				sleep(ctx, pause)
				continue
			}
		}
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
		s.teller.part(one.name, false, false)
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
		s.teller.part(one.name, true, false)
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
