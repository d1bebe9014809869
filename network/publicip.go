// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// publicIPType are public addresses. The body that is stored holds the address
// and the DNS name: what reads it needs no state.
func (p *Provider) publicIPType() arm.Type {
	return arm.Type{Name: "publicIPAddresses", Versions: edgeVersions(), Queue: true,
		Model: func() any { return &armnetwork.PublicIPAddress{} }, ReadOnly: arm.ReadOnlyPaths(publicIPProperties()),
		Put: p.putPublicIP, Delete: p.deletePublicIP, View: p.viewPublicIP}
}

var labelForm = regexp.MustCompile(`^[a-z][a-z0-9-]{1,61}[a-z0-9]$`)

func (p *Provider) putPublicIP(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	f, model, err := readRequest[armnetwork.PublicIPAddress](p, r, publicIPProperties())
	if err != nil {
		return nil, err
	}
	old := &armnetwork.PublicIPAddressPropertiesFormat{}
	if r.Old != nil {
		was, err := readBody[armnetwork.PublicIPAddress](r.Old)
		if err != nil {
			return nil, err
		}
		old = was.Properties
	}
	defaultPublicIP(model)
	props := model.Properties
	between(&f, "InvalidIdleTimeout", "properties.idleTimeoutInMinutes", props.IdleTimeoutInMinutes, 4, 30)
	label := labelOf(props)
	if label != "" && !labelForm.MatchString(label) {
		f.bad("InvalidDomainNameLabel", "properties.dnsSettings.domainNameLabel",
			"The domain name label %s is invalid. It must conform to the following regular expression: %s.", label, labelForm)
	}
	block, more, err := p.madeFrom(ctx, &f, r, props, old)
	if err != nil || len(f) > 0 {
		return nil, firstOf(err, f.err())
	}
	changes, err := p.labelChanges(ctx, r.ID, labelOf(old), label)
	if err != nil {
		return nil, err
	}
	if label != "" {
		props.DNSSettings.Fqdn = ptr(p.labelName(label))
	}
	taken, err := p.addressFor(ctx, r.ID, block, props, old)
	if err != nil {
		return nil, err
	}
	return p.planPublicIP(ctx, r, model, slices.Concat(more, changes, taken), label != labelOf(old))
}

// planPublicIP makes it an operation when something in the kernel changes: a name, or what an
// address in use says. An address that no one has yet is just a record.
func (p *Provider) planPublicIP(ctx context.Context, r *arm.Request, model *armnetwork.PublicIPAddress, changes []store.Change, named bool) (*arm.Plan, error) {
	plan, err := planned(r, model, changes...)
	if err != nil || !plan.Async || named {
		return plan, err
	}
	users, err := p.usersOf(ctx, r.ID)
	plan.Async = len(users) > 0
	return plan, err
}

func defaultPublicIP(model *armnetwork.PublicIPAddress) {
	if model.Properties == nil {
		model.Properties = &armnetwork.PublicIPAddressPropertiesFormat{}
	}
	model.SKU = &armnetwork.PublicIPAddressSKU{Name: ptr(armnetwork.PublicIPAddressSKUNameStandard), Tier: ptr(armnetwork.PublicIPAddressSKUTierRegional)}
	props := model.Properties
	props.PublicIPAllocationMethod, props.PublicIPAddressVersion = ptr(armnetwork.IPAllocationMethodStatic), ptr(armnetwork.IPVersionIPv4)
	if value(props.IdleTimeoutInMinutes) == 0 {
		props.IdleTimeoutInMinutes = ptr[int32](4)
	}
	if props.IPTags == nil {
		props.IPTags = []*armnetwork.IPTag{}
	}
	if labelOf(props) == "" {
		props.DNSSettings = nil
	}
	props.DeleteOption, props.MigrationPhase, props.DdosSettings = nil, nil, nil
	props.IPAddress, props.IPConfiguration, props.NatGateway = nil, nil, nil
}

func labelOf(props *armnetwork.PublicIPAddressPropertiesFormat) string {
	if props == nil || props.DNSSettings == nil {
		return ""
	}
	return strings.ToLower(value(props.DNSSettings.DomainNameLabel))
}

// madeFrom reads the public prefix that an address is made from; an address that is made keeps its own.
func (p *Provider) madeFrom(ctx context.Context, f *findings, r *arm.Request, props, old *armnetwork.PublicIPAddressPropertiesFormat) (block netip.Prefix, guards []store.Change, err error) {
	const target = "properties.publicIPPrefix"
	had, wants := subID(old.PublicIPPrefix), subID(props.PublicIPPrefix)
	if r.Old != nil && !strings.EqualFold(had, wants) {
		f.bad("PublicIPPrefixOfPublicIPAddressCannotBeChanged", target, "Public IP address %s is made already: the public IP prefix that it is made from can't change.", r.ID)
	}
	if r.Old != nil || wants == "" {
		return netip.Prefix{}, nil, nil
	}
	id, ok := reference(f, target, &wants, typePrefix)
	if !ok {
		return netip.Prefix{}, nil, nil
	}
	if guards, err = p.named(ctx, id); err != nil {
		return netip.Prefix{}, nil, err
	}
	d, err := p.referenced(ctx, f, r.ID, target, id)
	if err != nil || d == nil {
		return netip.Prefix{}, nil, err
	}
	users, err := p.usersOf(ctx, id)
	if err != nil {
		return netip.Prefix{}, nil, err
	}
	for _, user := range users {
		if !user.IsType(typePublicIP) {
			f.bad("PublicIPPrefixInUse", target, "No public IP address can be made from public IP prefix %s: resource %s has all of it.", id, user)
		}
	}
	block, err = blockOf(d)
	return block, guards, err
}

// addressFor keeps the address that there is, or takes one.
func (p *Provider) addressFor(ctx context.Context, owner resource.ID, block netip.Prefix, props, old *armnetwork.PublicIPAddressPropertiesFormat) ([]store.Change, error) {
	if value(old.IPAddress) != "" {
		props.IPAddress = old.IPAddress
		return nil, nil
	}
	if !block.IsValid() {
		addresses, changes, err := p.PublicAddresses(ctx, owner, 1)
		if err == nil {
			props.IPAddress = ptr(addresses[0].String())
		}
		return changes, err
	}
	address, changes, err := p.memberAddress(ctx, owner, block)
	if err == nil {
		props.IPAddress = ptr(address.String())
	}
	return changes, err
}

// deletePublicIP refuses while something has the address, and gives it back.
func (p *Provider) deletePublicIP(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	users, err := p.usersOf(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	if len(users) > 0 {
		return nil, fault.New(fault.Invalid, "PublicIPAddressCannotBeDeleted",
			"Public IP address %s can not be deleted since it is still allocated to resource %s. In order to delete the public IP, disassociate/detach the Public IP address from the resource.", r.ID, users[0])
	}
	model, err := readBody[armnetwork.PublicIPAddress](r.Old)
	if err != nil || model.Properties == nil {
		return &arm.Plan{}, err
	}
	changes, err := p.labelChanges(ctx, r.ID, labelOf(model.Properties), "")
	if err != nil {
		return nil, err
	}
	if address, err := netip.ParseAddr(value(model.Properties.IPAddress)); err == nil {
		key := publicKey
		if model.Properties.PublicIPPrefix != nil {
			key = memberKey
		}
		changes = append(changes, release([]netip.Addr{address}, key)...)
	}
	return &arm.Plan{Changes: changes, Async: labelOf(model.Properties) != ""}, nil
}

func (p *Provider) viewPublicIP(ctx context.Context, d *arm.Document, _ resource.APIVersion) (any, error) {
	body, properties, err := edgeView(d)
	if err != nil {
		return nil, err
	}
	properties["ddosSettings"] = map[string]any{"protectionMode": "VirtualNetworkInherited"}
	users, err := p.usersOf(ctx, d.ID)
	if err != nil {
		return nil, err
	}
	for _, user := range users {
		if user.IsType(typeNATGateway) {
			properties["natGateway"] = map[string]any{"id": user.String()}
		} else {
			properties["ipConfiguration"] = map[string]any{"id": user.String()}
		}
	}
	return body, nil
}
