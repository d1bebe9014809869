// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"
)

const (
	perSecond = 20 // requests of one machine, on the long run
	burst     = 60
	purchases = 5 // of one machine, at a time

	buyTimeout = 15 * time.Second
	maxAnswer  = 64 << 10
	maxTokens  = 64 // of one machine, kept
	// early is how long before its end a token isn't handed out any more.
	early = 5 * time.Minute
)

// box is a machine with the tokens that are kept for it.
type box struct {
	machine Machine
	limiter *rate.Limiter
	buying  chan struct{} // a token per purchase under way
	flight  *singleflight.Group

	mu     sync.Mutex // guards tokens
	tokens map[tokenKey]*token
}

type tokenKey struct{ client, resource string }

type token struct {
	access        string
	from, expires time.Time
}

// newBox keeps an old one's limits, and its tokens while its identities are the same.
func newBox(m Machine, old *box) *box {
	b := &box{machine: m, limiter: rate.NewLimiter(perSecond, burst), buying: make(chan struct{}, purchases),
		flight: &singleflight.Group{}, tokens: map[tokenKey]*token{}}
	if old == nil {
		return b
	}
	b.limiter, b.buying = old.limiter, old.buying
	if reflect.DeepEqual(m.Identities, old.machine.Identities) && m.TokenURL == old.machine.TokenURL {
		old.mu.Lock()
		defer old.mu.Unlock()
		for key, t := range old.tokens {
			b.tokens[key] = t
		}
	}
	return b
}

// kept is a token that is still good for a while; nil when there is none.
func (b *box) kept(key tokenKey, now time.Time) *token {
	b.mu.Lock()
	defer b.mu.Unlock()
	if t := b.tokens[key]; t != nil && now.Add(early).Before(t.expires) {
		return t
	}
	return nil
}

// keep keeps a token, in the place of one that ended or of any when there are
// too many: what a machine asks for is its own choice.
func (b *box) keep(key tokenKey, t *token, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for other, old := range b.tokens {
		if len(b.tokens) >= maxTokens || !now.Before(old.expires) {
			delete(b.tokens, other)
		}
	}
	b.tokens[key] = t
}

// get is a token from what is kept, or bought. Who asks for the same at the
// same time gets the same.
func (s *Service) get(ctx context.Context, b *box, identity *Identity, resource string, fresh bool) (*token, *problem) {
	key := tokenKey{identity.ClientID, resource}
	if t := b.kept(key, s.Now()); t != nil && !fresh {
		return t, nil
	}
	type outcome struct {
		token *token
		p     *problem
	}
	done := b.flight.DoChan(key.client+" "+key.resource, func() (any, error) {
		select {
		case b.buying <- struct{}{}:
			defer func() { <-b.buying }()
		default:
			return outcome{p: tooMany()}, nil
		}
		t, p := s.buy(&b.machine, identity, resource) // bounded by buyTimeout
		if p == nil {
			b.keep(key, t, s.Now())
		}
		return outcome{t, p}, nil
	})
	select {
	case <-ctx.Done():
		return nil, unavailable()
	case result := <-done:
		o, ok := result.Val.(outcome)
		if !ok {
			return nil, unavailable()
		}
		return o.token, o.p
	}
}

func unavailable() *problem {
	return &problem{status: http.StatusServiceUnavailable, Code: "unknown", Description: "Failed to retrieve a token from the directory. Please try again."}
}

// buy gets a token from the token service.
func (s *Service) buy(m *Machine, identity *Identity, resource string) (*token, *problem) {
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {identity.ClientID}, "client_secret": {identity.Secret}, "resource": {resource}}
	now := s.Now()
	response, err := s.client.Post(m.TokenURL, "application/x-www-form-urlencoded", strings.NewReader(form.Encode()))
	if err != nil {
		s.Log.Warn("the token service isn't reached", "machine", m.ID, "error", withoutURL(err))
		return nil, unavailable()
	}
	defer func() { _ = response.Body.Close() }() // it was read
	var answer struct {
		Token       string      `json:"access_token"`
		Life        json.Number `json:"expires_in"`
		Error       string      `json:"error"`
		Description string      `json:"error_description"`
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, maxAnswer)).Decode(&answer); err != nil {
		s.Log.Warn("the token service's answer isn't understood", "machine", m.ID, "status", response.StatusCode, "error", err)
		return nil, unavailable()
	}
	life, err := answer.Life.Int64()
	switch {
	case response.StatusCode == http.StatusOK && answer.Token != "" && err == nil && life > 0:
		return &token{access: answer.Token, from: now, expires: now.Add(time.Duration(life) * time.Second)}, nil
	case response.StatusCode == http.StatusTooManyRequests:
		return nil, tooMany()
	case response.StatusCode >= http.StatusInternalServerError || answer.Error == "":
		return nil, unavailable()
	case answer.Error == "invalid_client" || answer.Error == "unauthorized_client":
		// The identity is gone, or was made anew: that its secret is wrong is no
		// concern of the machine's.
		s.Log.Warn("an identity of a machine isn't taken any more", "machine", m.ID, "client", identity.ClientID)
		return nil, bad("Identity not found")
	}
	return nil, &problem{status: http.StatusBadRequest, Code: answer.Error, Description: answer.Description}
}

// withoutURL is the cause of a request's failure alone.
func withoutURL(err error) error {
	var failed *url.Error
	if errors.As(err, &failed) {
		return failed.Err
	}
	return err
}
