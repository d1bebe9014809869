// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"bastide.dev/pki"
)

// hostAPI serves as the host API does: "/" answers, "/stream" goes on for ever.
func hostAPI(t *testing.T, k keyring) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) })
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	believed := k.trust("ca")
	config, err := hostsDoor(k, believed)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(&stillBelieved{mux, believed, slog.New(slog.DiscardHandler)})
	server.TLS, server.EnableHTTP2 = config, true
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

// reach is a client of it with a certificate that stays the same.
func reach(t *testing.T, k keyring, server *httptest.Server, pair []byte) *http.Client {
	t.Helper()
	leaf, err := tls.X509KeyPair(pair, pair)
	if err != nil {
		t.Fatal(err)
	}
	config, err := k.client("ca", "host")
	if err != nil {
		t.Fatal(err)
	}
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &leaf, nil }
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	// The certificate is for the instance's loopback, where the test can't listen.
	transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

func TestWhoIsBelievedWhileServing(t *testing.T) {
	k := ensured(t)
	server := hostAPI(t, k)
	url := "https://" + k.in.HostAPI()
	oldHost := k.read(t, "host.pem")
	old := reach(t, k, server, oldHost)
	if resp, err := old.Get(url); err != nil || resp.StatusCode != http.StatusOK || resp.Body.Close() != nil {
		t.Fatal(err)
	}
	stream, err := old.Get(url + "/stream")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()

	if err := k.succeed(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]*http.Client{"old": reach(t, k, server, oldHost), "new": reach(t, k, server, k.read(t, "host.pem"))} {
		if resp, err := c.Get(url); err != nil || resp.StatusCode != http.StatusOK || resp.Body.Close() != nil {
			t.Errorf("while both are believed, the %s certificate: %v", name, err)
		}
	}
	if err := k.distrust(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(stream.Body); errors.Is(err, context.DeadlineExceeded) || os.IsTimeout(err) {
		t.Errorf("a stream of who isn't believed any more goes on: %v", err)
	}
	if resp, err := old.Get(url); err == nil && resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("the connection of who isn't believed any more: %s", resp.Status)
	}
	if resp, err := reach(t, k, server, oldHost).Get(url); err == nil {
		t.Errorf("the old certificate: %s", resp.Status)
	}
	fresh := reach(t, k, server, k.read(t, "host.pem"))
	if resp, err := fresh.Get(url); err != nil || resp.StatusCode != http.StatusOK || resp.Body.Close() != nil {
		t.Errorf("the new certificate: %v", err)
	}
}

// TestServersThatAreBelieved is the client's side, which verifies by itself.
func TestServersThatAreBelieved(t *testing.T) {
	k, other := ensured(t), ensured(t)
	first := k.read(t, "ca.crt")
	dial := func(believed *trust, address, name string, leaf []byte) error {
		pair, err := tls.X509KeyPair(leaf, leaf)
		if err != nil {
			t.Fatal(err)
		}
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			server, err := listener.Accept()
			if err != nil {
				return
			}
			_ = tls.Server(server, &tls.Config{Certificates: []tls.Certificate{pair}}).Handshake() // the client's side is looked at
			_ = server.Close()
		}()
		config := believed.config(address)
		config.ServerName = name
		conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", listener.Addr().String(), config)
		if err == nil {
			err = conn.Close()
		}
		_ = listener.Close()
		<-done
		return err
	}
	serve, loopback, name := k.read(t, "serve.pem"), k.in.Loopback().String(), k.in.Host("management")
	believed := k.trust("ca")
	for _, c := range []struct {
		why           string
		address, name string
		leaf          []byte
		ok            bool
	}{
		{"by name", "", name, serve, true},
		{"by address", loopback, loopback, serve, true},
		{"another name", loopback, "other.example", serve, false},
		{"another address", "127.9.9.9", "127.9.9.9", serve, false},
		{"an address that the client wasn't told", "", loopback, serve, false},
		{"another authority's", "", name, other.read(t, "serve.pem"), false},
		{"a client's certificate", loopback, loopback, k.read(t, "host.pem"), false},
	} {
		if err := dial(believed, c.address, c.name, c.leaf); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.why, err)
		}
	}
	if err := k.succeed(); err != nil {
		t.Fatal(err)
	}
	if err := k.distrust(); err != nil {
		t.Fatal(err)
	}
	if dial(believed, "", name, serve) == nil {
		t.Error("what the old authority signed is still believed")
	}
	if err := dial(believed, "", name, k.read(t, "serve.pem")); err != nil {
		t.Errorf("what the new one signs: %v", err)
	}
	if err := pki.WritePublic(other.path("ca.crt"), first); err != nil {
		t.Fatal(err)
	}
	if err := dial(other.trust("ca"), "", name, k.read(t, "serve.pem")); err != nil {
		t.Errorf("who knows the old one alone doesn't believe the new: %v", err)
	}
}
