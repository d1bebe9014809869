// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func prefixes(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, t := range texts {
		all = append(all, netip.MustParsePrefix(t))
	}
	return all
}

func TestPrefixesMergeToDisjointRanges(t *testing.T) {
	got := Prefixes(prefixes("10.0.1.0/24", "10.0.0.0/24", "10.0.0.128/25", "10.0.3.0/24", "255.255.255.0/24")...)
	var text []string
	for _, k := range got {
		text = append(text, keyText(k))
	}
	if want := []string{"10.0.0.0/23", "10.0.3.0/24", "255.255.255.0/24"}; !slices.Equal(text, want) {
		t.Errorf("got %v, want %v", text, want)
	}
}

func TestWithoutAndMergeAgreeWithMembership(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		some := func() []Range {
			var all []Range
			for range random.IntN(5) {
				from := random.IntN(40)
				all = append(all, Between(Number(from), Number(from+random.IntN(10))))
			}
			return all
		}
		a, b := some(), some()
		left := Without(a, b)
		has := func(ranges []Range, n int) bool {
			return slices.ContainsFunc(ranges, func(r Range) bool { return r.Contains(Number(n)) })
		}
		for n := range 60 {
			if want := has(a, n) && !has(b, n); has(left, n) != want {
				t.Fatalf("%v without %v is %v: wrong about %d", a, b, left, n)
			}
		}
		if !reflect.DeepEqual(Merge(left), left) {
			t.Fatalf("%v isn't merged", left)
		}
	}
}

func TestCoverIsTheRangeInPrefixes(t *testing.T) {
	r := Between(Addr(netip.MustParseAddr("10.0.0.1")), Addr(netip.MustParseAddr("10.0.0.6")))
	if got := fmt.Sprint(Cover(r)); got != "[10.0.0.1/32 10.0.0.2/31 10.0.0.4/31 10.0.0.6/32]" {
		t.Error(got)
	}
	if got := fmt.Sprint(Cover(AllIPv4)); got != "[0.0.0.0/0]" {
		t.Error(got)
	}
	if got := Without([]Range{AllIPv4}, []Range{AllIPv4}); len(got) != 0 {
		t.Error(got)
	}
}

// web is a table with a bit of everything that Run does.
func web() Table {
	from := func(p string) []Range { return []Range{Prefix(netip.MustParsePrefix(p))} }
	return Table{
		Name: "t",
		Sets: []Set{{Name: "bad", Fields: []Field{Source}, Elements: Prefixes(prefixes("10.9.0.0/16")...)}},
		Maps: []Map{{Name: "doors", Kind: ToVerdict, Fields: []Field{OutLink}, Elements: []MapElement{
			{Key: []Range{Only(Name("web"))}, Verdict: Action{Verb: Jump, Chain: "web"}},
			{Key: []Range{Only(Name("closed"))}, Verdict: Action{Verb: Drop}},
		}}},
		Chains: []Chain{
			{Name: "dnat", Hook: Prerouting, NAT: true, Priority: DestinationNAT, Rules: []Rule{
				{Origin: "public", Matches: []Match{{Fields: []Field{Destination}, Ranges: from("192.88.99.1/32")}},
					Actions: []Action{{Verb: DNAT, Address: netip.MustParseAddr("10.0.0.4"), First: 8080}}},
			}},
			{Name: "first", Hook: Forward, Priority: Filter, Drop: true, Rules: []Rule{
				{Matches: []Match{{Fields: []Field{State}, Ranges: []Range{Only(Number(Established))}}}, Actions: []Action{{Verb: Accept}}},
				{Origin: "bad", Matches: []Match{{Fields: []Field{Source}, Set: "bad"}}, Actions: []Action{{Verb: Drop}}},
				{Origin: "doors", Actions: []Action{{Verb: Dispatch, Fields: []Field{OutLink}, Map: "doors"}}},
				{Origin: "marked", Matches: []Match{{Fields: []Field{Mark}, Ranges: []Range{Only(Number(5))}}}, Actions: []Action{{Verb: Accept}}},
			}},
			{Name: "second", Hook: Forward, Priority: Filter + 1, Rules: []Rule{
				{Origin: "no telnet", Matches: []Match{{Fields: []Field{DestinationPort}, Ranges: []Range{Ports(23, 0)}}}, Actions: []Action{{Verb: Reject}}},
			}},
			{Name: "web", Rules: []Rule{
				{Origin: "https", Matches: []Match{{Fields: []Field{DestinationPort}, Ranges: []Range{Ports(443, 444)}}}, Actions: []Action{{Verb: Accept}}},
				{Origin: "mark", Actions: []Action{{Verb: SetMark, Mark: 0xff05, Mask: 0xff}}},
				{Origin: "not ssh", Matches: []Match{{Fields: []Field{DestinationPort}, Not: true, Ranges: []Range{Ports(22, 0)}}}, Actions: []Action{{Verb: Return}}},
				{Actions: []Action{{Verb: Drop}}},
			}},
		},
	}
}

func TestRun(t *testing.T) {
	table := web()
	if err := table.Validate(); err != nil {
		t.Fatal(err)
	}
	packet := func(change func(p *Packet)) Packet {
		p := Packet{OutLink: "web", Source: netip.MustParseAddr("10.0.0.9"), Destination: netip.MustParseAddr("10.0.0.4"), Protocol: TCP, DestPort: 443, State: New}
		change(&p)
		return p
	}
	for name, c := range map[string]struct {
		packet  Packet
		verdict Verb
		decided string
		mark    uint32
	}{
		"accepted in a jump":               {packet(func(*Packet) {}), Accept, "https", 0},
		"the later base chain still sees":  {packet(func(p *Packet) { p.DestPort = 23; p.State = Established }), Reject, "no telnet", 0},
		"a set drops":                      {packet(func(p *Packet) { p.Source = netip.MustParseAddr("10.9.1.1") }), Drop, "bad", 0},
		"return goes on after the vmap":    {packet(func(p *Packet) { p.DestPort = 80 }), Accept, "marked", 5},
		"a drop without an origin":         {packet(func(p *Packet) { p.DestPort = 22 }), Drop, "", 5},
		"a vmap's own verdict":             {packet(func(p *Packet) { p.OutLink = "closed" }), Drop, "doors", 0},
		"a miss of the vmap, then policy":  {packet(func(p *Packet) { p.OutLink = "other" }), Drop, "", 0},
		"ICMP has no port, not even a not": {packet(func(p *Packet) { p.Protocol = ICMP; p.DestPort = 0 }), Drop, "", 5},
		"the mark keeps bits off the mask": {packet(func(p *Packet) { p.DestPort = 80; p.Mark = 0x100 }), Drop, "", 0x105},
	} {
		p := c.packet
		got, err := table.Run(Forward, &p, nil)
		if err != nil || got.Verdict != c.verdict || got.Decided.Origin != c.decided || p.Mark != c.mark {
			t.Errorf("%s: %+v, mark %#x, %v", name, got, p.Mark, err)
		}
	}
}

func TestRunTranslatesNewConnectionsOnly(t *testing.T) {
	table := web()
	p := Packet{Destination: netip.MustParseAddr("192.88.99.1"), Source: netip.MustParseAddr("192.88.99.7"), Protocol: TCP, DestPort: 443, State: New}
	again := p
	got, err := table.RunBetween(Prerouting, Mangle, Filter, &p, nil)
	if err != nil || p.Destination != netip.MustParseAddr("10.0.0.4") || p.DestPort != 8080 || !p.Translated || len(got.NAT) != 1 || got.NAT[0].Origin != "public" {
		t.Errorf("%+v, %+v, %v", p, got, err)
	}
	again.State = Established
	got, err = table.Run(Prerouting, &again, nil)
	if err != nil || again.Translated || len(got.NAT) != 0 {
		t.Errorf("%+v, %+v, %v", again, got, err)
	}
}

func TestValidateNamesAllProblems(t *testing.T) {
	ten := Only(Addr(netip.MustParseAddr("10.0.0.1")))
	table := Table{
		Name: "bad",
		Sets: []Set{
			{Name: "a", Fields: []Field{Source}, Elements: [][]Range{{ten}, {Prefix(netip.MustParsePrefix("10.0.0.0/8"))}}},
			{Name: "a", Fields: []Field{"colour"}},
			{Name: "mixed", Fields: []Field{Source}, Elements: [][]Range{{ten}, {Only(Addr(netip.MustParseAddr("::1")))}}},
			{Name: "port", Fields: []Field{DestinationPort}, Elements: [][]Range{{Ports(1, 2)}, {Between(Number(70000), Number(80000))}}},
		},
		Maps: []Map{{Name: "m", Kind: ToVerdict, Fields: []Field{InLink}, Elements: []MapElement{{Key: []Range{Only(Name("x"))}, Verdict: Action{Verb: Jump, Chain: "nowhere"}}}}},
		Chains: []Chain{
			{Name: "base", Hook: Forward, Rules: []Rule{
				{Origin: "order", Actions: []Action{{Verb: Accept}, {Verb: SetMark}}},
				{Origin: "nat", Actions: []Action{{Verb: SNAT, Address: netip.MustParseAddr("10.0.0.1")}}},
				{Origin: "kind", Matches: []Match{{Fields: []Field{Source}, Set: "port"}}, Actions: []Action{{Verb: Dispatch, Fields: []Field{InLink}, Map: "none"}}},
				{Origin: "late", Actions: []Action{{Verb: Timeout, Seconds: 5}}},
				{Actions: []Action{{Verb: Jump, Chain: "loop"}}},
			}},
			{Name: "loop", Rules: []Rule{{Actions: []Action{{Verb: Goto, Chain: "loop2"}}}}},
			{Name: "loop2", Rules: []Rule{{Actions: []Action{{Verb: Jump, Chain: "loop"}}}, {Actions: []Action{{Verb: Jump, Chain: "base"}}}}},
		},
	}
	err := table.Validate()
	if err == nil {
		t.Fatal("valid")
	}
	for _, want := range []string{"overlap", "a of a set is taken", `"colour" is unknown`, "mixes IPv4 and IPv6", "outside of 0-65535",
		`"nowhere" isn't there`, "isn't its last action", "snat can't be done", "can't be looked up among", `map "none" isn't there`,
		"match on new", "in a loop: base → loop → loop2 → loop", "nothing jumps to it"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("missing %q in:\n%v", want, err)
		}
	}
}

func TestText(t *testing.T) {
	table := web()
	const want = `table t {
  set bad {
    type saddr
    10.9.0.0/16
  }
  map doors {
    type oifname : verdict
    "closed" : drop
    "web" : jump web
  }
  chain dnat {
    type nat hook prerouting priority -100; policy accept
    daddr 192.88.99.1 dnat 10.0.0.4:8080 comment "public"
  }
  chain first {
    type filter hook forward priority 0; policy drop
    ctstate established accept
    saddr @bad drop comment "bad"
    vmap oifname @doors comment "doors"
    mark 0x5 accept comment "marked"
  }
  chain second {
    type filter hook forward priority 1; policy accept
    dport 23 reject comment "no telnet"
  }
  chain web {
    dport 443-444 accept comment "https"
    setmark 0xff05 mask 0xff comment "mark"
    dport != 22 return comment "not ssh"
    drop
  }
}
`
	if got := table.Text(); got != want {
		t.Error(got)
	}
	other := web()
	if table.Digest() != other.Digest() {
		t.Error("equal tables have different digests")
	}
	other.Chains[0].Rules[0].Count = true
	if table.Digest() == other.Digest() {
		t.Error("different tables have one digest")
	}
}
