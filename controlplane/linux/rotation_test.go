// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bastide.dev/controlplane"
	"bastide.dev/pki"
)

// rotated is a spec whose authorities have successors that it believes beside
// the former.
func rotated(t *testing.T, spec controlplane.Spec) controlplane.Spec {
	t.Helper()
	trust := spec.Keys.Trust()
	spec.Keys.Former = trust
	for name, pair := range map[string]*controlplane.KeyPair{"ca-2": &spec.Keys.CA, "local-2": &spec.Keys.LocalCA, "front-proxy-2": &spec.Keys.FrontProxyCA, "etcd-2": &spec.Keys.EtcdCA} {
		ca, err := pki.OpenCA(pki.Pair(*pair))
		if err != nil {
			t.Fatal(err)
		}
		next, err := ca.Succeed(name, 24*time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		*pair = controlplane.KeyPair(next)
	}
	return spec
}

// workload asks a hundred times a second as a pod does: with a token, and with
// nothing but the root certificate that it read at its start.
type workload struct {
	stop   func()
	ended  sync.WaitGroup
	asked  atomic.Int64
	mu     sync.Mutex // guards failed
	failed []string
}

func (r *rig) workload(spec controlplane.Spec, root []byte, token string) *workload {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	w := &workload{stop: cancel}
	pool, err := pki.Pool(root)
	if err != nil {
		r.t.Fatal(err)
	}
	w.ended.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			// Every other request meets the API server anew.
			transport := &http.Transport{DialContext: Dialer(filepath.Join(r.dir, spec.Namespace)), TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
			w.ask(&http.Client{Transport: transport, Timeout: 10 * time.Second}, token)
			transport.CloseIdleConnections()
		}
	})
	return w
}

func (w *workload) ask(client *http.Client, token string) {
	request, err := http.NewRequest(http.MethodPost, "https://127.0.0.1/apis/authentication.k8s.io/v1/selfsubjectreviews", strings.NewReader(`{}`))
	if err == nil {
		request.Header.Set("Authorization", "Bearer "+token)
		request.Header.Set("Content-Type", "application/json")
		var response *http.Response
		if response, err = client.Do(request); err == nil {
			response.Body.Close()
			if response.StatusCode != http.StatusCreated {
				w.fail(response.Status)
			}
		}
	}
	if err != nil {
		w.fail(err.Error())
	}
	w.asked.Add(1)
}

func (w *workload) fail(why string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failed = append(w.failed, why)
}

func (w *workload) end(t *testing.T, who string) {
	t.Helper()
	w.stop()
	w.ended.Wait()
	if len(w.failed) > 0 || w.asked.Load() == 0 {
		t.Errorf("%s: %d of %d requests failed: %v", who, len(w.failed), w.asked.Load(), w.failed[:min(len(w.failed), 5)])
	}
	t.Logf("%s: %d requests", who, w.asked.Load())
}

// runsWith tells that all of a spec's authorities count, and no others.
func runsWith(spec controlplane.Spec) func(controlplane.Status) bool {
	return func(s controlplane.Status) bool {
		return ready(s) && s.Authorities != nil && s.Authorities.Running == spec.Keys.Digest() && s.Authorities.Server == pki.Name(spec.Keys.CA.Certificate) &&
			slices.Equal(s.Authorities.Clients, spec.Keys.ClientNames())
	}
}

func TestAuthoritiesRotateUnnoticed(t *testing.T) {
	r := newRig(t)
	spec := r.spec("rotate")
	for name, pair := range map[string]*controlplane.KeyPair{"ca": &spec.Keys.CA, "local": &spec.Keys.LocalCA, "front-proxy": &spec.Keys.FrontProxyCA, "etcd": &spec.Keys.EtcdCA} {
		made, err := pki.NewRoot(name, 24*time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		*pair = controlplane.KeyPair(made)
	}
	r.apply(spec)
	r.until(spec.ID, "ready", runsWith(spec))
	old := spec
	admin := r.admin(old)
	token := r.podToken(admin)
	pods := r.workload(spec, spec.Keys.CA.Certificate, token)

	spec = rotated(t, old)
	begin := time.Now()
	r.apply(spec)
	r.until(spec.ID, "at its new authorities", runsWith(spec))
	news := r.workload(spec, pki.First(spec.Keys.CA.Certificate), token)
	if code, _ := admin.do("GET", "/api/v1/nodes", nil); code != http.StatusOK {
		t.Errorf("a certificate of the old authority is answered %d while both are believed", code)
	}
	spec.Keys.Former = controlplane.Trusted{}
	r.apply(spec)
	status := r.until(spec.ID, "rid of its old authorities", runsWith(spec))
	t.Logf("rotated in %s", time.Since(begin).Round(time.Millisecond))
	pods.end(t, "pods that know the old root alone")
	news.end(t, "clients that know the new root alone")
	if len(status.Certificates) < 10 {
		t.Errorf("certificates: %+v", status.Certificates)
	}
	r.oldIsRefused(old, spec)
	r.signsForUsers(spec)
}

// signsForUsers: the controller manager signs what users ask for, with the new.
func (r *rig) signsForUsers(spec controlplane.Spec) {
	r.t.Helper()
	const requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
	admin := r.admin(spec)
	ask(r.t, admin, "mine", "kubernetes.io/kube-apiserver-client", []string{"client auth", "digital signature"}, "node-1", nil, "")
	var o map[string]any
	if err := json.Unmarshal(admin.must("GET", requests+"/mine", nil), &o); err != nil {
		r.t.Fatal(err)
	}
	o["status"] = map[string]any{"conditions": []any{map[string]any{"type": "Approved", "status": "True", "reason": "Test", "message": "test"}}}
	admin.must("PUT", requests+"/mine/approval", o)
	eventually(r.t, "the request is signed", func() bool {
		var made struct{ Status struct{ Certificate []byte } }
		if err := json.Unmarshal(admin.must("GET", requests+"/mine", nil), &made); err != nil {
			r.t.Fatal(err)
		}
		if len(made.Status.Certificate) == 0 {
			return false
		}
		ca, err := pki.OpenCA(pki.Pair(spec.Keys.CA))
		if err != nil || !ca.IssuedBy(made.Status.Certificate) {
			r.t.Errorf("it isn't signed by the new authority: %v", err)
		}
		return true
	})
}

// podToken is a token that lives as long as the cluster.
func (r *rig) podToken(admin *user) string {
	r.t.Helper()
	eventually(r.t, "the default account is there", func() bool {
		code, _ := admin.do("GET", "/api/v1/namespaces/default/serviceaccounts/default", nil)
		return code == http.StatusOK
	})
	var answer struct{ Status struct{ Token string } }
	raw := admin.must("POST", "/api/v1/namespaces/default/serviceaccounts/default/token", map[string]any{"spec": map[string]any{"expirationSeconds": 3600}})
	if err := json.Unmarshal(raw, &answer); err != nil || answer.Status.Token == "" {
		r.t.Fatalf("no token: %v", err)
	}
	return answer.Status.Token
}

// oldIsRefused: what the old authorities sign counts nowhere, though it comes
// with any chain that there is.
func (r *rig) oldIsRefused(old, now controlplane.Spec) {
	r.t.Helper()
	for name, pair := range map[string]controlplane.KeyPair{"cluster": old.Keys.CA, "local accounts": old.Keys.LocalCA, "front proxy": old.Keys.FrontProxyCA} {
		intruder := old
		intruder.Keys.CA = pair
		u := r.as(intruder, "admin", controlplane.MastersGroup)
		u.http.Transport.(*http.Transport).TLSClientConfig.RootCAs = mustPool(r.t, now.Keys.CA.Certificate)
		if code, _ := u.do("GET", "/api/v1/nodes", nil, "X-Remote-User", "admin", "X-Remote-Group", controlplane.MastersGroup); code != http.StatusUnauthorized {
			r.t.Errorf("the old authority of %s: a client is answered %d", name, code)
		}
	}
	for _, c := range []struct {
		spec controlplane.Spec
		ok   bool
	}{{old, false}, {now, true}} {
		ca, err := pki.OpenCA(pki.Pair(c.spec.Keys.EtcdCA))
		if err != nil {
			r.t.Fatal(err)
		}
		leaf, err := ca.Issue(pki.Request{CommonName: "kube-apiserver", Client: true, Lifetime: time.Hour})
		if err != nil {
			r.t.Fatal(err)
		}
		certificate, err := leaf.TLS()
		if err != nil {
			r.t.Fatal(err)
		}
		transport := &http.Transport{DialContext: Dialer(filepath.Join(r.dir, now.Namespace)), TLSClientConfig: &tls.Config{
			Certificates: []tls.Certificate{certificate}, RootCAs: mustPool(r.t, now.Keys.EtcdCA.Certificate), MinVersion: tls.VersionTLS12}}
		response, err := (&http.Client{Transport: transport, Timeout: 5 * time.Second}).Get("https://127.0.0.1:2379/health")
		if err == nil {
			response.Body.Close()
		}
		transport.CloseIdleConnections()
		if (err == nil) != c.ok {
			r.t.Errorf("etcd and a client of %s: %v", pki.Name(c.spec.Keys.EtcdCA.Certificate), err)
		}
	}
}

func mustPool(t *testing.T, bundle []byte) *x509.CertPool {
	t.Helper()
	pool, err := pki.Pool(bundle)
	if err != nil {
		t.Fatal(err)
	}
	return pool
}
