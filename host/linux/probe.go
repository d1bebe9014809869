// SPDX-License-Identifier: Apache-2.0

// Package linux answers what a host's queries need the kernel for: it sends
// real packets out of other network namespaces, and asks the policy agents of
// machines.
//
// cmd/bastide alone imports it.
package linux

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"bastide.dev/fault"
	"bastide.dev/host"
	"bastide.dev/ruleset"
)

const (
	defaultTimeout = 2 * time.Second
	maxTimeout     = 10 * time.Second
	echoReply      = 0
	echoRequest    = 8
)

// Prober is a host.Prober of this machine.
type Prober struct {
	// PolicySocket is where a policy agent listens, in its machine.
	PolicySocket string
}

// Probe sends packets from a place. That nothing comes back is an answer, not
// an error.
func (p *Prober) Probe(ctx context.Context, from host.Place, q host.ProbeQuery) (host.ProbeAnswer, error) {
	try, err := newTry(q)
	if err != nil {
		return host.ProbeAnswer{}, err
	}
	ns, err := namespace(from)
	if err != nil {
		return host.ProbeAnswer{}, err
	}
	try.fd, err = socketIn(ns, try.domain, try.kind, try.protocol)
	if err = errors.Join(err, ns.Close()); err != nil {
		return host.ProbeAnswer{}, fmt.Errorf("probe: %w", err)
	}
	start := time.Now()
	answer := verdict(try.run(ctx, start))
	answer.Micros = time.Since(start).Microseconds()
	answer.Source = try.source()
	if err := unix.Close(try.fd); err != nil {
		return host.ProbeAnswer{}, fmt.Errorf("probe: %w", err)
	}
	return answer, ctx.Err()
}

// try is one probe.
type try struct {
	to                     netip.AddrPort
	domain, kind, protocol int
	timeout                time.Duration
	fd                     int
}

func newTry(q host.ProbeQuery) (*try, error) {
	t := &try{to: netip.AddrPortFrom(q.Address.Unmap(), q.Port), domain: unix.AF_INET, timeout: time.Duration(q.Timeout) * time.Millisecond}
	if t.timeout <= 0 {
		t.timeout = defaultTimeout
	}
	t.timeout = min(t.timeout, maxTimeout)
	if t.to.Addr().Is6() {
		t.domain = unix.AF_INET6
	}
	switch {
	case !t.to.Addr().IsValid():
		return nil, fault.New(fault.Invalid, "", "A probe needs an address.")
	case q.Protocol == ruleset.ICMP && t.domain == unix.AF_INET:
		t.kind, t.protocol = unix.SOCK_RAW, unix.IPPROTO_ICMP
		return t, nil
	case q.Protocol == ruleset.TCP:
		t.kind = unix.SOCK_STREAM
	case q.Protocol == ruleset.UDP:
		t.kind = unix.SOCK_DGRAM
	default:
		return nil, fault.New(fault.Unsupported, "", "Probes with IP protocol %d to %s aren't known.", q.Protocol, q.Address)
	}
	if q.Port == 0 {
		return nil, fault.New(fault.Invalid, "", "A probe of TCP or UDP needs a port.")
	}
	return t, nil
}

// socketIn makes a socket that belongs to another network namespace. The thread
// that entered it ends with its goroutine: nothing else ever runs there.
func socketIn(ns *os.File, domain, kind, protocol int) (int, error) {
	type made struct {
		fd  int
		err error
	}
	done := make(chan made)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- made{-1, fmt.Errorf("enter network namespace %s: %w", ns.Name(), err)}
			return
		}
		fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
		if err != nil {
			err = fmt.Errorf("socket: %w", err)
		}
		done <- made{fd, err}
	}()
	m := <-done
	return m.fd, m.err
}

// run returns nil when something answered, else what the kernel says.
func (t *try) run(ctx context.Context, start time.Time) error {
	var to unix.Sockaddr = &unix.SockaddrInet4{Port: int(t.to.Port()), Addr: addr4(t.to.Addr())}
	level, option := unix.SOL_IP, unix.IP_RECVERR
	if t.domain == unix.AF_INET6 {
		to = &unix.SockaddrInet6{Port: int(t.to.Port()), Addr: t.to.Addr().As16()}
		level, option = unix.SOL_IPV6, unix.IPV6_RECVERR
	}
	if t.kind == unix.SOCK_STREAM {
		// Closed at once by a reset: nothing of the probe stays in connection tables.
		if err := unix.SetsockoptLinger(t.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
			return err
		}
	} else if err := unix.SetsockoptInt(t.fd, level, option, 1); err != nil {
		return err
	}
	err := unix.Connect(t.fd, to)
	if t.kind == unix.SOCK_STREAM {
		if !errors.Is(err, unix.EINPROGRESS) {
			return err
		}
		return t.await(ctx, start, unix.POLLOUT, func() (bool, error) { return true, nil })
	}
	if err != nil {
		return err
	}
	message, isAnswer := t.datagram()
	if _, err := unix.Write(t.fd, message); err != nil {
		return err
	}
	buf := make([]byte, 2048)
	return t.await(ctx, start, unix.POLLIN, func() (bool, error) {
		n, err := unix.Read(t.fd, buf)
		if errors.Is(err, unix.EAGAIN) {
			return false, nil
		}
		return err == nil && isAnswer(buf[:n]), err
	})
}

func addr4(a netip.Addr) [4]byte {
	if a.Is4() {
		return a.As4()
	}
	return [4]byte{}
}

// await waits for an event that ready takes for the answer, or for an error.
func (t *try) await(ctx context.Context, start time.Time, event int16, ready func() (bool, error)) error {
	for {
		left := t.timeout - time.Since(start)
		if left <= 0 || ctx.Err() != nil {
			return unix.ETIMEDOUT
		}
		// In slices, so that a host that stops doesn't wait for its probes.
		polled := []unix.PollFd{{Fd: int32(t.fd), Events: event}}
		n, err := unix.Poll(polled, int(min(left, 100*time.Millisecond).Milliseconds())+1)
		if n == 0 || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if code, err := unix.GetsockoptInt(t.fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || code != 0 {
			return errors.Join(err, unix.Errno(code))
		}
		if done, err := ready(); done || err != nil {
			return err
		}
	}
}

// datagram is what is sent and how its answer is known. To a UDP port that is a
// question for the root's name servers, so that at least DNS servers answer.
func (t *try) datagram() ([]byte, func([]byte) bool) {
	id := uint16(rand.Uint32())
	if t.kind == unix.SOCK_DGRAM {
		question := []byte{0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1}
		binary.BigEndian.PutUint16(question, id)
		return question, func([]byte) bool { return true }
	}
	echo := make([]byte, 16)
	echo[0] = echoRequest
	binary.BigEndian.PutUint16(echo[4:], id)
	sum := uint32(0)
	for i := 0; i < len(echo); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(echo[i:]))
	}
	binary.BigEndian.PutUint16(echo[2:], ^uint16(sum>>16+sum&0xffff))
	return echo, func(b []byte) bool {
		if len(b) < 20 || len(b) < int(b[0]&15)*4+8 {
			return false
		}
		b = b[int(b[0]&15)*4:]
		return b[0] == echoReply && binary.BigEndian.Uint16(b[4:]) == id
	}
}

// source is the address that the kernel chose; a raw socket has no port.
func (t *try) source() string {
	name, err := unix.Getsockname(t.fd)
	if err != nil {
		return ""
	}
	var at netip.AddrPort
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		at = netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		at = netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	}
	if t.kind == unix.SOCK_RAW {
		return at.Addr().String()
	}
	return at.String()
}

// verdict is what an error of the kernel means. A filter's reject says that the
// way is prohibited, which the kernel tells as an unreachable host.
func verdict(err error) host.ProbeAnswer {
	answer := host.ProbeAnswer{Result: "connected"}
	if err == nil {
		return answer
	}
	answer.Detail = err.Error()
	switch {
	case errors.Is(err, unix.ETIMEDOUT):
		answer.Result = "timeout"
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ECONNRESET):
		answer.Result = "refused"
	default:
		answer.Result = "unreachable"
	}
	return answer
}
