// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"net/netip"
	"testing"

	"bastide.dev/dataplane"
	"bastide.dev/fault"
)

// spoke is a network of one namespace, named after it.
func spoke(id, prefixText, address string) dataplane.VNet {
	return dataplane.VNet{ID: id, Prefixes: []netip.Prefix{prefix(prefixText)},
		Subnets: []dataplane.Subnet{{Name: "all", Prefix: prefix(prefixText)}},
		NICs:    []dataplane.NIC{{ID: id + "-vm", Namespace: id, Address: addr(address), Subnet: "all"}}}
}

// peered makes two networks name each other.
func peered(a, b *dataplane.VNet) {
	a.Peers = append(a.Peers, peering(b))
	b.Peers = append(b.Peers, peering(a))
}

func peering(to *dataplane.VNet) dataplane.Peer {
	return dataplane.Peer{VNet: to.ID, Origin: "virtualNetworkPeerings/to-" + to.ID, Prefixes: to.Prefixes, Access: true}
}

func TestPeerings(t *testing.T) {
	w := newWorld(t)
	hub, one, two := spoke("hub", "10.1.0.0/24", "10.1.0.4"), spoke("one", "10.2.0.0/24", "10.2.0.4"), spoke("two", "10.3.0.0/24", "10.3.0.4")
	peered(&hub, &one)
	hub.Peers = append(hub.Peers, peering(&two)) // two doesn't name hub
	w.apply(configOf(hub, one, two))
	for _, v := range []dataplane.VNet{hub, one, two} {
		serve(t, w.api(v.ID), v.NICs[0].Address.String()+":80", v.ID)
	}
	t.Run("both ways", func(t *testing.T) {
		answers(t, w.api("hub"), "10.2.0.4:80", "one sees 10.1.0.4")
		answers(t, w.api("one"), "10.1.0.4:80", "hub sees 10.2.0.4")
	})
	t.Run("one side alone is nothing", func(t *testing.T) {
		silent(t, w.api("hub"), "10.3.0.4:80")
		silent(t, w.api("two"), "10.1.0.4:80")
	})
	two.Peers = append(two.Peers, peering(&hub))
	w.apply(configOf(hub, one, two))
	t.Run("not transitive", func(t *testing.T) {
		answers(t, w.api("two"), "10.1.0.4:80", "hub sees 10.3.0.4")
		silent(t, w.api("one"), "10.3.0.4:80")
		silent(t, w.api("two"), "10.2.0.4:80")
	})
	t.Run("it heals", func(t *testing.T) {
		w.settle(configOf(hub, one, two))
		deleteLink(t, w.plane.vnetPath("hub"), dataplane.PeerLink(w.config.Instance, "hub", "one"))
		w.apply(configOf(hub, one, two))
		answers(t, w.api("one"), "10.1.0.4:80", "hub sees 10.2.0.4")
		w.settle(configOf(hub, one, two))
		flushRoutes(t, w.plane.vnetPath("one"))
		w.apply(configOf(hub, one, two))
		answers(t, w.api("hub"), "10.2.0.4:80", "one sees 10.1.0.4")
		w.restart()
		w.apply(configOf(hub, one, two))
		answers(t, w.api("one"), "10.1.0.4:80", "hub sees 10.2.0.4")
	})
	t.Run("gone when one side stops", func(t *testing.T) {
		stopped := one
		stopped.Peers = nil
		w.apply(configOf(hub, stopped, two))
		silent(t, w.api("one"), "10.1.0.4:80")
		silent(t, w.api("hub"), "10.2.0.4:80")
		if _, there := indexes(t, w.plane.vnetPath("hub"))[dataplane.PeerLink(w.config.Instance, "hub", "one")]; there {
			t.Error("the link is left")
		}
		w.apply(configOf(hub, one, two))
		answers(t, w.api("one"), "10.1.0.4:80", "hub sees 10.2.0.4")
	})
	t.Run("gone with a network", func(t *testing.T) {
		w.apply(configOf(hub, two))
		if _, there := indexes(t, w.plane.vnetPath("hub"))[dataplane.PeerLink(w.config.Instance, "hub", "one")]; there {
			t.Error("the link is left")
		}
		answers(t, w.api("two"), "10.1.0.4:80", "hub sees 10.3.0.4")
	})
}

// A private endpoint: a cluster's namespace has an interface in another
// network, too, and answers through the one that was asked.
func TestInterfacesInTwoNetworks(t *testing.T) {
	w := newWorld(t)
	cluster, user := spoke("cluster", "10.1.0.0/24", "10.1.0.4"), spoke("user", "10.1.0.0/24", "10.1.0.9")
	endpoint := dataplane.NIC{ID: "pe", Namespace: "cluster", Link: "eth1", Address: addr("10.1.0.5"), Subnet: "all"}
	user.NICs = append(user.NICs, endpoint)
	w.apply(configOf(cluster, user))
	serve(t, w.api("cluster"), "0.0.0.0:443", "api")
	serve(t, w.api("user"), "10.1.0.9:80", "vm")
	answersTCP(t, w.api("user"), "10.1.0.5:443", "api sees 10.1.0.9")
	silent(t, w.api("user"), "10.1.0.4:443")
	t.Run("it heals", func(t *testing.T) {
		w.settle(configOf(cluster, user))
		flushRoutes(t, w.api("cluster"))
		s, err := openSpace(w.api("cluster"))
		must(t, err)
		must(t, syncSelectors(s.nl, nil))
		must(t, s.close())
		w.apply(configOf(cluster, user))
		answersTCP(t, w.api("user"), "10.1.0.5:443", "api sees 10.1.0.9")
	})
	t.Run("one of them goes", func(t *testing.T) {
		user.NICs = user.NICs[:1]
		w.apply(configOf(cluster, user))
		silent(t, w.api("user"), "10.1.0.5:443")
		if _, there := indexes(t, w.api("cluster"))["eth1"]; there {
			t.Error("the interface is left")
		}
		w.apply(configOf(cluster, user))
		s, err := openSpace(w.api("cluster"))
		must(t, err)
		left, err := ourRules(s.nl)
		must(t, err)
		must(t, s.close())
		if len(left) != 0 {
			t.Errorf("routing rules are left: %v", left)
		}
	})
	t.Run("the namespace stays for the other", func(t *testing.T) {
		user.NICs = append(user.NICs, endpoint)
		w.apply(configOf(cluster, user))
		cluster.NICs = nil
		w.apply(configOf(cluster, user))
		answersTCP(t, w.api("user"), "10.1.0.5:443", "api sees 10.1.0.9")
	})
}

// Overlapping networks may give both interfaces the same address: from which
// to answer couldn't be told, so that is refused, and harms nobody else.
func TestInterfacesWithOneAddress(t *testing.T) {
	w := newWorld(t)
	cluster, user := spoke("cluster", "10.1.0.0/24", "10.1.0.4"), spoke("user", "10.1.0.0/24", "10.1.0.9")
	user.NICs = append(user.NICs, dataplane.NIC{ID: "pe", Namespace: "cluster", Link: "eth1", Address: addr("10.1.0.4"), Subnet: "all"})
	status, err := w.plane.Apply(t.Context(), configOf(cluster, user), w.netns)
	if !fault.Is(err, fault.Unsupported) || len(status["cluster"].NICs) != 1 {
		t.Errorf("%v %v", status, err)
	}
}

func TestTwoInterfacesInOneNetwork(t *testing.T) {
	w := newWorld(t)
	v := spoke("v", "10.1.0.0/24", "10.1.0.4")
	v.NICs = append(v.NICs, dataplane.NIC{ID: "second", Namespace: "v", Link: "eth1", Address: addr("10.1.0.5"), Subnet: "all"},
		dataplane.NIC{ID: "client", Namespace: "client", Address: addr("10.1.0.9"), Subnet: "all"})
	w.apply(configOf(v))
	serve(t, w.api("v"), "10.1.0.4:80", "first")
	serve(t, w.api("v"), "10.1.0.5:80", "second")
	answers(t, w.api("client"), "10.1.0.4:80", "first sees 10.1.0.9")
	answers(t, w.api("client"), "10.1.0.5:80", "second sees 10.1.0.9")
}
