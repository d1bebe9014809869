// SPDX-License-Identifier: Apache-2.0

package compute

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/metadata"
	"bastide.dev/resource"
)

// metadataOf compiles what a machine finds at the metadata address.
func (p *Provider) metadataOf(ctx context.Context, d *arm.Document) (metadata.Machine, error) {
	if d.ID.IsType(vmType) {
		return p.vmMetadata(ctx, d)
	}
	return p.instanceMetadata(ctx, d)
}

func (p *Provider) vmMetadata(ctx context.Context, d *arm.Document) (metadata.Machine, error) {
	var s vmState
	if err := json.Unmarshal(d.State, &s); err != nil {
		return metadata.Machine{}, fmt.Errorf("machine %s: state: %w", d.ID, err)
	}
	c := p.describe(d)
	c.Name, c.VMID, c.Size, c.Hostname, c.Admin, c.Keys = d.Name, s.Machine, s.Size, s.Hostname, s.Admin, s.Keys
	m := p.machineOf(s.Machine, c)
	if s.Identities.System {
		err := p.give(ctx, &m, s.Identities.Principal, d.ID, true)
		if err != nil {
			return m, err
		}
	}
	return m, p.giveUsers(ctx, &m, s.Identities.Users)
}

// instanceMetadata is a scale set's instance: its identities are the set's.
func (p *Provider) instanceMetadata(ctx context.Context, d *arm.Document) (metadata.Machine, error) {
	var s instanceState
	if err := json.Unmarshal(d.State, &s); err != nil {
		return metadata.Machine{}, fmt.Errorf("instance %s: state: %w", d.ID, err)
	}
	body, err := bodyOf(d)
	if err != nil {
		return metadata.Machine{}, err
	}
	text := func(path ...string) string { v, _ := at(body, path...).(string); return v }
	c := p.describe(d)
	set := d.ID.Parent()
	c.Name, c.ScaleSet, c.ScaleSetID = set.Name()+"_"+d.Name, set.Name(), set.String()
	c.VMID, c.Size = text("properties", "vmId"), text("properties", "hardwareProfile", "vmSize")
	c.Hostname, c.Admin = text("properties", "osProfile", "computerName"), text("properties", "osProfile", "adminUsername")
	m := p.machineOf(s.Machine, c)
	parent, err := arm.GetDocument(ctx, p.Store, set)
	if fault.Is(err, fault.NotFound) {
		return m, nil
	}
	if err != nil {
		return m, err
	}
	users, err := usersOf(parent)
	if err != nil {
		return m, err
	}
	return m, p.giveUsers(ctx, &m, users)
}

// usersOf are the user-assigned identities in a scale set's body, sorted.
func usersOf(set *arm.Document) ([]resource.ID, error) {
	body, err := bodyOf(set)
	if err != nil {
		return nil, err
	}
	named, _ := at(body, "identity", "userAssignedIdentities").(object)
	var users []resource.ID
	for _, text := range slices.Sorted(maps.Keys(named)) {
		id, err := resource.ParseID(text)
		if err != nil {
			return nil, fmt.Errorf("scale set %s: identity: %w", set.ID, err)
		}
		users = append(users, id)
	}
	return users, nil
}

func (p *Provider) describe(d *arm.Document) metadata.Compute {
	c := metadata.Compute{ResourceID: d.ID.String(), Location: d.Location, SubscriptionID: d.ID.Subscription(), Group: d.ID.Group()}
	for _, name := range slices.Sorted(maps.Keys(d.Tags)) {
		c.Tags = append(c.Tags, metadata.Tag{Name: name, Value: d.Tags[name]})
	}
	return c
}

func (p *Provider) machineOf(name string, c metadata.Compute) metadata.Machine {
	return metadata.Machine{ID: name, Compute: c, TenantID: p.Tenant, TokenURL: p.Login + "/" + p.Tenant + "/oauth2/token"}
}

func (p *Provider) giveUsers(ctx context.Context, m *metadata.Machine, users []resource.ID) error {
	for _, id := range users {
		principal, _, err := p.userIdentity(ctx, id)
		if fault.Is(err, fault.NotFound) {
			continue // it is gone: the machine can't be it any more
		}
		if err == nil {
			err = p.give(ctx, m, principal, id, false)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// give adds an identity, with the secret that the host buys its tokens with.
func (p *Provider) give(ctx context.Context, m *metadata.Machine, principal string, id resource.ID, system bool) error {
	client, secret, err := p.Directory.PlatformSecret(ctx, principal)
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("identity %s: %w", id, err)
	}
	m.Identities = append(m.Identities, metadata.Identity{PrincipalID: principal, ClientID: client, ResourceID: id.String(), System: system, Secret: secret})
	return nil
}
