// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"
)

// httpLink is the Link over mutual TLS.
type httpLink struct {
	base, host string
	client     *http.Client
}

// NewLink returns the way to serve at base ("https://…") for the host called
// name, whose certificate config holds.
func NewLink(base, name string, config *tls.Config) Link {
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true, ResponseHeaderTimeout: 10 * time.Second}
	return &httpLink{base: base, host: name, client: &http.Client{Transport: transport}}
}

func (l *httpLink) do(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	url := l.base + strings.ReplaceAll(path, "{host}", l.host)
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, url, err)
	}
	resp, err := l.client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 != 2 {
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
		return nil, fmt.Errorf("%s %s: %s: %s", method, url, resp.Status, bytes.TrimSpace(text))
	}
	return resp, nil
}

func (l *httpLink) Units(ctx context.Context, receive func(Unit)) error {
	resp, err := l.do(ctx, http.MethodGet, UnitsPath, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	units := json.NewDecoder(resp.Body)
	for {
		var u Unit
		if err := units.Decode(&u); errors.Is(err, io.EOF) {
			return errors.New("serve closed the stream")
		} else if err != nil {
			return fmt.Errorf("units: %w", err)
		}
		receive(u)
	}
}

func (l *httpLink) Report(ctx context.Context, reports []Report) error {
	body, err := json.Marshal(reports)
	if err != nil {
		return fmt.Errorf("reports: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	resp, err := l.do(ctx, http.MethodPost, ReportsPath, bytes.NewReader(body))
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// outbox delivers the newest report of each unit, together, until serve has it.
type outbox struct {
	link  Link
	log   *slog.Logger
	woken chan struct{} // capacity 1

	mu      sync.Mutex // guards pending and sent
	pending map[unitKey]Report
	sent    map[unitKey][]byte // as JSON: an unchanged report isn't sent again
}

func newOutbox(link Link, log *slog.Logger) *outbox {
	return &outbox{link: link, log: log, woken: make(chan struct{}, 1), pending: map[unitKey]Report{}, sent: map[unitKey][]byte{}}
}

func (o *outbox) put(r Report) {
	key := unitKey{r.Kind, r.Name}
	text, err := json.Marshal(r)
	if err != nil {
		o.log.Error("report", "error", err)
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, waiting := o.pending[key]; !waiting && bytes.Equal(o.sent[key], text) {
		return
	}
	if r.Gone {
		delete(o.sent, key)
	} else {
		o.sent[key] = text
	}
	o.pending[key] = r
	select {
	case o.woken <- struct{}{}:
	default:
	}
}

func (o *outbox) take() []Report {
	o.mu.Lock()
	defer o.mu.Unlock()
	reports := make([]Report, 0, len(o.pending))
	for _, r := range o.pending {
		reports = append(reports, r)
	}
	clear(o.pending)
	return reports
}

// giveBack keeps undelivered reports, except those that a newer one replaced.
func (o *outbox) giveBack(reports []Report) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range reports {
		if key := (unitKey{r.Kind, r.Name}); o.pending[key].Kind == "" {
			o.pending[key] = r
		}
	}
}

func (o *outbox) run(ctx context.Context) {
	var retry backoff
	for {
		select {
		case <-ctx.Done():
			return
		case <-o.woken:
		}
		for reports := o.take(); len(reports) > 0; reports = o.take() {
			if err := o.link.Report(ctx, reports); err != nil {
				o.giveBack(reports)
				if ctx.Err() != nil {
					return
				}
				o.log.Warn("reports not delivered, will try again", "error", err)
				retry.wait(ctx)
				continue
			}
			retry.reset()
		}
	}
}
