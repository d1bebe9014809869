// SPDX-License-Identifier: Apache-2.0

package login_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"bastide.dev/identity"
	"bastide.dev/identity/graph"
	"bastide.dev/identity/login"
	"bastide.dev/store"
	"bastide.dev/store/memory"
)

// world is a token service behind TLS on a port of its own. The same address
// stands for Resource Manager and Graph.
type world struct {
	url       string
	ca        string // file
	leaf      *x509.Certificate
	directory *identity.Directory
	first     identity.Bootstrapped
	client    *http.Client
	store     store.Store
	tokens    *login.Service

	federated string // the assertion of another issuer that is trusted

	mu       sync.Mutex // guards the following
	offset   time.Duration
	judge    func(identity.SignIn) identity.Verdict
	recorded []recorded
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.offset)
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.offset += d
}

func start(t testing.TB) *world {
	t.Helper()
	return startAs(t, "127.0.0.1")
}

// startAs gives the service a name, which passkeys need.
func startAs(t testing.TB, name string) *world {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	address := server.Listener.Addr().String()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{url: "https://" + net.JoinHostPort(name, port)}
	quiet := slog.New(slog.DiscardHandler)
	s := memory.New(0)
	w.store = s
	if w.directory, err = identity.New(identity.Config{Store: s, Log: quiet, Now: w.now,
		Endpoints: identity.Endpoints{Authority: w.url, ResourceManager: w.url, Graph: w.url + "/graph"}}); err != nil {
		t.Fatal(err)
	}
	if w.first, err = w.directory.Bootstrap(t.Context(), identity.BootstrapOptions{Domain: "bastide.test"}); err != nil {
		t.Fatal(err)
	}
	w.tokens, err = login.New(login.Config{Directory: w.directory, Store: s, Gate: w, Journal: w, Federation: w, Log: quiet, Now: w.now})
	if err != nil {
		t.Fatal(err)
	}
	objects, err := graph.New(graph.Config{Directory: w.directory, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/", w.tokens)
	mux.Handle("/graph/", http.StripPrefix("/graph", objects))
	mux.HandleFunc("GET /subscriptions", w.subscriptions)
	mux.HandleFunc("GET /tenants", w.tenants)
	server.Config.Handler = mux
	server.StartTLS()
	t.Cleanup(server.Close)
	w.client = server.Client()
	transport, ok := w.client.Transport.(*http.Transport)
	if !ok {
		t.Fatalf("a transport of type %T", w.client.Transport)
	}
	transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	w.leaf = server.Certificate()
	w.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	w.ca = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(w.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return w
}

// subscriptions is the one question that az asks ARM to end a login.
func (w *world) subscriptions(rw http.ResponseWriter, r *http.Request) {
	w.guarded(rw, r, map[string]any{"id": "/subscriptions/" + w.first.Tenant.SubscriptionID, "subscriptionId": w.first.Tenant.SubscriptionID,
		"tenantId": w.first.Tenant.ID, "displayName": "test", "state": "Enabled", "subscriptionPolicies": map[string]any{}, "managedByTenants": []any{}})
}

func (w *world) tenants(rw http.ResponseWriter, r *http.Request) {
	w.guarded(rw, r, map[string]any{"id": "/tenants/" + w.first.Tenant.ID, "tenantId": w.first.Tenant.ID})
}

func (w *world) guarded(rw http.ResponseWriter, r *http.Request, value any) {
	if _, err := w.directory.Authenticate(r.Context(), strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")); err != nil {
		http.Error(rw, err.Error(), http.StatusUnauthorized)
		return
	}
	rw.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(rw).Encode(map[string]any{"value": []any{value}})
}

// post sends a form and returns status and decoded answer.
func (w *world) post(t testing.TB, path string, form url.Values) (int, map[string]any) {
	t.Helper()
	answer, err := w.client.PostForm(w.url+path, form)
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, answer)
}

func decode(t testing.TB, answer *http.Response) (int, map[string]any) {
	t.Helper()
	defer func() { _ = answer.Body.Close() }()
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	var value map[string]any
	if err := json.Unmarshal(data, &value); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
	return answer.StatusCode, value
}

func (w *world) userForm() url.Values {
	return url.Values{"grant_type": {"password"}, "client_id": {identity.AppCLI}, "username": {w.first.Administrator},
		"password": {w.first.Password}, "scope": {w.url + "/.default openid profile offline_access"}}
}

func (w *world) secretForm() url.Values {
	return url.Values{"grant_type": {"client_credentials"}, "client_id": {w.first.ClientID}, "client_secret": {w.first.Secret}, "scope": {w.url + "/.default"}}
}

func with(form url.Values, pairs ...string) url.Values {
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			form.Del(pairs[i])
		} else {
			form.Set(pairs[i], pairs[i+1])
		}
	}
	return form
}

func TestTokensOfEachPath(t *testing.T) {
	w := start(t)
	for _, path := range []string{"/adfs/oauth2/token", "/" + w.first.Tenant.ID + "/oauth2/v2.0/token", "/bastide.test/oauth2/v2.0/token", "/common/oauth2/v2.0/token"} {
		for _, form := range []url.Values{w.userForm(), w.secretForm()} {
			status, answer := w.post(t, path, form)
			if status != http.StatusOK || answer["expires_in"] != 3599.0 {
				t.Fatalf("%s %s: %d %v", path, form.Get("grant_type"), status, answer)
			}
			p, err := w.directory.Authenticate(t.Context(), answer["access_token"].(string))
			if err != nil {
				t.Errorf("%s: %v", path, err)
			}
			if isUser := form.Get("grant_type") == "password"; isUser != (p.Kind == identity.UserKind) || isUser != (answer["refresh_token"] != nil) || isUser != (answer["client_info"] != nil) {
				t.Errorf("%s: %+v %v", path, p, answer)
			}
		}
	}
	status, answer := w.post(t, "/"+w.first.Tenant.ID+"/oauth2/token", with(w.secretForm(), "scope", "", "resource", "https://management.core.windows.net/"))
	if status != http.StatusOK || answer["expires_in"] != "3599" || answer["resource"] != "https://management.core.windows.net/" {
		t.Errorf("version 1: %d %v", status, answer)
	}
}

func TestRefusals(t *testing.T) {
	w := start(t)
	path := "/" + w.first.Tenant.ID + "/oauth2/v2.0/token"
	for name, c := range map[string]struct {
		path   string
		form   url.Values
		status int
		code   string
		number float64
	}{
		"wrong secret":      {path, with(w.secretForm(), "client_secret", "nope"), 401, "invalid_client", 7000215},
		"no secret":         {path, with(w.secretForm(), "client_secret", ""), 401, "invalid_client", 7000218},
		"unknown client":    {path, with(w.secretForm(), "client_id", "33333333-3333-3333-3333-333333333333"), 400, "unauthorized_client", 700016},
		"assertion, secret": {path, with(w.secretForm(), "client_assertion", "x"), 400, "invalid_request", 90013},
		"unknown resource":  {path, with(w.secretForm(), "scope", "https://nowhere.test/.default"), 400, "invalid_resource", 500011},
		"no .default":       {path, with(w.secretForm(), "scope", w.url+"/read"), 400, "invalid_scope", 1002012},
		"two resources":     {path, with(w.userForm(), "scope", w.url+"/a https://graph.microsoft.com/b"), 400, "invalid_scope", 28000},
		"wrong password":    {path, with(w.userForm(), "password", "nope"), 400, "invalid_grant", 50126},
		"unknown user":      {path, with(w.userForm(), "username", "nobody@bastide.test"), 400, "invalid_grant", 50126},
		"public app alone":  {path, with(w.userForm(), "grant_type", "client_credentials"), 400, "unauthorized_client", 7000218},
		"public app secret": {path, with(w.userForm(), "client_secret", "x"), 401, "invalid_client", 700025},
		"no grant":          {path, with(w.userForm(), "grant_type", ""), 400, "invalid_request", 900144},
		"unknown grant":     {path, with(w.userForm(), "grant_type", "magic"), 400, "unsupported_grant_type", 70003},
		"twice":             {path, url.Values{"grant_type": {"password", "password"}}, 400, "invalid_request", 90013},
		"bad refresh":       {path, with(w.userForm(), "grant_type", "refresh_token", "refresh_token", "a.b"), 400, "invalid_grant", 70000},
		"path in refresh":   {path, with(w.userForm(), "grant_type", "refresh_token", "refresh_token", "../devices/AAAAAAAAAAA.b"), 400, "invalid_grant", 70000},
		"foreign tenant":    {"/44444444-4444-4444-4444-444444444444/oauth2/token", w.secretForm(), 400, "invalid_request", 90002},
	} {
		t.Run(name, func(t *testing.T) {
			status, answer := w.post(t, c.path, c.form)
			numbers, _ := answer["error_codes"].([]any)
			if status != c.status || answer["error"] != c.code || len(numbers) != 1 || numbers[0] != c.number {
				t.Errorf("%d %v", status, answer)
			}
		})
	}
	answer, err := w.client.Post(w.url+path, "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	if status, body := decode(t, answer); status != 400 || body["error"] != "invalid_request" {
		t.Errorf("JSON body: %d %v", status, body)
	}
	answer, err = w.client.Post(w.url+path+"?grant_type=password", "application/x-www-form-urlencoded", strings.NewReader("x="+strings.Repeat("y", 1<<20)))
	if err != nil {
		t.Fatal(err)
	}
	if status, body := decode(t, answer); status != 400 || body["error"] != "invalid_request" {
		t.Errorf("large body: %d %v", status, body)
	}
}

func TestRefreshRotatesAndReuseEndsAll(t *testing.T) {
	w := start(t)
	path := "/" + w.first.Tenant.ID + "/oauth2/v2.0/token"
	_, answer := w.post(t, path, w.userForm())
	first := answer["refresh_token"].(string)
	refresh := func(token string) (int, map[string]any) {
		return w.post(t, path, url.Values{"grant_type": {"refresh_token"}, "client_id": {identity.AppCLI}, "refresh_token": {token}, "scope": {"https://graph.microsoft.com/.default offline_access"}})
	}
	status, answer := refresh(first)
	second, _ := answer["refresh_token"].(string)
	if status != 200 || second == "" || second == first {
		t.Fatalf("%d %v", status, answer)
	}
	if status, answer := refresh(first); status != 200 || answer["refresh_token"] != nil {
		t.Errorf("two processes at once: %d %v", status, answer)
	}
	if status, answer := w.post(t, path, url.Values{"grant_type": {"refresh_token"}, "client_id": {identity.AppPowerShell}, "refresh_token": {second}}); status != 400 {
		t.Errorf("another client's: %d %v", status, answer)
	}
	w.pass(time.Minute)
	if status, answer := refresh(first); status != 400 || answer["error"] != "invalid_grant" {
		t.Errorf("used again: %d %v", status, answer)
	}
	if status, answer := refresh(second); status != 400 || answer["error"] != "invalid_grant" {
		t.Errorf("its successor must have ended: %d %v", status, answer)
	}
	_, answer = w.post(t, path, w.userForm())
	user, err := w.directory.User(t.Context(), w.first.Administrator)
	if err != nil {
		t.Fatal(err)
	}
	w.pass(2 * time.Second)
	if err := w.directory.SetPassword(t.Context(), user.ID, "a new password"); err != nil {
		t.Fatal(err)
	}
	if status, answer := refresh(answer["refresh_token"].(string)); status != 400 || answer["error_codes"].([]any)[0] != 50173.0 {
		t.Errorf("after a new password: %d %v", status, answer)
	}
}

func TestDeviceCode(t *testing.T) {
	w := start(t)
	base := "/" + w.first.Tenant.ID + "/oauth2/v2.0/"
	_, begun := w.post(t, base+"devicecode", url.Values{"client_id": {identity.AppCLI}, "scope": {w.url + "/.default offline_access openid"}})
	poll := func() (int, map[string]any) {
		return w.post(t, base+"token", url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "client_id": {identity.AppCLI}, "device_code": {begun["device_code"].(string)}})
	}
	if status, answer := poll(); status != 400 || answer["error"] != "authorization_pending" {
		t.Fatalf("%d %v", status, answer)
	}
	b := w.browser(t)
	b.get("/device")
	b.send("code", "user_code", strings.ToLower(begun["user_code"].(string)))
	if b.password("wrong"); b.at.status != 400 {
		t.Errorf("wrong password: %d", b.at.status)
	}
	b.origin = "https://evil.test"
	if b.password(w.first.Password); b.at.status != 400 || b.signedIn() {
		t.Errorf("a foreign page's form: %d", b.at.status)
	}
	b.origin = w.url
	b.get("/device")
	b.send("code", "user_code", strings.ToLower(begun["user_code"].(string)))
	if b.password(w.first.Password); !strings.Contains(b.at.text, "at this moment") || !strings.Contains(b.at.text, "Microsoft Azure CLI") {
		t.Errorf("the question whether the device is theirs: %d %s", b.at.status, b.at.text)
	}
	if status, answer := poll(); status != 400 || answer["error"] != "authorization_pending" {
		t.Fatalf("%d %v", status, answer)
	}
	if b.send("approve"); b.at.status != 200 {
		t.Fatalf("sign-in: %d", b.at.status)
	}
	if status, answer := poll(); status != 200 || answer["id_token"] == nil || answer["refresh_token"] == nil {
		t.Fatalf("%d %v", status, answer)
	}
	if status, answer := poll(); status != 400 || answer["error"] != "invalid_grant" {
		t.Errorf("a second time: %d %v", status, answer)
	}
	_, begun = w.post(t, base+"devicecode", url.Values{"client_id": {identity.AppCLI}})
	w.pass(16 * time.Minute)
	if status, answer := poll(); status != 400 || answer["error"] != "expired_token" {
		t.Errorf("too late: %d %v", status, answer)
	}
}
