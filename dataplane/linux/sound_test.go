// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"bastide.dev/dataplane"
)

// A network that is wrong has its own trouble: it stays as it was, and the
// others are made as they should be.
func TestOneWrongNetwork(t *testing.T) {
	w := newWorld(t)
	w.boot("a-n0")
	w.boot("b-n0")
	a, b := network("a", "198.19.99.242", "198.19.99.243", 1), network("b", "198.19.99.244", "198.19.99.245", 1)
	w.apply(configOf(a, b))
	serve(t, w.node("a-n0"), "10.224.0.4:80", "a")
	answersTCP(t, w.api("a"), "10.224.0.4:80", "a sees 10.226.0.4")

	wrong := a
	wrong.NICs = append([]dataplane.NIC{}, a.NICs...)
	wrong.NICs[1].Pods = append([]netip.Prefix{prefix("10.226.0.0/28")}, wrong.NICs[1].Pods...) // the API server's
	b.NSGs = []dataplane.NSG{group("g", dataplane.NSGRule{Name: "none", Priority: 100, Inbound: true})}
	b.Subnets = append([]dataplane.Subnet{}, b.Subnets...)
	b.Subnets[0].NSG = "g"
	status, err := w.plane.Apply(context.Background(), configOf(wrong, b), w.netns)
	var trouble *dataplane.Trouble
	if !errors.As(err, &trouble) || trouble.Whole != nil || trouble.VNets["a"] == nil || trouble.VNets["b"] != nil {
		t.Fatalf("trouble: %v", err)
	}
	if _, stands := status["a"]; stands || len(status["b"].NICs) != 2 {
		t.Errorf("status %+v", status)
	}
	answersTCP(t, w.api("a"), "10.224.0.4:80", "a sees 10.226.0.4")
	w.apply(configOf(a, b))
}
