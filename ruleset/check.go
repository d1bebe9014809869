// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"slices"
	"strings"
)

func (v *validation) chain(c *Chain) {
	v.at = "chain " + c.Name
	if c.Hook != "" && !slices.Contains([]Hook{Prerouting, Input, Forward, Output, Postrouting}, c.Hook) {
		v.problem("hook %q is unknown", c.Hook)
	}
	if c.Hook == "" && (c.NAT || c.Drop || c.Priority != 0) {
		v.problem("without a hook it has no priority, no policy and no NAT")
	}
	if c.NAT && (c.Hook == Forward || c.Drop || c.Priority <= conntracked) {
		v.problem("NAT needs another hook than forward, a priority above %d, and accepts what it doesn't translate", conntracked)
	}
	for i := range c.Rules {
		r := &c.Rules[i]
		if r.Origin != "" {
			v.at = "chain " + c.Name + ", rule " + r.Origin
		} else {
			v.at = "chain " + c.Name
		}
		v.rule(r)
	}
}

func (v *validation) rule(r *Rule) {
	if len(r.Origin) > maxOrigin || strings.ContainsRune(r.Origin, 0) {
		v.problem("its origin is longer than the %d bytes of a comment, or has a zero byte", maxOrigin)
	}
	if len(r.Actions) == 0 && !r.Count {
		v.problem("it does nothing")
	}
	for i := range r.Matches {
		v.match(&r.Matches[i])
	}
	for i := range r.Actions {
		a := &r.Actions[i]
		v.action(a)
		if i < len(r.Actions)-1 && ends(a.Verb) {
			v.problem("%s isn't its last action", a.Verb)
		}
		if a.Verb == Timeout && !matchesNew(r) {
			v.problem("timeout needs a match on new connections")
		}
	}
}

// ends tells whether a verb ends a rule.
func ends(verb Verb) bool {
	return slices.Contains([]Verb{Accept, Drop, Return, Jump, Goto, Reject, Dispatch, SNAT, DNAT, Masq}, verb)
}

func matchesNew(r *Rule) bool {
	return slices.ContainsFunc(r.Matches, func(m Match) bool {
		return slices.Equal(m.Fields, []Field{State}) && !m.Not && slices.Equal(m.Ranges, []Range{Only(Number(New))})
	})
}

func (v *validation) match(m *Match) {
	if m.Set != "" {
		set := v.sets[m.Set]
		switch {
		case set == nil:
			v.problem("set %q isn't there", m.Set)
		case len(m.Ranges) > 0:
			v.problem("a match has a set or ranges, not both")
		default:
			v.comparable(m.Fields, set.Fields)
		}
		return
	}
	if len(m.Fields) != 1 || len(m.Ranges) == 0 {
		v.problem("a match without a set has one field and at least one range")
		return
	}
	v.keys(m.Fields, Elements(m.Ranges...))
}

// comparable checks that fields fit the fields of a set or map: of the same
// kind, one by one (a source may be looked up among destinations).
func (v *validation) comparable(fields, keys []Field) {
	if !v.fields(fields) {
		return
	}
	fits := len(fields) == len(keys)
	for i := 0; fits && i < len(fields); i++ {
		fits = class(fields[i]) == class(keys[i])
	}
	if !fits {
		v.problem("fields %v can't be looked up among %v", fields, keys)
	}
}

// class groups the fields whose values mean the same.
func class(f Field) Field {
	switch f {
	case OutLink:
		return InLink
	case Destination:
		return Source
	case DestinationPort:
		return SourcePort
	case ConnMark:
		return Mark
	}
	return f
}

func (v *validation) action(a *Action) {
	v.ports(a.First, a.Last)
	switch a.Verb {
	case Accept, Drop, Return, Reject, Masq, SaveMark, LoadMark, Log:
	case Jump, Goto:
		v.target(a.Chain)
	case Dispatch:
		v.mapped(a, ToVerdict)
	case SNAT, DNAT:
		if a.Map != "" {
			v.mapped(a, ToAddress)
		} else if !a.Address.IsValid() || a.Address.Is4In6() {
			v.problem("%s needs an address or a map", a.Verb)
		}
	case SetMark:
		if a.Map != "" {
			v.mapped(a, ToMark)
		}
	case Balance:
		if len(a.Marks) == 0 {
			v.problem("balance needs marks")
		}
		v.fields(a.Fields)
	case Timeout:
		if a.Seconds == 0 || a.Seconds > 1<<31/1000 {
			v.problem("timeout needs seconds")
		}
	default:
		v.problem("verb %q is unknown", a.Verb)
	}
}

func (v *validation) mapped(a *Action, kind MapKind) {
	m := v.maps[a.Map]
	if m == nil {
		v.problem("map %q isn't there", a.Map)
		return
	}
	if m.Kind != kind {
		v.problem("map %s leads to a %s; %s needs one to a %s", m.Name, m.Kind, a.Verb, kind)
	}
	v.comparable(a.Fields, m.Fields)
}

// reach follows all jumps from the base chains: they have no loop and aren't
// too deep, and verbs are done where the kernel can do them.
func (v *validation) reach() {
	type visit struct {
		chain string
		hook  Hook
		nat   bool
	}
	seen := map[visit]int{} // how deep a chain was met; deeper is looked at again
	var walk func(c *Chain, base *Chain, path []string)
	walk = func(c *Chain, base *Chain, path []string) {
		if slices.Contains(path, c.Name) {
			v.at = ""
			v.problem("chains jump in a loop: %s", strings.Join(append(path, c.Name), " → "))
			return
		}
		key := visit{c.Name, base.Hook, base.NAT}
		depth := len(path) + 1
		before := seen[key]
		if before >= depth {
			return
		}
		seen[key] = depth
		if depth > maxDepth {
			v.at = ""
			v.problem("chains jump more than %d deep: %s", maxDepth, strings.Join(path, " → "))
			return
		}
		for i := range c.Rules {
			if before == 0 {
				v.place(c, &c.Rules[i], base)
			}
		}
		for _, name := range v.targets(c) {
			if next := v.chains[name]; next != nil && next.Hook == "" {
				walk(next, base, append(slices.Clip(path), c.Name))
			}
		}
	}
	for i := range v.table.Chains {
		if c := &v.table.Chains[i]; c.Hook != "" {
			walk(c, c, nil)
		}
	}
}

// targets are the chains that a chain's rules lead to, by themselves or by maps.
func (v *validation) targets(c *Chain) []string {
	found := map[string]struct{}{}
	var names []string
	add := func(a Action) {
		if _, ok := found[a.Chain]; !ok && (a.Verb == Jump || a.Verb == Goto) {
			found[a.Chain] = struct{}{}
			names = append(names, a.Chain)
		}
	}
	maps := map[string]struct{}{}
	for i := range c.Rules {
		for _, a := range c.Rules[i].Actions {
			add(a)
			m := v.maps[a.Map]
			if _, ok := maps[a.Map]; ok || a.Verb != Dispatch || m == nil {
				continue
			}
			maps[a.Map] = struct{}{}
			for _, e := range m.Elements {
				add(e.Verdict)
			}
		}
	}
	return names
}

// place checks that the base chain that leads to a rule allows its verbs.
func (v *validation) place(c *Chain, r *Rule, base *Chain) {
	v.at = "chain " + c.Name
	for _, a := range r.Actions {
		var fits bool
		switch a.Verb {
		case SNAT:
			fits = base.NAT && (base.Hook == Postrouting || base.Hook == Input)
		case DNAT:
			fits = base.NAT && (base.Hook == Prerouting || base.Hook == Output)
		case Masq:
			fits = base.NAT && base.Hook == Postrouting
		case Reject:
			fits = !base.NAT && base.Hook != Postrouting
		default:
			continue
		}
		if !fits {
			v.problem("%s can't be done from chain %s of hook %s", a.Verb, base.Name, base.Hook)
		}
	}
}
