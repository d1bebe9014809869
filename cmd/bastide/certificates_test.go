// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"bastide.dev/cluster"
	"bastide.dev/fault"
	"bastide.dev/instance"
	"bastide.dev/pki"
	"bastide.dev/store/memory"
)

const certifiedCluster = "/subscriptions/0b1f6471-1bf0-4dda-aec3-cb9272f09590/resourceGroups/shop/providers/Microsoft.ContainerService/managedClusters/prod"

func TestCertificatesOfOneCluster(t *testing.T) {
	now := time.Now()
	all := []cluster.Certificate{{Cluster: certifiedCluster, Name: "etcd/server", Ends: now.Add(49 * time.Hour)}, {Cluster: certifiedCluster, Name: "kubelet/n1", Ends: now.Add(-time.Hour)}}
	found, err := certificatesOf(all, "Shop/PROD")
	if err != nil || len(found) != 2 {
		t.Fatalf("%v, %v", found, err)
	}
	if _, err := certificatesOf(all, "shop/other"); !fault.Is(err, fault.NotFound) {
		t.Errorf("%v", err)
	}
	cmd, out := &cobra.Command{}, &bytes.Buffer{}
	cmd.SetOut(out)
	if err := printCertificates(cmd, found, now); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"shop/prod", "2 days", "expired"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q isn't in\n%s", want, out)
		}
	}
}

func TestMetricsOfCertificates(t *testing.T) {
	in := &instance.Instance{}
	in.StateDir = t.TempDir()
	if err := os.MkdirAll(in.Dir("tls"), 0o700); err != nil {
		t.Fatal(err)
	}
	pair, err := pki.NewCA("ca", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"ca.crt": pair.Certificate, "ca.key": pair.Key, "broken.crt": []byte("no certificate")} {
		if err := os.WriteFile(filepath.Join(in.Dir("tls"), name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	elsewhere := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	handler, err := withMetrics(elsewhere, memory.New(100), in, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ask := func(path string) *httptest.ResponseRecorder {
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, path, nil))
		return answer
	}
	answer := ask("/metrics").Body.String()
	if !strings.Contains(answer, `bastide_certificate_expiry_seconds{cluster="",name="ca"}`) || strings.Contains(answer, "broken") || strings.Contains(answer, "PRIVATE") {
		t.Errorf("metrics are\n%s", answer)
	}
	if code := ask("/hosts/local/units").Code; code != http.StatusTeapot {
		t.Errorf("a host's own path is answered %d", code)
	}
}
