// SPDX-License-Identifier: Apache-2.0

package why

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"bastide.dev/dataplane"
	"bastide.dev/fault"
	"bastide.dev/ruleset"
)

// Bounds of one answer: ways that one connection may take, and the routers and
// nodes on one of them.
const (
	maxPaths = 64
	maxDepth = 8
)

// Explain answers a question. Its error is a fault (an end that isn't there, a
// port that is missing), or a *NeedObjects.
func Explain(w *World, q Question) (Answer, error) {
	k := &walk{w: w, protocol: protocolOf(q.Protocol), tables: map[string]*ruleset.Table{}, touched: map[string]bool{}}
	if k.protocol == 0 {
		return Answer{}, fault.New(fault.Invalid, "InvalidProtocol", "%q isn't a protocol: TCP, UDP, ICMP or SCTP.", q.Protocol).At("protocol")
	}
	first, err := parseEnd("from", q.From)
	if err != nil {
		return Answer{}, err
	}
	last, err := parseEnd("to", q.To)
	if err != nil {
		return Answer{}, err
	}
	from, err := k.from(first)
	if err != nil {
		return Answer{}, err
	}
	goals, err := k.goals(last, &from, q.Port)
	if err != nil {
		return Answer{}, err
	}
	for _, g := range goals {
		b := &branch{source: from.address, destination: g.address, port: g.port}
		b.hop(from.label, "sends "+protocolName(k.protocol)+" to "+k.shown(g.address, g.port)+labelled(g), "", "")
		if err := k.begin(b, &from); err != nil {
			return Answer{}, err
		}
	}
	a := Answer{From: from.label, To: goals[0].label, Protocol: protocolName(k.protocol), Port: goals[0].port, Paths: k.paths, Notes: k.notes,
		Sender: from.sender, Target: Target{Address: goals[0].address, Port: goals[0].port, Protocol: k.protocol}}
	a.sum()
	for _, where := range k.stale() {
		a.StaleIn(where)
	}
	for _, machine := range slices.Sorted(maps.Keys(k.tables)) {
		_, n := k.w.node(machine)
		a.Tables = append(a.Tables, NodeTable{n.Name, machine, k.tables[machine]})
	}
	return a, nil
}

func labelled(g goal) string {
	if g.label == g.address.String() {
		return ""
	}
	return " (" + g.label + ")"
}

// sum makes one answer of all paths.
func (a *Answer) sum() {
	good, refused := 0, -1
	for i, p := range a.Paths {
		if p.Reachable {
			good++
		} else if refused < 0 {
			refused = i
		}
	}
	switch {
	case refused < 0:
		a.Reachable, a.By, a.Rule = Yes, a.Paths[0].By, a.Paths[0].Rule
	case good == 0:
		a.Reachable, a.By, a.Rule = No, a.Paths[refused].By, a.Paths[refused].Rule
	default:
		p := a.Paths[refused]
		a.Reachable, a.Rule = Some, p.Rule
		a.By = fmt.Sprintf("%d of %d ways are open; not to %s: %s", good, len(a.Paths), p.To, p.By)
	}
}

// walk is one Explain on its way.
type walk struct {
	w        *World
	protocol uint8
	tables   map[string]*ruleset.Table // policies, by machine
	touched  map[string]bool           // networks
	links    map[string]string         // what people call links and interfaces
	paths    []Path
	notes    []string
}

// branch is a packet on one of its ways.
type branch struct {
	source, destination netip.Addr
	port                uint16
	hops                []Hop
	allowed             string // the last rule that had to let it through
	ready               bool   // it goes to an endpoint that Kubernetes finds ready
	depth               int
}

func (b *branch) hop(where, what, rule, verdict string) {
	b.hops = append(b.hops, Hop{Where: where, What: what, Rule: rule, Verdict: verdict})
	if verdict == "allow" && rule != "" {
		b.allowed = rule
	}
}

// fork is a copy that goes its own way.
func (b *branch) fork() *branch {
	c := *b
	c.hops = slices.Clone(b.hops)
	return &c
}

func (k *walk) note(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(k.notes, text) {
		k.notes = append(k.notes, text)
	}
}

func (k *walk) shown(a netip.Addr, port uint16) string {
	if port == 0 {
		return a.String()
	}
	return netip.AddrPortFrom(a, port).String()
}

// deny ends a way.
func (k *walk) deny(b *branch, to, where, what, rule, verdict string) {
	b.hop(where, what, rule, verdict)
	k.finish(b, Path{To: to, By: sentence(rule, what, false), Rule: rule})
}

// arrive ends a way well, unless it is known that nobody listens.
func (k *walk) arrive(b *branch, to string, listener Listener) {
	if !ruleset.HasPorts(k.protocol) && listener != ListenerBeyond {
		listener = ListenerReady // the kernel answers echo requests itself
	}
	what := map[Listener]string{ListenerReady: "arrives: somebody listens", ListenerDeclared: "arrives: a running container declares the port",
		ListenerBeyond:  "leaves this machine; what is beyond isn't known",
		ListenerUnknown: "arrives; whether somebody listens isn't known (a probe would tell)"}[listener]
	b.hop(to, what, "", "")
	k.finish(b, Path{To: to, Reachable: true, By: sentence(b.allowed, "", true), Rule: b.allowed, Listener: listener})
}

func (k *walk) finish(b *branch, p Path) {
	if len(k.paths) == maxPaths {
		k.note("There are more ways than %d: the others aren't shown.", maxPaths)
		return
	}
	p.Hops = b.hops
	k.paths = append(k.paths, p)
}

// begin sends the packet off.
func (k *walk) begin(b *branch, from *place) error {
	switch {
	case from.pod != nil:
		return k.inNode(b, from.cluster, from.node, fromPod)
	case from.node != nil:
		return k.inNode(b, from.cluster, from.node, fromNode)
	}
	return k.network(b, from.start)
}

// network walks the compiled networks, once for each back end of a balancer.
func (k *walk) network(b *branch, start dataplane.Endpoint) error {
	if b.depth++; b.depth > maxDepth {
		k.deny(b, k.shown(b.destination, b.port), "machine", "the packet goes round in circles", "platform/loop", "deny")
		return nil
	}
	start.Source = b.source
	for i, n := 0, 1; i < n; i++ {
		path, err := dataplane.Trace(k.w.Instance, &k.w.Config, k.w.Health, start,
			dataplane.Flow{Protocol: k.protocol, Destination: b.destination, Port: b.port, Backend: i})
		if err != nil {
			return fmt.Errorf("why: %w", err)
		}
		if path.Arrival != nil && path.Arrival.Backends > n {
			n = path.Arrival.Backends
		}
		if err := k.along(b.fork(), path); err != nil {
			return err
		}
	}
	return nil
}

// along takes over what Trace found.
func (k *walk) along(b *branch, path dataplane.Path) error {
	for _, h := range path.Hops {
		where := h.Where
		if id, ok := strings.CutPrefix(h.Where, "vnet/"); ok {
			k.touched[id] = true
			where = k.w.vnetName(id)
		}
		b.hop(where, k.readable(h.What), h.Origin, h.Verdict)
	}
	to := k.shown(b.destination, b.port)
	if !path.Reached {
		what := ""
		if len(path.Hops) > 0 {
			what = path.Hops[len(path.Hops)-1].What
		}
		if path.Arrival != nil {
			to = k.arrivalName(path.Arrival)
		}
		k.finish(b, Path{To: to, By: sentence(path.By, what, false), Rule: path.By})
		return nil
	}
	if path.By != "" {
		b.allowed = path.By
	}
	a := path.Arrival
	b.source, b.destination, b.port = a.Source, a.Address, a.Port
	return k.arrived(b, a)
}

// readable puts what people know in the place of links and interfaces.
func (k *walk) readable(text string) string {
	if k.links == nil {
		k.links = k.linkNames()
	}
	words := strings.Split(text, " ")
	for i, word := range words {
		if name := k.links[word]; name != "" {
			words[i] = name
		}
	}
	return strings.Replace(strings.Join(words, " "), "the interface the", "the", 1)
}

func (k *walk) linkNames() map[string]string {
	instance := k.w.Instance
	names := map[string]string{dataplane.RouterLink: "the edge", dataplane.RootLink: "the machine"}
	for i := range k.w.Config.VNets {
		v := &k.w.Config.VNets[i]
		names[dataplane.TransitLink(instance, v.ID)] = k.w.vnetName(v.ID)
		for _, p := range v.Peers {
			names[dataplane.PeerLink(instance, v.ID, p.VNet)] = "the peering to " + k.w.vnetName(p.VNet)
		}
		for j := range v.NICs {
			owner := "the " + k.ownerOf(&v.NICs[j])
			names[v.NICs[j].ID], names[dataplane.NICLink(instance, v.NICs[j].ID)] = owner, owner
		}
	}
	for _, t := range k.w.Config.Edge.Terminals {
		name := "the terminal " + k.terminalName(t.ID)
		names[t.ID], names[dataplane.TerminalLink(instance, t.ID)] = k.terminalName(t.ID), name
	}
	return names
}

func (k *walk) arrivalName(a *dataplane.Arrival) string {
	switch {
	case a.NIC != "":
		if at, ok := k.nicByID(a.NIC); ok {
			return k.ownerOf(at.nic)
		}
	case a.Terminal != "":
		return "terminal " + k.terminalName(a.Terminal)
	case a.Router != "":
		return "services of " + k.w.vnetName(a.Router)
	case a.Machine:
		return "front door"
	case a.Outside:
		return "the Internet beyond this machine"
	}
	return a.Address.String()
}

func (k *walk) nicByID(id string) (at, bool) {
	return k.w.nic(func(_ *dataplane.VNet, n *dataplane.NIC) bool { return n.ID == id })
}

// arrived is a packet at what the network delivers it to.
func (k *walk) arrived(b *branch, a *dataplane.Arrival) error {
	name := k.arrivalName(a)
	switch {
	case a.Router != "", a.Machine:
		k.arrive(b, name, ListenerReady)
		return nil
	case a.Outside:
		k.arrive(b, name, ListenerBeyond)
		return nil
	case a.NIC == "":
		k.arrive(b, name, ListenerUnknown)
		return nil
	}
	at, _ := k.nicByID(a.NIC)
	if c, n := k.w.node(at.nic.Machine); n != nil && at.nic.Machine != "" {
		return k.inNode(b, c, n, fromNetwork)
	}
	listener := ListenerUnknown
	if c := k.w.server(at.nic.Namespace); c != nil && at.nic.Namespace != "" && b.port == c.Port && k.protocol == ruleset.TCP {
		listener = ListenerReady
	}
	k.arrive(b, name, listener)
	return nil
}

// stale lists the networks on the way whose kernel has something else.
func (k *walk) stale() []string {
	var found []string
	for i := range k.w.Config.VNets {
		v := &k.w.Config.VNets[i]
		if !k.touched[v.ID] {
			continue
		}
		r := dataplane.Compile(k.w.Instance, &k.w.Config, v, k.w.Health[v.ID])
		if r.Digest() != k.w.Digests[v.ID] {
			found = append(found, k.w.vnetName(v.ID))
		}
	}
	return found
}
