// SPDX-License-Identifier: Apache-2.0

// Command web is the demonstration app: it says which pod answered and whom it
// saw asking, which is what one wants to know of a network.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "web:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	hostname, err := os.Hostname()
	if err != nil {
		return err
	}
	address := ":" + cmp.Or(os.Getenv("PORT"), "8080")
	server := &http.Server{Addr: address, Handler: handler(hostname), ReadHeaderTimeout: 5 * time.Second}
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		// Readers of a Service's endpoints learn of the end a moment later than we do.
		grace, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		stopped <- server.Shutdown(grace)
	}()
	fmt.Println("listening on", address)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-stopped
}

func handler(hostname string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		client, _, err := net.SplitHostPort(r.RemoteAddr)
		if err != nil {
			client = r.RemoteAddr
		}
		fmt.Printf("%s %s from %s\n", r.Method, r.URL.Path, client)
		fmt.Fprintf(w, "hostname: %s\nclient: %s\npath: %s\n", hostname, client, r.URL.Path)
	})
	return mux
}
