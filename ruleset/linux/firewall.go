// SPDX-License-Identifier: Apache-2.0

// Package linux makes a ruleset.Table real in a network namespace, as an
// nftables table of family inet, and reads its counters. A change is one
// transaction of only what differs, so counters and sets of the rest stay.
//
// What applies tables on a machine imports it: dataplane/linux and netpolicy's
// agent.
package linux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"bastide.dev/ruleset"
)

// Firewall keeps one table of one network namespace.
type Firewall struct {
	name string

	mu         sync.Mutex // guards all below, and the socket's order of messages
	socket     *socket
	has        *compiled           // what the kernel has, as far as known; nil: unknown
	handles    map[string][]uint64 // of its rules, by chain
	generation uint32              // of the namespace, when we last knew the table to be ours
	change     Change
}

// Change says what the last Put that wrote has written.
type Change struct {
	Whole    bool     // the table was replaced
	Messages int      // of the transaction
	Chains   []string // whose rules changed
}

// New makes the firewall of a table in a network namespace; nil is the caller's
// own. The namespace isn't needed any longer when New returns.
func New(ns *os.File, name string) (*Firewall, error) {
	s, err := dial(ns)
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	return &Firewall{name: name, socket: s}, nil
}

// Close ends the connection to the kernel; the table stays.
func (f *Firewall) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.socket.close(); err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	return nil
}

// Put makes the table t, whose own name doesn't matter. It writes nothing when
// the kernel has it; else the difference, in one transaction, so that no packet
// meets half of it. The first Put of a Firewall replaces whatever is there, and
// so does one that finds that someone else changed the table. t is kept: it
// mustn't be changed afterwards.
func (f *Firewall) Put(t ruleset.Table) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	generation, err := f.socket.generation()
	if err != nil {
		return fmt.Errorf("nftables generation: %w", err)
	}
	if f.has != nil && generation != f.generation {
		if f.intact() {
			f.generation = generation
		} else {
			f.has = nil
		}
	}
	if f.has != nil && sameTable(f.has.source, t) {
		return nil
	}
	if err := t.Validate(); err != nil {
		return err
	}
	next, err := compile(t, f.has)
	if err != nil {
		return fmt.Errorf("table %s: %w", f.name, err)
	}
	if err := f.write(next, t); err != nil {
		f.has = nil
		return fmt.Errorf("nftables table %s: %w", f.name, err)
	}
	// A transaction of someone else in between shows as a number further on.
	if f.generation = generation + 1; f.generation == 0 {
		f.generation = 1
	}
	return nil
}

// write commits the way from what the kernel has to next. Where the kernel
// refuses the difference it gets the whole table.
func (f *Firewall) write(next *compiled, t ruleset.Table) error {
	var refused error
	if f.has != nil {
		if p, ok := update(f.name, f.has, next, f.handles); ok {
			if refused = f.socket.commit(p.messages); refused == nil {
				return f.written(p, next)
			}
		}
		var err error
		if next, err = compile(t, nil); err != nil {
			return err
		}
	}
	p := replace(f.name, next)
	if err := f.socket.commit(p.messages); err != nil {
		return errors.Join(refused, err)
	}
	return f.written(p, next)
}

// written remembers a table that the kernel has taken, and the handles that it
// gave to the rules.
func (f *Firewall) written(p *plan, next *compiled) error {
	f.change = Change{Whole: p.whole, Messages: len(p.messages), Chains: p.touched}
	if p.whole {
		f.handles = map[string][]uint64{}
	}
	filters := []string{""}
	if len(p.touched) < 8 {
		filters = p.touched
	}
	for _, chain := range filters {
		fresh, err := f.readHandles(chain)
		if err != nil {
			return fmt.Errorf("read rules: %w", err)
		}
		if chain != "" {
			delete(f.handles, chain)
		} else {
			f.handles = map[string][]uint64{}
		}
		maps.Copy(f.handles, fresh)
	}
	names := byName(next.chains)
	maps.DeleteFunc(f.handles, func(chain string, _ []uint64) bool { return names[chain] == nil })
	for _, c := range next.chains {
		if len(f.handles[c.Name]) != len(c.rules) {
			f.has = nil // someone else was faster: the next Put starts anew
			return nil
		}
	}
	f.has = next
	return nil
}

// readHandles reads the handles of a chain's rules, or of all chains'.
func (f *Firewall) readHandles(chain string) (map[string][]uint64, error) {
	handles := map[string][]uint64{}
	err := f.rules(chain, func(rule attributes) {
		if handle := rule.find(unix.NFTA_RULE_HANDLE); len(handle) == 8 {
			name := rule.name(unix.NFTA_RULE_CHAIN)
			handles[name] = append(handles[name], binary.BigEndian.Uint64(handle))
		}
	})
	return handles, err
}

func (f *Firewall) rules(chain string, got func(attributes)) error {
	m := message{kind: unix.NFT_MSG_GETRULE, body: [][]byte{text(unix.NFTA_RULE_TABLE, f.name)}}
	if chain != "" {
		m.body = append(m.body, text(unix.NFTA_RULE_CHAIN, chain))
	}
	return f.socket.dump(m, got)
}

// Last tells what the last Put that wrote has written.
func (f *Firewall) Last() Change {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.change
}

// Counters reads what the table's rules counted, summed by origin and sorted.
func (f *Firewall) Counters() ([]ruleset.Counter, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	sums := map[string]*ruleset.Counter{}
	err := f.rules("", func(rule attributes) {
		origin := commentOf(rule.find(unix.NFTA_RULE_USERDATA))
		packets, bytes, counts := counted(rule.find(unix.NFTA_RULE_EXPRESSIONS))
		if origin == "" || !counts {
			return
		}
		if sums[origin] == nil {
			sums[origin] = &ruleset.Counter{Origin: origin}
		}
		sums[origin].Packets += packets
		sums[origin].Bytes += bytes
	})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("read counters of nftables table %s: %w", f.name, err)
	}
	counters := make([]ruleset.Counter, 0, len(sums))
	for _, origin := range slices.Sorted(maps.Keys(sums)) {
		counters = append(counters, *sums[origin])
	}
	return counters, nil
}

// commentOf is the text that comment made.
func commentOf(b []byte) string {
	for len(b) >= 2 && len(b) >= 2+int(b[1]) {
		if b[0] == 0 && b[1] > 0 {
			return string(b[2 : 1+b[1]])
		}
		b = b[2+int(b[1]):]
	}
	return ""
}

// counted is what a rule's counter says, if it has one.
func counted(expressions attributes) (packets, bytes uint64, counts bool) {
	expressions.each(func(_ uint16, data []byte) {
		e := attributes(data)
		if e.name(unix.NFTA_EXPR_NAME) != "counter" {
			return
		}
		values := attributes(e.find(unix.NFTA_EXPR_DATA))
		p, b := values.find(unix.NFTA_COUNTER_PACKETS), values.find(unix.NFTA_COUNTER_BYTES)
		if len(p) == 8 && len(b) == 8 {
			packets, bytes, counts = binary.BigEndian.Uint64(p), binary.BigEndian.Uint64(b), true
		}
	})
	return packets, bytes, counts
}

// Remove deletes the table, if it is there.
func (f *Firewall) Remove() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.has = nil
	p := &plan{table: f.name}
	p.clear()
	if err := f.socket.commit(p.messages); err != nil {
		return fmt.Errorf("remove nftables table %s: %w", f.name, err)
	}
	return nil
}

// sameTable compares tables; their names don't matter.
func sameTable(a, b ruleset.Table) bool {
	return slices.EqualFunc(a.Sets, b.Sets, func(x, y ruleset.Set) bool { return x.Name == y.Name && (&set{ofSet: &x}).isSet(&y) }) &&
		slices.EqualFunc(a.Maps, b.Maps, func(x, y ruleset.Map) bool { return x.Name == y.Name && (&set{ofMap: &x}).isMap(&y) }) &&
		slices.EqualFunc(a.Chains, b.Chains, func(x, y ruleset.Chain) bool {
			return x.Name == y.Name && x.Hook == y.Hook && x.NAT == y.NAT && x.Priority == y.Priority && x.Drop == y.Drop &&
				slices.EqualFunc(x.Rules, y.Rules, equal)
		})
}
