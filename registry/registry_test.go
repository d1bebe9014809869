// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/crane"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"bastide.dev/fault"
	"bastide.dev/identity"
	"bastide.dev/registry"
	"bastide.dev/store/memory"
)

// directory is how cmd gives a real directory to the registry.
type directory struct{ *identity.Directory }

func subject(p identity.Principal, err error) (registry.Subject, error) {
	return registry.Subject{ID: p.ID, Kind: string(p.Kind), Name: p.Name}, err
}

func (d directory) Basic(ctx context.Context, name, password, address string) (registry.Subject, error) {
	return subject(d.AuthenticateBasic(ctx, name, password, address))
}

func (d directory) Bearer(ctx context.Context, token string) (registry.Subject, error) {
	return subject(d.AuthenticateRegistry(ctx, token))
}

func (d directory) MayRead(ctx context.Context, s registry.Subject) error {
	return d.Standing(ctx, identity.Principal{ID: s.ID, Kind: identity.PrincipalKind(s.Kind), Name: s.Name})
}

func (d directory) MayWrite(ctx context.Context, s registry.Subject) error {
	p := identity.Principal{ID: s.ID, Kind: identity.PrincipalKind(s.Kind), Name: s.Name}
	if err := d.Standing(ctx, p); err != nil {
		return err
	}
	if !slices.Contains(d.RolesOf(s.ID), identity.GlobalAdministrator) { // here these are who may push
		return fault.New(fault.Forbidden, "AuthorizationFailed", "'%s' may not push.", s.Name)
	}
	return nil
}

type world struct {
	url       string
	host      string
	dir       string
	client    *http.Client
	directory *identity.Directory
	first     identity.Bootstrapped
}

func start(t *testing.T) *world {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	server := httptest.NewUnstartedServer(nil)
	w := &world{url: "https://" + server.Listener.Addr().String(), host: server.Listener.Addr().String(), dir: t.TempDir()}
	var err error
	if w.directory, err = identity.New(identity.Config{Store: memory.New(0), Log: quiet, Endpoints: identity.Endpoints{
		Authority: "https://login.test", ResourceManager: "https://management.test", Graph: "https://graph.test", Registry: w.url}}); err != nil {
		t.Fatal(err)
	}
	if w.first, err = w.directory.Bootstrap(t.Context(), identity.BootstrapOptions{Domain: "test"}); err != nil {
		t.Fatal(err)
	}
	r, err := registry.New(registry.Config{Dir: w.dir, URL: w.url, Directory: directory{w.directory}, AnonymousPull: true, Log: quiet})
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
	return w
}

func (w *world) owner() authn.Authenticator {
	return &authn.Basic{Username: w.first.ClientID, Password: w.first.Secret}
}

func (w *world) options(auth authn.Authenticator) []remote.Option {
	return []remote.Option{remote.WithTransport(w.client.Transport), remote.WithAuth(auth)}
}

func (w *world) tag(t *testing.T, text string) name.Tag {
	t.Helper()
	tag, err := name.NewTag(w.host + "/" + text)
	if err != nil {
		t.Fatal(err)
	}
	return tag
}

func image(t *testing.T) v1.Image {
	t.Helper()
	i, err := random.Image(3000, 3)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func (w *world) armToken(t *testing.T) string {
	t.Helper()
	sp, credential, err := w.directory.CheckSecret(t.Context(), w.first.ClientID, w.first.Secret, "test")
	if err != nil {
		t.Fatal(err)
	}
	resource, err := w.directory.Resource(t.Context(), "https://management.test")
	if err != nil {
		t.Fatal(err)
	}
	token, err := w.directory.PrincipalToken(t.Context(), sp, resource, credential)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestPushAndPull(t *testing.T) {
	w := start(t)
	for who, auth := range map[string]authn.Authenticator{
		"principal": w.owner(),
		"admin":     &authn.Basic{Username: "admin", Password: w.first.Password},
		"token":     &authn.Basic{Username: identity.TokenUser, Password: w.armToken(t)},
		"bearer":    &authn.Bearer{Token: w.armToken(t)},
	} {
		t.Run(who, func(t *testing.T) {
			pushed, tag := image(t), w.tag(t, "team/"+who+":1")
			if err := remote.Write(tag, pushed, w.options(auth)...); err != nil {
				t.Fatal(err)
			}
			pulled, err := remote.Image(tag, w.options(authn.Anonymous)...)
			if err != nil {
				t.Fatal(err)
			}
			if err := validate.Image(pulled); err != nil {
				t.Error(err)
			}
			want, err := pushed.Digest()
			if err != nil {
				t.Fatal(err)
			}
			if got, err := crane.Digest(tag.Name(), crane.WithTransport(w.client.Transport)); err != nil || got != want.String() {
				t.Errorf("digest %s, want %s, %v", got, want, err)
			}
		})
	}
}

func TestWritesNeedAnOwner(t *testing.T) {
	w := start(t)
	stranger, secret, err := w.directory.CreateApplication(t.Context(), "stranger", 1<<50)
	if err != nil {
		t.Fatal(err)
	}
	for who, auth := range map[string]authn.Authenticator{
		"nobody":         authn.Anonymous,
		"wrong secret":   &authn.Basic{Username: w.first.ClientID, Password: "wrong"},
		"wrong password": &authn.Basic{Username: "admin", Password: "wrong"},
		"no role":        &authn.Basic{Username: stranger.AppID, Password: secret},
		"no token":       &authn.Bearer{Token: "a.b.c"},
	} {
		if err := remote.Write(w.tag(t, "x:1"), image(t), w.options(auth)...); err == nil {
			t.Errorf("%s may push", who)
		}
	}
	if entries, err := os.ReadDir(w.dir + "/docker/registry/v2"); err != nil || len(entries) != 0 {
		t.Errorf("refused writes left %v, %v", entries, err)
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, "PROPFIND"} {
		status, challenge := w.raw(t, method, "/v2/x/manifests/1", "")
		if want := `Bearer realm="` + w.url + `/oauth2/token",service="` + w.host + `",scope="repository:x:`; status != 401 || !strings.HasPrefix(challenge, want) {
			t.Errorf("%s: %d %q", method, status, challenge)
		}
	}
	if status, challenge := w.raw(t, http.MethodGet, "/v2/", ""); status != 401 || !strings.HasPrefix(challenge, "Bearer realm=") {
		t.Errorf("first request: %d %q", status, challenge)
	}
	if status, _ := w.raw(t, http.MethodGet, "/v2/_catalog", ""); status != 401 {
		t.Errorf("the list of all images is for owners: %d", status)
	}
}

func (w *world) raw(t *testing.T, method, path, authorization string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, w.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.URL.Opaque = "//" + w.host + path // as it is, uncleaned
	if authorization != "" {
		request.Header.Set("Authorization", authorization)
	}
	transport := w.client.Transport
	answer, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, answer.Body)
	_ = answer.Body.Close()
	return answer.StatusCode, answer.Header.Get("WWW-Authenticate")
}

func TestSignInEndsWithThePrincipal(t *testing.T) {
	w := start(t)
	user, err := w.directory.CreateUser(t.Context(), "pusher", "Pusher", "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.directory.AssignRole(t.Context(), user.ID, identity.GlobalAdministrator); err != nil {
		t.Fatal(err)
	}
	options := w.options(&authn.Basic{Username: "pusher", Password: "correct horse"})
	pusher, err := remote.NewPusher(options...)
	if err != nil {
		t.Fatal(err)
	}
	if err := pusher.Push(t.Context(), w.tag(t, "p:1"), image(t)); err != nil {
		t.Fatal(err)
	}
	if err := w.directory.DeleteUser(t.Context(), user.ID); err != nil {
		t.Fatal(err)
	}
	if err := pusher.Push(t.Context(), w.tag(t, "p:2"), image(t)); err == nil {
		t.Error("a deleted user's token of the registry still pushes")
	}
}

func TestTokensOfTheRegistryAreLimited(t *testing.T) {
	w := start(t)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+"/oauth2/token?scope=repository:mine:pull,push&service=x", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.SetBasicAuth(w.first.ClientID, w.first.Secret)
	answer, err := w.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != 200 {
		t.Fatalf("%d %s %v", answer.StatusCode, body, err)
	}
	token := strings.Split(strings.SplitN(string(body), `"token":"`, 2)[1], `"`)[0]
	if status, _ := w.raw(t, http.MethodPost, "/v2/mine/blobs/uploads/", "Bearer "+token); status != 202 {
		t.Errorf("its own repository: %d", status)
	}
	if status, _ := w.raw(t, http.MethodPost, "/v2/other/blobs/uploads/", "Bearer "+token); status != 401 {
		t.Errorf("another repository: %d", status)
	}
	if status, _ := w.raw(t, http.MethodPost, "/v2/mine/blobs/uploads/", "Bearer "+token+"x"); status != 401 {
		t.Errorf("a changed token: %d", status)
	}
	wrong, err := w.client.PostForm(w.url+"/oauth2/token", url.Values{"grant_type": {"password"}, "username": {"admin"}, "password": {"no"}})
	if err != nil {
		t.Fatal(err)
	}
	_ = wrong.Body.Close()
	if wrong.StatusCode != 401 {
		t.Errorf("docker login with a wrong password: %d", wrong.StatusCode)
	}
}

func TestDamagedBlobIsRefused(t *testing.T) {
	w := start(t)
	content := "what was sent"
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte("something else")))
	upload := func(digest string) int {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.url+"/v2/x/blobs/uploads/", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.SetBasicAuth(w.first.ClientID, w.first.Secret)
		begun, err := w.client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = begun.Body.Close()
		location, err := begun.Location()
		if err != nil {
			t.Fatal(err)
		}
		location.RawQuery += "&digest=" + url.QueryEscape(digest)
		if request, err = http.NewRequestWithContext(t.Context(), http.MethodPut, location.String(), strings.NewReader(content)); err != nil {
			t.Fatal(err)
		}
		request.SetBasicAuth(w.first.ClientID, w.first.Secret)
		ended, err := w.client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = ended.Body.Close()
		return ended.StatusCode
	}
	if status := upload(digest); status != 400 {
		t.Errorf("a blob that isn't its digest: %d", status)
	}
	if status, _ := w.raw(t, http.MethodHead, "/v2/x/blobs/"+digest, ""); status != 404 {
		t.Errorf("it is there all the same: %d", status)
	}
	if status := upload(fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(content)))); status != 201 {
		t.Errorf("control: %d", status)
	}
}

func TestPathsOutsideAreRefused(t *testing.T) {
	w := start(t)
	basic := "Bearer " + w.armToken(t)
	for _, path := range []string{
		"/v2/../../etc/passwd", "/v2/%2e%2e/%2e%2e/etc/manifests/1", "/v2/a/../../../b/manifests/1", "/v2/a%2f..%2f..%2fb/blobs/uploads/",
		"/v2/UPPER/manifests/1", "/v2/a/manifests/..%2f..%2fx", "/v2/a/blobs/sha256:../../../../etc/passwd", "/v2/a/blobs/uploads/..%2f..%2f..%2fx", "/etc/passwd", "/",
	} {
		for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodPost, http.MethodDelete} {
			if status, _ := w.raw(t, method, path, basic); status/100 == 2 {
				t.Errorf("%s %s: %d", method, path, status)
			}
		}
	}
}
