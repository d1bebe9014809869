// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// balancerTypes are load balancers and their parts, which stand in their bodies.
func (p *Provider) balancerTypes() []arm.Type {
	types := []arm.Type{{Name: "loadBalancers", Versions: edgeVersions(), Queue: true,
		Model: func() any { return &armnetwork.LoadBalancer{} }, ReadOnly: arm.ReadOnlyPaths(balancerProperties()),
		Links: balancerLinks(), Put: p.putBalancer, Delete: p.deleteBalancer, View: p.viewBalancer}}
	models := map[string]func() any{
		listFrontends: func() any { return &armnetwork.FrontendIPConfiguration{} },
		listPools:     func() any { return &armnetwork.BackendAddressPool{} },
		listRules:     func() any { return &armnetwork.LoadBalancingRule{} },
		listProbes:    func() any { return &armnetwork.Probe{} },
		listOutbound:  func() any { return &armnetwork.OutboundRule{} },
		listNAT:       func() any { return &armnetwork.InboundNatRule{} },
	}
	for _, list := range balancerLists() {
		types = append(types, arm.Type{Name: "loadBalancers/" + list, Versions: edgeVersions(), Embedded: "properties." + list, Queue: true, Model: models[list]})
	}
	return types
}

// balancerLists are the lists of a load balancer's parts.
func balancerLists() []string {
	return []string{listFrontends, listPools, listRules, listProbes, listOutbound, listNAT}
}

const (
	listFrontends = "frontendIPConfigurations"
	listPools     = "backendAddressPools"
	listRules     = "loadBalancingRules"
	listProbes    = "probes"
	listOutbound  = "outboundRules"
	listNAT       = "inboundNatRules"
)

// putBalancer takes a whole load balancer; so come writes of its parts, too.
func (p *Provider) putBalancer(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	f, lb, err := readRequest[armnetwork.LoadBalancer](p, r, balancerProperties())
	if err != nil {
		return nil, err
	}
	normalBalancer(&f, lb)
	old := &armnetwork.LoadBalancer{}
	if r.Old != nil {
		if old, err = readBody[armnetwork.LoadBalancer](r.Old); err != nil {
			return nil, err
		}
	}
	guards, err := p.named(ctx, newPublic(lb, old)...)
	if err != nil {
		return nil, err
	}
	inv, err := p.inventory(ctx)
	if err != nil {
		return nil, err
	}
	c := &balancerCheck{findings: f, id: r.ID, lb: lb.Properties, inv: inv, location: p.Location}
	c.check()
	c.removed(old)
	private, err := p.privateFrontends(ctx, c, old)
	if err != nil || len(c.findings) > 0 {
		return nil, firstOf(err, c.err())
	}
	return planned(r, lb, slices.Concat(guards, private)...)
}

// newPublic are the public addresses and prefixes that a load balancer didn't name before.
func newPublic(lb, old *armnetwork.LoadBalancer) []resource.ID {
	had := map[string]bool{}
	for _, f := range frontends(old) {
		had[keyOf(outsideOf(f.Properties))] = true
	}
	var ids []resource.ID
	for _, f := range frontends(lb) {
		if id := parsedID(outsideOf(f.Properties)); !id.IsRoot() && !had[id.Key()] {
			ids = append(ids, id)
		}
	}
	return ids
}

// outsideOf is the id of a front end's public address, or of its public prefix; "" of an internal one.
func outsideOf(props *armnetwork.FrontendIPConfigurationPropertiesFormat) string {
	if id := publicID(props.PublicIPAddress); id != "" {
		return id
	}
	return subID(props.PublicIPPrefix)
}

// privateFrontends gives internal front ends their addresses: a dynamic one
// keeps what it had, as long as it stays in its subnet.
func (p *Provider) privateFrontends(ctx context.Context, c *balancerCheck, old *armnetwork.LoadBalancer) ([]store.Change, error) {
	had := map[string]*armnetwork.FrontendIPConfigurationPropertiesFormat{}
	for _, f := range frontends(old) {
		had[strings.ToLower(value(f.Name))] = f.Properties
	}
	var changes []store.Change
	wants := map[string][]*armnetwork.FrontendIPConfiguration{} // by subnet
	var subnets []resource.ID
	for i, f := range c.lb.FrontendIPConfigurations {
		target := part(listFrontends, i) + ".properties"
		if f.Properties.Subnet == nil {
			continue
		}
		subnet, ok := reference(&c.findings, target+".subnet", f.Properties.Subnet.ID, typeSubnet)
		if !ok || c.keeps(f, had, target) {
			continue
		}
		if wants[subnet.Key()] == nil {
			subnets = append(subnets, subnet)
		}
		wants[subnet.Key()] = append(wants[subnet.Key()], f)
	}
	for _, subnet := range subnets {
		more, err := p.allocateFrontends(ctx, c, subnet, wants[subnet.Key()])
		if err != nil {
			return nil, err
		}
		changes = append(changes, more...)
	}
	return OneEach(changes), nil
}

// keeps tells whether a front end has its address already.
func (c *balancerCheck) keeps(f *armnetwork.FrontendIPConfiguration, had map[string]*armnetwork.FrontendIPConfigurationPropertiesFormat, target string) bool {
	props, before := f.Properties, had[strings.ToLower(value(f.Name))]
	static := *props.PrivateIPAllocationMethod == armnetwork.IPAllocationMethodStatic
	if before != nil && strings.EqualFold(subnetID(before.Subnet), subnetID(props.Subnet)) &&
		(!static || value(before.PrivateIPAddress) == value(props.PrivateIPAddress)) {
		props.PrivateIPAddress = before.PrivateIPAddress
		return true
	}
	if !static {
		props.PrivateIPAddress = nil
		return false
	}
	if a, err := netip.ParseAddr(value(props.PrivateIPAddress)); err != nil || !a.Is4() {
		c.bad("InvalidIPAddress", target+".privateIPAddress", "A static front end needs an IPv4 address of its subnet; %q is none.", value(props.PrivateIPAddress))
		return true
	}
	return false
}

func (p *Provider) allocateFrontends(ctx context.Context, c *balancerCheck, subnet resource.ID, list []*armnetwork.FrontendIPConfiguration) ([]store.Change, error) {
	wants := make([]Want, len(list))
	for i, f := range list {
		if text := value(f.Properties.PrivateIPAddress); text != "" {
			wants[i].Address = netip.MustParseAddr(text) // keeps has parsed it
		}
	}
	grants, changes, err := p.Allocate(ctx, subnet, wants)
	if fault.Is(err, fault.NotFound) {
		missingReference(&c.findings, c.id, "properties."+listFrontends, subnet)
		return nil, nil
	}
	if err != nil {
		return nil, c.add(err)
	}
	for i, f := range list {
		f.Properties.PrivateIPAddress = ptr(grants[i].Address.String())
	}
	return changes, nil
}

// deleteBalancer refuses while interfaces are in its pools.
func (p *Provider) deleteBalancer(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	inv, err := p.inventory(ctx)
	if err != nil {
		return nil, err
	}
	for key, members := range inv.members() {
		if strings.HasPrefix(key, r.ID.Key()+"/") {
			return nil, inUse(r.ID, members[0])
		}
	}
	return &arm.Plan{Async: true}, nil
}

// inUse says who is in a pool. cloud-provider-azure finds the scale set's id in the message.
func inUse(balancer, member resource.ID) *fault.Error {
	for at := member; !at.IsRoot(); at = at.Parent() {
		if at.IsType("Microsoft.Compute/virtualMachineScaleSets") {
			return fault.New(fault.Conflict, "LoadBalancerInUseByVirtualMachineScaleSet",
				"Cannot delete load balancer %s since its child resources are in use by virtual machine scale set %s.", balancer, at)
		}
	}
	return fault.New(fault.Conflict, "LoadBalancerInUse",
		"Cannot delete load balancer %s since its child resources are in use by %s.", balancer, member)
}
