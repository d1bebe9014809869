// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"fmt"
	"strings"

	compute "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v7"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
)

// configList is where an interface's IP configurations are.
const configList = "properties.ipConfigurations"

func (p *Provider) interfaceTypes() []arm.Type {
	return []arm.Type{
		coreType("networkInterfaces", func() any { return &armnetwork.Interface{} }, interfaceRows(),
			arm.Type{Links: interfaceLinks(), Put: p.putInterface, Delete: p.deleteInterface, View: p.viewInterface,
				Actions: map[string]arm.Hook{"effectiveRouteTable": p.effectiveRoutes, "effectiveNetworkSecurityGroups": p.effectiveGroups}}),
		{Name: "networkInterfaces/ipConfigurations", Versions: edgeVersions(), Get: p.getConfig, List: p.listConfigs},
	}
}

// putInterface creates or replaces a network interface. Its address stands in
// the body, and is its own for as long as it stays in its subnet.
func (p *Provider) putInterface(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	f, model, err := readRequest[armnetwork.Interface](p, r, interfaceRows())
	if err != nil {
		return nil, err
	}
	old := &armnetwork.Interface{}
	if r.Old != nil {
		if old, err = readBody[armnetwork.Interface](r.Old); err != nil {
			return nil, err
		}
	}
	in := orEmpty(model.Properties)
	if n := len(in.IPConfigurations); n != 1 {
		f = append(f, fault.New(fault.Unsupported, "PropertyNotSupported", "%s must have exactly one element here, not %d.", configList, n).At(configList))
		return nil, f.err()
	}
	c := &interfaceCheck{p: p, f: &f, id: r.ID, old: &armnetwork.InterfaceIPConfigurationPropertiesFormat{}}
	if configs := nicConfigs(old); len(configs) > 0 {
		c.old = configs[0].Properties
	}
	next := &armnetwork.Interface{Properties: &armnetwork.InterfacePropertiesFormat{
		EnableIPForwarding: orDefault(in.EnableIPForwarding, false), EnableAcceleratedNetworking: ptr(false), DisableTCPStateTracking: ptr(false),
		NicType: ptr(armnetwork.NetworkInterfaceNicTypeStandard)}}
	config := orEmpty(in.IPConfigurations[0])
	if problem := arm.CheckName(value(config.Name), configList+"[0].name"); problem != nil {
		f = append(f, problem)
	}
	kept, err := c.config(ctx, orEmpty(config.Properties))
	if err != nil {
		return nil, err
	}
	next.Properties.IPConfigurations = []*armnetwork.InterfaceIPConfiguration{{Name: config.Name, Properties: kept}}
	if group := orEmpty(in.NetworkSecurityGroup).ID; value(group) != "" {
		next.Properties.NetworkSecurityGroup = &armnetwork.SecurityGroup{ID: group}
		had := value(orEmpty(orEmpty(old.Properties).NetworkSecurityGroup).ID)
		if err := c.names(ctx, "properties.networkSecurityGroup.id", value(group), had, typeNSG, ""); err != nil {
			return nil, err
		}
	}
	changes, err := c.address(ctx, kept)
	if err != nil {
		return nil, err
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	held, err := holds(c.held...)
	if err != nil {
		return nil, err
	}
	return planned(r, next, OneEach(append(held, changes...))...)
}

// deleteInterface refuses while a machine has it.
func (p *Provider) deleteInterface(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	users, err := p.references(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	if len(users) > 0 {
		return nil, fault.New(fault.Invalid, "NicInUse",
			"Network Interface %s is used by existing resource %s. In order to delete the network interface, it must be dissociated from the resource.", r.ID, nameList(users))
	}
	return &arm.Plan{}, nil
}

// viewInterface shows an interface with the machine that has it.
func (p *Provider) viewInterface(ctx context.Context, d *arm.Document, _ resource.APIVersion) (any, error) {
	view, properties, err := edgeView(d)
	if err != nil {
		return nil, err
	}
	inv, err := p.inventory(ctx)
	if err != nil {
		return nil, err
	}
	for i, vm := range all[compute.VirtualMachine](inv, typeVM) {
		nics := orEmpty(orEmpty(vm.Properties).NetworkProfile).NetworkInterfaces
		for _, n := range present(nics) {
			if strings.EqualFold(value(n.ID), d.ID.String()) {
				properties["virtualMachine"] = map[string]any{"id": i.doc.ID.String()}
				properties["primary"] = len(nics) == 1 || value(orEmpty(n.Properties).Primary)
			}
		}
	}
	for _, element := range arm.Elements(view, configList) {
		name, _ := element["name"].(string)
		element["id"] = d.ID.Child("ipConfigurations", name).String()
		element["type"], element["etag"] = Namespace+"/networkInterfaces/ipConfigurations", arm.WeakEtag(d)
		if inner, ok := element["properties"].(map[string]any); ok {
			inner["provisioningState"] = d.ProvisioningState
		}
	}
	return view, nil
}

func (p *Provider) listConfigs(ctx context.Context, r *arm.Request) (any, error) {
	view, err := p.viewInterface(ctx, r.Parent, r.Version)
	if err != nil {
		return nil, err
	}
	body, _ := view.(map[string]any)
	return map[string]any{"value": arm.Elements(body, configList)}, nil
}

func (p *Provider) getConfig(ctx context.Context, r *arm.Request) (any, error) {
	view, err := p.viewInterface(ctx, r.Parent, r.Version)
	if err != nil {
		return nil, err
	}
	body, _ := view.(map[string]any)
	for _, element := range arm.Elements(body, configList) {
		if strings.EqualFold(fmt.Sprint(element["name"]), r.ID.Name()) {
			return element, nil
		}
	}
	return nil, fault.New(fault.NotFound, "NotFound", "Resource %s not found.", r.ID)
}
