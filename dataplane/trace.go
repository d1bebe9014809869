// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"cmp"
	"fmt"
	"net/netip"

	rs "bastide.dev/ruleset"
)

// Endpoint is where a traced packet begins: at an interface (or what is behind
// it), a terminal, a network's router (which probes back ends), or, with none
// of these, the Internet beyond this machine.
type Endpoint struct {
	NIC      string `json:"nic,omitempty"` // ID
	Terminal string `json:"terminal,omitempty"`
	Router   string `json:"router,omitempty"` // a VNet's ID
	// Source is the packet's source, when it isn't the endpoint's own: a pod's
	// address, a client's on the Internet (there, none is the machine itself).
	Source netip.Addr `json:"source,omitzero"`
}

// Flow is what the packet is. A zero SourcePort is some high one.
type Flow struct {
	Protocol    uint8      `json:"protocol"`
	Destination netip.Addr `json:"destination"`
	Port        uint16     `json:"port,omitempty"`
	SourcePort  uint16     `json:"sourcePort,omitempty"`
	// Backend says which of a balancer's back ends it gets, counted from 0 and
	// round again; Arrival.Backends tells how many there are.
	Backend int `json:"backend,omitempty"`
}

// Path is what becomes of the first packet of a connection, and of its answer.
type Path struct {
	Hops    []PathHop `json:"hops"`
	Reached bool      `json:"reached"` // the packet arrives, and its answer finds back
	// By is what decides in the end: the rule that refused, the route that led
	// nowhere, or the last rule that had to allow it.
	By string `json:"by,omitempty"`
	// Arrival is where the packet got to, also when its answer didn't get back.
	Arrival *Arrival `json:"arrival,omitempty"`
}

// PathHop is one thing that was found, or done to the packet.
type PathHop struct {
	Where   string `json:"where"` // "vnet/a", "edge", "machine"
	What    string `json:"what"`
	Origin  string `json:"origin,omitempty"`
	Verdict string `json:"verdict,omitempty"` // "allow", "deny", "reset"; "": no decision
}

// Arrival is a packet at its destination, as seen there. One of the first six
// says where that is.
type Arrival struct {
	NIC      string `json:"nic,omitempty"`
	Terminal string `json:"terminal,omitempty"`
	Router   string `json:"router,omitempty"`  // the VNet's own services
	Edge     bool   `json:"edge,omitempty"`    // terminals' name server
	Machine  bool   `json:"machine,omitempty"` // the front door
	// Outside is the Internet beyond this machine. Source is the address that
	// the configuration gives; the machine hides it behind its own.
	Outside bool `json:"outside,omitempty"`

	Address    netip.Addr `json:"address"`
	Port       uint16     `json:"port,omitempty"`
	Source     netip.Addr `json:"source"`
	SourcePort uint16     `json:"sourcePort,omitempty"`
	// Backends is how many a balancer chose among, on the way: this is one, and
	// the kernel may choose another.
	Backends int `json:"backends,omitempty"`
}

// Trace walks the first packet of a connection through the compiled state of
// the whole machine, the very same that the kernel gets: routers, peers, the
// edge, and back in. Health is by VNet. A flow that nobody could send (an
// unknown endpoint) is an error.
func Trace(instance string, c *Config, health map[string]Health, from Endpoint, flow Flow) (Path, error) {
	const ephemeral = 50000
	w := &walk{instance: instance, config: c, health: health, backend: flow.Backend, routers: map[string]*Router{}, seen: map[pass]uint32{}}
	w.packet = rs.Packet{Source: from.Source, Destination: flow.Destination, Protocol: flow.Protocol,
		SourcePort: flow.SourcePort, DestPort: flow.Port, State: rs.New}
	if flow.SourcePort == 0 && rs.HasPorts(flow.Protocol) {
		w.packet.SourcePort = ephemeral
	}
	if flow.Protocol == rs.ICMP {
		w.packet.ICMPType = 8
	}
	if err := w.start(from); err != nil {
		return Path{}, fmt.Errorf("trace: %w", err)
	}
	if err := w.run(); err != nil {
		return Path{}, fmt.Errorf("trace: %w", err)
	}
	return w.path, nil
}

// walk is a Trace on its way.
type walk struct {
	instance string
	config   *Config
	health   map[string]Health
	routers  map[string]*Router
	edge     *EdgeRouter

	packet rs.Packet
	next   func() error // nil: arrived, or refused
	passes []pass       // what the packet went through so far
	marks  []uint32     // of each pass's connection
	seen   map[pass]uint32
	path   Path

	backend  int // which is taken
	backends int // of how many
}

// pass is a packet's way through one router, as connection tracking sees it:
// the two ends when it came, and from where.
type pass struct {
	router  string // a VNet's ID; "" is the edge
	in      string // link; "" is the router itself
	out     string
	ends    [2]netip.AddrPort
	leaving [2]netip.AddrPort
	proto   uint8
	dnat    bool
}

const maxPasses = 16

// run takes one router after another until the packet is somewhere.
func (w *walk) run() error {
	for n := 0; w.next != nil; n++ {
		if n == maxPasses {
			w.deny("edge", "goes round in circles", "platform/loop")
			return nil
		}
		step := w.next
		w.next = nil
		if err := step(); err != nil {
			return err
		}
	}
	if w.path.Arrival == nil {
		return nil
	}
	w.path.Reached = true
	return w.back()
}

func (w *walk) start(from Endpoint) error {
	p := &w.packet
	switch {
	case from.NIC != "":
		return w.startNIC(from.NIC)
	case from.Terminal != "":
		for _, t := range w.config.Edge.Terminals {
			if t.ID == from.Terminal {
				p.Source = orAddr(p.Source, t.Address)
				w.next = func() error { return w.atEdge(TerminalLink(w.instance, t.ID)) }
				return nil
			}
		}
		return fmt.Errorf("there is no terminal %q", from.Terminal)
	case from.Router != "":
		if w.vnet(from.Router) == nil {
			return fmt.Errorf("there is no network %q", from.Router)
		}
		p.Source = orAddr(p.Source, WireServer)
		w.next = func() error { return w.atRouter(from.Router, "") }
	default:
		p.Source = orAddr(p.Source, w.config.Edge.FrontDoor)
		w.next = w.fromMachine
	}
	return nil
}

func (w *walk) startNIC(id string) error {
	for i := range w.config.VNets {
		v := &w.config.VNets[i]
		for j := range v.NICs {
			if v.NICs[j].ID != id {
				continue
			}
			w.packet.Source = orAddr(w.packet.Source, v.NICs[j].Address)
			w.next = func() error { return w.atRouter(v.ID, NICLink(w.instance, id)) }
			return nil
		}
	}
	return fmt.Errorf("there is no interface %q", id)
}

func orAddr(a, b netip.Addr) netip.Addr {
	if a.IsValid() {
		return a
	}
	return b
}

func (w *walk) vnet(id string) *VNet {
	for i := range w.config.VNets {
		if w.config.VNets[i].ID == id {
			return &w.config.VNets[i]
		}
	}
	return nil
}

// router is a network's compiled form, made when it is first needed.
func (w *walk) router(id string) *Router {
	if w.routers[id] == nil {
		r := Compile(w.instance, w.config, w.vnet(id), w.health[id])
		w.routers[id] = &r
	}
	return w.routers[id]
}

func (w *walk) theEdge() *EdgeRouter {
	if w.edge == nil {
		e := CompileEdge(w.instance, w.config)
		w.edge = &e
	}
	return w.edge
}

func (w *walk) note(where, what, origin, verdict string) {
	w.path.Hops = append(w.path.Hops, PathHop{Where: where, What: what, Origin: origin, Verdict: verdict})
}

func (w *walk) deny(where, what, origin string) {
	w.note(where, what, origin, "deny")
	w.path.By, w.path.Reached = origin, false
}

// arrive ends the walk well.
func (w *walk) arrive(where, what string, a Arrival) {
	p := &w.packet
	a.Address, a.Port, a.Source, a.SourcePort = p.Destination, p.DestPort, p.Source, p.SourcePort
	a.Backends = w.backends
	w.note(where, what, "", "")
	w.path.Arrival = &a
}

// hook runs a hook and notes what it did; false when the packet ends there.
func (w *walk) hook(where string, t *rs.Table, hook rs.Hook) (bool, error) {
	p := &w.packet
	var choose func(int) int
	if hook == rs.Prerouting {
		choose = w.choose
	}
	o, err := t.Run(hook, p, choose)
	if err != nil {
		return false, fmt.Errorf("%s: %w", where, err)
	}
	for _, s := range o.Steps {
		switch s.Verdict {
		case rs.Accept, rs.Return:
			w.note(where, "rule", s.Origin, "allow")
			w.path.By = s.Origin
		case rs.Drop, rs.Reject:
		default:
			w.note(where, "rule", s.Origin, "")
		}
	}
	for _, n := range o.NAT {
		switch n.Verb {
		case rs.DNAT:
			w.note(where, "destination becomes "+text(p.Destination, p.DestPort), n.Origin, "")
		case rs.SNAT:
			w.note(where, "source becomes "+text(p.Source, p.SourcePort), n.Origin, "")
		}
	}
	switch o.Verdict {
	case rs.Drop:
		w.deny(where, "rule", cmp.Or(o.Decided.Origin, where+"/"+o.Decided.Chain))
		return false, nil
	case rs.Reject:
		w.note(where, "rule", o.Decided.Origin, "reset")
		w.path.By = o.Decided.Origin
		return false, nil
	}
	return true, nil
}

// choose takes one of a balancer's back ends, and keeps how many there are.
func (w *walk) choose(n int) int {
	w.backends = n
	return w.backend % n
}

func text(a netip.Addr, port uint16) string {
	if port == 0 {
		return a.String()
	}
	return netip.AddrPortFrom(a, port).String()
}
