// SPDX-License-Identifier: Apache-2.0

// Package admission is what a cluster does to pods before it admits them: it
// gives those that ask for a workload identity their token and the environment
// that Azure's SDKs look for, as Azure Workload Identity's webhook does.
//
// Deciding is pure (Mutate); Handler speaks AdmissionReview v1 to an API server.
// The control plane's agent serves it beside the API server; see
// docs/decisions/0016-pods-admitted-beside-their-api-server.md.
package admission

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"bastide.dev/fault"
)

// Path is where pods are reviewed.
const Path = "/pods"

// maxReview bounds a review: an API server takes objects of up to 3 MiB.
const maxReview = 8 << 20

// Settings are what pods are told.
type Settings struct {
	Tenant    string // that they ask tokens of, unless their service account names another
	Authority string // the token service, https://…/
	CA        []byte // PEM, what signs for it; empty: whom pods trust anyway
}

// Config is what a Handler needs; all is required.
type Config struct {
	// Settings are those that hold now; false: no pod is given an identity.
	Settings func() (Settings, bool)
	// ServiceAccount returns an account's annotations, as the API server has them now.
	ServiceAccount func(ctx context.Context, namespace, name string) (map[string]string, error)
	Logger         *slog.Logger
}

// Handler reviews pods. Safe for concurrent use.
type Handler struct{ Config }

// review is an AdmissionReview of admission.k8s.io/v1, as far as it is read or written.
type review struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	Request    *request  `json:"request,omitempty"`
	Response   *response `json:"response,omitempty"`
}

type request struct {
	UID       string `json:"uid"`
	Namespace string `json:"namespace"`
	Operation string `json:"operation"`
	Resource  struct {
		Group    string `json:"group"`
		Version  string `json:"version"`
		Resource string `json:"resource"`
	} `json:"resource"`
	SubResource string          `json:"subResource"`
	Object      json.RawMessage `json:"object"`
}

type response struct {
	UID       string  `json:"uid"`
	Allowed   bool    `json:"allowed"`
	Status    *status `json:"status,omitempty"`
	Patch     []byte  `json:"patch,omitempty"`
	PatchType string  `json:"patchType,omitempty"`
}

type status struct {
	Message string `json:"message"`
	Code    int    `json:"code"`
}

// ServeHTTP answers one review.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != Path || r.Method != http.MethodPost {
		http.NotFound(w, r)
		return
	}
	var asked review
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxReview))
	if err == nil {
		err = json.Unmarshal(body, &asked)
	}
	if err != nil || asked.Request == nil || asked.APIVersion != "admission.k8s.io/v1" || asked.Kind != "AdmissionReview" {
		http.Error(w, "no AdmissionReview of admission.k8s.io/v1", http.StatusBadRequest)
		return
	}
	answer := review{APIVersion: asked.APIVersion, Kind: asked.Kind, Response: h.answer(r.Context(), asked.Request)}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		h.Logger.WarnContext(r.Context(), "review not answered", "error", err)
	}
}

func (h *Handler) answer(ctx context.Context, r *request) *response {
	operations, err := h.review(ctx, r)
	if err == nil && len(operations) == 0 {
		return &response{UID: r.UID, Allowed: true}
	}
	var patch []byte
	if err == nil {
		patch, err = json.Marshal(operations)
	}
	if err == nil {
		return &response{UID: r.UID, Allowed: true, Patch: patch, PatchType: "JSONPatch"}
	}
	s := &status{Message: "the pod's workload identity can't be set up now", Code: http.StatusInternalServerError}
	if f := fault.From(err); f.Kind != fault.Internal {
		s = &status{Message: f.Message, Code: http.StatusBadRequest}
	} else {
		h.Logger.ErrorContext(ctx, "pod not reviewed", "namespace", r.Namespace, "error", err)
	}
	return &response{UID: r.UID, Status: s}
}

func (h *Handler) review(ctx context.Context, r *request) ([]Operation, error) {
	settings, on := h.Settings()
	if !on || r.Operation != "CREATE" || r.Resource.Group != "" || r.Resource.Resource != "pods" || r.SubResource != "" {
		return nil, nil
	}
	pod, err := parsePod(r.Object)
	if err != nil {
		return nil, err
	}
	if pod.Metadata.Labels[UseLabel] != "true" {
		return nil, nil
	}
	account := pod.Spec.ServiceAccountName
	if account == "" {
		account = "default"
	}
	annotations, err := h.ServiceAccount(ctx, r.Namespace, account)
	if err != nil {
		return nil, fmt.Errorf("service account %s/%s: %w", r.Namespace, account, err)
	}
	return pod.mutate(annotations, settings)
}

// Serve answers reviews on a listener until ctx ends, and closes it.
func Serve(ctx context.Context, listener net.Listener, certificate tls.Certificate, h http.Handler) error {
	server := &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second, WriteTimeout: 15 * time.Second, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 16 << 10, BaseContext: func(net.Listener) context.Context { return ctx },
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12},
		ErrorLog:  slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug), // a client that goes away in the handshake is no event
	}
	ended := make(chan error, 1)
	go func() { ended <- server.ServeTLS(listener, "", "") }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	err := server.Close()
	if e := <-ended; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	return err
}
