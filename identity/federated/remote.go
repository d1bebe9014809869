// SPDX-License-Identifier: Apache-2.0

package federated

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/go-jose/go-jose/v4"
	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"
)

const (
	fetchTime    = 5 * time.Second
	maxDocument  = 256 << 10
	maxKeys      = 64
	maxRedirects = 3
	issuersKept  = 256
	keysLive     = time.Hour
	// askAgain is how soon an issuer is asked again, whoever wants to know: for a
	// key that it hasn't, and after it didn't answer.
	askAgain = 30 * time.Second
)

// remote are the issuers out in the world: their keys, found by OpenID Connect
// Discovery and kept for a while.
type remote struct {
	client *http.Client
	now    func() time.Time
	flight singleflight.Group

	mu    sync.Mutex // guards what is done with cache's entries together
	cache *lru.Cache[string, kept]
}

// kept is what an issuer answered last.
type kept struct {
	keys  jose.JSONWebKeySet
	err   error
	asked time.Time
}

func newRemote(config *tls.Config, reachable func(netip.Addr) bool, now func() time.Time) (*remote, error) {
	cache, err := lru.New[string, kept](issuersKept)
	if err != nil {
		return nil, fmt.Errorf("federated: %w", err)
	}
	dialer := net.Dialer{Timeout: fetchTime, ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
		// Asked when the name is resolved: a name can't lead elsewhere in between.
		if to, err := netip.ParseAddrPort(address); err != nil || !reachable(to.Addr().Unmap()) {
			return errors.New("an issuer can't be there")
		}
		return nil
	}}
	client := &http.Client{
		Timeout: fetchTime,
		Transport: &http.Transport{
			DialContext: dialer.DialContext, TLSHandshakeTimeout: fetchTime, ResponseHeaderTimeout: fetchTime, ForceAttemptHTTP2: true,
			MaxIdleConns: 8, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 32 << 10,
			TLSClientConfig: config,
		},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if r.URL.Scheme != "https" || r.URL.Host != via[0].URL.Host || len(via) > maxRedirects {
				return errors.New("a redirection that isn't followed")
			}
			return nil
		},
	}
	return &remote{client: client, now: now, cache: cache}, nil
}

// elsewhere is any address but this machine's own and its links': behind those
// are services that trust whoever reaches them, cloud metadata above all.
func elsewhere(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !a.IsLoopback() && !a.IsLinkLocalUnicast()
}

// keySet returns an issuer's keys, asked anew when they are old, or when keyID
// isn't among them and the issuer wasn't asked a moment ago.
func (r *remote) keySet(ctx context.Context, issuer, keyID string) (jose.JSONWebKeySet, error) {
	if k, fresh := r.kept(issuer, keyID); fresh {
		return k.keys, k.err
	}
	// All who wait share one question, so it doesn't end with the first of them.
	answer := r.flight.DoChan(issuer, func() (any, error) {
		if k, fresh := r.kept(issuer, keyID); fresh {
			return k, nil
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*fetchTime)
		defer cancel()
		keys, err := r.fetch(ctx, issuer)
		k := kept{keys: keys, err: err, asked: r.now()}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.cache.Add(issuer, k)
		return k, nil
	})
	select {
	case <-ctx.Done():
		return jose.JSONWebKeySet{}, ctx.Err()
	case result := <-answer:
		k, _ := result.Val.(kept) // it is always one
		return k.keys, k.err
	}
}

// kept is what is known of an issuer, and whether that is enough for a key.
func (r *remote) kept(issuer, keyID string) (kept, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k, known := r.cache.Get(issuer)
	if !known {
		return k, false
	}
	age := r.now().Sub(k.asked)
	if age < askAgain {
		return k, true
	}
	return k, k.err == nil && age < keysLive && len(k.keys.Key(keyID)) > 0
}

func (r *remote) fetch(ctx context.Context, issuer string) (jose.JSONWebKeySet, error) {
	var keys jose.JSONWebKeySet
	var discovery struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	if err := r.get(ctx, strings.TrimSuffix(issuer, "/")+"/.well-known/openid-configuration", &discovery); err != nil {
		return keys, fmt.Errorf("discovery: %w", err)
	}
	if discovery.Issuer != issuer {
		return keys, errors.New("discovery: the document is another issuer's")
	}
	var published struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := r.get(ctx, discovery.Keys, &published); err != nil {
		return keys, fmt.Errorf("keys: %w", err)
	}
	if len(published.Keys) > maxKeys {
		return keys, errors.New("keys: too many")
	}
	for _, raw := range published.Keys {
		var key jose.JSONWebKey
		if json.Unmarshal(raw, &key) == nil { // one of a kind that isn't known here spoils no other
			keys.Keys = append(keys.Keys, key)
		}
	}
	return keys, nil
}

func (r *remote) get(ctx context.Context, address string, into any) (err error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "" {
		return errors.New("not an https URL")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	request.Header.Set("Accept", "application/json")
	response, err := r.client.Do(request)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", response.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxDocument+1))
	if err != nil {
		return err
	}
	if len(body) > maxDocument {
		return errors.New("the document is too long")
	}
	return json.Unmarshal(body, into)
}
