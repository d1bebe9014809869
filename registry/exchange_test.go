// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"bastide.dev/fault"
	"bastide.dev/registry"
)

// people knows tokens of the token service by the names in them, and who may what.
type people struct {
	mu      sync.Mutex // guards all below
	readers map[string]bool
	writers map[string]bool
}

func (p *people) Basic(_ context.Context, name, password, _ string) (registry.Subject, error) {
	if password != "password" {
		return registry.Subject{}, fault.New(fault.Unauthorized, "UNAUTHORIZED", "It is wrong.")
	}
	return registry.Subject{ID: name, Kind: "User", Name: name}, nil
}

func (p *people) Bearer(_ context.Context, token string) (registry.Subject, error) {
	if name, ok := map[string]string{"token-of-node": "node", "token-of-pusher": "pusher", "token-of-nobody": "nobody"}[token]; ok {
		return registry.Subject{ID: name, Kind: "ManagedIdentity", Name: name}, nil
	}
	return registry.Subject{}, fault.New(fault.Unauthorized, "UNAUTHORIZED", "It is wrong.")
}

func (p *people) may(all map[string]bool, s registry.Subject) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !all[s.ID] {
		return fault.New(fault.Forbidden, "DENIED", "You may not.")
	}
	return nil
}

func (p *people) MayRead(_ context.Context, s registry.Subject) error  { return p.may(p.readers, s) }
func (p *people) MayWrite(_ context.Context, s registry.Subject) error { return p.may(p.writers, s) }

// closed is a registry that lets nobody pull without a role, and an image in each of two repositories.
func closed(t *testing.T) (*world, *people) {
	t.Helper()
	p := &people{readers: map[string]bool{"node": true, "pusher": true}, writers: map[string]bool{"pusher": true}}
	server := httptest.NewUnstartedServer(nil)
	w := &world{url: "https://" + server.Listener.Addr().String(), host: server.Listener.Addr().String(), dir: t.TempDir()}
	r, err := registry.New(registry.Config{Dir: w.dir, URL: w.url, Directory: p, Public: []string{"bastide/"}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	server.Config.Handler = r
	server.StartTLS()
	t.Cleanup(func() {
		server.Close()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	w.client = server.Client()
	for _, repository := range []string{"app", "bastide/pause"} {
		if err := remote.Write(w.tag(t, repository+":1"), image(t), w.options(&authn.Basic{Username: "pusher", Password: "password"})...); err != nil {
			t.Fatal(err)
		}
	}
	return w, p
}

// exchange buys a token of the registry, "" when it isn't sold.
func (w *world) exchange(t *testing.T, form url.Values) string {
	t.Helper()
	answer, err := w.client.PostForm(w.url+"/oauth2/exchange", form)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var body struct {
		Token string `json:"refresh_token"`
	}
	if err := json.NewDecoder(answer.Body).Decode(&body); err != nil {
		t.Fatal(err)
	}
	if (answer.StatusCode == http.StatusOK) != (body.Token != "") {
		t.Fatalf("%s with %q", answer.Status, body.Token)
	}
	return body.Token
}

func (w *world) buy(t *testing.T, token string) string {
	t.Helper()
	return w.exchange(t, url.Values{"grant_type": {"access_token"}, "service": {w.host}, "access_token": {token}})
}

func (w *world) pulls(tag name.Tag, auth authn.Authenticator) error {
	_, err := remote.Image(tag, w.options(auth)...)
	return err
}

func TestPullsNeedARole(t *testing.T) {
	w, people := closed(t)
	app, pause := w.tag(t, "app:1"), w.tag(t, "bastide/pause:1")
	if err := w.pulls(app, authn.Anonymous); err == nil {
		t.Error("anybody pulls")
	}
	if err := w.pulls(pause, authn.Anonymous); err != nil {
		t.Errorf("the service's own image: %v", err)
	}
	if err := w.pulls(w.tag(t, "bastidelike/x:1"), authn.Anonymous); err == nil {
		t.Error("a repository with a similar name is open")
	}
	as := func(token string) authn.Authenticator {
		return &authn.Basic{Username: registry.TokenUser, Password: w.buy(t, token)}
	}
	if err := w.pulls(app, as("token-of-node")); err != nil {
		t.Errorf("who may: %v", err)
	}
	if err := w.pulls(app, as("token-of-nobody")); err == nil {
		t.Error("who may not pulls")
	}
	if err := remote.Write(w.tag(t, "app:2"), image(t), w.options(as("token-of-node"))...); err == nil {
		t.Error("who may pull pushes")
	}
	// The role's end is the end, whatever was bought before.
	node := as("token-of-node")
	people.mu.Lock()
	delete(people.readers, "node")
	people.mu.Unlock()
	if err := w.pulls(app, node); err == nil {
		t.Error("without the role any more it pulls")
	}
}

// Each kind of token is good for its own end alone.
func TestTokensOfTheRegistryDontMix(t *testing.T) {
	w, _ := closed(t)
	refresh := w.buy(t, "token-of-node")
	pull := func(bearer string) int {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+"/v2/app/manifests/1", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+bearer)
		answer, err := w.client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		return answer.StatusCode
	}
	if got := pull(refresh); got != http.StatusUnauthorized {
		t.Errorf("a token that only buys others pulls: %d", got)
	}
	token := func(form url.Values) string {
		answer, err := w.client.PostForm(w.url+"/oauth2/token", form)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		var body struct {
			Token string `json:"access_token"`
		}
		_ = json.NewDecoder(answer.Body).Decode(&body) // a refusal has none
		return body.Token
	}
	form := func(refresh string) url.Values {
		return url.Values{"grant_type": {"refresh_token"}, "service": {w.host}, "scope": {"repository:app:pull"}, "refresh_token": {refresh}}
	}
	short := token(form(refresh))
	if got := pull(short); got != http.StatusOK {
		t.Errorf("a bought token: %d", got)
	}
	if got := token(form(short)); got != "" {
		t.Error("a short token buys others")
	}
	if got := w.exchange(t, url.Values{"grant_type": {"access_token"}, "service": {w.host}, "access_token": {refresh}}); got != "" {
		t.Error("a token of the registry is exchanged for another")
	}
	for _, bad := range []url.Values{
		{}, {"grant_type": {"access_token"}}, {"grant_type": {"access_token"}, "access_token": {"x"}},
		{"grant_type": {"password"}, "access_token": {"token-of-node"}},
		{"grant_type": {"access_token"}, "service": {"another.registry"}, "access_token": {"token-of-node"}},
	} {
		if got := w.exchange(t, bad); got != "" {
			t.Errorf("%v is exchanged", bad)
		}
	}
}
