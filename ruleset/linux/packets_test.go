// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"bastide.dev/ruleset"
)

var (
	clientAddr = netip.MustParseAddr("10.1.0.4")
	serverAddr = netip.MustParseAddr("10.2.0.5")
	otherAddr  = netip.MustParseAddr("10.2.0.77")
)

func at(a netip.Addr) ruleset.Range             { return ruleset.Only(ruleset.Addr(a)) }
func num(n uint32) ruleset.Range                { return ruleset.Only(ruleset.Value{Number: n}) }
func link(s string) ruleset.Range               { return ruleset.Only(ruleset.Name(s)) }
func net(s string) ruleset.Range                { return ruleset.Prefix(netip.MustParsePrefix(s)) }
func fields(f ...ruleset.Field) []ruleset.Field { return f }
func act(v ruleset.Verb) []ruleset.Action       { return []ruleset.Action{{Verb: v}} }

func is(f ruleset.Field, r ...ruleset.Range) ruleset.Match {
	return ruleset.Match{Fields: fields(f), Ranges: r}
}
func not(f ruleset.Field, r ...ruleset.Range) ruleset.Match {
	return ruleset.Match{Fields: fields(f), Not: true, Ranges: r}
}
func among(set string, f ...ruleset.Field) ruleset.Match {
	return ruleset.Match{Fields: f, Set: set}
}

func when(verb ruleset.Verb, m ...ruleset.Match) ruleset.Rule {
	return ruleset.Rule{Matches: m, Actions: act(verb)}
}
func does(a ruleset.Action, m ...ruleset.Match) ruleset.Rule {
	return ruleset.Rule{Matches: m, Actions: []ruleset.Action{a}}
}

// tcp is a new connection from the client to the server; options change it.
func tcp(port uint16, options ...func(*ruleset.Packet)) ruleset.Packet {
	p := ruleset.Packet{InLink: "left", Source: clientAddr, Destination: serverAddr, Protocol: ruleset.TCP, SourcePort: 40000, DestPort: port, State: ruleset.New}
	for _, o := range options {
		o(&p)
	}
	return p
}

func proto(n uint8) func(*ruleset.Packet) { return func(p *ruleset.Packet) { p.Protocol = n } }
func to(a string) func(*ruleset.Packet) {
	return func(p *ruleset.Packet) { p.Destination = netip.MustParseAddr(a) }
}
func from(a string) func(*ruleset.Packet) {
	return func(p *ruleset.Packet) { p.Source = netip.MustParseAddr(a) }
}
func sport(n uint16) func(*ruleset.Packet) { return func(p *ruleset.Packet) { p.SourcePort = n } }
func icmp(kind uint8, p ruleset.Packet) ruleset.Packet {
	p.Protocol, p.ICMPType, p.SourcePort, p.DestPort = ruleset.ICMP, kind, 0, 0
	return p
}
func udp(n uint16, o ...func(*ruleset.Packet)) ruleset.Packet {
	return tcp(n, append(o, proto(ruleset.UDP))...)
}

// answer is the reply to a packet that was let through as f.
func answer(p ruleset.Packet) ruleset.Packet {
	r := ruleset.Packet{InLink: "right", Source: p.Destination, Destination: p.Source, Protocol: p.Protocol,
		SourcePort: p.DestPort, DestPort: p.SourcePort, State: ruleset.Established, Reply: true}
	return r
}

// filter is a table with one chain that drops what its rules don't accept.
func filter(rules ...ruleset.Rule) ruleset.Table {
	mine := when(ruleset.Accept, is(ruleset.Protocol, num(ruleset.ESP)))
	return ruleset.Table{Name: "t", Chains: []ruleset.Chain{{Name: "f", Hook: ruleset.Forward, Drop: true, Rules: append([]ruleset.Rule{mine}, rules...)}}}
}

type sent struct {
	packet ruleset.Packet
	want   ruleset.Verb
}

type scene struct {
	table   ruleset.Table
	packets []sent
}

func withSets(t ruleset.Table, sets ...ruleset.Set) ruleset.Table { t.Sets = sets; return t }
func withMaps(t ruleset.Table, maps ...ruleset.Map) ruleset.Table { t.Maps = maps; return t }
func withChains(t ruleset.Table, c ...ruleset.Chain) ruleset.Table {
	t.Chains = append(t.Chains, c...)
	return t
}

func matchScenes() map[string]scene {
	set := func(f []ruleset.Field, e ...[]ruleset.Range) ruleset.Set {
		return ruleset.Set{Name: "s", Fields: f, Elements: e}
	}
	key := func(r ...ruleset.Range) []ruleset.Range { return r }
	return map[string]scene{
		"input link":           {filter(when(ruleset.Accept, is(ruleset.InLink, link("left")))), []sent{{tcp(1), ruleset.Accept}}},
		"another input link":   {filter(when(ruleset.Accept, is(ruleset.InLink, link("lef")))), []sent{{tcp(1), ruleset.Drop}}},
		"not an output link":   {filter(when(ruleset.Accept, not(ruleset.OutLink, link("right")))), []sent{{tcp(1), ruleset.Drop}, {tcp(1, to("10.1.0.9")), ruleset.Accept}}},
		"links":                {filter(when(ruleset.Accept, is(ruleset.InLink, link("a"), link("left")))), []sent{{tcp(1), ruleset.Accept}}},
		"address":              {filter(when(ruleset.Accept, is(ruleset.Destination, at(serverAddr)))), []sent{{tcp(1), ruleset.Accept}, {tcp(1, to("10.2.0.6")), ruleset.Drop}}},
		"prefix":               {filter(when(ruleset.Accept, is(ruleset.Source, net("10.1.0.0/30")))), []sent{{tcp(1, from("10.1.0.3")), ruleset.Accept}, {tcp(1), ruleset.Drop}}},
		"not a range":          {filter(when(ruleset.Accept, not(ruleset.Source, ruleset.Between(ruleset.Addr(clientAddr), ruleset.Addr(clientAddr.Next()))))), []sent{{tcp(1), ruleset.Drop}, {tcp(1, from("10.1.0.5")), ruleset.Drop}, {tcp(1, from("10.1.0.6")), ruleset.Accept}}},
		"ranges":               {filter(when(ruleset.Accept, is(ruleset.Source, net("10.1.0.0/30"), net("10.1.9.0/24")))), []sent{{tcp(1), ruleset.Drop}, {tcp(1, from("10.1.9.1")), ruleset.Accept}}},
		"not ranges":           {filter(when(ruleset.Accept, not(ruleset.Source, net("10.1.0.0/24"), net("10.1.9.0/24")))), []sent{{tcp(1), ruleset.Drop}, {tcp(1, from("10.1.8.1")), ruleset.Accept}}},
		"protocol":             {filter(when(ruleset.Accept, is(ruleset.Protocol, num(ruleset.UDP)))), []sent{{tcp(1), ruleset.Drop}, {udp(1), ruleset.Accept}}},
		"protocols":            {filter(when(ruleset.Accept, is(ruleset.Protocol, ruleset.Between(ruleset.Number(6), ruleset.Number(50))))), []sent{{tcp(1), ruleset.Accept}, {icmp(8, tcp(1)), ruleset.Drop}}},
		"port of any protocol": {filter(when(ruleset.Accept, is(ruleset.DestinationPort, num(53)))), []sent{{tcp(53), ruleset.Accept}, {udp(53), ruleset.Accept}, {udp(54), ruleset.Drop}, {icmp(8, tcp(1)), ruleset.Drop}}},
		"not a port":           {filter(when(ruleset.Accept, not(ruleset.DestinationPort, num(53)))), []sent{{tcp(53), ruleset.Drop}, {udp(54), ruleset.Accept}, {icmp(8, tcp(1)), ruleset.Drop}}},
		"ports of TCP":         {filter(when(ruleset.Accept, is(ruleset.Protocol, num(ruleset.TCP)), is(ruleset.DestinationPort, ruleset.Ports(80, 81), ruleset.Ports(443, 443)))), []sent{{tcp(81), ruleset.Accept}, {tcp(443), ruleset.Accept}, {udp(80), ruleset.Drop}, {tcp(82), ruleset.Drop}}},
		"source port":          {filter(when(ruleset.Accept, is(ruleset.SourcePort, ruleset.Ports(1000, 2000)))), []sent{{tcp(1), ruleset.Drop}, {tcp(1, sport(2000)), ruleset.Accept}, {tcp(1, sport(2001)), ruleset.Drop}}},
		"ICMP type":            {filter(when(ruleset.Accept, is(ruleset.ICMPType, num(8)))), []sent{{icmp(8, tcp(1)), ruleset.Accept}, {icmp(13, tcp(1)), ruleset.Drop}, {udp(8), ruleset.Drop}}},
		"state":                {filter(when(ruleset.Accept, is(ruleset.State, num(ruleset.New)))), []sent{{tcp(1), ruleset.Accept}}},
		"not a state":          {filter(when(ruleset.Accept, not(ruleset.State, num(ruleset.New), num(ruleset.Invalid)))), []sent{{tcp(1), ruleset.Drop}}},
		"direction":            {filter(when(ruleset.Accept, is(ruleset.Reply, num(0)))), []sent{{tcp(1), ruleset.Accept}}},
		"not translated":       {filter(when(ruleset.Accept, is(ruleset.Translated, num(0)))), []sent{{tcp(1), ruleset.Accept}}},
		"mark":                 {filter(when(ruleset.Accept, not(ruleset.Mark, num(0)))), []sent{{tcp(1), ruleset.Drop}}},
		"set": {withSets(filter(when(ruleset.Accept, among("s", ruleset.Source))), set(fields(ruleset.Source), key(at(clientAddr)))),
			[]sent{{tcp(1), ruleset.Accept}, {tcp(1, from("10.1.0.5")), ruleset.Drop}}},
		"set with its last address": {withSets(filter(when(ruleset.Accept, ruleset.Match{Fields: fields(ruleset.Source), Set: "s", Not: true})), set(fields(ruleset.Source), key(net("240.0.0.0/4")), key(net("10.1.0.0/30")))),
			[]sent{{tcp(1), ruleset.Accept}, {tcp(1, from("10.1.0.3")), ruleset.Drop}}},
		"adjacent intervals": {withSets(filter(when(ruleset.Accept, among("s", ruleset.DestinationPort))), set(fields(ruleset.DestinationPort), key(ruleset.Ports(1, 5)), key(ruleset.Ports(6, 9)), key(ruleset.Ports(65535, 0)))),
			[]sent{{tcp(5), ruleset.Accept}, {tcp(6), ruleset.Accept}, {udp(9), ruleset.Accept}, {tcp(10), ruleset.Drop}, {tcp(65535), ruleset.Accept}}},
		"exact keys of five fields": {withSets(filter(when(ruleset.Accept, among("s", ruleset.InLink, ruleset.Source, ruleset.Destination, ruleset.Protocol, ruleset.DestinationPort))),
			set(fields(ruleset.InLink, ruleset.Source, ruleset.Destination, ruleset.Protocol, ruleset.DestinationPort), key(link("left"), at(clientAddr), at(serverAddr), num(ruleset.UDP), num(53)))),
			[]sent{{udp(53), ruleset.Accept}, {tcp(53), ruleset.Drop}, {udp(54), ruleset.Drop}}},
		"intervals of six fields": {withSets(filter(when(ruleset.Accept, among("s", ruleset.OutLink, ruleset.Source, ruleset.Destination, ruleset.Protocol, ruleset.SourcePort, ruleset.DestinationPort))),
			set(fields(ruleset.OutLink, ruleset.Source, ruleset.Destination, ruleset.Protocol, ruleset.SourcePort, ruleset.DestinationPort), key(link("right"), net("10.1.0.0/24"), net("0.0.0.0/0"), num(ruleset.TCP), ruleset.AllPorts, ruleset.Ports(80, 90)),
				key(link("right"), net("10.1.0.0/24"), net("0.0.0.0/0"), ruleset.Between(ruleset.Number(7), ruleset.Number(255)), ruleset.AllPorts, ruleset.Ports(5, 6)))),
			[]sent{{tcp(85), ruleset.Accept}, {tcp(91), ruleset.Drop}, {udp(6), ruleset.Accept}, {tcp(6), ruleset.Drop}}},
		"state and mark in a set": {withSets(filter(does(ruleset.Action{Verb: ruleset.SetMark, Mark: 0x10}), when(ruleset.Accept, among("s", ruleset.State, ruleset.Mark))),
			set(fields(ruleset.State, ruleset.Mark), key(ruleset.Between(ruleset.Number(ruleset.New), ruleset.Number(ruleset.Established)), ruleset.Between(ruleset.Number(0xf), ruleset.Number(0x11))))), []sent{{tcp(1), ruleset.Accept}}},
		"marks in a set": {withSets(filter(does(ruleset.Action{Verb: ruleset.SetMark, Mark: 0x10}, is(ruleset.DestinationPort, num(1))), does(ruleset.Action{Verb: ruleset.SetMark, Mark: 0x0f000000}, is(ruleset.DestinationPort, num(2))), when(ruleset.Accept, among("s", ruleset.Mark))),
			set(fields(ruleset.Mark), key(ruleset.Between(ruleset.Number(0xf), ruleset.Number(0x11))))), []sent{{tcp(1), ruleset.Accept}, {tcp(2), ruleset.Drop}}},
		"the router's own address": {withChains(filter(when(ruleset.Accept)), ruleset.Chain{Name: "q", Hook: ruleset.Prerouting, Priority: ruleset.Mangle + 1, Rules: []ruleset.Rule{
			when(ruleset.Drop, not(ruleset.Type, num(ruleset.Local)), is(ruleset.DestinationPort, num(7))), when(ruleset.Accept, is(ruleset.Type, num(ruleset.Local)))}},
			ruleset.Chain{Name: "i", Hook: ruleset.Input, Rules: []ruleset.Rule{when(ruleset.Reject)}}),
			[]sent{{tcp(7), ruleset.Drop}, {tcp(7, to("10.1.255.254")), ruleset.Reject}, {tcp(8), ruleset.Accept}}},
	}
}

func actionScenes() map[string]scene {
	dnat := func(rules ...ruleset.Rule) ruleset.Chain {
		return ruleset.Chain{Name: "d", Hook: ruleset.Prerouting, NAT: true, Priority: ruleset.DestinationNAT, Rules: rules}
	}
	snat := func(rules ...ruleset.Rule) ruleset.Chain {
		return ruleset.Chain{Name: "n", Hook: ruleset.Postrouting, NAT: true, Priority: ruleset.SourceNAT, Rules: rules}
	}
	public := netip.MustParseAddr("10.2.88.1")
	return map[string]scene{
		"reject": {filter(when(ruleset.Reject)), []sent{{tcp(1), ruleset.Reject}, {udp(1), ruleset.Reject}, {icmp(8, tcp(1)), ruleset.Reject}}},
		"jump, return and goto": {withChains(filter(does(ruleset.Action{Verb: ruleset.Jump, Chain: "c"}), when(ruleset.Accept, is(ruleset.DestinationPort, num(1))), when(ruleset.Drop)),
			ruleset.Chain{Name: "c", Rules: []ruleset.Rule{when(ruleset.Return, is(ruleset.DestinationPort, num(1))), does(ruleset.Action{Verb: ruleset.Goto, Chain: "g"}, is(ruleset.DestinationPort, num(2))), when(ruleset.Accept)}},
			ruleset.Chain{Name: "g", Rules: []ruleset.Rule{when(ruleset.Reject, is(ruleset.SourcePort, num(9)))}}),
			[]sent{{tcp(1), ruleset.Accept}, {tcp(2), ruleset.Drop}, {tcp(2, sport(9)), ruleset.Reject}, {tcp(3), ruleset.Accept}}},
		"later base chains, in the order of their list": {withChains(filter(does(ruleset.Action{Verb: ruleset.SetMark, Mark: 1}), when(ruleset.Accept)),
			ruleset.Chain{Name: "a1", Hook: ruleset.Forward, Priority: 5, Rules: []ruleset.Rule{does(ruleset.Action{Verb: ruleset.SetMark, Mark: 2}, is(ruleset.Mark, num(1)))}},
			ruleset.Chain{Name: "a2", Hook: ruleset.Forward, Priority: 5, Rules: []ruleset.Rule{does(ruleset.Action{Verb: ruleset.SetMark, Mark: 3}, is(ruleset.Mark, num(2)))}},
			ruleset.Chain{Name: "a3", Hook: ruleset.Forward, Priority: 5, Rules: []ruleset.Rule{when(ruleset.Drop, not(ruleset.Mark, num(3)), not(ruleset.Protocol, num(ruleset.ESP)))}}),
			[]sent{{tcp(1), ruleset.Accept}}},
		"verdict map of links": {withMaps(filter(ruleset.Rule{Actions: []ruleset.Action{{Verb: ruleset.Dispatch, Fields: fields(ruleset.InLink), Map: "m"}}}, when(ruleset.Reject)),
			ruleset.Map{Name: "m", Kind: ruleset.ToVerdict, Fields: fields(ruleset.InLink), Elements: []ruleset.MapElement{{Key: []ruleset.Range{link("left")}, Verdict: ruleset.Action{Verb: ruleset.Accept}}}}),
			[]sent{{tcp(1), ruleset.Accept}}},
		"verdict map of intervals": {withChains(withMaps(filter(ruleset.Rule{Actions: []ruleset.Action{{Verb: ruleset.Dispatch, Fields: fields(ruleset.DestinationPort), Map: "m"}}}, when(ruleset.Reject)),
			ruleset.Map{Name: "m", Kind: ruleset.ToVerdict, Fields: fields(ruleset.DestinationPort), Elements: []ruleset.MapElement{
				{Key: []ruleset.Range{ruleset.Ports(0, 9)}, Verdict: ruleset.Action{Verb: ruleset.Drop}}, {Key: []ruleset.Range{ruleset.Ports(10, 19)}, Verdict: ruleset.Action{Verb: ruleset.Jump, Chain: "c"}}, {Key: []ruleset.Range{ruleset.Ports(20, 29)}, Verdict: ruleset.Action{Verb: ruleset.Return}}}}),
			ruleset.Chain{Name: "c", Rules: []ruleset.Rule{when(ruleset.Accept, is(ruleset.Protocol, num(ruleset.UDP)))}}),
			[]sent{{tcp(9), ruleset.Drop}, {udp(10), ruleset.Accept}, {tcp(10), ruleset.Reject}, {tcp(29), ruleset.Drop}, {tcp(30), ruleset.Reject}, {icmp(8, tcp(1)), ruleset.Reject}}},
		"verdict map of several fields": {withMaps(filter(ruleset.Rule{Actions: []ruleset.Action{{Verb: ruleset.Dispatch, Fields: fields(ruleset.Source, ruleset.Protocol, ruleset.DestinationPort), Map: "m"}}}, when(ruleset.Reject)),
			ruleset.Map{Name: "m", Kind: ruleset.ToVerdict, Fields: fields(ruleset.Source, ruleset.Protocol, ruleset.DestinationPort), Elements: []ruleset.MapElement{
				{Key: []ruleset.Range{net("10.1.0.0/16"), num(ruleset.TCP), ruleset.Ports(1, 9)}, Verdict: ruleset.Action{Verb: ruleset.Accept}}, {Key: []ruleset.Range{net("10.1.0.0/16"), num(ruleset.UDP), ruleset.AllPorts}, Verdict: ruleset.Action{Verb: ruleset.Drop}}}}),
			[]sent{{tcp(9), ruleset.Accept}, {udp(9), ruleset.Drop}, {tcp(10), ruleset.Reject}}},
		"marks under masks, saved and loaded": {filter(
			does(ruleset.Action{Verb: ruleset.SetMark, Mark: 0x1234}), does(ruleset.Action{Verb: ruleset.SetMark, Mark: 0xff, Mask: 0x0f}), when(ruleset.Drop, not(ruleset.Mark, num(0x123f))),
			does(ruleset.Action{Verb: ruleset.SaveMark, Mask: 0xff}), when(ruleset.Drop, not(ruleset.ConnMark, num(0x3f))), does(ruleset.Action{Verb: ruleset.SetMark, Mark: 0xabcd00}),
			does(ruleset.Action{Verb: ruleset.LoadMark, Mask: 0x0f}), when(ruleset.Drop, not(ruleset.Mark, num(0xabcd0f))), does(ruleset.Action{Verb: ruleset.SaveMark}), does(ruleset.Action{Verb: ruleset.SetMark}), does(ruleset.Action{Verb: ruleset.LoadMark}),
			when(ruleset.Accept, is(ruleset.Mark, num(0xabcd0f)))), []sent{{tcp(1), ruleset.Accept}, {icmp(8, tcp(1)), ruleset.Accept}}},
		"mark map": {withMaps(filter(does(ruleset.Action{Verb: ruleset.SetMark, Mark: 0xf00}), does(ruleset.Action{Verb: ruleset.SetMark, Map: "m", Fields: fields(ruleset.DestinationPort), Mask: 0xff}), when(ruleset.Accept, is(ruleset.Mark, num(0xf07)))),
			ruleset.Map{Name: "m", Kind: ruleset.ToMark, Fields: fields(ruleset.DestinationPort), Elements: []ruleset.MapElement{{Key: []ruleset.Range{ruleset.Ports(1, 2)}, Mark: 7}, {Key: []ruleset.Range{ruleset.Ports(3, 0)}, Mark: 0x107}}}),
			[]sent{{tcp(2), ruleset.Accept}, {tcp(3), ruleset.Accept}, {tcp(4), ruleset.Drop}}},
		"one mark to balance": {filter(does(ruleset.Action{Verb: ruleset.Balance, Fields: fields(ruleset.Source, ruleset.SourcePort), Marks: []uint32{9}, Mask: 0xf}), when(ruleset.Accept, is(ruleset.Mark, num(9)))), []sent{{tcp(1), ruleset.Accept}}},
		"destination translated": {withChains(filter(when(ruleset.Accept, is(ruleset.Destination, at(otherAddr)), is(ruleset.Translated, num(1)))), dnat(
			does(ruleset.Action{Verb: ruleset.DNAT, Address: otherAddr, First: 8080}, is(ruleset.Destination, at(serverAddr)), is(ruleset.DestinationPort, num(80))), does(ruleset.Action{Verb: ruleset.DNAT, Address: otherAddr}, is(ruleset.Protocol, num(ruleset.UDP))))),
			[]sent{{tcp(80), ruleset.Accept}, {tcp(81), ruleset.Drop}, {udp(5), ruleset.Accept}}},
		"source translated to ports": {withChains(filter(when(ruleset.Accept)), snat(does(ruleset.Action{Verb: ruleset.SNAT, Address: public, First: 1024, Last: 1024}, is(ruleset.Protocol, num(ruleset.TCP))), does(ruleset.Action{Verb: ruleset.SNAT, Address: public}, is(ruleset.Protocol, num(ruleset.UDP))))),
			[]sent{{tcp(80), ruleset.Accept}, {udp(81), ruleset.Accept}, {icmp(8, tcp(1)), ruleset.Accept}}},
		"address maps": {withMaps(withChains(filter(when(ruleset.Accept)),
			dnat(does(ruleset.Action{Verb: ruleset.DNAT, Map: "m", Fields: fields(ruleset.Destination, ruleset.Protocol, ruleset.DestinationPort)}), does(ruleset.Action{Verb: ruleset.DNAT, Address: otherAddr, First: 7}, is(ruleset.DestinationPort, num(81)))),
			snat(does(ruleset.Action{Verb: ruleset.SNAT, Map: "s", Fields: fields(ruleset.Source)}))),
			ruleset.Map{Name: "m", Kind: ruleset.ToAddress, Ports: true, Fields: fields(ruleset.Destination, ruleset.Protocol, ruleset.DestinationPort), Elements: []ruleset.MapElement{{Key: []ruleset.Range{at(serverAddr), num(ruleset.TCP), num(80)}, Address: otherAddr, First: 8080}}},
			ruleset.Map{Name: "s", Kind: ruleset.ToAddress, Fields: fields(ruleset.Source), Elements: []ruleset.MapElement{{Key: []ruleset.Range{net("10.1.0.0/24")}, Address: public}}}),
			[]sent{{tcp(80), ruleset.Accept}, {tcp(81), ruleset.Accept}, {tcp(82), ruleset.Accept}}},
		"timeout, log and count": {filter(ruleset.Rule{Origin: "o", Count: true, Matches: []ruleset.Match{is(ruleset.State, num(ruleset.New))}, Actions: []ruleset.Action{{Verb: ruleset.Timeout, Seconds: 240}, {Verb: ruleset.Log, Group: 5}, {Verb: ruleset.Accept}}}),
			[]sent{{tcp(1), ruleset.Accept}, {udp(1), ruleset.Accept}}},
	}
}

// TestPackets puts every field, verb, set and map to the kernel and to Run:
// both must do with each packet what the scene says.
func TestPackets(t *testing.T) {
	l := newLab(t)
	for _, scenes := range []map[string]scene{matchScenes(), actionScenes()} {
		for name, s := range scenes {
			t.Run(name, func(t *testing.T) {
				must(t, l.firewall.Put(s.table))
				l.check(t, s)
			})
		}
	}
}

func (l *lab) check(t *testing.T, s scene) {
	t.Helper()
	var packets []ruleset.Packet
	for _, p := range s.packets {
		packets = append(packets, p.packet)
	}
	flushConnections(t, l)
	for i, got := range l.real(t, packets) {
		p := packets[i]
		run := model(t, &s.table, &p, nil)
		if got.verdict != s.packets[i].want || run != got {
			t.Errorf("packet %d %+v:\nwant   %s\nkernel %+v\nRun    %+v\n%s", i, packets[i], s.packets[i].want, got, run, s.table.Text())
		}
	}
}

// TestRepliesAreEstablished lets a connection in one way and its answers the other.
func TestRepliesAreEstablished(t *testing.T) {
	l := newLab(t)
	table := filter(when(ruleset.Accept, is(ruleset.State, num(ruleset.Established)), is(ruleset.Reply, num(1))), when(ruleset.Accept, is(ruleset.InLink, link("left")), is(ruleset.State, num(ruleset.New))))
	must(t, l.firewall.Put(table))
	there := udp(53)
	back := answer(there)
	stray := answer(there)
	stray.SourcePort, stray.State, stray.Reply = 54, ruleset.New, false
	for i, got := range l.real(t, []ruleset.Packet{there, back, stray}) {
		p := []ruleset.Packet{there, back, stray}[i]
		if run := model(t, &table, &p, nil); run != got || (got.verdict == ruleset.Accept) != (i < 2) {
			t.Errorf("packet %d: kernel %+v, Run %+v", i, got, run)
		}
	}
}

// TestMasqueradeTakesTheLinksAddress is apart: Run can't know the address.
func TestMasqueradeTakesTheLinksAddress(t *testing.T) {
	l := newLab(t)
	table := filter(when(ruleset.Accept))
	table.Chains = append(table.Chains, ruleset.Chain{Name: "n", Hook: ruleset.Postrouting, NAT: true, Priority: ruleset.SourceNAT,
		Rules: []ruleset.Rule{{Origin: "out", Matches: []ruleset.Match{not(ruleset.Protocol, num(ruleset.ESP))}, Actions: act(ruleset.Masq)}}})
	must(t, l.firewall.Put(table))
	if got := l.real(t, []ruleset.Packet{tcp(80)})[0]; got.source != netip.MustParseAddr("10.2.255.254") {
		t.Errorf("%+v", got)
	}
	p := tcp(80)
	o, err := table.Run(ruleset.Postrouting, &p, nil)
	if err != nil || len(o.NAT) != 1 || o.NAT[0].Verb != ruleset.Masq || o.NAT[0].Origin != "out" {
		t.Errorf("%+v, %v", o, err)
	}
}

// TestTimeoutIsOfEstablishedConnections shakes hands and looks at the clock.
func TestTimeoutIsOfEstablishedConnections(t *testing.T) {
	l := newLab(t)
	table := filter(does(ruleset.Action{Verb: ruleset.Timeout, Seconds: 240}, is(ruleset.State, num(ruleset.New)), is(ruleset.DestinationPort, num(80))), when(ruleset.Accept))
	must(t, l.firewall.Put(table))
	for port, want := range map[uint16][2]uint32{80: {230, 240}, 81: {1000, 1 << 31}} {
		there := tcp(port, sport(port))
		ack := there
		ack.State = ruleset.Established
		l.real(t, []ruleset.Packet{there, answer(there), ack})
		within(t, l.router, func() {
			flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
			must(t, err)
			i := slices.IndexFunc(flows, func(f *netlink.ConntrackFlow) bool { return f.Forward.SrcPort == port })
			if i < 0 || flows[i].TimeOut < want[0] || flows[i].TimeOut > want[1] {
				t.Errorf("port %d: %v, want %v", port, flows, want)
			}
		})
	}
}

// TestBalanceSpreadsAndStays sends many connections and then the same again.
func TestBalanceSpreadsAndStays(t *testing.T) {
	l := newLab(t)
	table := filter(when(ruleset.Accept))
	table.Chains = append(table.Chains, ruleset.Chain{Name: "b", Hook: ruleset.Prerouting, Priority: ruleset.Mangle, Rules: []ruleset.Rule{
		does(ruleset.Action{Verb: ruleset.Balance, Fields: fields(ruleset.Source, ruleset.Destination, ruleset.Protocol, ruleset.SourcePort, ruleset.DestinationPort), Marks: []uint32{0x100, 0x200, 0x300}, Mask: 0xff00})}},
		ruleset.Chain{Name: "d", Hook: ruleset.Prerouting, NAT: true, Priority: ruleset.DestinationNAT, Rules: []ruleset.Rule{
			does(ruleset.Action{Verb: ruleset.DNAT, Address: netip.MustParseAddr("10.2.1.1")}, is(ruleset.Mark, num(0x100))),
			does(ruleset.Action{Verb: ruleset.DNAT, Address: netip.MustParseAddr("10.2.1.2")}, is(ruleset.Mark, num(0x200))),
			does(ruleset.Action{Verb: ruleset.DNAT, Address: netip.MustParseAddr("10.2.1.3")}, is(ruleset.Mark, num(0x300)))}})
	must(t, l.firewall.Put(table))
	var packets []ruleset.Packet
	for i := range 300 {
		packets = append(packets, tcp(80, sport(uint16(20000+i))))
	}
	first := l.real(t, packets)
	count := map[netip.Addr]int{}
	for _, f := range first {
		count[f.destination]++
	}
	if len(count) != 3 || count[netip.MustParseAddr("10.2.1.1")] < 60 || count[netip.MustParseAddr("10.2.1.2")] < 60 || count[netip.MustParseAddr("10.2.1.3")] < 60 {
		t.Errorf("spread as %v", count)
	}
	flushConnections(t, l)
	table.Chains[0].Rules = append(slices.Clone(table.Chains[0].Rules), when(ruleset.Accept))
	must(t, l.firewall.Put(table))
	for i, f := range l.real(t, packets) {
		if f.destination != first[i].destination {
			t.Fatalf("connection %d went to %s, then to %s", i, first[i].destination, f.destination)
		}
	}
}

// TestRandomPackets compares the kernel with Run on random tables.
func TestRandomPackets(t *testing.T) {
	l := newLab(t)
	random := rand.New(rand.NewPCG(42, 7))
	verdicts := map[ruleset.Verb]int{}
	for round := range 12 {
		table := randomTable(random)
		must(t, l.firewall.Put(table))
		flushConnections(t, l)
		packets := make([]ruleset.Packet, 60)
		for i := range packets {
			packets[i] = randomPacket(random, uint16(round*60+i))
		}
		for i, got := range l.real(t, packets) {
			p := packets[i]
			run := model(t, &table, &p, nil)
			verdicts[got.verdict]++
			if run != got {
				t.Fatalf("round %d, packet %d %+v:\nkernel %+v\nRun    %+v\n%s", round, i, packets[i], got, run, table.Text())
			}
		}
	}
	t.Logf("verdicts: %v", verdicts)
	for _, v := range []ruleset.Verb{ruleset.Accept, ruleset.Drop, ruleset.Reject} {
		if verdicts[v] < 30 {
			t.Errorf("only %d times %s: the test says little", verdicts[v], v)
		}
	}
}
