// SPDX-License-Identifier: Apache-2.0

package netpolicy

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"bastide.dev/ruleset"
)

// direction is of packets, seen from the pod that a policy is about.
type direction struct {
	name string        // as in policyTypes, in small letters
	kind string        // as in policyTypes
	own  ruleset.Field // has the address of the pod
	peer ruleset.Field // has the address of who it talks to
	pass ruleset.Action
}

var (
	ingress = &direction{"ingress", "Ingress", ruleset.Destination, ruleset.Source, ruleset.Action{Verb: ruleset.Accept}}
	egress  = &direction{"egress", "Egress", ruleset.Source, ruleset.Destination, ruleset.Action{Verb: ruleset.Goto, Chain: deliver}}
)

// deliver is the chain where packets go that their sender may send.
const deliver = "deliver"

// Origins of the rules that no policy asks for.
const (
	OriginUnknown     = "networkpolicy/unknown-pod" // dropped: this node gave the address to no pod that it knows
	OriginInvalid     = "networkpolicy/invalid"     // dropped: part of no connection, and begins none
	OriginEstablished = "networkpolicy/established" // accepted: an earlier packet of the connection was
	OriginItself      = "networkpolicy/itself"      // accepted: a pod that reaches itself, through a Service
	OriginNeighbours  = "networkpolicy/neighbours"  // accepted: IPv6's own way to find the node
	OriginNode        = "networkpolicy/node"        // accepted: between the node's own processes
)

// icmp6 is the protocol that neighbours on a link find each other by.
const icmp6 = 58

// Compile makes the table that enforces all policies on the pods of s.Node.
//
// A connection is decided by its first packet; who changes the table ends the
// connections that it would refuse. A pod has a chain for each direction in
// which anything is decided about it, and pods with the same labels share
// one. What a sender's chain lets pass goes on to the chain "deliver", since
// the receiver may be on this node, too. Peers are sets of addresses named by
// their selector, so that a pod that comes or goes changes elements alone.
//
// A packet on its way while the kernel takes a new table may meet old rules and
// new elements. So whatever finds no element or comes to a chain's end is
// dropped, and to pass takes a rule that says so.
//
// What the node itself sends (kubelet's probes) passes no hook of ours, and so
// is always let through; what pods send to the node meets their egress policies.
func Compile(s *State) ruleset.Table {
	c := newCompiler(s)
	for _, p := range c.local {
		for _, d := range []*direction{egress, ingress} {
			verdict := d.pass
			if chain := c.entry(p.Pod, d); chain != "" {
				verdict = ruleset.Action{Verb: ruleset.Goto, Chain: chain}
			}
			c.dispatch(d, p.addresses, verdict)
		}
	}
	return c.table()
}

// Local tells which pod (its UID) of this node has an address, as Compile sees
// it: those whose first packets may come.
func Local(s *State) map[netip.Addr]string {
	local := map[netip.Addr]string{}
	for _, m := range newCompiler(s).local {
		for _, a := range m.addresses {
			local[a] = m.UID
		}
	}
	return local
}

// compiler holds one compilation.
type compiler struct {
	state      *State
	namespaces map[string]*Namespace
	pods       map[string][]*member // by namespace: who has addresses of its own
	all        []*member
	local      []*member
	policies   map[string][]*Policy // by namespace
	cluster    []*ClusterPolicy     // by tier, priority, name
	sixes      bool                 // there are IPv6 addresses among pods

	sets   map[string]ruleset.Set
	chains map[string]ruleset.Chain
	maps   map[string][]ruleset.MapElement // by name: direction and family
	peers  map[string]peerSet
	named  map[string][]string // sets of addresses and ports, by who and which port
}

// member is a pod and those of its addresses that are really its own.
type member struct {
	*Pod
	addresses []netip.Addr
}

func newCompiler(s *State) *compiler {
	c := &compiler{state: s, namespaces: map[string]*Namespace{}, pods: map[string][]*member{}, policies: map[string][]*Policy{},
		sets: map[string]ruleset.Set{}, chains: map[string]ruleset.Chain{}, maps: map[string][]ruleset.MapElement{},
		peers: map[string]peerSet{}, named: map[string][]string{}}
	for _, n := range s.Namespaces {
		c.namespaces[n.Name] = n
	}
	c.all = owners(s.Pods)
	for _, m := range c.all {
		c.pods[m.Namespace] = append(c.pods[m.Namespace], m)
		// Without its namespace's labels nobody can say what holds for a pod:
		// until they are there it counts as unknown, and nothing passes.
		if m.Node == s.Node && c.namespaces[m.Namespace] != nil {
			c.local = append(c.local, m)
		}
		c.sixes = c.sixes || slices.ContainsFunc(m.addresses, netip.Addr.Is6)
	}
	for _, p := range s.Policies {
		c.policies[p.Meta.Namespace] = append(c.policies[p.Meta.Namespace], p)
	}
	for _, list := range c.policies {
		slices.SortFunc(list, func(a, b *Policy) int { return strings.Compare(a.Meta.Name, b.Meta.Name) })
	}
	c.cluster = slices.Clone(s.ClusterPolicies)
	slices.SortFunc(c.cluster, func(a, b *ClusterPolicy) int {
		return cmp.Or(cmp.Compare(a.Spec.Priority, b.Spec.Priority), strings.Compare(a.Meta.Name, b.Meta.Name))
	})
	return c
}

// owners gives each address to one pod. Pods on their node's network have none
// of their own: their packets are the node's.
func owners(pods []*Pod) []*member {
	holder := make(map[netip.Addr]*Pod, len(pods))
	for _, p := range pods {
		if p.HostNetwork {
			continue
		}
		for _, a := range p.Addresses {
			if have := holder[a]; have == nil || prefer(p, have) {
				holder[a] = p
			}
		}
	}
	var members []*member
	for _, p := range pods {
		m := &member{Pod: p}
		for _, a := range p.Addresses {
			if holder[a] == p && !slices.Contains(m.addresses, a) {
				m.addresses = append(m.addresses, a)
			}
		}
		if len(m.addresses) > 0 {
			members = append(members, m)
		}
	}
	slices.SortFunc(members, func(a, b *member) int { return a.addresses[0].Compare(b.addresses[0]) })
	return members
}

// prefer tells whether a has an address rather than b.
func prefer(a, b *Pod) bool {
	if a.Attached != b.Attached {
		return a.Attached
	}
	if a.Deleting != b.Deleting {
		return b.Deleting
	}
	return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.UID, b.UID)) > 0
}

func family(a netip.Addr) string {
	if a.Is4() {
		return "4"
	}
	return "6"
}

// families are those that the table speaks of.
func (c *compiler) families() []string {
	if c.sixes || slices.ContainsFunc(c.state.Ranges, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
		return []string{"4", "6"}
	}
	return []string{"4"}
}

func (c *compiler) dispatch(d *direction, addresses []netip.Addr, verdict ruleset.Action) {
	for _, a := range addresses {
		name := d.name + family(a)
		c.maps[name] = append(c.maps[name], ruleset.MapElement{Key: key(ruleset.Addr(a)), Verdict: verdict})
	}
}

func key(values ...ruleset.Value) []ruleset.Range {
	k := make([]ruleset.Range, len(values))
	for i, v := range values {
		k[i] = ruleset.Only(v)
	}
	return k
}

// table puts the base chains before what pods need.
func (c *compiler) table() ruleset.Table {
	established := verdict(OriginEstablished, ruleset.Accept, number(ruleset.State, ruleset.Established))
	established.Count = false // of every packet there is
	loopback := verdict(OriginNode, ruleset.Accept, ruleset.Match{Fields: []ruleset.Field{ruleset.InLink}, Ranges: key(ruleset.Name("lo"))})
	forward := ruleset.Chain{Name: "forward", Hook: ruleset.Forward, Priority: ruleset.Filter - 10, Drop: true, Rules: []ruleset.Rule{established}}
	input := ruleset.Chain{Name: "input", Hook: ruleset.Input, Priority: ruleset.Filter - 10, Drop: true, Rules: []ruleset.Rule{
		established, loopback, verdict(OriginNeighbours, ruleset.Accept, number(ruleset.Protocol, icmp6))}}
	arrive := ruleset.Chain{Name: deliver, Rules: []ruleset.Rule{do(ruleset.Action{Verb: ruleset.Accept}, number(ruleset.Type, ruleset.Local))}}
	for _, f := range c.families() {
		refused, itself := c.guard(f)
		forward.Rules = append(append(forward.Rules, refused...), itself...)
		input.Rules = append(input.Rules, refused...)
	}
	out := append(c.look(egress), c.strangers(ruleset.Source)...)
	forward.Rules = append(append(forward.Rules, out...), do(egress.pass))
	input.Rules = append(append(input.Rules, out...), do(ruleset.Action{Verb: ruleset.Accept}))
	arrive.Rules = append(append(append(arrive.Rules, c.look(ingress)...), c.strangers(ruleset.Destination)...), do(ruleset.Action{Verb: ruleset.Accept}))

	t := ruleset.Table{Name: TableName, Chains: []ruleset.Chain{forward, input, arrive}}
	for _, name := range sortedKeys(c.chains) {
		t.Chains = append(t.Chains, c.chains[name])
	}
	for _, name := range sortedKeys(c.maps) {
		field := egress.own
		if strings.HasPrefix(name, ingress.name) {
			field = ingress.own
		}
		t.Maps = append(t.Maps, ruleset.Map{Name: name, Kind: ruleset.ToVerdict, Fields: []ruleset.Field{field}, Elements: c.maps[name]})
	}
	for _, name := range sortedKeys(c.sets) {
		t.Sets = append(t.Sets, c.sets[name])
	}
	return t
}

// look asks what is decided about a pod's packets. Where there are no pods
// there is nobody to ask about.
func (c *compiler) look(d *direction) []ruleset.Rule {
	var rules []ruleset.Rule
	for _, f := range c.families() {
		if name := d.name + f; len(c.maps[name]) > 0 {
			rules = append(rules, do(ruleset.Action{Verb: ruleset.Dispatch, Map: name, Fields: []ruleset.Field{d.own}}))
		}
	}
	return rules
}

// strangers refuses addresses that this node gave to no pod that it knows: a
// pod's first packet finds its chains in place, or nothing. The ranges stand in
// the rules themselves: they are few, and no set can be without them.
func (c *compiler) strangers(field ruleset.Field) []ruleset.Rule {
	var rules []ruleset.Rule
	for _, p := range c.state.Ranges {
		rules = append(rules, verdict(OriginUnknown, ruleset.Drop, ruleset.Match{Fields: []ruleset.Field{field}, Ranges: []ruleset.Range{ruleset.Prefix(p)}}))
	}
	return rules
}

// guard refuses what belongs to no connection and begins none, and lets pods
// reach themselves.
func (c *compiler) guard(f string) (refused, itself []ruleset.Rule) {
	known := ruleset.Set{Name: "known" + f, Fields: []ruleset.Field{ruleset.Source}}
	both := ruleset.Set{Name: "itself" + f, Fields: []ruleset.Field{ruleset.Source, ruleset.Destination}}
	for _, m := range c.local {
		for _, a := range m.addresses {
			if family(a) == f {
				v := ruleset.Addr(a)
				known.Elements = append(known.Elements, key(v))
				both.Elements = append(both.Elements, key(v, v))
			}
		}
	}
	if len(known.Elements) == 0 {
		return nil, nil
	}
	c.addSet(known)
	c.addSet(both)
	for _, field := range []ruleset.Field{ruleset.Source, ruleset.Destination} {
		refused = append(refused, verdict(OriginInvalid, ruleset.Drop, number(ruleset.State, ruleset.Invalid), in(known.Name, field)))
	}
	return refused, []ruleset.Rule{verdict(OriginItself, ruleset.Accept, in(both.Name, ruleset.Source, ruleset.Destination))}
}

func do(action ruleset.Action, matches ...ruleset.Match) ruleset.Rule {
	return ruleset.Rule{Matches: matches, Actions: []ruleset.Action{action}}
}

// maxOrigin is what the kernel keeps of a rule's comment.
const maxOrigin = 250

func clip(origin string) string { return origin[:min(len(origin), maxOrigin)] }

func verdict(origin string, verb ruleset.Verb, matches ...ruleset.Match) ruleset.Rule {
	return ruleset.Rule{Origin: clip(origin), Count: true, Matches: matches, Actions: []ruleset.Action{{Verb: verb}}}
}

func number(field ruleset.Field, n int) ruleset.Match {
	return ruleset.Match{Fields: []ruleset.Field{field}, Ranges: []ruleset.Range{ruleset.Only(ruleset.Number(n))}}
}

func in(set string, fields ...ruleset.Field) ruleset.Match {
	return ruleset.Match{Fields: fields, Set: set}
}

func (c *compiler) addSet(s ruleset.Set) { c.sets[s.Name] = s }

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
