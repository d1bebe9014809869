// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"bastide.dev/ruleset"
)

// big is a table as a network of nics interfaces with an NSG of rules rules has
// it: a map from links to chains, and in each rule a set of its own or ranges.
func big(nics, rules int) ruleset.Table {
	t := ruleset.Table{Name: "big"}
	links := ruleset.Map{Name: "links", Kind: ruleset.ToVerdict, Fields: fields(ruleset.OutLink)}
	for i := range nics {
		name := fmt.Sprintf("nic%d", i)
		links.Elements = append(links.Elements, ruleset.MapElement{Key: []ruleset.Range{link(name)}, Verdict: ruleset.Action{Verb: ruleset.Jump, Chain: name}})
		t.Chains = append(t.Chains, ruleset.Chain{Name: name, Rules: []ruleset.Rule{
			does(ruleset.Action{Verb: ruleset.SetMark, Mark: uint32(i)}), does(ruleset.Action{Verb: ruleset.Jump, Chain: "nsg"})}})
	}
	nsg := ruleset.Chain{Name: "nsg"}
	for i := range rules {
		nsg.Rules = append(nsg.Rules, numbered(i))
	}
	t.Maps = []ruleset.Map{links}
	t.Sets = []ruleset.Set{{Name: "some", Fields: fields(ruleset.Source), Elements: ruleset.Elements(net("10.0.0.0/8"))}}
	t.Chains = append(t.Chains, nsg, ruleset.Chain{Name: "f", Hook: ruleset.Forward, Rules: []ruleset.Rule{
		when(ruleset.Drop, among("some", ruleset.Source)),
		{Actions: []ruleset.Action{{Verb: ruleset.Dispatch, Fields: fields(ruleset.OutLink), Map: "links"}}}}})
	return t
}

func numbered(i int) ruleset.Rule {
	return ruleset.Rule{Origin: fmt.Sprintf("nsg/web/rule-%d", i), Count: true, Actions: act(ruleset.Accept), Matches: []ruleset.Match{
		is(ruleset.Source, net(fmt.Sprintf("10.%d.%d.0/24", i/256, i%256))), is(ruleset.Protocol, num(ruleset.TCP)),
		is(ruleset.DestinationPort, ruleset.Ports(uint16(i), uint16(i+10)))}}
}

func newFirewall(t testing.TB) *Firewall {
	t.Helper()
	f, err := New(newNamespace(t), "ruleset-test")
	must(t, err)
	t.Cleanup(func() { must(t, f.Close()) })
	return f
}

// kernelHas fails unless the kernel has just what the firewall thinks.
func kernelHas(t testing.TB, f *Firewall) {
	t.Helper()
	if f.has == nil {
		t.Fatal("the firewall doesn't know what it wrote")
	}
	if same, err := f.compare(); err != nil || !same {
		t.Fatalf("the kernel has something else: %v", err)
	}
}

func TestOneRuleAmongManyTouchesNothingElse(t *testing.T) {
	f := newFirewall(t)
	table := big(20, 500)
	must(t, f.Put(table))
	if !f.Last().Whole {
		t.Error("the first table wasn't written as a whole")
	}
	kernelHas(t, f)
	before := handlesOf(f)
	for name, change := range map[string]func(rules []ruleset.Rule) []ruleset.Rule{
		"insert":  func(r []ruleset.Rule) []ruleset.Rule { return slices.Insert(r, 250, numbered(1000)) },
		"delete":  func(r []ruleset.Rule) []ruleset.Rule { return slices.Delete(r, 100, 101) },
		"replace": func(r []ruleset.Rule) []ruleset.Rule { r[400] = numbered(2000); return r },
		"append":  func(r []ruleset.Rule) []ruleset.Rule { return append(r, numbered(3000)) },
	} {
		next := big(20, 500)
		nsg := &next.Chains[20]
		nsg.Rules = change(nsg.Rules)
		must(t, f.Put(next))
		c := f.Last()
		if c.Whole || c.Messages > 2 || !slices.Equal(c.Chains, []string{"nsg"}) {
			t.Errorf("%s: %+v", name, c)
		}
		kernelHas(t, f)
		same := 0
		for _, h := range handlesOf(f) {
			if slices.Contains(before, h) {
				same++
			}
		}
		if same < len(before)-1 {
			t.Errorf("%s: only %d of %d rules stayed", name, same, len(before))
		}
		must(t, f.Put(table))
		before = handlesOf(f)
	}
}

func handlesOf(f *Firewall) []uint64 {
	var all []uint64
	for _, h := range f.handles {
		all = append(all, h...)
	}
	return all
}

func TestEqualTableWritesNothing(t *testing.T) {
	f := newFirewall(t)
	must(t, f.Put(big(3, 10)))
	before, err := f.socket.generation()
	must(t, err)
	must(t, f.Put(big(3, 10)))
	if after, err := f.socket.generation(); err != nil || after != before {
		t.Errorf("generation %d became %d, %v", before, after, err)
	}
	if f.generation != before {
		t.Errorf("the firewall expected generation %d, not %d: each Put would look again", f.generation, before)
	}
}

func TestCountersSurviveOthersChanges(t *testing.T) {
	l := newLab(t)
	rule := func(origin string, port uint16) ruleset.Rule {
		return ruleset.Rule{Origin: origin, Count: true, Matches: []ruleset.Match{is(ruleset.DestinationPort, ruleset.Ports(port, 0))}, Actions: act(ruleset.Accept)}
	}
	must(t, l.firewall.Put(filter(rule("a", 1), rule("b", 2), rule("a", 3))))
	l.real(t, []ruleset.Packet{tcp(1), tcp(2), tcp(3), udp(3)})
	must(t, l.firewall.Put(filter(rule("new", 9), rule("a", 1), rule("a", 3), rule("b", 4))))
	l.real(t, []ruleset.Packet{tcp(4), tcp(1, sport(3))})
	got, err := l.firewall.Counters()
	must(t, err)
	want := []ruleset.Counter{{Origin: "a", Packets: 4, Bytes: 3*40 + 32}, {Origin: "b", Packets: 1, Bytes: 40}, {Origin: "new"}}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestDamageHeals lets someone else change the table, and only look at others.
func TestDamageHeals(t *testing.T) {
	f := newFirewall(t)
	table := big(5, 20)
	table.Sets = append(table.Sets, ruleset.Set{Name: "pairs", Fields: fields(ruleset.Source, ruleset.DestinationPort),
		Elements: [][]ruleset.Range{{net("10.0.0.0/24"), ruleset.Ports(1, 9)}}})
	must(t, f.Put(table))
	stranger := func(messages ...message) { must(t, f.socket.commit(messages)) }
	p := &plan{table: "another"}
	p.clear()
	stranger(p.messages...)
	f.change = Change{}
	must(t, f.Put(table))
	if f.Last().Messages != 0 {
		t.Errorf("another's table made us write: %+v", f.Last())
	}
	some := newSet(&ruleset.Set{Name: "some", Fields: fields(ruleset.Source), Elements: ruleset.Elements(net("11.0.0.0/8"))}, nil)
	pairs := newSet(&ruleset.Set{Name: "pairs", Fields: fields(ruleset.Source, ruleset.DestinationPort), Elements: table.Sets[1].Elements}, nil)
	damages := map[string]func(p *plan){
		"a rule deleted":    func(p *plan) { p.deleteRule("nsg", f.handles["nsg"][3]) },
		"a rule added":      func(p *plan) { p.addRule("nsg", f.has.chains[0].rules[0], 0) },
		"all rules deleted": func(p *plan) { p.do(unix.NFT_MSG_DELRULE, 0, "flush", text(unix.NFTA_RULE_TABLE, p.table)) },
		"a chain added":     func(p *plan) { p.addChains([]chain{{Chain: ruleset.Chain{Name: "theirs"}}}) },
		"an element added":  func(p *plan) { p.messages = some.change(p.table, unix.NFT_MSG_NEWSETELEM, some.elements) },
		"an element deleted": func(p *plan) {
			p.messages = pairs.change(p.table, unix.NFT_MSG_DELSETELEM, pairs.elements)
		},
		"a policy changed": func(p *plan) {
			p.do(unix.NFT_MSG_NEWCHAIN, 0, "policy", text(unix.NFTA_CHAIN_TABLE, p.table), text(unix.NFTA_CHAIN_NAME, "f"), policy(chain{Chain: ruleset.Chain{Drop: true}}))
		},
		"the table deleted": func(p *plan) { p.clear() },
	}
	for name, damage := range damages {
		p := &plan{table: f.name}
		damage(p)
		stranger(p.messages...)
		if f.intact() {
			t.Errorf("%s: nobody noticed", name)
		}
		must(t, f.Put(table))
		kernelHas(t, f)
	}
}

// TestRandomUpdates goes from table to table; after each step the kernel has
// what a fresh table would have.
func TestRandomUpdates(t *testing.T) {
	f := newFirewall(t)
	random := rand.New(rand.NewPCG(3, 9))
	table := randomTable(random)
	must(t, f.Put(table))
	whole := 0
	for step := range 150 {
		next := randomTable(random)
		for i := range table.Sets { // most stays: only then is there something to keep
			if random.IntN(3) > 0 {
				next.Sets[i] = table.Sets[i]
			}
			switch {
			case i == 0: // leads to chains that come and go
			case random.IntN(3) > 0:
				next.Maps[i] = table.Maps[i]
			default:
				next.Maps[i].Elements = slices.Concat(sample(random, table.Maps[i].Elements), sample(random, next.Maps[i].Elements))
				if next.Validate() != nil {
					next.Maps[i] = table.Maps[i]
				}
			}
		}
		for i := range next.Chains {
			next.Chains[i].Drop = table.Chains[i].Drop != (next.Chains[i].Hook == ruleset.Forward && random.IntN(5) == 0)
			if random.IntN(2) == 0 {
				next.Chains[i].Rules = slices.Concat(sample(random, table.Chains[i].Rules), next.Chains[i].Rules[:1], sample(random, table.Chains[i].Rules))
			}
		}
		if random.IntN(4) == 0 {
			name := fmt.Sprintf("extra%d", step)
			next.Chains = append(next.Chains, ruleset.Chain{Name: name, Rules: []ruleset.Rule{when(ruleset.Reject, is(ruleset.SourcePort, ruleset.Ports(1, 2), ruleset.Ports(9, 10)))}})
			next.Maps[0].Elements = []ruleset.MapElement{{Key: []ruleset.Range{at(clientAddr)}, Verdict: ruleset.Action{Verb: ruleset.Jump, Chain: name}}}
			next.Chains[1].Rules = append(next.Chains[1].Rules, does(ruleset.Action{Verb: ruleset.Timeout, Seconds: uint32(step + 1)}, is(ruleset.State, num(ruleset.New))))
		}
		must(t, f.Put(next))
		if f.Last().Whole {
			whole++
		}
		kernelHas(t, f)
		fresh, err := compile(next, nil)
		must(t, err)
		for i, c := range fresh.chains {
			if !slices.EqualFunc(c.rules, f.has.chains[i].rules, func(x, y rule) bool { return x.body == y.body }) {
				t.Fatalf("step %d: chain %s isn't as a fresh one", step, c.Name)
			}
		}
		table = next
	}
	if whole > 0 {
		t.Errorf("%d of 150 steps replaced the whole table", whole)
	}
}

func sample[E any](r *rand.Rand, all []E) []E {
	var some []E
	for _, e := range all {
		if r.IntN(4) > 0 {
			some = append(some, e)
		}
	}
	return some
}

func TestKernelRefusalNamesTheRule(t *testing.T) {
	f := newFirewall(t)
	err := f.socket.commit([]message{{kind: unix.NFT_MSG_NEWRULE, flags: unix.NLM_F_CREATE, what: "add rule to c", body: [][]byte{text(unix.NFTA_RULE_TABLE, "none"), text(unix.NFTA_RULE_CHAIN, "c")}}})
	if err == nil || err.Error() != "add rule to c: no such file or directory" {
		t.Error(err)
	}
	if err := f.Put(ruleset.Table{Name: "x", Sets: []ruleset.Set{{Name: "s"}}}); err == nil {
		t.Error("an invalid table was taken")
	}
}

func TestRemove(t *testing.T) {
	f := newFirewall(t)
	must(t, f.Remove())
	must(t, f.Put(big(2, 3)))
	must(t, f.Remove())
	if got, err := f.Counters(); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
	must(t, f.Put(big(2, 3)))
	kernelHas(t, f)
}

func BenchmarkPutWhole(b *testing.B) {
	f := newFirewall(b)
	table := big(100, 1000)
	for b.Loop() {
		f.has = nil
		must(b, f.Put(table))
	}
}

func BenchmarkPutOneRule(b *testing.B) {
	f := newFirewall(b)
	tables := []ruleset.Table{big(100, 1000), big(100, 1000)}
	tables[1].Chains[100].Rules[500] = numbered(5000)
	must(b, f.Put(tables[1]))
	for i := 0; b.Loop(); i++ {
		must(b, f.Put(tables[i%2]))
	}
}

func BenchmarkPutOneElement(b *testing.B) {
	f := newFirewall(b)
	make := func(last string) ruleset.Table {
		t := big(100, 1000)
		var all []netip.Prefix
		for i := range 1000 {
			all = append(all, netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, byte(i / 128), byte(i % 128 * 2)}), 32))
		}
		t.Sets[0].Elements = ruleset.Prefixes(append(all, netip.MustParsePrefix(last))...)
		return t
	}
	tables := []ruleset.Table{make("9.0.0.0/8"), make("8.0.0.0/8")}
	must(b, f.Put(tables[1]))
	for i := 0; b.Loop(); i++ {
		must(b, f.Put(tables[i%2]))
	}
}

func BenchmarkPutSame(b *testing.B) {
	f := newFirewall(b)
	table := big(100, 1000)
	must(b, f.Put(table))
	for b.Loop() {
		must(b, f.Put(table))
	}
}

func BenchmarkLookAgain(b *testing.B) {
	f := newFirewall(b)
	must(b, f.Put(big(100, 1000)))
	for b.Loop() {
		if !f.intact() {
			b.Fatal("not intact")
		}
	}
}

// flat is a table as a security group of n rules has it in one map of intervals.
func flat(n int, last uint32) ruleset.Table {
	t := ruleset.Table{Name: "flat"}
	m := ruleset.Map{Name: "m", Kind: ruleset.ToVerdict, Fields: fields(ruleset.Source, ruleset.Destination, ruleset.Protocol, ruleset.DestinationPort)}
	for i := range n {
		port := uint32(i)
		if i == n-1 {
			port = last
		}
		m.Elements = append(m.Elements, ruleset.MapElement{Key: []ruleset.Range{net(fmt.Sprintf("10.%d.%d.0/24", i/256, i%256)), net("10.0.0.0/8"),
			num(ruleset.TCP), ruleset.Ports(uint16(port), uint16(port+50))}, Verdict: ruleset.Action{Verb: ruleset.Accept}})
	}
	t.Maps = []ruleset.Map{m}
	t.Chains = []ruleset.Chain{{Name: "f", Hook: ruleset.Forward, Rules: []ruleset.Rule{{Actions: []ruleset.Action{{Verb: ruleset.Dispatch, Fields: m.Fields, Map: "m"}}}}}}
	return t
}

func BenchmarkPutIntervalMap(b *testing.B) {
	f := newFirewall(b)
	table := flat(1000, 7)
	for b.Loop() {
		f.has = nil
		must(b, f.Put(table))
	}
}

func BenchmarkPutOneInterval(b *testing.B) {
	f := newFirewall(b)
	tables := []ruleset.Table{flat(1000, 7), flat(1000, 8)}
	must(b, f.Put(tables[1]))
	for i := 0; b.Loop(); i++ {
		must(b, f.Put(tables[i%2]))
	}
}

// TestIPv6TablesAreTaken has every place where an address can be.
func TestIPv6TablesAreTaken(t *testing.T) {
	f := newFirewall(t)
	six, a := net("2001:db8::/64"), netip.MustParseAddr("2001:db8::1")
	table := ruleset.Table{Name: "six",
		Sets: []ruleset.Set{{Name: "s", Fields: fields(ruleset.Source, ruleset.DestinationPort), Elements: [][]ruleset.Range{{six, ruleset.Ports(1, 9)}}}},
		Maps: []ruleset.Map{{Name: "m", Kind: ruleset.ToAddress, Ports: true, Fields: fields(ruleset.Destination), Elements: []ruleset.MapElement{{Key: []ruleset.Range{six}, Address: a, First: 80}}}},
		Chains: []ruleset.Chain{
			{Name: "f", Hook: ruleset.Forward, Rules: []ruleset.Rule{when(ruleset.Drop, among("s", ruleset.Source, ruleset.DestinationPort)), when(ruleset.Accept, is(ruleset.Destination, six, at(netip.MustParseAddr("2001:db9::1"))))}},
			{Name: "d", Hook: ruleset.Prerouting, NAT: true, Priority: ruleset.DestinationNAT, Rules: []ruleset.Rule{
				does(ruleset.Action{Verb: ruleset.DNAT, Map: "m", Fields: fields(ruleset.Destination)}), does(ruleset.Action{Verb: ruleset.DNAT, Address: a, First: 1, Last: 2})}},
		}}
	must(t, f.Put(table))
	kernelHas(t, f)
}
