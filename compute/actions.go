// SPDX-License-Identifier: Apache-2.0

package compute

import (
	"context"
	"encoding/json"
	"fmt"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
)

// change is an action that changes a machine's state, and takes as long as the
// host needs for it.
func (p *Provider) change(edit func(*vmState) error) arm.Hook {
	return func(_ context.Context, r *arm.Request) (*arm.Plan, error) {
		if r.Old == nil {
			return nil, fault.New(fault.NotFound, "ResourceNotFound", "The Resource 'Microsoft.Compute/virtualMachines/%s' under resource group '%s' was not found.", r.ID.Name(), r.ID.Group())
		}
		var state vmState
		if err := json.Unmarshal(r.Old.State, &state); err != nil {
			return nil, fmt.Errorf("machine %s: state: %w", r.ID, err)
		}
		if err := edit(&state); err != nil {
			return nil, err
		}
		d := *r.Old
		var err error
		if d.State, err = json.Marshal(state); err != nil {
			return nil, err
		}
		return &arm.Plan{Document: &d, Async: true, State: resource.Updating}, nil
	}
}

func (p *Provider) power(to power) arm.Hook {
	return p.change(func(s *vmState) error {
		if to == running && s.Power != running {
			s.Boots++ // a fresh boot, also when the machine ended by itself
		}
		s.Power = to
		return nil
	})
}

func (p *Provider) restart(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	return p.change(func(s *vmState) error {
		if s.Power != running {
			return fault.New(fault.Conflict, "OperationNotAllowed", "The machine is %s: start it.", s.Power)
		}
		s.Boots++
		return nil
	})(ctx, r)
}

func (p *Provider) reimage(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	return p.change(func(s *vmState) error { s.Images++; return nil })(ctx, r)
}

// deleteVM lets the reconciler remove the machine. Its own identity ends at once.
func (p *Provider) deleteVM(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	var state vmState
	if err := json.Unmarshal(r.Old.State, &state); err != nil {
		return nil, fmt.Errorf("machine %s: state: %w", r.ID, err)
	}
	plan := &arm.Plan{Async: true}
	if state.Identities.Principal == "" {
		return plan, nil
	}
	var err error
	plan.Changes, err = p.Directory.PlanDeletion(ctx, state.Identities.Principal)
	return plan, err
}

func (p *Provider) viewVM(ctx context.Context, d *arm.Document, _ resource.APIVersion) (any, error) {
	body, err := etagged(d)
	if err != nil {
		return nil, err
	}
	var state vmState
	if err := json.Unmarshal(d.State, &state); err != nil {
		return nil, fmt.Errorf("machine %s: state: %w", d.ID, err)
	}
	view, err := p.vmView(ctx, &state)
	if err != nil {
		return nil, err
	}
	properties, _ := body["properties"].(object)
	os, _ := properties["osProfile"].(object)
	if os == nil {
		os = object{}
		properties["osProfile"] = os
	}
	os["computerName"], os["adminUsername"] = state.Hostname, state.Admin
	properties["vmId"] = state.Machine
	properties["instanceView"] = view
	identity, err := p.viewIdentity(ctx, state.Identities)
	if identity != nil {
		body["identity"] = identity
	}
	return body, err
}

// vmView is the instance view of a machine of the user's.
func (p *Provider) vmView(ctx context.Context, s *vmState) (object, error) {
	view, err := p.machineView(ctx, s.Machine)
	if err != nil {
		return nil, err
	}
	view["computerName"], view["osName"], view["osVersion"] = s.Hostname, "debian", "12"
	if s.Power == deallocated {
		statuses, _ := view["statuses"].([]any)
		if last, ok := statuses[len(statuses)-1].(object); ok && last["code"] == "PowerState/stopped" {
			last["code"], last["displayStatus"] = "PowerState/deallocated", "VM deallocated"
		}
	}
	return view, nil
}

func (p *Provider) vmInstanceView(ctx context.Context, r *arm.Request) (any, error) {
	if r.Parent == nil {
		return nil, fault.New(fault.NotFound, "ResourceNotFound", "The machine of '%s' was not found.", r.ID)
	}
	var state vmState
	if err := json.Unmarshal(r.Parent.State, &state); err != nil {
		return nil, fmt.Errorf("machine %s: state: %w", r.Parent.ID, err)
	}
	return p.vmView(ctx, &state)
}
