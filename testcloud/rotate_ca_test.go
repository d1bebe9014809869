// SPDX-License-Identifier: Apache-2.0

package testcloud_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	aks "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v6"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bastide.dev/instance"
	"bastide.dev/stream"
)

// TestRotateCA replaces the instance's own authorities while clients that trust
// the old one alone are at work, and then looks that everything goes by the new.
func TestRotateCA(t *testing.T) {
	r := newRig(t, "irot")
	k, err := r.cluster(t.Context(), t, "c", func(*aks.ManagedCluster) {})
	if err != nil {
		t.Fatal(err)
	}
	k.workload(t, "echo", 1)
	k.service(t, "before", nil).address(t)
	file := func(name string) []byte { return must(os.ReadFile(filepath.Join(r.StateDir, "tls", name))) }
	oldCA, oldHost := file("ca.crt"), file("host.pem")
	oldStoreCA, oldStore := file("etcd-ca.crt"), file("etcd-root.pem")

	old := r.trusting(oldCA)
	streams := map[string]*stream.Stream{
		"ARM":    stream.Begin(t.Context(), 20, old.read(r.token(t))),
		"tokens": stream.Begin(t.Context(), 5, old.buy),
		"writes": stream.Begin(t.Context(), 5, old.write(r.token(t))),
	}
	var done struct {
		Authorities []struct {
			Name       string
			Generation int
		}
		Waiting []string
	}
	out, shown, err := r.Try(t.Context(), r.Binary, "--instance", r.Name, "--state-dir", r.StateDir, "rotate-ca", "-o", "json")
	t.Logf("rotate-ca:\n%s%s", shown, out)
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range streams {
		tally := s.End()
		t.Logf("%s: %s", name, tally)
		if tally.Failed > 0 || tally.Sent == 0 {
			t.Errorf("%s: %d of %d failed:\n%s", name, tally.Failed, tally.Sent, strings.Join(tally.Failures, "\n"))
		}
	}
	if err := json.Unmarshal([]byte(out), &done); err != nil || len(done.Authorities) != 2 || len(done.Waiting) != 0 {
		t.Errorf("rotate-ca says %s: %v", out, err)
	}

	t.Run("nothing old is trusted", func(t *testing.T) {
		for _, path := range []string{filepath.Join(r.StateDir, "tls", "ca.crt"), r.Env["SSL_CERT_FILE"]} {
			if bytes.Contains(must(os.ReadFile(path)), bytes.TrimSpace(oldCA)) {
				t.Errorf("%s still has the old authority", path)
			}
		}
		in := must(instance.Load(r.Name, r.StateDir))
		hosts, store := in.HostAPI(), in.EtcdClient()
		if err := handshake(hosts, file("ca.crt"), oldHost); err == nil {
			t.Error("the host's old certificate is accepted")
		}
		if err := handshake(hosts, file("ca.crt"), file("host.pem")); err != nil {
			t.Errorf("the host's new certificate: %v", err)
		}
		if err := handshake(store, file("etcd-ca.crt"), oldStore); err == nil {
			t.Error("the store accepts a certificate of the old authority")
		}
		if err := handshake(store, oldStoreCA, file("etcd-root.pem")); err != nil {
			t.Errorf("the store's client that trusts the old authority alone: %v", err)
		}
	})
	t.Run("everything goes by the new", func(t *testing.T) {
		r.ReadEnv(t)
		r.Run(t, "az", "login", "--service-principal", "-u", r.Env["AZURE_CLIENT_ID"], "-p", r.Env["AZURE_CLIENT_SECRET"], "--tenant", r.Env["AZURE_TENANT_ID"])
		if got := r.Run(t, "az", "aks", "show", "-g", "rg", "-n", "c", "--query", "provisioningState", "-o", "tsv"); strings.TrimSpace(got) != "Succeeded" {
			t.Errorf("az says %s", got)
		}
		fresh := r.trusting(file("ca.crt"))
		if err := fresh.read(r.token(t))(t.Context()); err != nil {
			t.Error(err)
		}
		if got := r.Must(t, "certificates"); !strings.Contains(got, "etcd-ca") {
			t.Errorf("certificates:\n%s", got)
		}
		r.Must(t, "image", "load", programImage(t, "echo", r.echo), "echo:2")
		k.kubectl(t, "set", "image", "deployment/echo", "echo="+r.Env["BASTIDE_REGISTRY"]+"/echo:2")
		k.rolledOut(t, "echo")
		k.service(t, "after", nil).address(t)
		for _, n := range must(k.client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})).Items {
			if !isReady(n) {
				t.Errorf("node %s isn't ready", n.Name)
			}
		}
	})
	t.Run("killed, and again", func(t *testing.T) {
		goesOn := r.killRotation(t, file)
		out, shown, err := r.Try(t.Context(), r.Binary, "--instance", r.Name, "--state-dir", r.StateDir, "rotate-ca", "-o", "json")
		if err != nil {
			t.Fatalf("%v\n%s", err, shown)
		}
		want := 4 // it was done before it could be killed
		if goesOn {
			want = 3
		}
		if err := json.Unmarshal([]byte(out), &done); err != nil || done.Authorities[0].Generation != want || done.Authorities[1].Generation != want {
			t.Errorf("after a rotation that was killed (%v) authorities are of generation %d, not %d: %v\n%s", goesOn, done.Authorities[0].Generation, want, err, out)
		}
		if err := old.read(r.token(t))(t.Context()); err != nil {
			t.Errorf("who trusts the first authority alone: %v", err)
		}
	})
}

// killRotation kills a rotation as soon as it has replaced an authority, and
// tells whether it left something to do.
func (r *rig) killRotation(t *testing.T, file func(string) []byte) bool {
	t.Helper()
	before := file("ca.json")
	cmd := exec.Command(r.Binary, "--instance", r.Name, "--state-dir", r.StateDir, "rotate-ca")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }() // killed, most likely
	for bytes.Equal(before, file("ca.json")) {
		select {
		case <-ended:
			t.Fatal("rotate-ca ended, and replaced nothing")
		case <-time.After(time.Millisecond):
		}
	}
	_ = cmd.Process.Kill() // it may have ended
	<-ended
	return bytes.Contains(file("ca.json"), []byte(`"former"`))
}

// handshake connects with a certificate, and reads: TLS 1.3 tells only then
// whether it was accepted.
func handshake(address string, ca, pair []byte) error {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	leaf, err := tls.X509KeyPair(pair, pair)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{leaf}}}}
	resp, err := client.Get("https://" + address + "/")
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// truster is a client that trusts what it is given, for ever, and connects anew
// for each request.
type truster struct {
	*rig
	client *http.Client
}

func (r *rig) trusting(ca []byte) *truster {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &truster{r, &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool}}}}
}

func (c *truster) send(ctx context.Context, method, address, kind, token, body string) error {
	req, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", kind)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s: %.200s", method, address, resp.Status, text)
	}
	return err
}

func (c *truster) read(token string) func(context.Context) error {
	return func(ctx context.Context) error {
		return c.send(ctx, http.MethodGet, c.base+c.id("rg", "Microsoft.ContainerService/managedClusters/c")+"?api-version=2025-02-01", "", token, "")
	}
}

func (c *truster) write(token string) func(context.Context) error {
	return func(ctx context.Context) error {
		for {
			err := c.send(ctx, http.MethodPut, c.base+"/subscriptions/"+c.sub+"/resourceGroups/written?api-version=2021-04-01", "application/json", token, `{"location":"eastus"}`)
			if err == nil || ctx.Err() != nil || !strings.Contains(err.Error(), "503") {
				return err
			}
			pause(ctx, 100*time.Millisecond) // as every SDK does: the store starts anew once
		}
	}
}

func (c *truster) buy(ctx context.Context) error {
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {c.Env["AZURE_CLIENT_ID"]}, "client_secret": {c.Env["AZURE_CLIENT_SECRET"]}, "scope": {c.base + "/.default"}}
	return c.send(ctx, http.MethodPost, strings.TrimSuffix(c.Env["AZURE_AUTHORITY_HOST"], "/")+"/"+c.Env["AZURE_TENANT_ID"]+"/oauth2/v2.0/token", "application/x-www-form-urlencoded", "", form.Encode())
}
