// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"bastide.dev/host"
	"bastide.dev/instance"
	"bastide.dev/reconcile"
)

func newServe(g *global) *cobra.Command {
	return &cobra.Command{
		Use:    "serve",
		Hidden: true,
		Short:  "Answer ARM, token, Graph and registry requests (what the daemon runs)",
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			in, err := g.load()
			if err != nil {
				return err
			}
			return runServe(cmd.Context(), in)
		},
	}
}

// runServe takes its two sockets as root, and is an ordinary user from then on.
func runServe(ctx context.Context, in *instance.Instance) error {
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	front, err := listen(ctx, netip.AddrPortFrom(in.FrontDoor(), 443).String())
	if err != nil {
		return err
	}
	hosts, err := listen(ctx, in.HostAPI())
	if err != nil {
		return err
	}
	if err := dropRoot(int(in.ServeUID())); err != nil {
		return err
	}
	keys := newKeyring(in)
	service, err := newService(ctx, in, keys, log)
	if err != nil {
		return err
	}
	defer service.close()
	frontTLS := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: keys.certificate("serve")}
	believed := keys.trust("ca")
	hostsTLS, err := hostsDoor(keys, believed)
	if err != nil {
		return err
	}
	reporting, err := withMetrics(host.NewServer(service.store, log), service.store, in, log)
	if err != nil {
		return err
	}
	group := &reconcile.Group{}
	service.addTo(group)
	group.Add("front door", func(ctx context.Context) error { return serveTLS(ctx, front, service.frontDoor(), frontTLS, log) })
	group.Add("host API", func(ctx context.Context) error {
		return serveTLS(ctx, hosts, &stillBelieved{reporting, believed, log}, hostsTLS, log)
	})
	log.Info("serving", "frontDoor", in.URL("management"), "hosts", in.HostAPI())
	return group.Run(ctx)
}

// listen takes an address that the data plane may not have made yet.
func listen(ctx context.Context, address string) (net.Listener, error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			failed = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1)
		})
		return errors.Join(err, failed)
	}}
	l, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return l, nil
}

// dropRoot makes the process an ordinary user that can gain nothing back.
func dropRoot(uid int) error {
	if os.Geteuid() != 0 {
		return nil
	}
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(uid), syscall.Setuid(uid)); err != nil {
		return fmt.Errorf("drop root: %w", err)
	}
	if _, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("drop root: no new privileges: %w", errno)
	}
	return nil
}

// serveTLS serves until ctx ends; requests at hand then have a moment to end.
func serveTLS(ctx context.Context, l net.Listener, handler http.Handler, config *tls.Config, log *slog.Logger) error {
	// Streams and long polls end with the server, so that it can be replaced.
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	server := &http.Server{
		Handler: handler, TLSConfig: config, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		BaseContext: func(net.Listener) context.Context { return base },
		ErrorLog:    slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		cancel()
		grace, done := context.WithTimeout(context.Background(), 2*time.Second)
		defer done()
		stopped <- server.Shutdown(grace)
	}()
	if err := server.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-stopped
}

// byHost sends a request to the handler of its host name, without its port.
func byHost(handlers map[string]http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			name = r.Host
		}
		handler := handlers[strings.ToLower(name)]
		if handler == nil {
			http.Error(w, "no service has the name "+name, http.StatusMisdirectedRequest)
			return
		}
		handler.ServeHTTP(w, r)
	})
}
