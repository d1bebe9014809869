// SPDX-License-Identifier: Apache-2.0

package netpolicy

import (
	"fmt"
	"net/netip"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// flow is the first packet of a connection as a node forwards it.
type flow struct {
	from, to netip.Addr
	protocol uint8
	port     uint16
}

// reference decides flows from the API's objects by plain loops, as its
// documents read: the compiler's second opinion. It returns who decided.
type reference struct{ *State }

// passes tells whether a node lets a flow through: its own pods' policies decide.
func (r reference) passes(f flow) bool {
	from, to := r.podAt(f.from), r.podAt(f.to)
	for _, a := range []netip.Addr{f.from, f.to} {
		inside := slices.ContainsFunc(r.Ranges, func(p netip.Prefix) bool { return p.Contains(a) })
		if p := r.podAt(a); inside && (p == nil || p.Node != r.Node) {
			return false
		}
	}
	if from != nil && from == to && f.from == f.to {
		return true
	}
	if from != nil && from.Node == r.Node && !r.direction(from, "Egress", f.to, to, f) {
		return false
	}
	return to == nil || to.Node != r.Node || r.direction(to, "Ingress", f.from, from, f)
}

func (r reference) podAt(a netip.Addr) *Pod {
	for _, p := range r.Pods {
		if !p.HostNetwork && slices.Contains(p.Addresses, a) {
			return p
		}
	}
	return nil
}

func (r reference) direction(subject *Pod, kind string, address netip.Addr, peer *Pod, f flow) bool {
	target := subject
	if kind == "Egress" {
		target = peer
	}
	if v := r.tier("Admin", subject, kind, address, peer, target, f); v != "" {
		return v == "Accept"
	}
	isolated, allowed := false, false
	for _, policy := range r.Policies {
		if policy.Meta.Namespace != subject.Namespace || !matches(&policy.Spec.PodSelector, subject.Labels) || !hasType(policy, kind) {
			continue
		}
		isolated = true
		rules := policy.Spec.Ingress
		if kind == "Egress" {
			rules = policy.Spec.Egress
		}
		for _, rule := range rules {
			allowed = allowed || r.rule(policy.Meta.Namespace, rule, kind, address, peer, target, f)
		}
	}
	if isolated {
		return allowed
	}
	return r.tier("Baseline", subject, kind, address, peer, target, f) != "Deny"
}

func hasType(p *Policy, kind string) bool {
	types := p.Spec.PolicyTypes
	if len(types) == 0 {
		types = []string{"Ingress"}
		if len(p.Spec.Egress) > 0 {
			types = append(types, "Egress")
		}
	}
	return slices.Contains(types, kind)
}

func (r reference) rule(namespace string, rule Rule, kind string, address netip.Addr, peer, target *Pod, f flow) bool {
	peers := rule.From
	if kind == "Egress" {
		peers = rule.To
	}
	who := len(peers) == 0
	for _, p := range peers {
		if p.IPBlock != nil {
			inside := netip.MustParsePrefix(p.IPBlock.CIDR).Contains(address)
			for _, e := range p.IPBlock.Except {
				inside = inside && !netip.MustParsePrefix(e).Contains(address)
			}
			who = who || inside
			continue
		}
		if peer == nil {
			continue
		}
		in := peer.Namespace == namespace
		if p.NamespaceSelector != nil {
			in = matches(p.NamespaceSelector, r.labels(peer.Namespace))
		}
		who = who || in && (p.PodSelector == nil || matches(p.PodSelector, peer.Labels))
	}
	if !who {
		return false
	}
	ok := len(rule.Ports) == 0
	for _, p := range rule.Ports {
		if protocolNumber(p.Protocol) != f.protocol {
			continue
		}
		switch {
		case p.Port == nil:
			ok = true
		case p.Port.Name != "":
			ok = ok || named(target, p.Port.Name, f)
		case p.EndPort != nil:
			ok = ok || p.Port.Number <= int32(f.port) && int32(f.port) <= *p.EndPort
		default:
			ok = ok || p.Port.Number == int32(f.port)
		}
	}
	return ok
}

func named(target *Pod, name string, f flow) bool {
	return target != nil && slices.ContainsFunc(target.Ports, func(p NamedPort) bool {
		return p.Name == name && p.Port == f.port && protocolNumber(p.Protocol) == f.protocol
	})
}

func protocolNumber(protocol string) uint8 {
	return map[string]uint8{"": 6, "TCP": 6, "UDP": 17, "SCTP": 132}[protocol]
}

// tier gives Accept, Deny or "" of one tier of cluster-wide policies.
func (r reference) tier(tier string, subject *Pod, kind string, address netip.Addr, peer, target *Pod, f flow) string {
	var policies []*ClusterPolicy
	for _, p := range r.ClusterPolicies {
		s := p.Spec.Subject
		about := s.Namespaces != nil && matches(s.Namespaces, r.labels(subject.Namespace)) ||
			s.Pods != nil && matches(&s.Pods.NamespaceSelector, r.labels(subject.Namespace)) && matches(&s.Pods.PodSelector, subject.Labels)
		if p.Spec.Tier == tier && about {
			policies = append(policies, p)
		}
	}
	slices.SortFunc(policies, func(a, b *ClusterPolicy) int { return int(a.Spec.Priority - b.Spec.Priority) })
	for _, p := range policies {
		rules := p.Spec.Ingress
		if kind == "Egress" {
			rules = p.Spec.Egress
		}
		for _, rule := range rules {
			if !r.clusterPeers(append(slices.Clone(rule.From), rule.To...), address, peer) || !clusterPorts(rule.Protocols, target, f) {
				continue
			}
			if rule.Action == "Pass" {
				return ""
			}
			return rule.Action
		}
	}
	return ""
}

func (r reference) clusterPeers(peers []ClusterPeer, address netip.Addr, peer *Pod) bool {
	for _, p := range peers {
		switch {
		case p.Namespaces != nil && peer != nil && matches(p.Namespaces, r.labels(peer.Namespace)):
			return true
		case p.Pods != nil && peer != nil && matches(&p.Pods.NamespaceSelector, r.labels(peer.Namespace)) && matches(&p.Pods.PodSelector, peer.Labels):
			return true
		}
		for _, network := range p.Networks {
			if netip.MustParsePrefix(network).Contains(address) {
				return true
			}
		}
		for _, n := range r.Nodes {
			if p.Nodes != nil && matches(p.Nodes, n.Labels) && slices.Contains(n.Addresses, address) {
				return true
			}
		}
	}
	return false
}

func clusterPorts(protocols []ClusterProtocol, target *Pod, f flow) bool {
	for _, p := range protocols {
		if p.NamedPort != "" && named(target, p.NamedPort, f) {
			return true
		}
		for protocol, ports := range map[uint8]*ClusterPorts{6: p.TCP, 17: p.UDP, 132: p.SCTP} {
			if ports == nil || protocol != f.protocol {
				continue
			}
			d := ports.DestinationPort
			if d == nil || d.Number == int32(f.port) || d.Range != nil && d.Range.Start <= int32(f.port) && int32(f.port) <= d.Range.End {
				return true
			}
		}
	}
	return len(protocols) == 0
}

func (r reference) labels(namespace string) map[string]string {
	for _, n := range r.Namespaces {
		if n.Name == namespace {
			return n.Labels
		}
	}
	panic(fmt.Sprintf("no namespace %s", namespace))
}

// matches asks Kubernetes' own code.
func matches(s *Selector, have map[string]string) bool {
	upstream := &metav1.LabelSelector{MatchLabels: s.MatchLabels}
	for _, r := range s.MatchExpressions {
		upstream.MatchExpressions = append(upstream.MatchExpressions,
			metav1.LabelSelectorRequirement{Key: r.Key, Operator: metav1.LabelSelectorOperator(r.Operator), Values: r.Values})
	}
	selector, err := metav1.LabelSelectorAsSelector(upstream)
	if err != nil {
		panic(err)
	}
	return selector.Matches(labels.Set(have))
}
