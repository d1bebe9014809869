// SPDX-License-Identifier: Apache-2.0

package federated

import (
	"crypto/x509"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"bastide.dev/identity"
)

// outside is an issuer out in the world.
type outside struct {
	*httptest.Server
	keys      atomic.Pointer[jose.JSONWebKeySet]
	discovery atomic.Pointer[http.HandlerFunc] // instead of the right one
	asked     atomic.Int32
}

func newOutside(t *testing.T) *outside {
	t.Helper()
	o := &outside{}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		o.asked.Add(1)
		if f := o.discovery.Load(); f != nil {
			(*f)(w, r)
			return
		}
		o.document(w, o.URL, o.URL+"/keys")
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		keys := []any{map[string]string{"kty": "AKP", "kid": "k1"}} // a kind that isn't known
		for _, key := range o.keys.Load().Keys {
			keys = append(keys, key)
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": keys})
	})
	o.Server = httptest.NewTLSServer(mux)
	t.Cleanup(o.Close)
	return o
}

func (o *outside) document(w http.ResponseWriter, issuer, keys string) {
	_ = json.NewEncoder(w).Encode(map[string]string{"issuer": issuer, "jwks_uri": keys})
}

// abroad is a checker that trusts an outside issuer, at a time that the test moves.
func abroad(t *testing.T, o *outside, reachable func(netip.Addr) bool) (*Checker, *time.Time) {
	t.Helper()
	w := newWorld()
	w.apps[appID] = identity.Application{AppID: appID, Federated: []identity.FederatedCredential{{ID: "out", Issuer: o.URL, Subject: subject, Audiences: []string{audience}}}}
	roots := x509.NewCertPool()
	roots.AddCert(o.Certificate())
	clock := now
	c, err := New(Config{Directory: w, Local: w, Roots: roots, Reachable: reachable, Now: func() time.Time { return clock }})
	if err != nil {
		t.Fatal(err)
	}
	return c, &clock
}

func anywhere(netip.Addr) bool { return true }

// TestRotationAbroad: keys are kept, asked for anew when one isn't known, and
// not more often than that.
func TestRotationAbroad(t *testing.T) {
	o := newOutside(t)
	first, second := rsaKey(t, 2048), rsaKey(t, 2048)
	o.keys.Store(&jose.JSONWebKeySet{Keys: []jose.JSONWebKey{public("k1", first)}})
	c, clock := abroad(t, o, anywhere)
	check := func(id string, key any) error {
		_, _, err := c.CheckFederated(t.Context(), appID, sign(t, jose.RS256, key, id, claims(map[string]any{"iss": o.URL, "exp": now.Add(24 * time.Hour).Unix()})))
		return err
	}
	for range 3 {
		if err := check("k1", first); err != nil {
			t.Fatal(err)
		}
	}
	if n := o.asked.Load(); n != 1 {
		t.Errorf("asked %d times for keys that are known", n)
	}
	o.keys.Store(&jose.JSONWebKeySet{Keys: []jose.JSONWebKey{public("k2", second)}})
	for range 3 {
		if err := check("k2", second); code(err) != CodeSignature {
			t.Errorf("a moment later: %v", err)
		}
	}
	if n := o.asked.Load(); n != 1 {
		t.Errorf("asked %d times within %s", n, askAgain)
	}
	*clock = clock.Add(askAgain)
	if err := check("k2", second); err != nil {
		t.Errorf("after a rotation: %v", err)
	}
	if err := check("k1", first); code(err) != CodeSignature {
		t.Errorf("a key that isn't published any more: %v", err)
	}
	*clock = clock.Add(keysLive)
	if err := check("k2", second); err != nil || o.asked.Load() != 3 {
		t.Errorf("asked %d times, %v", o.asked.Load(), err)
	}
}

// TestIssuersThatLie: none of these answers is taken, and none is asked for over and over.
func TestIssuersThatLie(t *testing.T) {
	key := rsaKey(t, 2048)
	other := newOutside(t) // would say yes, whoever's issuer it is asked for
	yes := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		other.document(w, r.URL.Query().Get("for"), other.URL+"/keys")
	})
	other.discovery.Store(&yes)
	other.keys.Store(&jose.JSONWebKeySet{Keys: []jose.JSONWebKey{public("k1", key)}})
	for name, answer := range map[string]func(o *outside, w http.ResponseWriter, r *http.Request){
		"another's document": func(o *outside, w http.ResponseWriter, _ *http.Request) { o.document(w, other.URL, o.URL+"/keys") },
		"keys without TLS": func(o *outside, w http.ResponseWriter, _ *http.Request) {
			o.document(w, o.URL, "http://127.0.0.1/keys")
		},
		"keys in a file": func(o *outside, w http.ResponseWriter, _ *http.Request) { o.document(w, o.URL, "file:///etc/passwd") },
		"sent elsewhere": func(o *outside, w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL+r.URL.Path+"?for="+o.URL, http.StatusFound)
		},
		"sent in circles": func(o *outside, w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, o.URL+r.URL.Path, http.StatusFound)
		},
		"too much": func(_ *outside, w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"issuer":"` + strings.Repeat("a", maxDocument) + `"}`))
		},
		"no JSON":   func(_ *outside, w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) },
		"forbidden": func(_ *outside, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) },
	} {
		o := newOutside(t)
		o.keys.Store(&jose.JSONWebKeySet{Keys: []jose.JSONWebKey{public("k1", key)}})
		lie := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(o, w, r) })
		o.discovery.Store(&lie)
		c, _ := abroad(t, o, anywhere)
		var asked int32
		for range 3 {
			if _, _, err := c.CheckFederated(t.Context(), appID, sign(t, jose.RS256, key, "k1", claims(map[string]any{"iss": o.URL}))); code(err) != CodeDiscovery {
				t.Errorf("%s: %v", name, err)
			}
			if asked == 0 {
				asked = o.asked.Load()
			}
		}
		if o.asked.Load() != asked {
			t.Errorf("%s: asked %d times", name, o.asked.Load())
		}
	}
}

// TestIssuersNextDoor: by default nobody is asked who is on this machine or its links.
func TestIssuersNextDoor(t *testing.T) {
	key := rsaKey(t, 2048)
	o := newOutside(t)
	o.keys.Store(&jose.JSONWebKeySet{Keys: []jose.JSONWebKey{public("k1", key)}})
	c, _ := abroad(t, o, nil)
	if _, _, err := c.CheckFederated(t.Context(), appID, sign(t, jose.RS256, key, "k1", claims(map[string]any{"iss": o.URL}))); code(err) != CodeDiscovery || o.asked.Load() != 0 {
		t.Errorf("asked %d times: %v", o.asked.Load(), err)
	}
	for address, want := range map[string]bool{"127.0.0.1": false, "169.254.169.254": false, "::1": false, "fe80::1": false, "0.0.0.0": false,
		"224.0.0.1": false, "10.1.2.3": true, "198.51.100.7": true} {
		if got := elsewhere(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: %t", address, got)
		}
	}
}
