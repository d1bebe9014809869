// SPDX-License-Identifier: Apache-2.0

//go:build bench

package bench

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// The prober's times. A dropped SYN is sent again after a second, so that an
// attempt older than that says nothing about when it was sent.
const (
	probeEvery = 2 * time.Millisecond
	probeLife  = 900 * time.Millisecond
	probeQuiet = 250 * time.Millisecond // without an answer: what was sent then was refused
	probeLimit = 10 * time.Second
)

// attempt is one connection that is tried.
type attempt struct {
	sent      time.Time
	fd        int // -1: over
	connected bool
}

// prober tries to connect to an address, from one namespace, again and again.
type prober struct {
	target   unix.Sockaddr
	attempts []*attempt
	open     []*attempt
	polled   []unix.PollFd
	last     time.Time // when the last attempt that connected was sent
	first    time.Time // when the first did since turn
	since    time.Time
	keep     bool     // the first connection stays open
	kept     *os.File // that one
}

// turn is what a change did to what a prober sees.
type turn struct {
	effect float64 // ms from sending the request to the first attempt with the new outcome
	answer float64 // ms from sending the request to what act returned
}

// watch does act while a client in a namespace tries to connect to target every
// two milliseconds, and returns when the first of its attempts with the new
// outcome was sent: those before must have the other one. What is sent after act
// returned, if that is final, must have the new outcome.
func watch(namespace string, target netip.AddrPort, accepted, final bool, act func() error) (turn, error) {
	var result turn
	err := inside(namespace, func() error {
		p := &prober{target: &unix.SockaddrInet4{Addr: target.Addr().As4(), Port: int(target.Port())}}
		defer p.close()
		if err := p.settle(!accepted); err != nil {
			return err
		}
		var ended time.Time
		failed := make(chan error, 1)
		begin := time.Now()
		p.since, p.first = begin, time.Time{}
		go func() {
			err := act()
			ended = time.Now()
			failed <- err
		}()
		done := false
		for !done || !p.turned(accepted) {
			if err := p.step(); err != nil {
				return err
			}
			select {
			case err := <-failed:
				if err != nil {
					return err
				}
				done = true
			default:
			}
			if time.Since(begin) > probeLimit {
				return fmt.Errorf("%s: no change after %s", target, probeLimit)
			}
		}
		effect := p.first
		if !accepted {
			effect = p.after(p.last)
		}
		result = turn{effect: ms(effect.Sub(begin)), answer: ms(ended.Sub(begin))}
		if final && effect.After(ended) && p.sentBetween(ended, effect) {
			return fmt.Errorf("%s: said to be done %.1f ms before it was", target, ms(effect.Sub(ended)))
		}
		return nil
	})
	return result, err
}

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }

// settle waits until the outcome is the expected one, for some attempts in a row.
func (p *prober) settle(accepted bool) error {
	begin := time.Now()
	p.since = begin
	for time.Since(begin) < probeLimit {
		if err := p.step(); err != nil {
			return err
		}
		if p.turned(accepted) && time.Since(begin) > 20*probeEvery {
			return nil
		}
	}
	return fmt.Errorf("connecting is expected to be %v, and isn't", map[bool]string{true: "accepted", false: "refused"}[accepted])
}

// turned says whether the outcome is what is waited for.
func (p *prober) turned(accepted bool) bool {
	if accepted {
		return !p.first.IsZero()
	}
	return time.Since(later(p.last, p.since)) > probeQuiet
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// after is when the first attempt later than t was sent.
func (p *prober) after(t time.Time) time.Time {
	for _, a := range p.attempts {
		if a.sent.After(t) {
			return a.sent
		}
	}
	return time.Now()
}

// sentBetween says whether an attempt after from, and before to, had the old outcome.
func (p *prober) sentBetween(from, to time.Time) bool {
	for _, a := range p.attempts {
		if a.sent.After(from) && a.sent.Before(to) {
			return true
		}
	}
	return false
}

// step sends one attempt and hears what became of others until the next is due.
func (p *prober) step() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	// Closed by a reset: nothing of it stays, here or there.
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	a := &attempt{sent: time.Now(), fd: fd}
	p.attempts, p.open = append(p.attempts, a), append(p.open, a)
	if err := unix.Connect(fd, p.target); err != nil && err != unix.EINPROGRESS {
		p.end(a, false) // refused by this namespace itself
	}
	for due := a.sent.Add(probeEvery); ; {
		wait := time.Until(due)
		if err := p.poll(max(0, wait)); err != nil {
			return err
		}
		if wait <= 0 {
			return nil
		}
	}
}

func (p *prober) end(a *attempt, connected bool) {
	if connected && p.keep && p.kept == nil {
		p.kept = os.NewFile(uintptr(a.fd), "connection")
	} else {
		unix.Close(a.fd)
	}
	a.fd, a.connected = -1, connected
	if !connected {
		return
	}
	if a.sent.After(p.last) {
		p.last = a.sent
	}
	if a.sent.After(p.since) && (p.first.IsZero() || a.sent.Before(p.first)) {
		p.first = a.sent
	}
}

// poll waits for outcomes.
func (p *prober) poll(wait time.Duration) error {
	p.polled = p.polled[:0]
	for _, a := range p.open {
		p.polled = append(p.polled, unix.PollFd{Fd: int32(a.fd), Events: unix.POLLOUT})
	}
	timeout := unix.NsecToTimespec(int64(wait))
	if _, err := unix.Ppoll(p.polled, &timeout, nil); err != nil && err != unix.EINTR {
		return fmt.Errorf("poll: %w", err)
	}
	open := p.open[:0]
	for i, a := range p.open {
		switch {
		case a.fd < 0:
			continue
		case p.polled[i].Revents != 0:
			problem, err := unix.GetsockoptInt(a.fd, unix.SOL_SOCKET, unix.SO_ERROR)
			p.end(a, err == nil && problem == 0)
			continue
		case time.Since(a.sent) > probeLife:
			p.end(a, false)
			continue
		}
		open = append(open, a)
	}
	p.open = open
	return nil
}

func (p *prober) close() {
	for _, a := range p.open {
		if a.fd >= 0 {
			unix.Close(a.fd)
		}
	}
}
