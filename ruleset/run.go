// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
)

// conntracked is the priority from which on the kernel knows a packet's
// connection; before, each packet has the state Invalid.
const conntracked = -200

// Outcome is what a hook's chains make of a packet.
type Outcome struct {
	Verdict Verb `json:"verdict"` // Accept, Drop or Reject
	// Decided is the rule of the verdict: that which dropped, or the last one
	// that accepted outside of NAT chains. A chain's dropping policy has no
	// origin; the zero Step says that only policies accepted.
	Decided Step `json:"decided,omitzero"`
	// Steps are the rules with an origin that matched, in order.
	Steps []Step        `json:"steps,omitempty"`
	NAT   []Translation `json:"nat,omitempty"`
}

// Translation is what a NAT rule did to the packet.
type Translation struct {
	Verb    Verb       `json:"verb"` // SNAT, DNAT or Masq
	Origin  string     `json:"origin,omitempty"`
	Address netip.Addr `json:"address,omitzero"` // of Masq: none, the link's own
	First   uint16     `json:"first,omitempty"`
	Last    uint16     `json:"last,omitempty"`
}

// Run evaluates a hook's base chains on a packet, in the kernel's order. It
// changes the packet's marks and addresses as the rules do. choose picks one of
// the n marks of a Balance; nil takes the first. What isn't a packet's part,
// the state of its connection and the address that Masq gives, is the caller's.
func (t *Table) Run(hook Hook, p *Packet, choose func(n int) int) (Outcome, error) {
	return t.RunBetween(hook, math.MinInt, math.MaxInt, p, choose)
}

// RunBetween is Run for the chains with a priority of at least from and below
// to: the kernel routes and translates between them. NAT chains run at the
// kernel's priority for NAT, whatever their own, which only orders them.
func (t *Table) RunBetween(hook Hook, from, to int, p *Packet, choose func(n int) int) (Outcome, error) {
	if choose == nil {
		choose = func(int) int { return 0 }
	}
	e := &evaluation{table: t, p: p, choose: choose, outcome: Outcome{Verdict: Accept}}
	translated := false
	for _, c := range t.bases(hook) {
		at := c.at()
		if at < from || at >= to || c.NAT && (p.State != New || translated) {
			continue
		}
		e.tracked = at > conntracked
		e.nat = c.NAT
		verdict, err := e.base(c)
		if err != nil {
			return Outcome{}, fmt.Errorf("chain %s: %w", c.Name, err)
		}
		if verdict == Drop || verdict == Reject {
			e.outcome.Verdict = verdict
			break
		}
		translated = translated || c.NAT && len(e.outcome.NAT) > 0
	}
	return e.outcome, nil
}

// at is the priority at which the kernel calls a base chain.
func (c *Chain) at() int {
	switch {
	case !c.NAT:
		return c.Priority
	case c.Hook == Prerouting || c.Hook == Output:
		return DestinationNAT
	}
	return SourceNAT
}

// bases are the base chains of a hook in the order in which the kernel calls them.
func (t *Table) bases(hook Hook) []*Chain {
	var found []*Chain
	for i := range t.Chains {
		if t.Chains[i].Hook == hook {
			found = append(found, &t.Chains[i])
		}
	}
	slices.SortStableFunc(found, func(a, b *Chain) int {
		if a.at() != b.at() {
			return a.at() - b.at()
		}
		return a.Priority - b.Priority
	})
	return found
}

func (t *Table) chain(name string) *Chain {
	for i := range t.Chains {
		if t.Chains[i].Name == name {
			return &t.Chains[i]
		}
	}
	return nil
}

func (t *Table) lookupMap(name string) *Map {
	for i := range t.Maps {
		if t.Maps[i].Name == name {
			return &t.Maps[i]
		}
	}
	return nil
}

func (t *Table) lookupSet(name string) *Set {
	for i := range t.Sets {
		if t.Sets[i].Name == name {
			return &t.Sets[i]
		}
	}
	return nil
}

// evaluation is one run of a packet through a hook.
type evaluation struct {
	table   *Table
	p       *Packet
	choose  func(n int) int
	tracked bool // the packet's connection is known here
	nat     bool // in a NAT chain
	depth   int
	outcome Outcome
}

// base runs a base chain to its verdict.
func (e *evaluation) base(c *Chain) (Verb, error) {
	verdict, err := e.rules(c)
	if err != nil || verdict != Return {
		return verdict, err
	}
	if !c.Drop {
		return Accept, nil
	}
	e.decide(Step{Chain: c.Name, Verdict: Drop})
	return Drop, nil
}

// decide keeps who gave the verdict; a NAT chain's accept allows nothing.
func (e *evaluation) decide(s Step) {
	if !e.nat || s.Verdict != Accept {
		if s.Origin != "" || s.Verdict != Accept || e.outcome.Decided.Origin == "" {
			e.outcome.Decided = s
		}
	}
}

// rules runs a chain; Return says that it came to its end.
func (e *evaluation) rules(c *Chain) (Verb, error) {
	if e.depth++; e.depth > maxDepth {
		return "", fmt.Errorf("chains are nested more than %d deep", maxDepth)
	}
	defer func() { e.depth-- }()
	for i := range c.Rules {
		r := &c.Rules[i]
		if !e.matches(r.Matches) {
			continue
		}
		verdict, chain, did := e.actions(r)
		step := Step{Chain: c.Name, Origin: r.Origin, Verdict: did}
		if r.Origin != "" {
			e.outcome.Steps = append(e.outcome.Steps, step)
		}
		switch verdict {
		case Accept, Drop, Reject:
			step.Verdict = verdict
			e.decide(step)
			return verdict, nil
		case Return:
			return Return, nil
		case Jump, Goto:
			target := e.table.chain(chain)
			if target == nil {
				return "", fmt.Errorf("jump to chain %q, which isn't there", chain)
			}
			if verdict, err := e.rules(target); err != nil || verdict != Return {
				return verdict, err
			}
			if verdict == Goto {
				return Return, nil
			}
		}
	}
	return Return, nil
}

func (e *evaluation) matches(all []Match) bool {
	for i := range all {
		if !e.match(&all[i]) {
			return false
		}
	}
	return true
}

// match compares as the kernel does: what a packet doesn't have never matches,
// neither a comparison nor its opposite.
func (e *evaluation) match(m *Match) bool {
	if m.Set != "" {
		set := e.table.lookupSet(m.Set)
		if set == nil {
			return false
		}
		key, ok := e.key(m.Fields, set.family())
		return ok && m.Not != slices.ContainsFunc(set.Elements, func(k []Range) bool { return within(k, key) })
	}
	key, ok := e.key(m.Fields, family(m.Ranges))
	return ok && m.Not != slices.ContainsFunc(m.Ranges, func(r Range) bool { return r.Contains(key[0]) })
}

// within tells whether each value of a key is in its range.
func within(ranges []Range, key []Value) bool {
	for i, r := range ranges {
		if !r.Contains(key[i]) {
			return false
		}
	}
	return len(ranges) == len(key)
}

func (e *evaluation) key(fields []Field, bits int) ([]Value, bool) {
	key := make([]Value, len(fields))
	for i, f := range fields {
		v, ok := e.field(f)
		if !ok || (f == Source || f == Destination) && v.Addr.BitLen() != bits {
			return nil, false
		}
		key[i] = v
	}
	return key, len(fields) > 0
}

// field reads a part of the packet; false when the packet has none.
func (e *evaluation) field(f Field) (Value, bool) {
	p := e.p
	connected := e.tracked && p.State != Invalid
	switch f {
	case InLink:
		return Name(p.InLink), true
	case OutLink:
		return Name(p.OutLink), true
	case Source:
		return Addr(p.Source), p.Source.IsValid()
	case Destination:
		return Addr(p.Destination), p.Destination.IsValid()
	case Protocol:
		return Number(p.Protocol), true
	case SourcePort:
		return Number(p.SourcePort), HasPorts(p.Protocol)
	case DestinationPort:
		return Number(p.DestPort), HasPorts(p.Protocol)
	case ICMPType:
		return Number(p.ICMPType), p.Protocol == ICMP
	case State:
		if !e.tracked {
			return Number(Invalid), true
		}
		return Number(p.State), true
	case Reply:
		return truth(p.Reply), connected
	case Translated:
		return truth(p.Translated), connected
	case Mark:
		return Number(p.Mark), true
	case ConnMark:
		return Number(p.ConnMark), connected
	case Type:
		if p.Local {
			return Number(Local), true
		}
		return Value{}, true
	}
	return Value{}, false
}

// HasPorts tells whether a protocol has ports: SourcePort and DestinationPort
// match no packet of another one.
func HasPorts(protocol uint8) bool { return protocol == TCP || protocol == UDP || protocol == SCTP }

func truth(b bool) Value {
	if b {
		return Value{Number: 1}
	}
	return Value{}
}

// family is the bit length of the addresses in ranges, 32 when there are none.
func family(ranges []Range) int {
	for _, r := range ranges {
		if bits := r.From.Addr.BitLen(); bits != 0 {
			return bits
		}
	}
	return 32
}

func (s *Set) family() int {
	for _, k := range s.Elements {
		return family(k)
	}
	return 32
}

func (m *Map) family() int {
	for _, e := range m.Elements {
		return family(e.Key)
	}
	return 32
}
