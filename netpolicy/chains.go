// SPDX-License-Identifier: Apache-2.0

package netpolicy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"bastide.dev/ruleset"
)

// entry is the chain where a pod's packets of one direction begin; "" when
// nothing is decided about them. Admin's rules come first, then the pod's
// network policies, or, when it has none, the baseline's rules.
func (c *compiler) entry(p *Pod, d *direction) string {
	next := ""
	if policies := c.selecting(p, d); len(policies) > 0 {
		next = c.policyChain(p, d, policies)
	} else if baseline := c.subjects(p, d, BaselineTier); len(baseline) > 0 {
		next = c.clusterChain(p, d, baseline, "")
	}
	if admin := c.subjects(p, d, AdminTier); len(admin) > 0 {
		return c.clusterChain(p, d, admin, next)
	}
	return next
}

// selecting is the policies that isolate a pod in a direction.
func (c *compiler) selecting(p *Pod, d *direction) []*Policy {
	var found []*Policy
	for _, policy := range c.policies[p.Namespace] {
		if policy.isolates(d) && policy.Spec.PodSelector.Matches(p.Labels) {
			found = append(found, policy)
		}
	}
	return found
}

// isolates: without policyTypes, which the API server fills in, a policy is for
// ingress always, and for egress when it has rules for that.
func (p *Policy) isolates(d *direction) bool {
	if len(p.Spec.PolicyTypes) == 0 {
		return d == ingress || len(p.Spec.Egress) > 0
	}
	return slices.Contains(p.Spec.PolicyTypes, d.kind)
}

func (p *Policy) rules(d *direction) []Rule {
	if d == ingress {
		return p.Spec.Ingress
	}
	return p.Spec.Egress
}

func (r *Rule) peers() []Peer {
	if len(r.From) > 0 {
		return r.From
	}
	return r.To
}

// policyChain lets through what any of the policies allows, and drops the rest.
// It is named after what selects the policies, not after them, so that one that
// comes or goes changes its own rules alone, and yet after nothing that other
// pods could have had: no packet meets the old table's way to a chain that the
// new one gave to others.
func (c *compiler) policyChain(p *Pod, d *direction, policies []*Policy) string {
	names := make([]string, len(policies))
	named := false
	for i, policy := range policies {
		names[i] = policy.Meta.Name
		for _, r := range policy.rules(d) {
			named = named || slices.ContainsFunc(r.Ports, func(p Port) bool { return p.Port != nil && p.Port.Name != "" })
		}
	}
	name := d.name + "-" + digest([]any{p.Namespace, p.Labels, c.portsOf(p, d, named)})
	if _, ok := c.chains[name]; ok {
		return name
	}
	chain := ruleset.Chain{Name: name}
	for _, policy := range policies {
		for i, r := range policy.rules(d) {
			origin := fmt.Sprintf("networkpolicy/%s/%s/%s/%d", p.Namespace, policy.Meta.Name, d.name, i)
			ports := c.ports(p, d, r.Ports)
			for _, who := range c.rulePeers(p.Namespace, &r) {
				chain.Rules = append(chain.Rules, c.allow(d, origin, who, ports, d.pass)...)
			}
		}
	}
	chain.Rules = append(chain.Rules, verdict(isolatedBy(p.Namespace, names), ruleset.Drop))
	c.chains[name] = chain
	return name
}

// isolatedBy is the origin of what no policy allows. A comment's room is bounded.
func isolatedBy(namespace string, names []string) string {
	const room = 180
	list := names[0]
	for i, n := range names[1:] {
		if len(list)+len(n) > room-len(namespace) {
			list += " and " + strconv.Itoa(len(names)-1-i) + " more"
			break
		}
		list += ", " + n
	}
	return "networkpolicy/" + namespace + "/default-deny (isolated by " + list + ")"
}

// rulePeers: no peers at all are everybody.
func (c *compiler) rulePeers(namespace string, r *Rule) []peerSet {
	peers := r.peers()
	if len(peers) == 0 {
		return []peerSet{c.anyone()}
	}
	var found []peerSet
	for i := range peers {
		if p, ok := c.peer(namespace, &peers[i]); ok {
			found = append(found, p)
		}
	}
	return found
}

// portsOf is what chains of pods with the same labels may differ in: the
// ports that the pods themselves name.
func (c *compiler) portsOf(p *Pod, d *direction, named bool) []NamedPort {
	if d != ingress || !named {
		return nil
	}
	ports := slices.Clone(p.Ports)
	slices.SortFunc(ports, func(a, b NamedPort) int {
		return strings.Compare(a.Name+" "+a.Protocol+" "+strconv.Itoa(int(a.Port)), b.Name+" "+b.Protocol+" "+strconv.Itoa(int(b.Port)))
	})
	return ports
}

// subjects is the cluster-wide policies of a tier with rules for a pod's direction.
func (c *compiler) subjects(p *Pod, d *direction, tier string) []*ClusterPolicy {
	var found []*ClusterPolicy
	for _, policy := range c.cluster {
		if policy.Spec.Tier == tier && len(policy.rules(d)) > 0 && c.isSubject(p, &policy.Spec.Subject) {
			found = append(found, policy)
		}
	}
	return found
}

func (c *compiler) isSubject(p *Pod, s *ClusterSubject) bool {
	labels := c.namespaces[p.Namespace].Labels
	switch {
	case s.Namespaces != nil:
		return s.Namespaces.Matches(labels)
	case s.Pods != nil:
		return s.Pods.NamespaceSelector.Matches(labels) && s.Pods.PodSelector.Matches(p.Labels)
	}
	return false
}

func (p *ClusterPolicy) rules(d *direction) []ClusterRule {
	if d == ingress {
		return p.Spec.Ingress
	}
	return p.Spec.Egress
}

func (r *ClusterRule) peers() []ClusterPeer {
	if len(r.From) > 0 {
		return r.From
	}
	return r.To
}

// clusterChain does the rules of one tier in their order and hands on what none
// decides to next; without a next it passes.
func (c *compiler) clusterChain(p *Pod, d *direction, policies []*ClusterPolicy, next string) string {
	names := make([]string, len(policies))
	named := false
	for i, policy := range policies {
		names[i] = policy.Meta.Name
		for _, r := range policy.rules(d) {
			named = named || slices.ContainsFunc(r.Protocols, func(p ClusterProtocol) bool { return p.NamedPort != "" })
		}
	}
	name := d.name + "-" + strings.ToLower(policies[0].Spec.Tier) + "-" + digest([]any{names, next, c.portsOf(p, d, named)})
	if _, ok := c.chains[name]; ok {
		return name
	}
	pass := d.pass
	if next != "" {
		pass = ruleset.Action{Verb: ruleset.Goto, Chain: next}
	}
	chain := ruleset.Chain{Name: name}
	for _, policy := range policies {
		for i, r := range policy.rules(d) {
			label := r.Name
			if label == "" {
				label = strconv.Itoa(i)
			}
			origin := fmt.Sprintf("clusternetworkpolicy/%s/%s/%s", policy.Meta.Name, d.name, label)
			chain.Rules = append(chain.Rules, c.clusterRule(p, d, origin, &r, pass)...)
		}
	}
	chain.Rules = append(chain.Rules, do(pass))
	c.chains[name] = chain
	return name
}

// clusterRule fails closed when the rule says anything that isn't known here,
// as its API asks: it then accepts nothing, or denies everything.
func (c *compiler) clusterRule(p *Pod, d *direction, origin string, r *ClusterRule, pass ruleset.Action) []ruleset.Rule {
	ports, ok := c.clusterPorts(p, d, r.Protocols)
	var peers []peerSet
	for i := range r.peers() {
		who, known := c.clusterPeer(&r.peers()[i])
		ok = ok && known
		peers = append(peers, who)
	}
	action := ruleset.Action{Verb: ruleset.Drop}
	switch r.Action {
	case ActionAccept:
		action = d.pass
		if !ok {
			return nil
		}
	case ActionPass:
		action = pass
	case ActionDeny:
	default:
		ok = false
	}
	if !ok {
		return []ruleset.Rule{verdict(origin, ruleset.Drop)}
	}
	var rules []ruleset.Rule
	for _, who := range peers {
		rules = append(rules, c.allow(d, origin, who, ports, action)...)
	}
	return rules
}
