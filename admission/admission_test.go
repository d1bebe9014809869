// SPDX-License-Identifier: Apache-2.0

package admission

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"

	"bastide.dev/pki"
)

const (
	tenant    = "11111111-1111-1111-1111-111111111111"
	authority = "https://login.test.internal/"
	clientID  = "22222222-2222-2222-2222-222222222222"
)

func settings(t testing.TB) Settings {
	t.Helper()
	ca, err := pki.NewCA("Bastide  Test CA", 1<<40)
	if err != nil {
		t.Fatal(err)
	}
	return Settings{Tenant: tenant, Authority: authority, CA: ca.Certificate}
}

// mutated applies what Mutate says, by a library of others.
func mutated(t *testing.T, text string, account map[string]string, s Settings) (map[string]any, int) {
	t.Helper()
	operations, err := Mutate([]byte(text), account, s)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(operations)
	if err != nil {
		t.Fatal(err)
	}
	out := []byte(text)
	if len(operations) > 0 {
		patch, err := jsonpatch.DecodePatch(raw)
		if err != nil {
			t.Fatal(err)
		}
		if out, err = patch.Apply([]byte(text)); err != nil {
			t.Fatalf("%v of %s", err, raw)
		}
	}
	var pod map[string]any
	if err := json.Unmarshal(out, &pod); err != nil {
		t.Fatal(err)
	}
	return pod, len(operations)
}

// at follows a path of names and indices.
func at(v any, path ...any) any {
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[p]
		case int:
			l, _ := v.([]any)
			if p >= len(l) {
				return nil
			}
			v = l[p]
		}
	}
	return v
}

// env is a container's environment.
func env(pod map[string]any, list string, i int) map[string]any {
	all := map[string]any{}
	variables, _ := at(pod, "spec", list, i, "env").([]any)
	for _, v := range variables {
		name := at(v, "name").(string)
		if _, twice := all[name]; twice {
			all[name+" twice"] = true
		}
		all[name] = at(v, "value")
	}
	return all
}

const simple = `{"metadata":{"labels":{"azure.workload.identity/use":"true"}},"spec":{"containers":[{"name":"a"},{"name":"b","env":[{"name":"X","value":"1"}],
	"volumeMounts":[{"name":"v","mountPath":"/v"}]}],"initContainers":[{"name":"i"}],"volumes":[{"name":"v"}]}}`

func TestEveryContainerHasItsIdentity(t *testing.T) {
	s := settings(t)
	pod, _ := mutated(t, simple, map[string]string{clientIDAnnotation: clientID}, s)
	for _, c := range []struct {
		list string
		i    int
	}{{"containers", 0}, {"containers", 1}, {"initContainers", 0}} {
		got := env(pod, c.list, c.i)
		for name, want := range map[string]string{"AZURE_CLIENT_ID": clientID, "AZURE_TENANT_ID": tenant, "AZURE_AUTHORITY_HOST": authority,
			"AZURE_FEDERATED_TOKEN_FILE": "/var/run/secrets/azure/tokens/azure-identity-token", "SSL_CERT_DIR": trustDirs, "NODE_EXTRA_CA_CERTS": "/var/run/secrets/azure/ca/ca.crt"} {
			if got[name] != want {
				t.Errorf("%s %d: %s is %v", c.list, c.i, name, got[name])
			}
		}
		mounts, _ := json.Marshal(at(pod, "spec", c.list, c.i, "volumeMounts"))
		for _, want := range []string{tokenMount, trustMount} {
			if strings.Count(string(mounts), `"`+want+`"`) != 1 {
				t.Errorf("%s %d: mounts %s", c.list, c.i, mounts)
			}
		}
	}
	if env(pod, "containers", 1)["X"] != "1" || at(pod, "spec", "volumes", 0, "name") != "v" {
		t.Error("what was there is gone")
	}
	token := at(pod, "spec", "volumes", 1, "projected", "sources", 0, "serviceAccountToken")
	if at(token, "audience") != Audience || at(token, "expirationSeconds") != 3600.0 || at(token, "path") != tokenPath {
		t.Errorf("token %v", token)
	}
	if at(pod, "metadata", "annotations", trustAnnotation) != string(s.CA) {
		t.Error("the pod doesn't carry the instance's CA")
	}
}

// TestTwiceIsOnce: what the API server asks about again stays as it is.
func TestTwiceIsOnce(t *testing.T) {
	s := settings(t)
	account := map[string]string{clientIDAnnotation: clientID}
	pod, _ := mutated(t, simple, account, s)
	text, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	if _, n := mutated(t, string(text), account, s); n != 0 {
		t.Errorf("%d operations more", n)
	}
}

func TestWhatIsSetStays(t *testing.T) {
	pod, _ := mutated(t, `{"metadata":{"annotations":{"azure.workload.identity/skip-containers":"side ; x","a":"b"}},"spec":{"containers":[
		{"name":"a","env":[{"name":"AZURE_CLIENT_ID","value":"mine"},{"name":"AZURE_AUTHORITY_HOST","value":"https://mine/"},{"name":"SSL_CERT_FILE","value":"/mine"}],
		 "volumeMounts":[{"name":"own","mountPath":"/var/run/secrets/azure/tokens/"}]},
		{"name":"side"},{"name":"x","env":[]}],"volumes":[{"name":"azure-identity-token","emptyDir":{}}]}}`,
		map[string]string{clientIDAnnotation: clientID, tenantIDAnnotation: "adfs"}, settings(t))
	got := env(pod, "containers", 0)
	for name, want := range map[string]any{"AZURE_CLIENT_ID": "mine", "AZURE_AUTHORITY_HOST": "https://mine/", "SSL_CERT_FILE": "/mine", "SSL_CERT_DIR": nil,
		"AZURE_TENANT_ID": "adfs", "AZURE_CLIENT_ID twice": nil} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	if len(env(pod, "containers", 1)) != 0 || len(env(pod, "containers", 2)) != 0 || at(pod, "spec", "containers", 1, "volumeMounts") != nil {
		t.Error("a skipped container was changed")
	}
	if at(pod, "spec", "volumes", 0, "emptyDir") == nil || at(pod, "spec", "volumes", 2) != nil {
		t.Errorf("volumes %v", at(pod, "spec", "volumes"))
	}
	if at(pod, "metadata", "annotations", "a") != "b" {
		t.Error("an annotation is gone")
	}
}

func TestNoClientIDUnlessAnnotated(t *testing.T) {
	pod, _ := mutated(t, simple, nil, Settings{Tenant: tenant, Authority: authority})
	got := env(pod, "containers", 0)
	if _, has := got["AZURE_CLIENT_ID"]; has || got["AZURE_TENANT_ID"] != tenant || got["SSL_CERT_DIR"] != nil {
		t.Errorf("environment %v", got)
	}
}

func TestExpiration(t *testing.T) {
	for _, row := range []struct {
		pod, account string
		want         float64 // 0: refused
	}{{"", "", 3600}, {"7200", "", 7200}, {"", "86400", 86400}, {"3600", "nonsense", 3600}, {"3599", "", 0}, {"86401", "", 0}, {"", "x", 0}, {"1e4", "", 0}, {"-1", "7200", 0}} {
		text := `{"metadata":{"annotations":{"azure.workload.identity/service-account-token-expiration":"` + row.pod + `"}},"spec":{"containers":[{"name":"a"}]}}`
		account := map[string]string{expirationAnnotation: row.account}
		if row.want == 0 {
			if _, err := Mutate([]byte(text), account, settings(t)); err == nil {
				t.Errorf("%q and %q were taken", row.pod, row.account)
			}
			continue
		}
		pod, _ := mutated(t, text, account, settings(t))
		if got := at(pod, "spec", "volumes", 0, "projected", "sources", 0, "serviceAccountToken", "expirationSeconds"); got != row.want {
			t.Errorf("%q and %q: %v", row.pod, row.account, got)
		}
	}
}

// TestHashIsOpenSSLs compares with the program that has to find the file.
func TestHashIsOpenSSLs(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatal(err) // a base package of Debian's
	}
	for _, name := range []string{"Bastide CA", "  two   spaces ", "ÄÖÜ umlauts", "UPPER*case"} {
		ca, err := pki.NewCA(name, 1<<50)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "ca.crt")
		if err := os.WriteFile(file, ca.Certificate, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(openssl, "x509", "-noout", "-subject_hash", "-in", file).Output()
		if err != nil {
			t.Fatal(err)
		}
		got, err := newTrust(ca.Certificate)
		if err != nil {
			t.Fatal(err)
		}
		if want := strings.TrimSpace(string(out)) + ".0"; got.names[0] != want {
			t.Errorf("%q: %v, openssl says %s", name, got.names, want)
		}
	}
	if _, err := newTrust([]byte("no certificate")); err == nil {
		t.Error("nonsense was taken for a certificate")
	}
}

func handler(t *testing.T, on bool) *Handler {
	t.Helper()
	s := settings(t)
	return &Handler{Config{
		Settings: func() (Settings, bool) { return s, on },
		ServiceAccount: func(_ context.Context, namespace, name string) (map[string]string, error) {
			if namespace != "shop" || name != "default" {
				return nil, errors.New("secret detail of the server")
			}
			return map[string]string{clientIDAnnotation: clientID}, nil
		},
		Logger: slog.New(slog.DiscardHandler),
	}}
}

func ask(t *testing.T, h *Handler, resource, sub, namespace, pod string) *response {
	t.Helper()
	body, err := json.Marshal(map[string]any{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": map[string]any{
		"uid": "u-1", "operation": "CREATE", "namespace": namespace, "subResource": sub,
		"resource": map[string]string{"group": "", "version": "v1", "resource": resource}, "object": json.RawMessage(pod)}})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, Path, bytes.NewReader(body)))
	var answer review
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || answer.Response == nil || answer.Response.UID != "u-1" {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	return answer.Response
}

func TestReview(t *testing.T) {
	on, off := handler(t, true), handler(t, false)
	if r := ask(t, on, "pods", "", "shop", simple); !r.Allowed || r.PatchType != "JSONPatch" || !bytes.Contains(r.Patch, []byte(clientID)) {
		t.Errorf("%+v", r)
	}
	for name, r := range map[string]*response{
		"off":       ask(t, off, "pods", "", "shop", simple),
		"unasked":   ask(t, on, "pods", "", "shop", strings.Replace(simple, `"true"`, `"false"`, 1)),
		"other":     ask(t, on, "services", "", "shop", simple),
		"ephemeral": ask(t, on, "pods", "ephemeralcontainers", "shop", simple),
	} {
		if !r.Allowed || len(r.Patch) > 0 {
			t.Errorf("%s: %+v", name, r)
		}
	}
	r := ask(t, on, "pods", "", "elsewhere", simple)
	if r.Allowed || r.Status == nil || strings.Contains(r.Status.Message, "secret detail") {
		t.Errorf("no account: %+v", r.Status)
	}
	proxied := strings.Replace(simple, `"labels"`, `"annotations":{"azure.workload.identity/inject-proxy-sidecar":"true"},"labels"`, 1)
	if r := ask(t, on, "pods", "", "shop", proxied); r.Allowed || !strings.Contains(r.Status.Message, "inject-proxy-sidecar") {
		t.Errorf("proxy: %+v", r)
	}
	for _, body := range []string{"", "{}", "[]", `{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview","request":{}}`} {
		w := httptest.NewRecorder()
		if on.ServeHTTP(w, httptest.NewRequest(http.MethodPost, Path, strings.NewReader(body))); w.Code != http.StatusBadRequest {
			t.Errorf("%q: %d", body, w.Code)
		}
	}
}

// TestServe: reviews come over TLS, and the listener ends with its context.
func TestServe(t *testing.T) {
	pair, err := pki.NewCA("ca", 1<<50)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := pki.OpenCA(pair)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.Issue(pki.Request{CommonName: "webhook", DNS: []string{"localhost"}, Server: true, Lifetime: 1 << 50})
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := leaf.TLS()
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, listener, certificate, handler(t, true)) }()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.Certificate())
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "localhost"}}}
	response, err := client.Post("https://"+listener.Addr().String()+Path, "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	if _ = response.Body.Close(); response.StatusCode != http.StatusBadRequest {
		t.Errorf("status %d", response.StatusCode)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", listener.Addr().String()); err == nil {
		t.Error("it listens still")
	}
}

func FuzzMutate(f *testing.F) {
	f.Add([]byte(simple), "7200")
	f.Add([]byte(`{"metadata":{"annotations":{}},"spec":{"containers":[{"env":null}]}}`), "")
	s := settings(f)
	f.Fuzz(func(t *testing.T, pod []byte, expiration string) {
		operations, err := Mutate(pod, map[string]string{expirationAnnotation: expiration}, s)
		if err != nil || !json.Valid(pod) {
			return
		}
		for _, o := range operations {
			if o.Op != "add" || !strings.HasPrefix(o.Path, "/spec/") && !strings.HasPrefix(o.Path, "/metadata/annotations") {
				t.Errorf("%+v", o)
			}
		}
	})
}
