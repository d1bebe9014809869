// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bastide.dev/bundle"
	"bastide.dev/cgroup"
	"bastide.dev/controlplane"
	"bastide.dev/pki"
	"bastide.dev/supervise"
)

// rig is a Plane that a test can end and begin anew, with network namespaces.
type rig struct {
	*Plane
	t    *testing.T
	dir  string
	stop func()
}

func newRig(t *testing.T) *rig {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("needs root: it makes network namespaces and starts processes under other uids")
	}
	dir, err := os.MkdirTemp("/var/tmp", "bastide-controlplane-test-") // on disk: etcd syncs
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, dir: dir}
	r.begin()
	t.Cleanup(func() {
		for _, id := range r.IDs() {
			if t.Failed() {
				r.dumpLogs(id)
			}
			if err := r.Remove(context.Background(), id); err != nil {
				t.Error(err)
			}
		}
		r.stop()
		if err := cgroup.Delete("bastide-" + r.Instance); err != nil {
			t.Error(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *rig) dumpLogs(id string) {
	for _, program := range controlplane.Programs() {
		data, err := os.ReadFile(r.Plane.dir(id, logsDir, program+".log"))
		r.t.Logf("--- %s (%v)\n%s", program, err, data[max(0, len(data)-3000):])
	}
	status, _ := json.MarshalIndent(r.Status(id), "", " ")
	r.t.Logf("status %s", status)
}

func (r *rig) begin() {
	cache := bundle.DefaultCache
	if other := os.Getenv("BASTIDE_CACHE"); other != "" {
		cache = other
	}
	p, err := New(Config{Instance: fmt.Sprintf("cptest%d", os.Getpid()), StateDir: filepath.Join(r.dir, "state"), RunDir: filepath.Join(r.dir, "run"),
		CacheDir: cache, UIDBase: 62000, UIDCount: 10, Netns: func(name string) string { return filepath.Join(r.dir, name) },
		Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	r.Plane = p
	r.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			r.t.Error(err)
		}
	}
}

// namespace makes a network namespace whose loopback has the address too.
func (r *rig) namespace(name string, address netip.Addr) {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		r.t.Fatal(err)
	}
	made := make(chan error)
	go func() {
		// A locked thread that isn't unlocked ends with the goroutine.
		made <- supervise.InNetns("/proc/self/ns/net", func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
		})
	}()
	if err := <-made; err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			r.t.Error(err)
		}
	})
	err := supervise.InNetns(path, func() error {
		out, err := exec.Command("ip", "addr", "add", address.String()+"/32", "dev", "lo").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) spec(id string) controlplane.Spec {
	r.t.Helper()
	address := netip.MustParseAddr("10.224.0.4")
	r.namespace(id, address)
	ca := func(name string) controlplane.KeyPair {
		pair, err := pki.NewCA(name, 24*time.Hour)
		if err != nil {
			r.t.Fatal(err)
		}
		return controlplane.KeyPair(pair)
	}
	signer, err := pki.NewSigningKey()
	if err != nil {
		r.t.Fatal(err)
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	return controlplane.Spec{
		ID: id, Version: "1.36.3", Etcd: "3.6.16", Namespace: id, Address: address, Endpoint: id + ".hcp.eastus.test", Issuer: "https://issuer.test/" + id,
		ServiceCIDR: netip.MustParsePrefix("10.0.0.0/16"), DNSServiceIP: netip.MustParseAddr("10.0.0.10"), ClusterDomain: "cluster.local",
		Keys: controlplane.Keys{CA: ca("ca"), FrontProxyCA: ca("front-proxy"), EtcdCA: ca("etcd"), ServiceAccounts: signer, SecretsEncryption: key,
			BootstrapTokenID: "abcdef", BootstrapTokenCode: "0123456789abcdef"},
		Nodes: []controlplane.Node{
			{Name: "node-1", Address: netip.MustParseAddr("10.224.0.5"), Pods: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}},
			{Name: "node-2", Address: netip.MustParseAddr("10.224.0.6")}},
		Addons: controlplane.Addons{CoreDNS: "bastide.local/coredns:1.15.0", MetricsServer: "bastide.local/metrics-server:0.9.0"},
	}
}

func (r *rig) apply(spec controlplane.Spec) {
	r.t.Helper()
	if err := r.Apply(r.t.Context(), spec); err != nil {
		r.t.Fatal(err)
	}
}

// until waits for a status.
func (r *rig) until(id, what string, ok func(controlplane.Status) bool) controlplane.Status {
	r.t.Helper()
	deadline := time.After(2 * time.Minute)
	for {
		status := r.Status(id)
		if ok(status) {
			return status
		}
		select {
		case <-r.Changed():
		case <-deadline:
			r.t.Fatalf("%s is not %s: %+v", id, what, status)
		}
	}
}

func ready(s controlplane.Status) bool { return s.Phase == controlplane.Ready }

// user talks to a cluster's API as somebody.
type user struct {
	t     *testing.T
	http  *http.Client
	token string
}

// as makes a user with a client certificate; without a name, and a token, or nobody.
func (r *rig) as(spec controlplane.Spec, name string, groups ...string) *user {
	r.t.Helper()
	ca, err := pki.OpenCA(pki.Pair(spec.Keys.CA))
	if err != nil {
		r.t.Fatal(err)
	}
	config := &tls.Config{RootCAs: ca.Pool(), MinVersion: tls.VersionTLS12}
	if name != "" {
		leaf, err := ca.Issue(pki.Request{CommonName: name, Organizations: groups, Client: true, Lifetime: time.Hour})
		if err != nil {
			r.t.Fatal(err)
		}
		certificate, err := leaf.TLS()
		if err != nil {
			r.t.Fatal(err)
		}
		config.Certificates = []tls.Certificate{certificate}
	}
	transport := &http.Transport{DialContext: Dialer(filepath.Join(r.dir, spec.Namespace)), TLSClientConfig: config, ForceAttemptHTTP2: true}
	r.t.Cleanup(transport.CloseIdleConnections)
	return &user{t: r.t, http: &http.Client{Transport: transport, Timeout: time.Minute}}
}

func (r *rig) admin(spec controlplane.Spec) *user {
	return r.as(spec, "admin", controlplane.MastersGroup)
}

// do sends a request and returns status and body.
func (u *user) do(method, path string, body any, headers ...string) (int, []byte) {
	u.t.Helper()
	var reader io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			u.t.Fatal(err)
		}
		reader = bytes.NewReader(data)
	}
	request, err := http.NewRequestWithContext(u.t.Context(), method, "https://127.0.0.1"+path, reader)
	if err != nil {
		u.t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	if u.token != "" {
		request.Header.Set("Authorization", "Bearer "+u.token)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := u.http.Do(request)
	if err != nil {
		u.t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		u.t.Fatal(err)
	}
	return response.StatusCode, answer
}

// must sends a request that succeeds.
func (u *user) must(method, path string, body any, headers ...string) []byte {
	u.t.Helper()
	code, answer := u.do(method, path, body, headers...)
	if code >= 300 {
		u.t.Fatalf("%s %s: %d %s", method, path, code, answer)
	}
	return answer
}

// eventually waits until f is true.
// node registers a node that says it is ready: add-ons wait for the first one.
func (u *user) node(name string) {
	u.t.Helper()
	eventually(u.t, "node "+name+" is registered", func() bool {
		code, _ := u.do("POST", "/api/v1/nodes", map[string]any{"apiVersion": "v1", "kind": "Node", "metadata": map[string]any{"name": name},
			"status": map[string]any{"conditions": []any{map[string]any{"type": "Ready", "status": "True", "reason": "Test", "message": "test"}}}})
		return code == 201 || code == 409
	})
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}
