// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"bastide.dev/dataplane"
)

// The protocols of probes, as Azure names them.
const (
	probeTCP   = "Tcp"
	probeHTTP  = "Http"
	probeHTTPS = "Https"
)

// maxStatusLine bounds what a back end can make us read.
const maxStatusLine = 512

// probe asks one back end once, from inside a router's namespace.
func probe(ctx context.Context, ns *os.File, t target, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	at := netip.AddrPortFrom(t.address, t.probe.Port)
	conn, err := dialWithin(ctx, ns, dataplane.WireServer, at)
	if err != nil {
		return err
	}
	end := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // wakes what waits below
	defer end()
	if t.probe.Protocol != probeTCP {
		err = get(ctx, conn, t.probe, at)
	}
	return errors.Join(err, conn.Close())
}

// get asks for the probe's path; only 200 is well.
func get(ctx context.Context, conn net.Conn, p dataplane.Probe, at netip.AddrPort) error {
	if p.Protocol == probeHTTPS {
		// As on Azure: a back end's certificate needn't be for its address.
		secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // a probe reveals nothing and trusts nothing
		if err := secure.HandshakeContext(ctx); err != nil {
			return fmt.Errorf("tls: %w", err)
		}
		conn = secure
	}
	path := p.Path
	if path == "" {
		path = "/"
	}
	_, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: Load Balancer Agent\r\nAccept: */*\r\nConnection: close\r\n\r\n", path, at)
	if err != nil {
		return fmt.Errorf("request: %w", err)
	}
	line, err := bufio.NewReader(io.LimitReader(conn, maxStatusLine)).ReadString('\n')
	if err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	version, status, _ := strings.Cut(strings.TrimSpace(line), " ")
	if !strings.HasPrefix(version, "HTTP/1.") || status != "200" && !strings.HasPrefix(status, "200 ") {
		return fmt.Errorf("answer: %q", line)
	}
	return nil
}

// dialWithin connects from an address of a namespace. The thread is in there
// only while it makes the socket: waiting needs none.
func dialWithin(ctx context.Context, ns *os.File, from netip.Addr, to netip.AddrPort) (net.Conn, error) {
	var socket *os.File
	err := within(ns, func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("socket: %w", err)
		}
		socket = os.NewFile(uintptr(fd), "probe")
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: from.As4()}); err != nil {
			return fmt.Errorf("bind: %w", err)
		}
		return nil
	})
	if err == nil {
		err = connect(ctx, socket, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
	}
	var conn net.Conn
	if err == nil {
		conn, err = net.FileConn(socket) // of a copy
	}
	if socket != nil {
		err = errors.Join(err, socket.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", to, err)
	}
	return conn, nil
}

// connect connects a socket and waits in the poller until it is, or ctx ends.
func connect(ctx context.Context, socket *os.File, to unix.Sockaddr) error {
	end := context.AfterFunc(ctx, func() { _ = socket.SetDeadline(time.Unix(1, 0)) })
	defer end()
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		// Called again, it tells how the attempt goes.
		failed = unix.Connect(int(fd), to)
		if errors.Is(failed, unix.EISCONN) {
			failed = nil
		}
		return !errors.Is(failed, unix.EINPROGRESS) && !errors.Is(failed, unix.EALREADY)
	})
	if err != nil {
		return err
	}
	return failed
}
