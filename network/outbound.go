// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"

	"bastide.dev/arm"
	"bastide.dev/dataplane"
	"bastide.dev/store"
)

// vnetState is a virtual network's private state.
type vnetState struct {
	// Outbound is the public address of Azure's default outbound access: what a
	// subnet that asks for it has when nothing else leads out. A subnet that
	// doesn't ask is private, as Azure's newer subnets are.
	Outbound netip.Addr `json:"outbound,omitzero"`
}

func stateOf(d *arm.Document) vnetState {
	var state vnetState
	if d != nil && len(d.State) > 0 && json.Unmarshal(d.State, &state) != nil {
		return vnetState{} // another provider's documents of the type don't exist: only ours are read here
	}
	return state
}

// outboundAddresses is the network's default outbound address, when it has one.
func outboundAddresses(d *arm.Document) []netip.Addr {
	if a := stateOf(d).Outbound; a.IsValid() {
		return []netip.Addr{a}
	}
	return nil
}

// outbound takes or gives back the network's default outbound address, as its subnets ask.
func (p *Provider) outbound(ctx context.Context, r *arm.Request, next *armnetwork.VirtualNetwork) (json.RawMessage, []store.Change, error) {
	state := stateOf(r.Old)
	wanted := slices.ContainsFunc(subnets(next), func(s *armnetwork.Subnet) bool { return value(s.Properties.DefaultOutboundAccess) })
	var changes []store.Change
	switch {
	case wanted && !state.Outbound.IsValid():
		addresses, taken, err := p.PublicAddresses(ctx, r.ID, 1)
		if err != nil {
			return nil, nil, err
		}
		state.Outbound, changes = addresses[0], taken
	case !wanted && state.Outbound.IsValid():
		changes, state.Outbound = FreePublic(state.Outbound), netip.Addr{}
	}
	raw, err := json.Marshal(state)
	if err != nil {
		return nil, nil, fmt.Errorf("state of %s: %w", r.ID, err)
	}
	return raw, changes, nil
}

// defaultOutbound is the way out through the network's default outbound address.
func defaultOutbound(vnet *arm.Document) []dataplane.Egress {
	addresses := outboundAddresses(vnet)
	if len(addresses) == 0 {
		return nil
	}
	return []dataplane.Egress{{Origin: origin(vnet.ID, "defaultOutboundAccess"), Address: addresses[0]}}
}
