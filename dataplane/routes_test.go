// SPDX-License-Identifier: Apache-2.0

package dataplane_test

import (
	"testing"

	"bastide.dev/dataplane"
)

// TestPlatformRoutes: a default route of the user's leads machines astray, not
// the API server in their subnet; routes to pods it has as they do.
func TestPlatformRoutes(t *testing.T) {
	c, health := world(), healthy()
	for i := range c.VNets {
		v := &c.VNets[i]
		if v.ID != "c" {
			continue
		}
		v.RouteTables[0].Routes = append(v.RouteTables[0].Routes, dataplane.UserRoute{Name: "wall", Prefix: prefix("0.0.0.0/0"), Hop: dataplane.HopNone})
		v.NICs[0].Subnet, v.NICs[0].Address = "nodes", addr("10.1.0.9")
		v.Public[0].Target = addr("10.1.0.9")
	}
	for _, tc := range []struct {
		name string
		from dataplane.Endpoint
		flow dataplane.Flow
		want string
	}{
		{"a node, out", nic("c-n0"), tcp("8.8.8.8", 443), "refused: routeTables/mc/routes/routes/wall"},
		{"the API server, out", nic("c-api"), tcp("8.8.8.8", 443), "outside 8.8.8.8:443 from 192.88.99.11:50000"},
		{"a client of the API server", terminal("good"), tcp("192.88.99.13", 443), "c-api 10.1.0.9:6443 from 192.88.99.60:50000"},
		{"the API server, to a pod", nic("c-api"), tcp("10.244.1.7", 8443), "c-n1 10.244.1.7:8443 from 10.1.0.9:50000"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := outcome(trace(t, c, health, tc.from, tc.flow)); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}
