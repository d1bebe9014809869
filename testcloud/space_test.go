// SPDX-License-Identifier: Apache-2.0

package testcloud_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netns"
)

// space is a network namespace that the test sends packets from; "" is the
// machine's own.
type space string

// in calls f with its sockets in the namespace. f must make them itself, not in a goroutine.
func (s space) in(f func() error) error {
	if s == "" {
		return f()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	old, err := netns.Get()
	if err != nil {
		return err
	}
	defer old.Close()
	there, err := netns.GetFromPath(string(s))
	if err != nil {
		return fmt.Errorf("namespace %s: %w", s, err)
	}
	defer there.Close()
	if err := netns.Set(there); err != nil {
		return err
	}
	defer func() {
		if err := netns.Set(old); err != nil {
			panic(err) // the thread is lost to the others
		}
	}()
	return f()
}

// dial connects to an address, which is no name: names are resolved elsewhere.
func (s space) dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = s.in(func() error {
		dialer := net.Dialer{Timeout: 2 * time.Second}
		conn, err = dialer.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// said is what the echo program answers.
type said struct {
	Pod, Node, Client, Server string

	local string // our own end
}

// from is the address that the server saw.
func (a said) from() string { return must(netip.ParseAddrPort(a.Client)).Addr().String() }

// ask sends one HTTP request in a connection of its own.
func (s space) ask(ctx context.Context, address string) (said, error) {
	var a said
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := s.dial(ctx, network, address)
		if err == nil {
			a.local = conn.LocalAddr().String()
		}
		return conn, err
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/", nil)
	if err != nil {
		return a, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return a, err
	}
	if resp.StatusCode != http.StatusOK {
		return a, fmt.Errorf("%s: %s %s", address, resp.Status, text)
	}
	if err := json.Unmarshal(text, &a); err != nil {
		return a, fmt.Errorf("%s: %w: %s", address, err, text)
	}
	return a, nil
}

// askUDP sends one datagram.
func (s space) askUDP(ctx context.Context, address string) (said, error) {
	var a said
	conn, err := s.dial(ctx, "udp4", address)
	if err != nil {
		return a, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return a, err
	}
	if _, err := conn.Write([]byte("?")); err != nil {
		return a, err
	}
	answer := make([]byte, 2048)
	n, err := conn.Read(answer)
	if err != nil {
		return a, err
	}
	return a, json.Unmarshal(answer[:n], &a)
}

// listener is a server in a namespace that tells its clients their addresses.
func (s space) listener(t *testing.T, address string) {
	t.Helper()
	var l net.Listener
	if err := s.in(func() (err error) { l, err = net.Listen("tcp4", address); return err }); err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{"client": r.RemoteAddr})
	})}
	var wait sync.WaitGroup
	wait.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() { _ = server.Close(); wait.Wait() })
}

// terminal is a client on the instance's Internet.
type terminal struct {
	space
	address string
}

// terminal makes one.
func (r *rig) terminal(t *testing.T, name string) terminal {
	t.Helper()
	var view struct {
		Properties struct{ Address, Namespace string }
	}
	r.put(t, r.id("rg", "Bastide.Network/terminals/"+name), "2026-11-01", map[string]any{}, &view)
	out := terminal{space(filepath.Join("/run/bastide", r.Name, "netns", view.Properties.Namespace)), view.Properties.Address}
	soon(t, func() error { return out.in(func() error { return nil }) })
	return out
}

// soon repeats a look at what comes by itself, until it is so.
func soon(t testing.TB, look func() error) {
	t.Helper()
	soonWithin(t, 30*time.Second, look)
}

func soonWithin(t testing.TB, patience time.Duration, look func() error) {
	t.Helper()
	if err := await(t.Context(), patience, look); err != nil {
		t.Fatal(err)
	}
}

// await is soon for goroutines that aren't the test's own.
func await(ctx context.Context, patience time.Duration, look func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var err error
	for ctx.Err() == nil {
		if err = look(); err == nil {
			return nil
		}
		pause(ctx, 100*time.Millisecond)
	}
	return err
}

// reaches waits until an address answers, and returns what it says.
func (s space) reaches(t testing.TB, address string) (a said) {
	t.Helper()
	soon(t, func() (err error) { a, err = s.ask(t.Context(), address); return err })
	return a
}

// refused waits until an address doesn't answer any more.
func (s space) refused(t testing.TB, address string) {
	t.Helper()
	soon(t, func() error {
		if a, err := s.ask(t.Context(), address); err == nil {
			return fmt.Errorf("%s answers: %+v", address, a)
		}
		return nil
	})
}
