// SPDX-License-Identifier: Apache-2.0

package network

import (
	"strings"
	"testing"
)

// A subnet with default outbound access leads out by an address that is the network's for as long as one asks.
func TestDefaultOutbound(t *testing.T) {
	t.Parallel()
	w := newEdge(t)
	open := `{"properties":{"addressPrefix":"10.0.0.0/24","defaultOutboundAccess":true}}`
	w.must("PUT", vnetA, vnetBody(`"10.0.0.0/16"`, ``, ``))
	w.must("PUT", vnetA+"/subnets/open", open)
	w.must("PUT", vnetA+"/subnets/closed", `{"properties":{"addressPrefix":"10.0.1.0/24"}}`)
	for _, subnet := range []string{"open", "closed"} {
		nic := edgeNetwork + "networkInterfaces/" + subnet
		w.must("PUT", nic, nicBody(vnetA+"/subnets/"+subnet, ``))
		w.document(edgeGroup+"/providers/Microsoft.Compute/virtualMachines/"+subnet,
			`{"properties":{"networkProfile":{"networkInterfaces":[{"id":"`+nic+`"}]}}}`, InterfaceState{Machine: "m-" + subnet})
	}
	egress := func() map[string]string {
		inv, err := w.p.inventory(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]string{}
		vnets, _, _ := compile(inv, w.p.settings())
		for _, v := range vnets {
			for _, n := range v.NICs {
				for _, e := range n.Egress {
					found[n.Machine] += e.Address.String()
				}
			}
		}
		return found
	}
	if got := egress(); len(got) != 1 || !strings.HasPrefix(got["m-open"], "192.88.99.") {
		t.Errorf("ways out: %v", got)
	}
	if keys := w.keys(publicPrefix); len(keys) != 1 {
		t.Errorf("public addresses taken: %v", keys)
	}
	w.must("PUT", vnetA+"/subnets/open", strings.Replace(open, "true", "false", 1))
	if got, keys := egress(), w.keys(publicPrefix); len(got) != 0 || len(keys) != 0 {
		t.Errorf("ways out of closed subnets: %v, %v", got, keys)
	}
}
