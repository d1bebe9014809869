// SPDX-License-Identifier: Apache-2.0

package network

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"bastide.dev/fault"
	"bastide.dev/host"
	"bastide.dev/resource"
)

// edgeUnit is the name of a host's one edge unit. No network has it.
const edgeUnit = "edge"

// compiled is what a host should have, and what it came from.
type compiled struct {
	inv   *inventory
	units map[string][]byte // the edge's, and networks' by ID
	ties  ties
}

// compiledNow compiles the documents as they are, unless that was done already.
func (p *Provider) compiledNow(ctx context.Context) (*compiled, error) {
	inv, err := p.inventory(ctx)
	if err != nil {
		return nil, err
	}
	p.read.mu.Lock()
	last := p.read.compiled
	p.read.mu.Unlock()
	if last != nil && last.inv.print == inv.print {
		return last, nil
	}
	now, err := newCompiled(inv, p.settings())
	if err != nil {
		return nil, err
	}
	p.read.mu.Lock()
	p.read.compiled = now
	p.read.mu.Unlock()
	return now, nil
}

func newCompiled(inv *inventory, s settings) (*compiled, error) {
	vnets, edge, ties := compile(inv, s)
	c := &compiled{inv: inv, units: map[string][]byte{}, ties: ties}
	var err error
	if c.units[edgeUnit], err = json.Marshal(edge); err != nil {
		return nil, fmt.Errorf("edge: %w", err)
	}
	for _, v := range vnets {
		if c.units[v.ID], err = json.Marshal(v); err != nil {
			return nil, fmt.Errorf("virtual network %s: %w", v.ID, err)
		}
	}
	c.leaving(s)
	return c, nil
}

// leaving ties what is being deleted to the networks that it was part of: they
// must be without it before it is gone.
func (c *compiled) leaving(s settings) {
	var going []string
	for key, i := range c.inv.items {
		if i.gone() && i.doc.Operation != "" {
			going = append(going, key)
		}
	}
	if len(going) == 0 {
		return
	}
	whole := *c.inv
	whole.whole = true
	_, _, ties := compile(&whole, s)
	for _, key := range going {
		for vnet := range ties[key] {
			c.ties.note(key, vnet)
		}
	}
}

// stand is a unit as it is stored, with what the host says of it.
type stand struct {
	value    []byte // nil: there is none
	revision int64
	report   *host.Report
	refused  string // why the store doesn't take what it should be
}

// standing are a host's units of networks and the edge, by name.
type standing map[string]stand

func (s stand) tombstoned() bool { return bytes.Equal(s.value, host.Tombstone) }

// answered tells whether the report is about the unit as it is now.
func (s stand) answered() bool { return s.report != nil && s.report.Generation >= s.revision }

// has tells whether the host has applied value.
func (s stand) has(value []byte) bool {
	return bytes.Equal(s.value, value) && s.answered() && s.report.Applied
}

// trouble is the error that the host reports of the unit as it is now, or why
// it couldn't even be told.
func (s stand) trouble() string {
	if s.refused != "" {
		return s.refused
	}
	if s.value != nil && s.answered() && !s.report.Applied && !s.report.Gone {
		return s.report.Error
	}
	return ""
}

// vnetName is the form of VNetID: other units aren't this provider's.
var vnetName = regexp.MustCompile(`^v[0-9a-f]{12}$`)

// standing reads the units and reports of networks and of the edge.
func (p *Provider) standing(ctx context.Context) (standing, error) {
	found := standing{}
	for _, kind := range []host.Kind{host.VNetUnit, host.EdgeUnit} {
		prefix := host.UnitKey(p.Host, kind, "")
		units, _, err := p.Store.List(ctx, prefix)
		if err != nil {
			return nil, fmt.Errorf("units: %w", err)
		}
		for _, record := range units {
			if name := strings.TrimPrefix(record.Key, prefix); name == edgeUnit || vnetName.MatchString(name) {
				found[name] = stand{value: record.Value, revision: record.Revision}
			}
		}
		prefix = host.ReportKey(p.Host, kind, "")
		reports, _, err := p.Store.List(ctx, prefix)
		if err != nil {
			return nil, fmt.Errorf("reports: %w", err)
		}
		for _, record := range reports {
			name := strings.TrimPrefix(record.Key, prefix)
			s, ours := found[name]
			if !ours {
				continue
			}
			s.report = &host.Report{}
			if err := json.Unmarshal(record.Value, s.report); err != nil {
				return nil, fmt.Errorf("report %s: %w", record.Key, err)
			}
			found[name] = s
		}
	}
	return found, nil
}

// Waiting says what is missing until a virtual network and the edge are, on the
// host, what the documents say now; "" when nothing is. Of a network that is
// gone or going, it waits until nothing is left of it.
func (p *Provider) Waiting(ctx context.Context, vnet resource.ID) (string, error) {
	want, err := p.compiledNow(ctx)
	if err != nil {
		return "", err
	}
	have, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	if waits := want.waits(have, VNetID(vnet)); waits != "" {
		return fmt.Sprintf("virtual network %s %s", vnet.Name(), waits), nil
	}
	if waits := want.waits(have, edgeUnit); waits != "" {
		return "the edge " + waits, nil
	}
	return "", nil
}

// waits says what is missing of a unit; "" when nothing is.
func (c *compiled) waits(have standing, name string) string {
	value, unit := c.units[name], have[name]
	switch {
	case value == nil && unit.value == nil, value != nil && unit.has(value):
		return ""
	case unit.trouble() != "":
		return "isn't in place: " + unit.trouble()
	case value == nil:
		return "hasn't gone"
	case !bytes.Equal(unit.value, value):
		return "isn't compiled"
	}
	return "isn't in place"
}

// vnetOf names the virtual network of a unit, for people.
func (c *compiled) vnetOf(unit string) string {
	for _, i := range c.inv.types[typeVNet] {
		if VNetID(i.doc.ID) == unit {
			return "virtual network " + i.doc.ID.Name()
		}
	}
	if unit == edgeUnit {
		return "edge"
	}
	return "virtual network " + unit
}

// notFound makes of a fault.NotFound no error.
func notFound(err error) error {
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	return err
}
