// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"testing"
	"time"

	"bastide.dev/controlplane"
	"bastide.dev/resource"
)

func TestCertificates(t *testing.T) {
	w := newWorld(t)
	ends := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	w.host.Told = func(s *controlplane.Status) {
		s.Certificates = []controlplane.Certificate{{Name: "kube-apiserver/server", Ends: ends}}
	}
	w.must("PUT", testCluster, azBody(1), resource.Succeeded)
	found, err := Certificates(t.Context(), w.memory)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]time.Time{}
	for _, c := range found {
		if !resource.MustParseID(c.Cluster).Equal(resource.MustParseID(testCluster)) {
			t.Errorf("%+v", c)
		}
		names[c.Name] = c.Ends
	}
	if len(names) != 3 || !names["kube-apiserver/server"].Equal(ends) || time.Until(names["nodes/kube-proxy"]) < 360*24*time.Hour || names["nodes/netpolicy"].IsZero() {
		t.Errorf("%+v", found)
	}
}
