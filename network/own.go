// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// Terminal is a client on the instance's Internet, outside of every virtual
// network: Bastide's own resource, since Azure has the Internet itself.
type Terminal struct {
	Properties *TerminalProperties `json:"properties,omitempty"`
}

// TerminalProperties are a terminal's. All can be left out.
type TerminalProperties struct {
	Address           string         `json:"address,omitempty"`   // one of the instance's public addresses; "": any
	Namespace         string         `json:"namespace,omitempty"` // read-only: the data plane's namespace on Host
	Host              string         `json:"host,omitempty"`      // read-only
	ProvisioningState resource.State `json:"provisioningState,omitempty"`
}

// ownTypes are Bastide's own: terminals on the instance's Internet, and the
// operator's service tags.
func (p *Provider) ownTypes() []arm.Type {
	return []arm.Type{{Name: "terminals", Versions: []resource.APIVersion{"2026-11-01"}, Untracked: true, Queue: true,
		Model:    func() any { return &Terminal{} },
		ReadOnly: []string{"properties.namespace", "properties.host", "properties.provisioningState"},
		Put:      p.putTerminal, Delete: p.deleteTerminal, View: p.viewTerminal},
		p.serviceTagType()}
}

// putTerminal takes a public address for a terminal: the one that is asked for,
// the one it has, or any.
func (p *Provider) putTerminal(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	asked, err := terminalAddress(r.Body)
	if err != nil {
		return nil, err
	}
	var had netip.Addr
	if r.Old != nil {
		old, err := readBody[Terminal](r.Old)
		if err != nil {
			return nil, err
		}
		had, _ = addrOf(orEmpty(old.Properties).Address)
	}
	address, changes := had, []store.Change(nil)
	if !had.IsValid() || (asked.IsValid() && asked != had) {
		if address, changes, err = p.takeFor(ctx, r.ID, asked); err != nil {
			return nil, err
		}
		if had.IsValid() {
			changes = append(changes, FreePublic(had)...)
		}
	}
	return planned(r, &Terminal{Properties: &TerminalProperties{Address: address.String()}}, changes...)
}

// terminalAddress is the address that a body asks for, if any.
func terminalAddress(body map[string]any) (netip.Addr, error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("terminal: %w", err)
	}
	var t Terminal
	if err := json.Unmarshal(raw, &t); err != nil {
		return netip.Addr{}, fault.New(fault.Invalid, "InvalidRequestContent", "The body isn't a terminal's.").Because(err)
	}
	text := orEmpty(t.Properties).Address
	if text == "" {
		return netip.Addr{}, nil
	}
	a, ok := addrOf(text)
	if !ok {
		return a, fault.New(fault.Invalid, "InvalidIPAddress", "%q isn't an IP address.", text).At("properties.address")
	}
	return a, nil
}

// takeFor takes a public address for owner; the zero one is any.
func (p *Provider) takeFor(ctx context.Context, owner resource.ID, asked netip.Addr) (netip.Addr, []store.Change, error) {
	if !asked.IsValid() {
		found, changes, err := p.PublicAddresses(ctx, owner, 1)
		if err != nil {
			return asked, nil, err
		}
		return found[0], changes, nil
	}
	if !p.PublicPool.Contains(asked) {
		return asked, nil, fault.New(fault.Invalid, "PublicIPAddressNotInPool",
			"%s isn't one of the instance's public addresses, which are %s.", asked, p.PublicPool).At("properties.address")
	}
	taken, err := p.takenPublic(ctx)
	if err != nil {
		return asked, nil, err
	}
	if taken(asked) {
		return asked, nil, fault.New(fault.Conflict, "PublicIPAddressInUse",
			"The public address %s is taken: choose another, or leave it out.", asked).At("properties.address")
	}
	changes, err := claim(owner, []netip.Addr{asked}, publicKey)
	return asked, changes, err
}

// deleteTerminal keeps the address until the terminal is gone from the kernel:
// the reconciler frees what has no owner any more.
func (p *Provider) deleteTerminal(context.Context, *arm.Request) (*arm.Plan, error) {
	return &arm.Plan{Async: true}, nil
}

func (p *Provider) viewTerminal(_ context.Context, d *arm.Document, _ resource.APIVersion) (any, error) {
	view, err := arm.ViewBase(d)
	if err != nil {
		return nil, err
	}
	if properties, ok := view["properties"].(map[string]any); ok {
		properties["namespace"], properties["host"] = terminalID(d.ID), p.Host
	}
	return view, nil
}

// terminalID is a terminal's ID in the data plane, and its namespace's name.
func terminalID(id resource.ID) string { return shortID("t", id.Key()) }
