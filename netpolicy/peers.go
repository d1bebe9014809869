// SPDX-License-Identifier: Apache-2.0

package netpolicy

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"slices"

	"bastide.dev/ruleset"
)

// peerSet is who a rule is about: the names of the sets of their addresses, by
// family, and the pods among them, for the ports that they name. One without
// sets and not any is nobody.
type peerSet struct {
	id   string
	any  bool
	sets map[string]string
	pods func() []*member
}

// digest names what JSON says of v. Names in the kernel are short.
func digest(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // plain data always encodes
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}

func (c *compiler) anyone() peerSet {
	return peerSet{id: "any", any: true, pods: func() []*member { return c.all }}
}

// remember makes a peer once for all rules that name it.
func (c *compiler) remember(what any, build func(id string) peerSet) peerSet {
	id := digest(what)
	p, ok := c.peers[id]
	if !ok {
		p = build(id)
		p.id = id
		c.peers[id] = p
	}
	return p
}

// selected is the pods of selected namespaces, or of the one that is given.
func (c *compiler) selected(namespace string, namespaces, pods *Selector) peerSet {
	return c.remember([]any{"pods", namespace, namespaces, pods}, func(id string) peerSet {
		var found []*member
		add := func(list []*member) {
			for _, m := range list {
				if pods == nil || pods.Matches(m.Labels) {
					found = append(found, m)
				}
			}
		}
		if namespaces == nil {
			add(c.pods[namespace])
		} else {
			for _, name := range sortedKeys(c.pods) {
				if n := c.namespaces[name]; n != nil && namespaces.Matches(n.Labels) {
					add(c.pods[name])
				}
			}
		}
		var addresses []netip.Addr
		for _, m := range found {
			addresses = append(addresses, m.addresses...)
		}
		return peerSet{sets: c.addressSets("pods-"+id, addresses), pods: func() []*member { return found }}
	})
}

// nodes is the addresses of selected nodes; no pod's ports are theirs.
func (c *compiler) nodes(selector *Selector) peerSet {
	return c.remember([]any{"nodes", selector}, func(id string) peerSet {
		var addresses []netip.Addr
		for _, n := range c.state.Nodes {
			if selector.Matches(n.Labels) {
				addresses = append(addresses, n.Addresses...)
			}
		}
		return peerSet{sets: c.addressSets("nodes-"+id, addresses), pods: func() []*member { return nil }}
	})
}

// addressSets makes a set for each family. The one of IPv4 is always there, so
// that rules stay as they are while pods come and go.
func (c *compiler) addressSets(name string, addresses []netip.Addr) map[string]string {
	slices.SortFunc(addresses, netip.Addr.Compare)
	addresses = slices.Compact(addresses)
	byFamily := map[string][][]ruleset.Range{"4": nil}
	for _, a := range addresses {
		byFamily[family(a)] = append(byFamily[family(a)], key(ruleset.Addr(a)))
	}
	names := map[string]string{}
	for f, elements := range byFamily {
		names[f] = name + "-" + f
		c.addSet(ruleset.Set{Name: names[f], Fields: []ruleset.Field{ruleset.Source}, Elements: elements})
	}
	return names
}

// networks is ranges of addresses without others. What can't be read is left
// out of what is allowed, so an exception that can't be read leaves nothing.
func (c *compiler) networks(blocks, except []string) peerSet {
	return c.remember([]any{"networks", blocks, except}, func(id string) peerSet {
		ranges, _ := readPrefixes(blocks)
		without, ok := readPrefixes(except)
		if !ok {
			ranges = nil
		}
		left := ruleset.Without(ranges, without)
		p := peerSet{sets: map[string]string{}, pods: func() []*member { return c.within(left) }}
		for _, f := range []string{"4", "6"} {
			var some []ruleset.Range
			for _, r := range left {
				if family(r.From.Addr) == f {
					some = append(some, r)
				}
			}
			if len(some) > 0 {
				p.sets[f] = "networks-" + id + "-" + f
				c.addSet(ruleset.Set{Name: p.sets[f], Fields: []ruleset.Field{ruleset.Source}, Elements: ruleset.Elements(some...)})
			}
		}
		return p
	})
}

func readPrefixes(texts []string) (ranges []ruleset.Range, ok bool) {
	ok = true
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			ok = false
			continue
		}
		ranges = append(ranges, ruleset.Prefix(p))
	}
	return ranges, ok
}

// within is the pods with an address in ranges; they keep that address alone.
func (c *compiler) within(ranges []ruleset.Range) []*member {
	var found []*member
	for _, m := range c.all {
		var inside []netip.Addr
		for _, a := range m.addresses {
			if slices.ContainsFunc(ranges, func(r ruleset.Range) bool { return r.Contains(ruleset.Addr(a)) }) {
				inside = append(inside, a)
			}
		}
		if len(inside) > 0 {
			found = append(found, &member{Pod: m.Pod, addresses: inside})
		}
	}
	return found
}

// peer is one NetworkPolicyPeer of a policy in namespace.
func (c *compiler) peer(namespace string, p *Peer) (peerSet, bool) {
	switch {
	case p.IPBlock != nil:
		return c.networks([]string{p.IPBlock.CIDR}, p.IPBlock.Except), true
	case p.NamespaceSelector != nil:
		return c.selected("", p.NamespaceSelector, p.PodSelector), true
	case p.PodSelector != nil:
		return c.selected(namespace, nil, p.PodSelector), true
	}
	return peerSet{}, false
}

// clusterPeer is one peer of a cluster-wide rule; false: of a kind unknown here.
func (c *compiler) clusterPeer(p *ClusterPeer) (peerSet, bool) {
	switch {
	case p.Namespaces != nil:
		return c.selected("", p.Namespaces, nil), true
	case p.Pods != nil:
		return c.selected("", &p.Pods.NamespaceSelector, &p.Pods.PodSelector), true
	case p.Nodes != nil:
		return c.nodes(p.Nodes), true
	case len(p.Networks) > 0:
		return c.networks(p.Networks, nil), true
	}
	return peerSet{}, false
}
