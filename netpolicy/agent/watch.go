// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"bastide.dev/netpolicy"
)

const (
	pageSize    = 500
	watchLife   = 10 * time.Minute // and up to that much more, so that nodes don't come back together
	firstPause  = 20 * time.Millisecond
	lastPause   = 5 * time.Second
	absentPause = time.Second // an optional API that isn't there yet
)

// server is the API server. The agent speaks its JSON itself: a client library
// with all of Kubernetes' types would be most of what the agent is, on each node.
type server struct {
	base   string
	client *http.Client
}

func newServer(c netpolicy.AgentConfig) (*server, error) {
	roots := x509.NewCertPool()
	ca, err := os.ReadFile(c.CA)
	if err != nil {
		return nil, err
	}
	if !roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s holds no certificate", c.CA)
	}
	pair, err := tls.LoadX509KeyPair(c.Certificate, c.Key)
	if err != nil {
		return nil, err
	}
	return &server{base: c.Server, client: &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2: true, // one connection for all
		// The server would compress its lists, which costs both more than the wire.
		DisableCompression:  true,
		TLSHandshakeTimeout: 10 * time.Second,
		// A server that went without a word is noticed, and left.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second},
	}}}, nil
}

// errGone asks for a new listing; errAbsent says that the API isn't there.
var (
	errGone   = errors.New("the version to follow from is gone")
	errAbsent = errors.New("the API isn't there")
)

func (s *server) get(ctx context.Context, r *resource, query url.Values) (io.ReadCloser, error) {
	if r.fields != "" {
		query.Set("fieldSelector", r.fields)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base+r.path+"?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", netpolicy.ProgramName)
	response, err := s.client.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode == http.StatusOK {
		return response.Body, nil
	}
	text, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10)) // for the message alone
	response.Body.Close()
	switch {
	case response.StatusCode == http.StatusGone:
		return nil, errGone
	case response.StatusCode == http.StatusNotFound && r.optional:
		return nil, errAbsent
	}
	return nil, fmt.Errorf("%s: %s: %s", r.path, response.Status, bytes.TrimSpace(text))
}

// list hands each object to each, page by page and one by one, and returns the
// version to follow from.
func (s *server) list(ctx context.Context, r *resource, each func(data []byte) error) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var head struct {
		ResourceVersion string `json:"resourceVersion"`
		Continue        string `json:"continue"`
	}
	for first := true; first || head.Continue != ""; first = false {
		query := url.Values{"limit": {strconv.Itoa(pageSize)}}
		if head.Continue != "" {
			query.Set("continue", head.Continue)
		}
		body, err := s.get(ctx, r, query)
		if err != nil {
			return "", err
		}
		head.ResourceVersion, head.Continue = "", ""
		err = readList(body, &head, each)
		body.Close()
		if err != nil {
			return "", fmt.Errorf("list %s: %w", r.path, err)
		}
	}
	return head.ResourceVersion, nil
}

// readList reads a List without holding more than one of its items.
func readList(body io.Reader, head any, each func(data []byte) error) error {
	d := json.NewDecoder(body)
	if _, err := d.Token(); err != nil { // {
		return err
	}
	for d.More() {
		field, err := d.Token()
		if err != nil {
			return err
		}
		switch field {
		case "metadata":
			err = d.Decode(head)
		case "items":
			err = readItems(d, each)
		default:
			err = d.Decode(new(json.RawMessage))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func readItems(d *json.Decoder, each func(data []byte) error) error {
	if open, err := d.Token(); err != nil || open == nil { // [, or null
		return err
	}
	var item json.RawMessage
	for d.More() {
		if err := d.Decode(&item); err != nil {
			return err
		}
		if err := each(item); err != nil {
			return err
		}
	}
	_, err := d.Token() // ]
	return err
}

// event is one line of a watch.
type event struct {
	Type   string          `json:"type"`
	Object json.RawMessage `json:"object"`
}

// watch hands each change to each until the server or ctx ends it.
func (s *server) watch(ctx context.Context, r *resource, version string, each func(e *event) error) error {
	life := watchLife + rand.N(watchLife)
	body, err := s.get(ctx, r, url.Values{"watch": {"1"}, "allowWatchBookmarks": {"1"}, "resourceVersion": {version},
		"timeoutSeconds": {strconv.Itoa(int(life.Seconds()))}})
	if err != nil {
		return err
	}
	defer body.Close()
	var e event
	for d := json.NewDecoder(body); ; {
		if err := d.Decode(&e); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("watch %s: %w", r.path, err)
		}
		if e.Type == "ERROR" {
			var status struct {
				Code    int    `json:"code"`
				Message string `json:"message"`
			}
			if err := json.Unmarshal(e.Object, &status); err != nil || status.Code != http.StatusGone {
				return errors.Join(err, fmt.Errorf("watch %s: %s", r.path, status.Message))
			}
			return errGone
		}
		if err := each(&e); err != nil {
			return err
		}
	}
}

// follow keeps the cluster's objects of one kind as the server has them, until
// ctx ends. While the server can't be reached they stay as they are.
func (a *Agent) follow(ctx context.Context, k kind) {
	r := &resources[k]
	version, pause := "", firstPause
	for ctx.Err() == nil {
		var err error
		if version == "" {
			version, err = a.relist(ctx, k)
		} else {
			err = a.server.watch(ctx, r, version, func(e *event) error {
				pause = firstPause
				var err error
				version, err = a.change(k, e)
				return err
			})
		}
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			pause = firstPause
			continue
		case errors.Is(err, errAbsent):
			a.cluster.replace(k, nil)
			version = ""
			sleep(ctx, absentPause+rand.N(absentPause))
			continue
		case errors.Is(err, errGone):
			version, err = "", nil
		}
		a.trouble(err)
		sleep(ctx, pause)
		pause = min(2*pause, lastPause)
	}
}

func (a *Agent) relist(ctx context.Context, k kind) (string, error) {
	all := map[string]any{}
	version, err := a.server.list(ctx, &resources[k], func(data []byte) error {
		var m meta
		object, err := resources[k].read(data, &m)
		if err != nil {
			return err
		}
		all[m.key()] = object
		return nil
	})
	if err == nil {
		a.cluster.replace(k, all)
		a.trouble(nil)
	}
	return version, err
}

// change applies one event and returns the version that it is of.
func (a *Agent) change(k kind, e *event) (string, error) {
	var m meta
	switch e.Type {
	case "ADDED", "MODIFIED":
		object, err := resources[k].read(e.Object, &m)
		if err != nil {
			return "", err // a new listing is next
		}
		a.cluster.set(k, m.key(), object)
		return m.Metadata.ResourceVersion, nil
	}
	if err := json.Unmarshal(e.Object, &m); err != nil {
		return "", err
	}
	if e.Type == "DELETED" {
		a.cluster.remove(k, m.key())
	}
	return m.Metadata.ResourceVersion, nil
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
