// SPDX-License-Identifier: Apache-2.0

package why

import (
	"net/netip"
	"slices"
)

// endpoint is one address and port behind a Service's port.
type endpoint struct {
	address netip.Addr
	port    uint16
	node    string
	ready   bool
	leaving bool // it ends, but still serves
}

// endpoints are all behind a Service's port, each once.
func (c *Cluster) endpoints(s *Service, port ServicePort) []endpoint {
	var all []endpoint
	for _, slice := range c.Objects.Slices {
		if slice.Namespace != s.Namespace || slice.Service != s.Name {
			continue
		}
		for _, p := range slice.Ports {
			if p.Name != port.Name || p.Protocol != port.Protocol {
				continue
			}
			for _, e := range slice.Endpoints {
				for _, a := range e.Addresses[:min(1, len(e.Addresses))] {
					one := endpoint{a, p.Port, e.Node, e.Ready, e.Serving && e.Terminating}
					if !slices.ContainsFunc(all, func(o endpoint) bool { return o.address == a && o.port == p.Port }) {
						all = append(all, one)
					}
				}
			}
		}
	}
	return all
}

// usable are those that kube-proxy sends to: the ready ones, or when there is
// none those that end but still serve (KEP-1669).
func usable(all []endpoint) []endpoint {
	keep := func(f func(endpoint) bool) []endpoint {
		return slices.DeleteFunc(slices.Clone(all), func(e endpoint) bool { return !f(e) })
	}
	if ready := keep(func(e endpoint) bool { return e.ready }); len(ready) > 0 {
		return ready
	}
	return keep(func(e endpoint) bool { return e.leaving })
}

// origin is how a packet came into a node.
type origin int

const (
	fromPod     origin = iota // of this node
	fromNode                  // the node itself
	fromNetwork               // by its interface
)

// choice is one thing that kube-proxy may do to a packet: nothing (no rule), a
// translation to an endpoint, or a refusal.
type choice struct {
	to      endpoint
	masq    bool
	rule    string
	what    string
	verdict string // "deny" or "reset" refuses
}

// proxied is what kube-proxy on n does to a packet, as its nftables mode does:
// its rules come from Services alone, and are the same on each node but for
// what is local. Nothing: it is no Service's.
func (c *Cluster) proxied(n *Node, b *branch, protocol uint8, came origin) []choice {
	for i := range c.Objects.Services {
		s := &c.Objects.Services[i]
		for _, p := range s.Ports {
			if p.Protocol != protocol {
				continue
			}
			switch {
			case p.Port == b.port && slices.Contains(s.ClusterIPs, b.destination):
				return c.internally(n, s, p, b)
			case p.Port == b.port && slices.Contains(s.ExternalIPs, b.destination), p.NodePort != 0 && p.NodePort == b.port && b.destination == n.Address:
				return c.externally(n, s, p, b, came)
			}
		}
	}
	for i := range c.Objects.Services {
		if s := &c.Objects.Services[i]; slices.Contains(s.ClusterIPs, b.destination) {
			return []choice{refuse(s, "noSuchPort", "the Service has no such port", "reset")}
		}
	}
	if n.Services.IsValid() && n.Services.Contains(b.destination) {
		return []choice{{rule: "services/unallocatedAddress", what: "no Service has the address", verdict: "deny"}}
	}
	return nil
}

func (s *Service) rule(part string) string {
	name := "service/" + s.Namespace + "/" + s.Name
	if part != "" {
		name += "/" + part
	}
	return name
}

func refuse(s *Service, part, what, verdict string) choice {
	return choice{rule: s.rule(part), what: what, verdict: verdict}
}

// internally is a packet to a cluster address.
func (c *Cluster) internally(n *Node, s *Service, p ServicePort, b *branch) []choice {
	all := c.endpoints(s, p)
	ends := usable(all)
	if s.LocalInternal {
		if ends = usable(local(all, n)); len(ends) == 0 && len(all) > 0 {
			return []choice{refuse(s, "internalTrafficPolicy", "no endpoint is on this node, and the Service's internalTrafficPolicy is Local", "deny")}
		}
	}
	masq := len(n.Local) > 0 && !covers(n.Local, b.source)
	return c.to(s, ends, masq, b)
}

// externally is a packet to a node port, or an address from outside. With
// externalTrafficPolicy Local, what comes from outside stays on the node and
// keeps its source; what pods and nodes send themselves goes anywhere.
func (c *Cluster) externally(n *Node, s *Service, p ServicePort, b *branch, came origin) []choice {
	if len(s.SourceRanges) > 0 && slices.Contains(s.Balanced, b.destination) && !covers(s.SourceRanges, b.source) {
		return []choice{refuse(s, "loadBalancerSourceRanges", "the source is in none of the Service's loadBalancerSourceRanges", "deny")}
	}
	all := c.endpoints(s, p)
	if !s.LocalExternal || came == fromNode {
		return c.to(s, usable(all), true, b)
	}
	if covers(n.Local, b.source) {
		return c.to(s, usable(all), false, b)
	}
	ends := usable(local(all, n))
	if len(ends) == 0 && len(usable(all)) > 0 {
		return []choice{refuse(s, "externalTrafficPolicy", "no endpoint is on this node, and the Service's externalTrafficPolicy is Local", "deny")}
	}
	return c.to(s, ends, false, b)
}

func local(all []endpoint, n *Node) []endpoint {
	return slices.DeleteFunc(slices.Clone(all), func(e endpoint) bool { return e.node != n.Name })
}

// to leads to each endpoint. A pod that reaches itself has its source changed.
func (c *Cluster) to(s *Service, ends []endpoint, masq bool, b *branch) []choice {
	if len(ends) == 0 {
		return []choice{refuse(s, "noEndpoints", "the Service has no endpoint that is ready", "reset")}
	}
	choices := make([]choice, len(ends))
	for i, e := range ends {
		choices[i] = choice{to: e, masq: masq || e.address == b.source, rule: s.rule("")}
	}
	return choices
}
