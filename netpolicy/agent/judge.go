// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"net/netip"
	"slices"

	"bastide.dev/ruleset"
)

// judge tells which connections a table refuses. Thousands of connections go
// between few ends: each question is answered once.
type judge struct {
	table  ruleset.Table
	ranges []netip.Prefix
	ends   map[netip.Addr]bool // those that the table decides anything about
	known  map[question]bool
}

type question struct {
	hook     ruleset.Hook
	from, to netip.Addr
	protocol uint8
	port     uint16
}

func newJudge(t ruleset.Table, ranges []netip.Prefix) *judge {
	j := &judge{table: t, ranges: ranges, ends: map[netip.Addr]bool{}, known: map[question]bool{}}
	for _, m := range t.Maps {
		for _, e := range m.Elements {
			j.ends[e.Key[0].From.Addr] = true
		}
	}
	return j
}

func (j *judge) refuses(hook ruleset.Hook, p ruleset.Packet) bool {
	if !j.concerns(p.Source) && !j.concerns(p.Destination) {
		return false
	}
	q := question{hook, p.Source, p.Destination, p.Protocol, p.DestPort}
	refused, ok := j.known[q]
	if !ok {
		p.State = ruleset.New
		outcome, err := j.table.Run(hook, &p, nil)
		refused = err == nil && outcome.Verdict == ruleset.Drop
		j.known[q] = refused
	}
	return refused
}

func (j *judge) concerns(a netip.Addr) bool {
	return j.ends[a] || slices.ContainsFunc(j.ranges, func(p netip.Prefix) bool { return p.Contains(a) })
}
