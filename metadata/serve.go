// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"bastide.dev/dataplane"
)

// Bounds of what one machine, and one network, may hold open.
const (
	perSender  = 64
	perNetwork = 2048

	headerTimeout = 5 * time.Second
	idleTimeout   = 30 * time.Second
	maxHeader     = 8 << 10
)

// Serve answers on a network's listener until that is closed; then it closes
// what connections there still are. senders says whose an address is.
func (s *Service) Serve(l net.Listener, senders dataplane.Senders) error {
	server := &http.Server{
		Handler: &handler{Service: s, senders: senders}, ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
		ReadHeaderTimeout: headerTimeout, ReadTimeout: 2 * headerTimeout, WriteTimeout: buyTimeout + headerTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
	}
	err := server.Serve(&bounded{Listener: l, open: map[netip.Addr]int{}})
	return errors.Join(err, server.Close())
}

// bounded closes connections at once that are too many: of one address, so
// that no machine shuts others out, or of all.
type bounded struct {
	net.Listener

	mu   sync.Mutex // guards the rest
	open map[netip.Addr]int
	all  int
}

func (b *bounded) Accept() (net.Conn, error) {
	for {
		conn, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		remote, err := netip.ParseAddrPort(conn.RemoteAddr().String())
		if err == nil && b.take(remote.Addr()) {
			return &counted{Conn: conn, release: sync.OnceFunc(func() { b.give(remote.Addr()) })}, nil
		}
		_ = conn.Close() // nothing was said on it
	}
}

func (b *bounded) take(a netip.Addr) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all >= perNetwork || b.open[a] >= perSender {
		return false
	}
	b.all++
	b.open[a]++
	return true
}

func (b *bounded) give(a netip.Addr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all--
	if b.open[a]--; b.open[a] == 0 {
		delete(b.open, a)
	}
}

// counted is a connection that counts until it is closed.
type counted struct {
	net.Conn
	release func()
}

func (c *counted) Close() error {
	c.release()
	return c.Conn.Close()
}
