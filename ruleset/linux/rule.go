// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"encoding/binary"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"bastide.dev/ruleset"
)

// rule is a rule in the kernel's form. Rules with the same body do the same.
type rule struct {
	body string   // its attributes, without table, chain and place
	uses []string // sets and maps by name, and what the compiler made for it
}

const (
	jenkinsSeed = 0xba571de // the same for all, so that affinity outlives changes of other rules
	logPrefix   = 127
	otherReg    = firstReg + 8 // for a second operand
)

// rule compiles one rule.
func (c *compiler) rule(r *ruleset.Rule) rule {
	p := &program{c: c}
	for i := range r.Matches {
		p.match(&r.Matches[i])
	}
	if r.Count {
		p.add(&expr.Counter{})
	}
	for i := range r.Actions {
		p.action(&r.Actions[i], r.Origin)
	}
	body := nest(unix.NFTA_RULE_EXPRESSIONS, p.code)
	if r.Origin != "" {
		body = append(body, attr(unix.NFTA_RULE_USERDATA, comment(r.Origin))...)
	}
	return rule{body: string(body), uses: p.uses}
}

// comment is a rule's comment as the nft tool keeps it: type, length, text, zero.
func comment(s string) []byte {
	return append(append([]byte{0, byte(len(s) + 1)}, s...), 0)
}

func (p *program) match(m *ruleset.Match) {
	f := m.Fields[0]
	if m.Set != "" {
		p.key(m.Fields, p.c.bytes[m.Set])
		p.lookup(m.Set, firstReg, m.Not)
		return
	}
	if f == ruleset.State {
		p.state(m)
		return
	}
	var all []span
	bytes := 4
	for _, r := range m.Ranges {
		if r.From.Addr.Is6() {
			bytes = 16
		}
		all = append(all, spans(f, r)...)
	}
	p.need(f, bytes)
	p.load(f, bytes, firstReg)
	op := expr.CmpOpEq
	if m.Not {
		op = expr.CmpOpNeq
	}
	switch {
	case len(all) > 1:
		p.lookup(p.c.inline(f, m.Ranges), firstReg, m.Not)
	case all[0].exact():
		p.add(&expr.Cmp{Op: op, Register: firstReg, Data: []byte(all[0].from)})
	default:
		p.add(&expr.Range{Op: op, Register: firstReg, FromData: []byte(all[0].from), ToData: []byte(all[0].to)})
	}
	if f == ruleset.Protocol && !m.Not && len(all) == 1 && all[0].exact() {
		number := all[0].from[0]
		p.ports = p.ports || ruleset.HasPorts(number)
		p.icmp = p.icmp || number == ruleset.ICMP
	}
}

// state compares the connection's state, one bit in the kernel's register.
func (p *program) state(m *ruleset.Match) {
	bits := uint32(0)
	for _, r := range m.Ranges {
		for _, s := range spans(ruleset.State, r) {
			bits |= binary.NativeEndian.Uint32([]byte(s.from))
		}
	}
	op := expr.CmpOpNeq
	if m.Not {
		op = expr.CmpOpEq
	}
	p.add(&expr.Ct{Key: expr.CtKeySTATE, Register: firstReg}, masked(firstReg, bits, 0), &expr.Cmp{Op: op, Register: firstReg, Data: native(0)})
}

func (p *program) action(a *ruleset.Action, origin string) {
	switch a.Verb {
	case ruleset.Accept, ruleset.Drop, ruleset.Return, ruleset.Jump, ruleset.Goto:
		p.add(verdict(a.Verb, a.Chain))
	case ruleset.Reject:
		p.uses = append(p.uses, refusalChain)
		p.add(verdict(ruleset.Goto, refusalChain))
	case ruleset.Dispatch:
		p.key(a.Fields, p.c.bytes[a.Map])
		p.find(a.Map, unix.NFT_REG_VERDICT)
	case ruleset.SNAT, ruleset.DNAT:
		p.translate(a)
	case ruleset.Masq:
		p.add(&expr.Masq{})
	case ruleset.SetMark, ruleset.Balance, ruleset.LoadMark, ruleset.SaveMark:
		p.mark(a)
	case ruleset.Timeout:
		name := p.c.timeout(a.Seconds)
		p.uses = append(p.uses, name)
		p.add(&expr.Objref{Type: unix.NFT_OBJECT_CT_TIMEOUT, Name: name})
	case ruleset.Log:
		p.add(&expr.Log{Key: 1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_PREFIX, Group: a.Group,
			Data: []byte(origin[:min(len(origin), logPrefix)])})
	}
}

// verdict is what ends a rule.
func verdict(verb ruleset.Verb, chain string) *expr.Verdict {
	kinds := map[ruleset.Verb]expr.VerdictKind{ruleset.Accept: expr.VerdictAccept, ruleset.Drop: expr.VerdictDrop,
		ruleset.Return: expr.VerdictReturn, ruleset.Jump: expr.VerdictJump, ruleset.Goto: expr.VerdictGoto}
	return &expr.Verdict{Kind: kinds[verb], Chain: chain}
}

func (p *program) translate(a *ruleset.Action) {
	nat := &expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: firstReg}
	if a.Verb == ruleset.DNAT {
		nat.Type = expr.NATTypeDestNAT
	}
	bytes, ports := len(a.Address.AsSlice()), a.First != 0
	if a.Map != "" {
		p.key(a.Fields, p.c.bytes[a.Map])
		p.find(a.Map, firstReg)
		bytes, ports = p.c.results[a.Map].bytes, p.c.results[a.Map].ports
	} else {
		p.add(&expr.Immediate{Register: firstReg, Data: a.Address.AsSlice()})
	}
	if bytes == 16 {
		nat.Family = unix.NFPROTO_IPV6
	}
	if ports {
		nat.RegProtoMin = firstReg + uint32(bytes/4)
		nat.RegProtoMax = nat.RegProtoMin + 1
		if a.Map == "" {
			p.add(&expr.Immediate{Register: nat.RegProtoMin, Data: port(a.First)},
				&expr.Immediate{Register: nat.RegProtoMax, Data: port(max(a.First, a.Last))})
		}
	}
	p.add(nat)
}

func port(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }

// mark changes a mark: the new value comes to a register, and under a mask the
// bits that stay are joined with it.
func (p *program) mark(a *ruleset.Action) {
	old := func(reg uint32) expr.Any { return &expr.Meta{Key: expr.MetaKeyMARK, Register: reg} }
	set := expr.Any(&expr.Meta{Key: expr.MetaKeyMARK, Register: firstReg, SourceRegister: true})
	switch {
	case a.Verb == ruleset.SetMark && a.Map == "":
		if a.Mask == 0 {
			p.add(&expr.Immediate{Register: firstReg, Data: native(a.Mark)}, set)
			return
		}
		p.add(old(firstReg), masked(firstReg, ^a.Mask, a.Mark&a.Mask), set)
		return
	case a.Verb == ruleset.SetMark:
		p.key(a.Fields, p.c.bytes[a.Map])
		p.find(a.Map, firstReg)
	case a.Verb == ruleset.Balance:
		length := p.key(a.Fields, 4)
		p.add(&expr.Hash{SourceRegister: firstReg, DestRegister: firstReg, Length: uint32(length),
			Modulus: uint32(len(a.Marks)), Seed: jenkinsSeed, Type: expr.HashTypeJenkins})
		p.find(p.c.choice(a.Marks), firstReg)
	case a.Verb == ruleset.LoadMark:
		p.add(&expr.Ct{Key: expr.CtKeyMARK, Register: firstReg})
	case a.Verb == ruleset.SaveMark:
		old = func(reg uint32) expr.Any { return &expr.Ct{Key: expr.CtKeyMARK, Register: reg} }
		p.add(old(otherReg), &expr.Meta{Key: expr.MetaKeyMARK, Register: firstReg})
		set = &expr.Ct{Key: expr.CtKeyMARK, Register: firstReg, SourceRegister: true}
	}
	if a.Mask != 0 {
		p.add(masked(firstReg, a.Mask, 0), old(otherReg), masked(otherReg, ^a.Mask, 0))
		p.or(firstReg, otherReg)
	}
	p.add(set)
}

// refusalChain is where Reject goes to: a rule of the kernel knows one way to refuse.
const refusalChain = "_reject"

// refusal are its rules.
func (c *compiler) refusal() []rule {
	reset := &program{c: c}
	reset.add(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: firstReg}, &expr.Cmp{Op: expr.CmpOpEq, Register: firstReg, Data: []byte{ruleset.TCP}},
		&expr.Reject{Type: unix.NFT_REJECT_TCP_RST})
	prohibited := &program{c: c}
	prohibited.add(&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED})
	return []rule{
		{body: string(nest(unix.NFTA_RULE_EXPRESSIONS, reset.code))},
		{body: string(nest(unix.NFTA_RULE_EXPRESSIONS, prohibited.code))},
	}
}

// equal compares rules as the compiler takes them.
func equal(a, b ruleset.Rule) bool {
	return a.Origin == b.Origin && a.Count == b.Count &&
		slices.EqualFunc(a.Matches, b.Matches, func(x, y ruleset.Match) bool {
			return x.Set == y.Set && x.Not == y.Not && slices.Equal(x.Fields, y.Fields) && slices.Equal(x.Ranges, y.Ranges)
		}) &&
		slices.EqualFunc(a.Actions, b.Actions, func(x, y ruleset.Action) bool {
			return x.Verb == y.Verb && x.Chain == y.Chain && x.Map == y.Map && slices.Equal(x.Fields, y.Fields) &&
				x.Address == y.Address && x.First == y.First && x.Last == y.Last && x.Mark == y.Mark && x.Mask == y.Mask &&
				slices.Equal(x.Marks, y.Marks) && x.Seconds == y.Seconds && x.Group == y.Group
		})
}
