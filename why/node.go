// SPDX-License-Identifier: Apache-2.0

package why

import (
	"fmt"
	"net/netip"
	"slices"

	"bastide.dev/dataplane"
	"bastide.dev/netpolicy"
	rs "bastide.dev/ruleset"
)

// inNode is a packet in a node: kube-proxy looks at it first.
func (k *walk) inNode(b *branch, c *Cluster, n *Node, came origin) error {
	if c.Objects == nil {
		return &NeedObjects{c.ControlPlane}
	}
	choices := c.proxied(n, b, k.protocol, came)
	if len(choices) == 0 {
		return k.onward(b, c, n, came, false, false)
	}
	for _, o := range choices {
		way := b.fork()
		where := "node " + n.Name
		if o.verdict != "" {
			k.deny(way, k.shown(b.destination, b.port), where, o.what, o.rule, o.verdict)
			continue
		}
		way.destination, way.port, way.ready = o.to.address, o.to.port, true
		way.hop(where, "kube-proxy: destination becomes "+k.shown(way.destination, way.port), o.rule, "")
		if err := k.onward(way, c, n, came, o.masq, true); err != nil {
			return err
		}
	}
	return nil
}

// onward is a packet in a node after kube-proxy: for the node, for one of its
// pods, or to leave again.
func (k *walk) onward(b *branch, c *Cluster, n *Node, came origin, masq, translated bool) error {
	where := "node " + n.Name
	if b.destination == n.Address {
		if ok, err := k.policies(b, c, n, rs.Input, came); !ok {
			return err
		}
		k.arrive(b, where, k.nodeListener(c, n, b))
		return nil
	}
	pod := c.podAt(b.destination)
	here := pod != nil && pod.Node == n.Name
	if came == fromPod {
		if ok, err := k.bounds(b, n); !ok {
			return err
		}
	}
	if ok, err := k.policies(b, c, n, rs.Forward, came); !ok {
		return err
	}
	switch {
	case here:
		k.inPodOf(b, pod)
		return nil
	case covers(n.Pods, b.destination):
		k.deny(b, b.destination.String(), where, "no pod has the address", "node/noPod", "deny")
		return nil
	case came == fromNetwork && !translated:
		k.deny(b, where, where, "nothing on the node answers for "+b.destination.String(), "node/noListener", "deny")
		return nil
	}
	if err := k.leave(b, n, came, masq); err != nil {
		return err
	}
	at, ok := k.w.machineNIC(n.Machine)
	if !ok {
		k.deny(b, k.shown(b.destination, b.port), where, "the node has no interface", "node/noInterface", "deny")
		return nil
	}
	return k.network(b, dataplane.Endpoint{NIC: at.nic.ID})
}

// leave gives a packet the source that it leaves its node with.
func (k *walk) leave(b *branch, n *Node, came origin, masq bool) error {
	by := "kube-proxy"
	if !masq && came == fromPod {
		table := masquerade(n)
		p := k.packet(b)
		o, err := table.Run(rs.Postrouting, &p, nil)
		if err != nil {
			return fmt.Errorf("why: node %s: %w", n.Name, err)
		}
		masq, by = len(o.NAT) > 0, "the node"
	}
	if (masq || came == fromNode) && b.source != n.Address {
		b.hop("node "+n.Name, by+": source "+b.source.String()+" becomes "+n.Address.String(), "node/masquerade", "")
		b.source = n.Address
	}
	return nil
}

// masquerade is a node's table that gives what pods send out of their network
// the node's address, as package node writes it.
func masquerade(n *Node) *rs.Table {
	prefixes := func(list []netip.Prefix) []rs.Range {
		var ranges []rs.Range
		for _, p := range list {
			if p.Addr().Is4() {
				ranges = append(ranges, rs.Prefixes(p)[0][0])
			}
		}
		return ranges
	}
	pods, inside := prefixes(n.Pods), prefixes(slices.Concat(n.Inside, n.Pods))
	chain := rs.Chain{Name: "postrouting", Hook: rs.Postrouting, NAT: true, Priority: rs.SourceNAT}
	if len(pods) > 0 {
		chain.Rules = []rs.Rule{{Origin: "node/masquerade", Actions: []rs.Action{{Verb: rs.Masq}}, Matches: []rs.Match{
			{Fields: []rs.Field{rs.Source}, Ranges: pods}, {Fields: []rs.Field{rs.Destination}, Not: true, Ranges: inside}}}}
	}
	return &rs.Table{Name: "bastide-masquerade", Chains: []rs.Chain{chain}}
}

func (k *walk) packet(b *branch) rs.Packet {
	p := rs.Packet{Source: b.source, Destination: b.destination, Protocol: k.protocol, State: rs.New}
	if rs.HasPorts(k.protocol) {
		p.SourcePort, p.DestPort = 50000, b.port
	}
	if k.protocol == rs.ICMP {
		p.ICMPType = 8
	}
	return p
}

// policies runs the packet through the node's compiled network policies; false
// when it ends there. What the node itself sends passes no hook of theirs.
func (k *walk) policies(b *branch, c *Cluster, n *Node, hook rs.Hook, came origin) (bool, error) {
	if !n.Enforces || came == fromNode {
		return true, nil
	}
	table := k.tables[n.Machine]
	if table == nil {
		compiled := netpolicy.Compile(c.state(n))
		table = &compiled
		k.tables[n.Machine] = table
	}
	p := k.packet(b)
	p.Local = hook == rs.Input
	o, err := table.Run(hook, &p, nil)
	if err != nil {
		return false, fmt.Errorf("why: policies of node %s: %w", n.Name, err)
	}
	where := "node " + n.Name
	for _, s := range o.Steps {
		if s.Verdict == rs.Return || s.Verdict == rs.Accept {
			b.hop(where, "network policy", s.Origin, "allow")
		}
	}
	if o.Verdict == rs.Drop || o.Verdict == rs.Reject {
		to := k.shown(b.destination, b.port)
		if pod := c.podAt(b.destination); pod != nil {
			to = "pod " + pod.Namespace + "/" + pod.Name
		}
		k.deny(b, to, where, "network policy", o.Decided.Origin, "deny")
		return false, nil
	}
	return true, nil
}

// state is what a node's policy agent knows.
func (c *Cluster) state(n *Node) *netpolicy.State {
	o := c.Objects
	s := &netpolicy.State{Node: n.Name, Ranges: n.Pods, Namespaces: o.Namespaces, Nodes: o.Nodes, Policies: o.Policies, ClusterPolicies: o.ClusterPolicies}
	for i := range o.Pods {
		if o.Pods[i].lives() {
			s.Pods = append(s.Pods, &o.Pods[i].Pod)
		}
	}
	return s
}

// inPodOf is a packet at its pod.
func (k *walk) inPodOf(b *branch, pod *Pod) {
	name := "pod " + pod.Namespace + "/" + pod.Name
	switch {
	case pod.Phase != "Running" && pod.Phase != "":
		b.hop(name, "the pod is "+pod.Phase+", so nobody listens", "pod/notRunning", "deny")
		k.finish(b, Path{To: name, By: sentence("pod/notRunning", "", false), Rule: "pod/notRunning", Listener: ListenerNone})
	case b.ready:
		k.arrive(b, name, ListenerReady)
	case pod.declares(k.protocol, b.port):
		k.arrive(b, name, ListenerDeclared)
	default:
		k.arrive(b, name, ListenerUnknown)
	}
}

func (p *Pod) declares(protocol uint8, port uint16) bool {
	return slices.ContainsFunc(p.Declared, func(d netpolicy.NamedPort) bool { return d.Port == port && protocolOf(d.Protocol) == protocol })
}

// nodeListener is what is known to listen on a node itself.
func (k *walk) nodeListener(c *Cluster, n *Node, b *branch) Listener {
	const kubelet, proxyHealth = 10250, 10256
	if k.protocol == rs.TCP && (b.port == kubelet || b.port == proxyHealth) {
		return ListenerReady
	}
	for i := range c.Objects.Services {
		if s := &c.Objects.Services[i]; s.HealthPort != 0 && s.HealthPort == b.port && k.protocol == rs.TCP {
			return ListenerReady
		}
	}
	for i := range c.Objects.Pods {
		if p := &c.Objects.Pods[i]; p.HostNetwork && p.Node == n.Name && p.lives() && p.declares(k.protocol, b.port) {
			if b.ready {
				return ListenerReady
			}
			return ListenerDeclared
		}
	}
	if b.ready {
		return ListenerReady
	}
	return ListenerUnknown
}
