// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"bastide.dev/controlplane"
	"bastide.dev/supervise"
)

// program is where a bundle has a component.
type program struct{ path, root string }

func processName(id, program string) string { return id + "." + program }

func (p *Plane) group(id string, program ...string) string {
	return filepath.Join(append([]string{"bastide-" + p.Instance, "controlplanes", id}, program...)...)
}

// process is a program as an operating-system process, which sees its bundle,
// its own files and directory, and next to nothing else.
func (p *Plane) process(id string, want controlplane.Program, found program, netns string, uid int, inputs string) supervise.Process {
	view := []supervise.Bind{
		{Source: found.root},
		{Source: want.Config},
		{Source: filepath.Join(want.Config, "resolv.conf"), Target: "/etc/resolv.conf"},
		{Source: filepath.Join(want.Config, "hosts"), Target: "/etc/hosts"},
	}
	if want.Write != "" {
		view = append(view, supervise.Bind{Source: want.Write, Writable: true})
	}
	// The machine's certificates, for webhooks and issuers out in the world, and
	// its time zones, for CronJobs.
	for _, shared := range []string{"/etc/ssl/certs/ca-certificates.crt", "/usr/share/zoneinfo"} {
		if _, err := os.Stat(shared); err == nil {
			view = append(view, supervise.Bind{Source: shared})
		}
	}
	var backoff supervise.Backoff // the default
	if want.Name == controlplane.CloudController {
		backoff.Max = 2 * time.Second // it ends by itself when the cloud or the API server is away for a while
	}
	return supervise.Process{
		Backoff: backoff,
		Name:    processName(id, want.Name), Path: found.path, Args: want.Args, Env: want.Env,
		UID: uid, GID: uid, Netns: netns, Cgroup: p.group(id, want.Name), View: view, Inputs: inputs,
		LogFile: p.dir(id, logsDir, want.Name+".log"), StopTimeout: 5 * time.Second,
	}
}

// processChanged passes a process's change on to its control plane.
func (p *Plane) processChanged(name string) {
	id, program, _ := strings.Cut(name, ".")
	p.mu.Lock()
	in := p.byID[id]
	p.mu.Unlock()
	if in == nil {
		return
	}
	if program == in.slotInCharge().Program() {
		if s, ok := p.supervisor.Status(name); ok {
			in.apiServerIs(s.PID)
		}
	}
	p.changes.add(id)
}

// prepareNetns brings the loopback up and lets programs without privileges take
// the ports below 1024: the namespace is the control plane's own.
func prepareNetns(path string) error {
	return supervise.InNetns(path, func() error {
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0); err != nil {
			return fmt.Errorf("allow low ports: %w", err)
		}
		return loopbackUp()
	})
}

func loopbackUp() (err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	ifreq, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, ifreq); err != nil {
		return fmt.Errorf("read loopback's flags: %w", err)
	}
	if flags := ifreq.Uint16(); flags&unix.IFF_UP == 0 {
		ifreq.SetUint16(flags | unix.IFF_UP)
		if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifreq); err != nil {
			return fmt.Errorf("bring loopback up: %w", err)
		}
	}
	return nil
}

// Listener listens within the network namespace at path, on numeric addresses.
func Listener(path string) func(network, address string) (net.Listener, error) {
	return func(network, address string) (listener net.Listener, err error) {
		err = supervise.InNetns(path, func() error {
			listener, err = net.Listen(network, address)
			return err
		})
		return listener, err
	}
}

// Dialer connects from within the network namespace at path, to numeric addresses.
func Dialer(path string) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		err = supervise.InNetns(path, func() error {
			var d net.Dialer
			conn, err = d.DialContext(ctx, network, address)
			return err
		})
		return conn, err
	}
}
