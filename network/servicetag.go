// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
)

// Bounds of an operator's service tags.
const (
	maxTagName     = 80
	maxTagPrefixes = 10000
)

// ServiceTag is an operator's service tag: Bastide's own resource, of a
// subscription. Security rules name it as they name Azure's.
type ServiceTag struct {
	Properties *ServiceTagProperties `json:"properties,omitempty"`
}

// ServiceTagProperties are a service tag's.
type ServiceTagProperties struct {
	AddressPrefixes   []string       `json:"addressPrefixes"`
	ProvisioningState resource.State `json:"provisioningState,omitempty"`
}

// prefixes are a tag's addresses.
func (t *ServiceTag) prefixes() []netip.Prefix {
	var all []netip.Prefix
	for _, text := range orEmpty(t.Properties).AddressPrefixes {
		if prefix, ok := prefixOf(text); ok {
			all = append(all, prefix)
		}
	}
	return all
}

func (p *Provider) serviceTagType() arm.Type {
	return arm.Type{Name: "serviceTags", Scope: arm.InSubscription, Versions: []resource.APIVersion{"2026-11-01"}, Untracked: true, Queue: true,
		Model:    func() any { return &ServiceTag{} },
		ReadOnly: []string{"properties.provisioningState"},
		Put:      p.putServiceTag, Delete: p.deleteServiceTag, View: viewServiceTag}
}

// serviceTagID is where an operator's service tag of a name stands.
func serviceTagID(subscription, name string) resource.ID {
	return resource.MustParseID("/subscriptions/"+subscription).Resource(OwnNamespace, "serviceTags", name)
}

// putServiceTag creates or replaces a service tag. Rules that name it have its
// addresses when the operation has ended.
func (p *Provider) putServiceTag(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	tag := &ServiceTag{}
	if err := decode(r.Body, tag); err != nil {
		return nil, err
	}
	var f findings
	name := r.ID.Name()
	_, _, taken := instanceTags(p.settings(), newInventory(nil)).find(name)
	switch {
	case !tagForm.MatchString(name) || len(name) > maxTagName:
		f.bad("InvalidResourceName", "name", "%q can't be a service tag's name: that is a letter, and at most %d letters, digits, dots, hyphens and underscores.", name, maxTagName-1)
	case taken || builtInTag(name):
		f = append(f, fault.New(fault.Conflict, "ServiceTagNameTaken", "The service tag %s is built in: choose another name.", name).At("name"))
	}
	const target = "properties.addressPrefixes"
	prefixes := orEmpty(tag.Properties).AddressPrefixes
	switch {
	case prefixes == nil:
		f.bad("MissingProperty", target, "A service tag needs a list of address prefixes.")
	case len(prefixes) > maxTagPrefixes:
		f.bad("ServiceTagLimitReached", target, "A service tag has at most %d prefixes, not %d.", maxTagPrefixes, len(prefixes))
	}
	kept := make([]string, len(prefixes))
	for i, text := range prefixes {
		kept[i] = tagPrefix(&f, fmt.Sprintf("%s[%d]", target, i), text)
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	users, err := p.tagUsers(ctx, name)
	if err != nil {
		return nil, err
	}
	plan, err := planned(r, &ServiceTag{Properties: &ServiceTagProperties{AddressPrefixes: kept}})
	if len(users) == 0 {
		return notAsync(plan), err // the kernel has nothing of what nobody names
	}
	return plan, err
}

// builtInTag tells whether a name means something else in each network.
func builtInTag(name string) bool {
	return slices.Contains([]string{tagVirtualNetwork, tagInternet, tagLoadBalancer, "any"}, strings.ToLower(name))
}

// tagPrefix judges one prefix, and gives it its normal form.
func tagPrefix(f *findings, target, text string) string {
	prefix, err := netip.ParsePrefix(text)
	if addr, isAddr := addrOf(text); isAddr {
		prefix, err = netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	switch {
	case err != nil:
		f.bad("InvalidAddressPrefixFormat", target, "%q isn't an address prefix such as 198.51.100.0/24.", text)
	case !prefix.Addr().Is4():
		*f = append(*f, ipv6(target, text))
	case prefix != prefix.Masked():
		f.bad("InvalidCIDRNotation", target, "The address prefix %s has bits beyond its length: write %s.", text, prefix.Masked())
	}
	return prefix.String()
}

// deleteServiceTag refuses while a security rule names the tag.
func (p *Provider) deleteServiceTag(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	users, err := p.tagUsers(ctx, r.ID.Name())
	if err != nil {
		return nil, err
	}
	if len(users) > 0 {
		return nil, fault.New(fault.Invalid, "InUseServiceTagCannotBeDeleted",
			"The service tag %s cannot be deleted because security rules name it: %s.", r.ID.Name(), nameList(users))
	}
	return &arm.Plan{}, nil
}

// tagUsers are the security rules that name a service tag. What is being
// deleted counts until it is gone.
func (p *Provider) tagUsers(ctx context.Context, name string) ([]resource.ID, error) {
	inv, err := p.inventory(ctx)
	if err != nil {
		return nil, err
	}
	var users []resource.ID
	for _, i := range inv.types[typeNSG] {
		model, _ := i.model.(*armnetwork.SecurityGroup)
		for _, rule := range present(orEmpty(model.Properties).SecurityRules) {
			if slices.ContainsFunc(ruleAddresses(rule), func(text string) bool { return strings.EqualFold(text, name) }) {
				users = append(users, i.doc.ID.Child("securityRules", value(rule.Name)))
			}
		}
	}
	return users, nil
}

// ruleAddresses are all that a rule names on either side but application groups.
func ruleAddresses(rule *armnetwork.SecurityRule) []string {
	in := orEmpty(rule.Properties)
	var all []string
	for _, text := range slices.Concat([]*string{in.SourceAddressPrefix, in.DestinationAddressPrefix}, in.SourceAddressPrefixes, in.DestinationAddressPrefixes) {
		if value(text) != "" {
			all = append(all, *text)
		}
	}
	return all
}

func viewServiceTag(_ context.Context, d *arm.Document, _ resource.APIVersion) (any, error) {
	return arm.ViewBase(d)
}
