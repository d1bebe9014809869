// SPDX-License-Identifier: Apache-2.0

//go:build bench

package bench

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"testing"
	"time"

	"bastide.dev/testcloud"
)

const (
	instanceName = "bench"
	// pool is a part of the network that RFC 2544 sets aside for benchmarks; the
	// twenty clusters want more addresses than a default pool may have.
	pool       = "198.18.64.0/24"
	apiVersion = "2025-02-01"
)

func tlsConfig(roots *x509.CertPool, certificates ...tls.Certificate) *tls.Config {
	return &tls.Config{RootCAs: roots, Certificates: certificates, MinVersion: tls.VersionTLS12}
}

// outsider is a client that nobody here wrote for the purpose: HTTP, a token,
// the addresses that answers name.
type outsider struct {
	t     *testing.T
	cloud *testcloud.Cloud
	http  *http.Client
	base  string
	group string
	token string
	until time.Time
}

func newOutsider(t *testing.T, c *testcloud.Cloud, connections int) *outsider {
	t.Helper()
	roots := x509.NewCertPool()
	bundle, err := os.ReadFile(c.Env["SSL_CERT_FILE"])
	if err != nil || !roots.AppendCertsFromPEM(bundle) {
		t.Fatalf("no CA bundle: %v", err)
	}
	o := &outsider{t: t, cloud: c, base: "https://management." + c.Env["BASTIDE_DOMAIN"]}
	o.group = "/subscriptions/" + c.Env["AZURE_SUBSCRIPTION_ID"] + "/resourceGroups/bench"
	// HTTP/1.1: as many connections as are asked for.
	o.http = &http.Client{Transport: &http.Transport{TLSClientConfig: tlsConfig(roots), MaxConnsPerHost: connections, MaxIdleConnsPerHost: connections}}
	o.signIn()
	if resp, body := o.send(http.MethodPut, o.base+o.group+"?api-version=2021-04-01", map[string]any{"location": "eastus"}); resp.StatusCode/100 != 2 {
		t.Fatalf("group: %s %s", resp.Status, body)
	}
	return o
}

func (o *outsider) signIn() {
	o.t.Helper()
	if time.Until(o.until) > 10*time.Minute {
		return
	}
	env := o.cloud.Env
	resp, err := o.http.PostForm(env["AZURE_AUTHORITY_HOST"]+env["AZURE_TENANT_ID"]+"/oauth2/v2.0/token", url.Values{
		"grant_type": {"client_credentials"}, "client_id": {env["AZURE_CLIENT_ID"]}, "client_secret": {env["AZURE_CLIENT_SECRET"]}, "scope": {o.base + "/.default"}})
	if err != nil {
		o.t.Fatal(err)
	}
	defer resp.Body.Close()
	var token struct {
		Token   string `json:"access_token"`
		Seconds int    `json:"expires_in"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&token); err != nil || token.Token == "" {
		o.t.Fatalf("token: %s %v", resp.Status, err)
	}
	o.token, o.until = token.Token, time.Now().Add(time.Duration(token.Seconds)*time.Second)
}

func (o *outsider) request(ctx context.Context, method, address string, body []byte) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+o.token)
	req.Header.Set("Content-Type", "application/json")
	return req, nil
}

func (o *outsider) address(path string) string { return o.base + path + "?api-version=" + apiVersion }

// send returns the whole answer of one request.
func (o *outsider) send(method, address string, body any) (*http.Response, []byte) {
	o.t.Helper()
	o.signIn()
	var data []byte
	if body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			o.t.Fatal(err)
		}
	}
	req, err := o.request(o.t.Context(), method, address, data)
	if err != nil {
		o.t.Fatal(err)
	}
	resp, err := o.http.Do(req)
	if err != nil {
		o.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		o.t.Fatal(err)
	}
	return resp, answer
}

func (o *outsider) do(method, path string, body any) (int, []byte) {
	o.t.Helper()
	resp, answer := o.send(method, o.address(path), body)
	return resp.StatusCode, answer
}

// change sends a request and follows its operation to the end. It returns the
// seconds between sending it and knowing that it succeeded.
func (o *outsider) change(method, path string, body any) (float64, error) {
	o.t.Helper()
	return o.changeAt(method, o.address(path), body)
}

// changeAt is change for an address with an API version of its own.
func (o *outsider) changeAt(method, address string, body any) (float64, error) {
	o.t.Helper()
	begin := time.Now()
	resp, answer := o.send(method, address, body)
	if resp.StatusCode/100 != 2 {
		return 0, fmt.Errorf("%s %s: %s %s", method, address, resp.Status, answer)
	}
	for status := resp.Header.Get("Azure-AsyncOperation"); status != ""; {
		asked := time.Now()
		resp, answer := o.send(http.MethodGet, status, nil)
		var operation struct{ Status string }
		if err := json.Unmarshal(answer, &operation); err != nil {
			return 0, fmt.Errorf("%s: %s %s", status, resp.Status, answer)
		}
		switch operation.Status {
		case "Succeeded":
			return time.Since(begin).Seconds(), nil
		case "Failed", "Canceled":
			return 0, fmt.Errorf("%s %s: %s", method, address, answer)
		}
		if time.Since(begin) > 3*time.Minute {
			return 0, fmt.Errorf("%s %s: still %s after 3 minutes", method, address, operation.Status)
		}
		// The server holds the question until something changes; one that
		// doesn't isn't to be asked without a pause.
		time.Sleep(min(20*time.Millisecond, max(0, 50*time.Millisecond-time.Since(asked))))
	}
	return time.Since(begin).Seconds(), nil
}

func (o *outsider) clusterPath(name string) string {
	return o.group + "/providers/Microsoft.ContainerService/managedClusters/" + name
}

func oneNode(name string) map[string]any {
	return map[string]any{"location": "eastus", "identity": map[string]any{"type": "SystemAssigned"}, "properties": map[string]any{
		"dnsPrefix": name, "kubernetesVersion": kubernetesVersion, "agentPoolProfiles": []any{agentPool(1)},
	}}
}

func agentPool(count int) map[string]any {
	return map[string]any{"name": "np", "count": count, "mode": "System", "vmSize": "Standard_B2s", "osType": "Linux"}
}

func (o *outsider) create(name string) (float64, error) {
	o.t.Helper()
	return o.change(http.MethodPut, o.clusterPath(name), oneNode(name))
}

func (o *outsider) scale(name string, count int) (float64, error) {
	o.t.Helper()
	pool := agentPool(count)
	delete(pool, "name")
	return o.change(http.MethodPut, o.clusterPath(name)+"/agentPools/np", map[string]any{"properties": pool})
}

func (o *outsider) remove(name string) (float64, error) {
	o.t.Helper()
	return o.change(http.MethodDelete, o.clusterPath(name), nil)
}

// kubeconfig writes a cluster's administrator's kubeconfig.
func (o *outsider) kubeconfig(name string) (string, error) {
	o.t.Helper()
	status, answer := o.do(http.MethodPost, o.clusterPath(name)+"/listClusterAdminCredential", nil)
	var list struct{ Kubeconfigs []struct{ Value string } }
	if err := json.Unmarshal(answer, &list); err != nil || len(list.Kubeconfigs) == 0 {
		return "", fmt.Errorf("credentials of %s: %d %s", name, status, answer)
	}
	data, err := base64.StdEncoding.DecodeString(list.Kubeconfigs[0].Value)
	if err != nil {
		return "", err
	}
	path := o.t.TempDir() + "/kubeconfig"
	return path, os.WriteFile(path, data, 0o600)
}

// verify asks the cluster itself, once, whether what the service said is true.
func (o *outsider) verify(name string, nodes int) error {
	o.t.Helper()
	path, err := o.kubeconfig(name)
	if err != nil {
		return err
	}
	kubectl := func(args ...string) (string, error) {
		out, stderr, err := o.cloud.Try(o.t.Context(), "kubectl", append([]string{"--kubeconfig=" + path}, args...)...)
		if err != nil {
			return "", fmt.Errorf("%s: kubectl %v: %w %s", name, args, err, stderr)
		}
		return out, nil
	}
	ready, err := kubectl("get", "nodes", "-o", `jsonpath={range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{" "}{end}`)
	if err != nil {
		return err
	}
	if got := bytes.Count([]byte(ready), []byte("True")); got != nodes || len(bytes.Fields([]byte(ready))) != nodes {
		return fmt.Errorf("%s: said to have succeeded, but of %d nodes these are ready: %q", name, nodes, ready)
	}
	available, err := kubectl("get", "deployment", "coredns", "-n", "kube-system", "-o", `jsonpath={.status.conditions[?(@.type=="Available")].status}`)
	if err != nil {
		return err
	}
	if available != "True" {
		return fmt.Errorf("%s: said to have succeeded, but CoreDNS isn't Available (%q)", name, available)
	}
	return nil
}
