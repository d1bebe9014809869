// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"

	"bastide.dev/pki"
)

// lookForTrust is how often a process looks whether it should believe others.
const lookForTrust = 250 * time.Millisecond

// fresh is a file as it is now: it is read again when it was replaced. While it
// can't be read, what was read last counts.
type fresh[T any] struct {
	path  string
	parse func([]byte) (T, error)

	mu    sync.Mutex // guards what follows
	seen  os.FileInfo
	value T
}

func (f *fresh[T]) get() (T, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now, err := os.Stat(f.path)
	if err == nil && f.seen != nil && os.SameFile(now, f.seen) && now.ModTime().Equal(f.seen.ModTime()) && now.Size() == f.seen.Size() {
		return f.value, nil
	}
	var value T
	if err == nil {
		var data []byte
		if data, err = os.ReadFile(f.path); err == nil {
			value, err = f.parse(data)
		}
	}
	if err != nil {
		if f.seen != nil {
			return f.value, nil
		}
		return f.value, fmt.Errorf("keyring: %w", err)
	}
	f.seen, f.value = now, value
	return value, nil
}

// trusted are authorities that count.
type trusted struct {
	pool   *x509.CertPool
	newest []byte // what signs now, PEM
	all    []byte // PEM
}

// trust is whom to believe, as the file of an authority says now.
type trust struct{ fresh[trusted] }

func (k keyring) trust(ca string) *trust { return (&trust{}).of(k.path(ca+".crt"), nil) }

func (t *trust) of(path string, base *x509.CertPool) *trust {
	t.path = path
	t.parse = func(data []byte) (trusted, error) {
		certs, err := pki.Certificates(data)
		if err != nil {
			return trusted{}, err
		}
		pool := x509.NewCertPool()
		if base != nil {
			pool = base.Clone()
		}
		for _, c := range certs {
			pool.AddCert(c)
		}
		return trusted{pool: pool, newest: pki.First(data), all: data}, nil
	}
	return t
}

// signs is who signs now, PEM. There is nothing else to believe once it does: those
// before vouch for it, and what they signed is replaced.
func (t *trust) signs() []byte {
	now, err := t.get()
	if err != nil {
		return nil // never, once it was read
	}
	return now.newest
}

// besides is this trust and that in others.
func (t *trust) besides(others *x509.CertPool) *trust { return (&trust{}).of(t.path, others) }

// verify tells whether a peer's certificate counts now, for a use and, unless
// it is empty, a name.
func (t *trust) verify(peer []*x509.Certificate, use x509.ExtKeyUsage, name string) error {
	now, err := t.get()
	if err != nil {
		return err
	}
	if len(peer) == 0 {
		return errors.New("the peer shows no certificate")
	}
	between := x509.NewCertPool()
	for _, c := range peer[1:] {
		between.AddCert(c)
	}
	_, err = peer[0].Verify(x509.VerifyOptions{Roots: now.pool, Intermediates: between, DNSName: name, KeyUsages: []x509.ExtKeyUsage{use}})
	return err
}

// config is a client's TLS side that believes whom the file names at each
// handshake. address is the server's, where clients reach it by an IP address:
// crypto/tls gives only host names to who verifies.
func (t *trust) config(address string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		// crypto/tls would believe those of the beginning for ever; VerifyConnection
		// does what it would do, name and all, and is asked at every handshake.
		InsecureSkipVerify: true, //nolint:gosec // see above
		VerifyConnection: func(state tls.ConnectionState) error {
			name := cmp.Or(state.ServerName, address)
			if name == "" {
				return errors.New("the server's name isn't known")
			}
			if err := t.verify(state.PeerCertificates, x509.ExtKeyUsageServerAuth, name); err != nil {
				return &tls.CertificateVerificationError{UnverifiedCertificates: state.PeerCertificates, Err: err}
			}
			return nil
		},
	}
}

// changed calls do now, and whenever the authorities are others, until ctx ends.
func (t *trust) changed(ctx context.Context, log *slog.Logger, do func()) error {
	var last []byte
	ticker := time.NewTicker(lookForTrust)
	defer ticker.Stop()
	for {
		now, err := t.get()
		switch {
		case err != nil:
			log.Error("whom to believe isn't known", "error", err)
		case !bytes.Equal(last, now.all):
			do()
		}
		last = now.all
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// certificate is the leaf called name for servers, as it is now.
func (k keyring) certificate(name string) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	leaf := &fresh[*tls.Certificate]{path: k.leafPath(name), parse: func(data []byte) (*tls.Certificate, error) {
		certificate, err := pki.Pair{Certificate: data, Key: data}.TLS()
		return &certificate, err
	}}
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return leaf.get() }
}

// hostsDoor is the TLS side of the host API: it demands a certificate of the
// instance's CA, as it is now, from every host.
func hostsDoor(keys keyring, believed *trust) (*tls.Config, error) {
	if _, err := believed.get(); err != nil {
		return nil, fmt.Errorf("host API: %w", err)
	}
	// A session that is resumed would bring back whom nobody believes any more.
	base := tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAndVerifyClientCert, SessionTicketsDisabled: true, GetCertificate: keys.certificate("serve"), NextProtos: []string{"h2", "http/1.1"}}
	config := base.Clone()
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		now, err := believed.get()
		if err != nil {
			return nil, err
		}
		mine := base.Clone()
		mine.ClientCAs = now.pool
		return mine, nil
	}
	return config, nil
}

// stillBelieved ends requests, long ones too, whose client's certificate doesn't
// count any more: it did when the connection began.
type stillBelieved struct {
	next     http.Handler
	believed *trust
	log      *slog.Logger
}

func (s *stillBelieved) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.counts(r) {
		w.Header().Set("Connection", "close") // HTTP/2 too: the client connects anew
		http.Error(w, "the certificate of this connection isn't believed any more", http.StatusUnauthorized)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	var watch sync.WaitGroup
	watch.Go(func() {
		_ = s.believed.changed(ctx, s.log, func() { // it ends with ctx, without an error
			if !s.counts(r) {
				cancel()
			}
		})
	})
	defer watch.Wait()
	defer cancel()
	s.next.ServeHTTP(w, r.WithContext(ctx))
}

func (s *stillBelieved) counts(r *http.Request) bool {
	return r.TLS != nil && s.believed.verify(r.TLS.PeerCertificates, x509.ExtKeyUsageClientAuth, "") == nil
}
