// SPDX-License-Identifier: Apache-2.0

package ruleset

// actions does a matching rule's actions. It returns the verdict ("" goes on
// with the next rule), the chain to go to, and the verb for the explanation.
func (e *evaluation) actions(r *Rule) (verdict Verb, chain string, did Verb) {
	for i := range r.Actions {
		a := &r.Actions[i]
		verdict, chain, goesOn := e.act(a, r.Origin)
		if verdict != "" {
			if a.Verb == SNAT || a.Verb == DNAT || a.Verb == Masq {
				return verdict, chain, a.Verb
			}
			return verdict, chain, verdict
		}
		did = a.Verb
		if !goesOn {
			break
		}
	}
	return "", "", did
}

// act does one action. When it doesn't go on, the rule ends without a verdict.
func (e *evaluation) act(a *Action, origin string) (verdict Verb, chain string, goesOn bool) {
	p := e.p
	switch a.Verb {
	case Accept, Drop, Reject, Return, Jump, Goto:
		return a.Verb, a.Chain, true
	case Dispatch:
		if hit, ok := e.find(a); ok {
			return hit.Verdict.Verb, hit.Verdict.Chain, true
		}
		return "", "", false
	case SNAT, DNAT, Masq:
		return e.translate(a, origin)
	case SetMark:
		value := a.Mark
		if a.Map != "" {
			hit, ok := e.find(a)
			if !ok {
				return "", "", false
			}
			value = hit.Mark
		}
		p.Mark = blend(p.Mark, value, a.Mask)
	case Balance:
		if _, ok := e.key(a.Fields, 32); !ok || len(a.Marks) == 0 {
			return "", "", false
		}
		p.Mark = blend(p.Mark, a.Marks[e.choose(len(a.Marks))%len(a.Marks)], a.Mask)
	case SaveMark:
		if e.connected() {
			p.ConnMark = blend(p.ConnMark, p.Mark, a.Mask)
		}
	case LoadMark:
		if !e.connected() {
			return "", "", false
		}
		p.Mark = blend(p.Mark, p.ConnMark, a.Mask)
	}
	return "", "", true
}

func (e *evaluation) connected() bool { return e.tracked && e.p.State != Invalid }

// blend replaces the bits of mask in old; a zero mask is all of them.
func blend(old, value, mask uint32) uint32 {
	if mask == 0 {
		return value
	}
	return old&^mask | value&mask
}

// find looks an action's fields up in its map.
func (e *evaluation) find(a *Action) (MapElement, bool) {
	m := e.table.lookupMap(a.Map)
	if m == nil {
		return MapElement{}, false
	}
	key, ok := e.key(a.Fields, m.family())
	if !ok {
		return MapElement{}, false
	}
	for _, element := range m.Elements {
		if within(element.Key, key) {
			return element, true
		}
	}
	return MapElement{}, false
}

// translate does a NAT action: it accepts, unless the map has nothing or the
// address is of the other family.
func (e *evaluation) translate(a *Action, origin string) (verdict Verb, chain string, goesOn bool) {
	done := Translation{Verb: a.Verb, Origin: origin, Address: a.Address, First: a.First, Last: max(a.First, a.Last)}
	if a.Map != "" {
		hit, ok := e.find(a)
		if !ok {
			return "", "", false
		}
		done.Address, done.First, done.Last = hit.Address, hit.First, max(hit.First, hit.Last)
	}
	p := e.p
	switch {
	case a.Verb == Masq:
	case done.Address.BitLen() != p.Source.BitLen():
		return "", "", true
	case a.Verb == SNAT:
		p.Source = done.Address
		p.SourcePort = port(p.SourcePort, done, HasPorts(p.Protocol))
	case a.Verb == DNAT:
		p.Destination = done.Address
		p.DestPort = port(p.DestPort, done, HasPorts(p.Protocol))
		p.Translated = true
	}
	e.outcome.NAT = append(e.outcome.NAT, done)
	return Accept, "", true
}

// port is a port after translation: one that may stay does, as far as Run can
// know; the kernel takes another when it is taken.
func port(old uint16, to Translation, has bool) uint16 {
	if !has || to.First == 0 || to.First <= old && old <= to.Last {
		return old
	}
	return to.First
}
