// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"encoding/binary"
	"maps"
	"slices"
	"sort"

	"golang.org/x/sys/unix"

	"bastide.dev/ruleset"
)

const (
	timeoutL3, timeoutL4, timeoutData = 1, 2, 3 // NFTA_CT_TIMEOUT_…
	timeoutEstablished                = 3       // CTA_TIMEOUT_TCP_ESTABLISHED
)

// plan is the messages of one transaction.
type plan struct {
	table    string
	messages []message
	ids      uint32
	touched  []string // chains whose rules changed
	whole    bool
}

func (p *plan) do(kind, flags uint16, what string, body ...[]byte) {
	p.messages = append(p.messages, message{kind: kind, flags: flags, what: what, body: body})
}

// replace makes the whole table anew.
func replace(name string, c *compiled) *plan {
	p := &plan{table: name, whole: true}
	p.clear()
	p.do(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, "add table", text(unix.NFTA_TABLE_NAME, name))
	for _, n := range slices.Sorted(maps.Keys(c.timeouts)) {
		p.addTimeout(n, c.timeouts[n])
	}
	p.addChains(c.chains)
	for _, s := range c.sets {
		p.addSet(s)
	}
	for _, s := range c.sets {
		p.messages = append(p.messages, s.change(name, unix.NFT_MSG_NEWSETELEM, s.elements)...)
	}
	for _, ch := range c.chains {
		for _, r := range ch.rules {
			p.addRule(ch.Name, r, 0)
		}
		p.touched = append(p.touched, ch.Name)
	}
	return p
}

// clear removes the table; it must be there to be removed.
func (p *plan) clear() {
	p.do(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, "add table", text(unix.NFTA_TABLE_NAME, p.table))
	p.do(unix.NFT_MSG_DELTABLE, 0, "delete table", text(unix.NFTA_TABLE_NAME, p.table))
}

// addChains makes chains. Of base chains with the same hook and priority the
// kernel calls the newest first, so they are made from the last to the first.
func (p *plan) addChains(chains []chain) {
	for _, c := range slices.Backward(chains) {
		body := [][]byte{text(unix.NFTA_CHAIN_TABLE, p.table), text(unix.NFTA_CHAIN_NAME, c.Name)}
		if c.Hook != "" {
			kind := "filter"
			if c.NAT {
				kind = "nat"
			}
			body = append(body, nest(unix.NFTA_CHAIN_HOOK, number(unix.NFTA_HOOK_HOOKNUM, hookNumber(c.Hook)),
				number(unix.NFTA_HOOK_PRIORITY, uint32(int32(c.Priority)))), policy(c), text(unix.NFTA_CHAIN_TYPE, kind))
		}
		p.do(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, "add chain "+c.Name, body...)
	}
}

func hookNumber(h ruleset.Hook) uint32 {
	return map[ruleset.Hook]uint32{ruleset.Prerouting: unix.NF_INET_PRE_ROUTING, ruleset.Input: unix.NF_INET_LOCAL_IN,
		ruleset.Forward: unix.NF_INET_FORWARD, ruleset.Output: unix.NF_INET_LOCAL_OUT, ruleset.Postrouting: unix.NF_INET_POST_ROUTING}[h]
}

func policy(c chain) []byte {
	if c.Drop {
		return number(unix.NFTA_CHAIN_POLICY, 0)
	}
	return number(unix.NFTA_CHAIN_POLICY, 1)
}

func (p *plan) addSet(s *set) {
	p.ids++
	p.messages = append(p.messages, s.header(p.table, p.ids))
}

func (p *plan) addTimeout(name string, seconds uint32) {
	p.do(unix.NFT_MSG_NEWOBJ, unix.NLM_F_CREATE, "add timeout "+name, append(p.timeout(name), nest(unix.NFTA_OBJ_DATA,
		attr(timeoutL3, binary.BigEndian.AppendUint16(nil, unix.NFPROTO_IPV4)), attr(timeoutL4, []byte{ruleset.TCP}),
		nest(timeoutData, number(timeoutEstablished, seconds))))...)
}

func (p *plan) timeout(name string) [][]byte {
	return [][]byte{text(unix.NFTA_OBJ_TABLE, p.table), text(unix.NFTA_OBJ_NAME, name),
		number(unix.NFTA_OBJ_TYPE, unix.NFT_OBJECT_CT_TIMEOUT)}
}

// addRule adds a rule before the one with a handle, or at the end.
func (p *plan) addRule(chain string, r rule, before uint64) {
	body := [][]byte{text(unix.NFTA_RULE_TABLE, p.table), text(unix.NFTA_RULE_CHAIN, chain), []byte(r.body)}
	flags := uint16(unix.NLM_F_CREATE)
	if before != 0 {
		body = append(body, attr(unix.NFTA_RULE_POSITION, binary.BigEndian.AppendUint64(nil, before)))
	} else {
		flags |= unix.NLM_F_APPEND
	}
	p.do(unix.NFT_MSG_NEWRULE, flags, "add rule to "+chain, body...)
}

func (p *plan) deleteRule(chain string, handle uint64) {
	p.do(unix.NFT_MSG_DELRULE, 0, "delete rule of "+chain, text(unix.NFTA_RULE_TABLE, p.table), text(unix.NFTA_RULE_CHAIN, chain),
		attr(unix.NFTA_RULE_HANDLE, binary.BigEndian.AppendUint64(nil, handle)))
}

// update turns the old table into the new one, touching nothing else. It can't
// when the base chains differ.
func update(name string, old, new *compiled, handles map[string][]uint64) (*plan, bool) {
	if !sameBases(old.chains, new.chains) {
		return nil, false
	}
	u := &updater{plan: plan{table: name}, old: byName(old.chains), sets: map[string]*set{}, remade: map[string]bool{}, handles: handles}
	for _, s := range old.sets {
		u.sets[s.name] = s
	}
	for _, s := range new.sets {
		if was := u.sets[s.name]; was != nil && was.sig != s.sig {
			u.remade[s.name] = true
		}
	}
	edits := u.deleteRules(new)
	u.deleteObjects(old, new)
	u.addObjects(old, new)
	for _, e := range edits {
		for i, r := range e.chain.rules {
			if !e.kept[i] {
				u.addRule(e.chain.Name, r, e.before[i])
			}
		}
	}
	return &u.plan, true
}

// sameBases tells whether the base chains are the same but for rules and policy.
func sameBases(a, b []chain) bool {
	bases := func(chains []chain) []ruleset.Chain {
		var found []ruleset.Chain
		for _, c := range chains {
			if c.Hook != "" {
				found = append(found, c.Chain)
			}
		}
		return found
	}
	return slices.EqualFunc(bases(a), bases(b), func(x, y ruleset.Chain) bool {
		return x.Name == y.Name && x.Hook == y.Hook && x.NAT == y.NAT && x.Priority == y.Priority
	})
}

func byName(chains []chain) map[string]*chain {
	named := make(map[string]*chain, len(chains))
	for i := range chains {
		named[chains[i].Name] = &chains[i]
	}
	return named
}

// updater is a plan between two tables.
type updater struct {
	plan
	old     map[string]*chain
	sets    map[string]*set // the old ones
	remade  map[string]bool // sets that are made anew
	handles map[string][]uint64
}

// edit is what becomes of a chain's rules: those kept, and for others the
// handle of the kept one that follows.
type edit struct {
	chain  chain
	kept   []bool
	before []uint64
}

// deleteRules deletes the rules that aren't in the new table.
func (u *updater) deleteRules(new *compiled) []edit {
	var edits []edit
	news := byName(new.chains)
	for _, c := range new.chains {
		was := u.old[c.Name]
		if was == nil {
			edits = append(edits, edit{chain: c, kept: make([]bool, len(c.rules)), before: make([]uint64, len(c.rules))})
			u.touched = append(u.touched, c.Name)
			continue
		}
		if u.unchanged(was, c) {
			continue
		}
		e, deleted := u.edit(*was, c)
		for _, handle := range deleted {
			u.deleteRule(c.Name, handle)
		}
		if len(deleted) > 0 || slices.Contains(e.kept, false) {
			edits = append(edits, e)
			u.touched = append(u.touched, c.Name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(u.old)) {
		if news[name] == nil {
			for _, handle := range u.handles[name] {
				u.deleteRule(name, handle)
			}
		}
	}
	return edits
}

// unchanged tells whether all of a chain's rules stay.
func (u *updater) unchanged(was *chain, c chain) bool {
	return slices.EqualFunc(was.rules, c.rules, func(x, y rule) bool { return x.body == y.body && !u.stale(x) })
}

// stale tells whether a rule uses a set that is made anew.
func (u *updater) stale(r rule) bool {
	return slices.ContainsFunc(r.uses, func(s string) bool { return u.remade[s] })
}

// edit keeps as many rules as can stay in their order.
func (u *updater) edit(was, c chain) (edit, []uint64) {
	e := edit{chain: c, kept: make([]bool, len(c.rules)), before: make([]uint64, len(c.rules))}
	handles := u.handles[c.Name]
	pairs := pair(was.rules, c.rules, u.stale)
	stays := make([]bool, len(was.rules))
	for i, at := range pairs {
		if at >= 0 {
			e.kept[i], stays[at] = true, true
		}
	}
	next := uint64(0)
	for i := len(c.rules) - 1; i >= 0; i-- {
		e.before[i] = next
		if e.kept[i] {
			next = handles[pairs[i]]
		}
	}
	var deleted []uint64
	for i, s := range stays {
		if !s {
			deleted = append(deleted, handles[i])
		}
	}
	return e, deleted
}

// pair finds for each new rule the old one that stays as it, or -1: the longest
// sequence of rules that both have in the same order.
func pair(old, new []rule, stale func(rule) bool) []int {
	places := make(map[string][]int, len(old))
	for i, r := range old {
		if !stale(r) {
			places[r.body] = append(places[r.body], i)
		}
	}
	pairs := make([]int, len(new))
	for i, r := range new {
		pairs[i] = -1
		if at := places[r.body]; len(at) > 0 {
			pairs[i], places[r.body] = at[0], at[1:]
		}
	}
	// The longest ascending subsequence, by patience sorting.
	var ends []int // index into new of the least end of a sequence of each length
	previous := make([]int, len(new))
	for i, at := range pairs {
		if at < 0 {
			continue
		}
		n := sort.Search(len(ends), func(n int) bool { return pairs[ends[n]] > at })
		previous[i] = -1
		if n > 0 {
			previous[i] = ends[n-1]
		}
		ends = append(ends[:n], append([]int{i}, ends[min(n+1, len(ends)):]...)...)
	}
	result := slices.Repeat([]int{-1}, len(new))
	if len(ends) > 0 {
		for i := ends[len(ends)-1]; i >= 0; i = previous[i] {
			result[i] = pairs[i]
		}
	}
	return result
}

// deleteObjects deletes elements, then what held them, then what they led to.
func (u *updater) deleteObjects(old, new *compiled) {
	stays := map[string]bool{}
	for _, s := range new.sets {
		was := u.sets[s.name]
		stays[s.name] = !u.remade[s.name]
		if was != nil && was != s && stays[s.name] {
			u.messages = append(u.messages, s.change(u.table, unix.NFT_MSG_DELSETELEM, missing(was.elements, s.elements))...)
		}
	}
	for _, s := range old.sets {
		if !stays[s.name] {
			u.do(unix.NFT_MSG_DELSET, 0, "delete set "+s.name, text(unix.NFTA_SET_TABLE, u.table), text(unix.NFTA_SET_NAME, s.name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(old.timeouts)) {
		if _, ok := new.timeouts[name]; !ok {
			u.do(unix.NFT_MSG_DELOBJ, 0, "delete timeout "+name, u.timeout(name)...)
		}
	}
	news := byName(new.chains)
	for _, c := range old.chains {
		if news[c.Name] == nil {
			u.do(unix.NFT_MSG_DELCHAIN, 0, "delete chain "+c.Name, text(unix.NFTA_CHAIN_TABLE, u.table), text(unix.NFTA_CHAIN_NAME, c.Name))
		}
	}
}

// addObjects makes chains before the elements that lead to them.
func (u *updater) addObjects(old, new *compiled) {
	for _, name := range slices.Sorted(maps.Keys(new.timeouts)) {
		if _, ok := old.timeouts[name]; !ok {
			u.addTimeout(name, new.timeouts[name])
		}
	}
	var chains []chain
	for _, c := range new.chains {
		was := u.old[c.Name]
		if was == nil {
			chains = append(chains, c)
		} else if was.Drop != c.Drop {
			u.do(unix.NFT_MSG_NEWCHAIN, 0, "set policy of "+c.Name, text(unix.NFTA_CHAIN_TABLE, u.table), text(unix.NFTA_CHAIN_NAME, c.Name), policy(c))
		}
	}
	u.addChains(chains)
	for _, s := range new.sets {
		if u.sets[s.name] == nil || u.remade[s.name] {
			u.addSet(s)
		}
	}
	for _, s := range new.sets {
		was := u.sets[s.name]
		switch {
		case was == nil || u.remade[s.name]:
			u.messages = append(u.messages, s.change(u.table, unix.NFT_MSG_NEWSETELEM, s.elements)...)
		case was != s:
			u.messages = append(u.messages, s.change(u.table, unix.NFT_MSG_NEWSETELEM, missing(s.elements, was.elements))...)
		}
	}
}

// missing are the elements of a that aren't in b.
func missing(a, b []element) []element {
	has := make(map[element]struct{}, len(b))
	for _, e := range b {
		has[e] = struct{}{}
	}
	var all []element
	for _, e := range a {
		if _, ok := has[e]; !ok {
			all = append(all, e)
		}
	}
	return all
}
