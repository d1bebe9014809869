// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"bastide.dev/netpolicy"
)

// longestWait is how long a CNI plugin is kept waiting; it then fails, and
// kubelet tries again.
const longestWait = 10 * time.Second

// serve answers on the socket until ctx ends.
func (a *Agent) serve(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Dir(a.cfg.Socket), 0o755); err != nil {
		return fmt.Errorf("policy agent: %w", err)
	}
	// Another agent's, which has ended: there is one per machine, and its
	// supervisor starts no second one.
	os.Remove(a.cfg.Socket)
	listener, err := net.Listen("unix", a.cfg.Socket)
	if err != nil {
		return fmt.Errorf("policy agent: %w", err)
	}
	if err := os.Chmod(a.cfg.Socket, 0o600); err != nil {
		return errors.Join(fmt.Errorf("policy agent: %w", err), listener.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("PUT "+netpolicy.SandboxPath+"{id}", a.putSandbox)
	mux.HandleFunc("GET "+netpolicy.SandboxPath+"{id}", a.getSandbox)
	mux.HandleFunc("DELETE "+netpolicy.SandboxPath+"{id}", a.deleteSandbox)
	mux.HandleFunc("GET "+netpolicy.TablePath, a.getTable)
	mux.HandleFunc("GET "+netpolicy.CountersPath, a.getCounters)
	mux.HandleFunc("GET "+netpolicy.StatusPath, a.getStatus)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		_ = server.Close() // who asks when it ends asks again
	})
	err = server.Serve(listener)
	if stop() {
		return fmt.Errorf("policy agent: %w", err)
	}
	<-ended
	return nil
}

func (a *Agent) putSandbox(w http.ResponseWriter, r *http.Request) {
	var s netpolicy.Sandbox
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&s); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.ID = r.PathValue("id")
	if s.UID == "" || s.Name == "" || s.Namespace == "" || len(s.Addresses) == 0 {
		http.Error(w, "a sandbox needs its pod's namespace, name, UID and addresses", http.StatusBadRequest)
		return
	}
	version, err := a.cluster.attach(s)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), longestWait)
	defer cancel()
	if err := a.awaitSandbox(ctx, s, version); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (a *Agent) getSandbox(w http.ResponseWriter, r *http.Request) {
	s, ok := a.cluster.sandbox(r.PathValue("id"))
	a.mu.Lock()
	now := a.applied
	a.mu.Unlock()
	if !ok || !a.covers(now, s) {
		http.Error(w, "the sandbox's policies aren't in place", http.StatusNotFound)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (a *Agent) deleteSandbox(w http.ResponseWriter, r *http.Request) {
	if err := a.cluster.detach(r.PathValue("id")); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (a *Agent) getTable(w http.ResponseWriter, _ *http.Request) {
	a.mu.Lock()
	table, synced := a.applied.table, a.status.Synced
	a.mu.Unlock()
	if !synced {
		http.Error(w, "the cluster's policies haven't been read yet", http.StatusServiceUnavailable)
		return
	}
	answer(w, table)
}

func (a *Agent) getCounters(w http.ResponseWriter, _ *http.Request) {
	counters, err := a.cfg.Kernel.Counters()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	answer(w, counters)
}

func (a *Agent) getStatus(w http.ResponseWriter, _ *http.Request) {
	a.mu.Lock()
	status, table := a.status, a.applied.table
	status.Error = a.problem
	a.mu.Unlock()
	if status.Synced {
		status.Digest = table.Digest()
	}
	answer(w, status)
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // who asked has gone
}
