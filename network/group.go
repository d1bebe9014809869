// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"fmt"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
)

// ruleList is where a group's rules are.
const ruleList = "properties.securityRules"

func (p *Provider) groupTypes() []arm.Type {
	return []arm.Type{
		coreType("networkSecurityGroups", func() any { return &armnetwork.SecurityGroup{} }, groupRows(),
			arm.Type{Put: p.putGroup, Delete: p.deleteUnused("InUseNetworkSecurityGroupCannotBeDeleted", "Network security group"), View: p.viewGroup,
				Actions: map[string]arm.Hook{"counters": p.nsgCounters}}),
		partType("networkSecurityGroups/securityRules", ruleList, func() any { return &armnetwork.SecurityRule{} }, ruleRows()),
		{Name: "networkSecurityGroups/defaultSecurityRules", Versions: edgeVersions(), Get: getDefaultRule, List: listDefaultRules},
		coreType("applicationSecurityGroups", func() any { return &armnetwork.ApplicationSecurityGroup{} }, applicationGroupRows(),
			arm.Type{Put: p.putApplicationGroup, Delete: p.deleteUnused("InUseApplicationSecurityGroupCannotBeDeleted", "Application security group"), View: viewPlain}),
	}
}

// putGroup creates or replaces a network security group with its rules.
func (p *Provider) putGroup(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	f := p.judged(r, groupRows())
	c := &ruleCheck{p: p, f: &f, group: r.ID, known: map[string]bool{}}
	rules := rulesIn(r.Body)
	if len(rules) > maxRules {
		f.bad("SecurityRuleCountLimitReached", ruleList, "Network security group %s has %d security rules; at most %d are possible.", r.ID.Name(), len(rules), maxRules)
		return nil, f.err()
	}
	if err := c.knows(r.Old, rules); err != nil {
		return nil, err
	}
	if err := c.reads(ctx, rules); err != nil {
		return nil, err
	}
	for i, rule := range rules {
		kept, err := c.rule(ctx, fmt.Sprintf("%s[%d]", ruleList, i), rule)
		if err != nil {
			return nil, err
		}
		rules[i] = kept
	}
	c.conflicts(rules)
	if err := f.err(); err != nil {
		return nil, err
	}
	changes, err := holds(c.held...)
	if err != nil {
		return nil, err
	}
	return plannedBody(r, rulesBody(rules), changes...)
}

func (p *Provider) putApplicationGroup(_ context.Context, r *arm.Request) (*arm.Plan, error) {
	f, _, err := readRequest[armnetwork.ApplicationSecurityGroup](p, r, applicationGroupRows())
	if err != nil {
		return nil, err
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	plan, err := planned(r, &armnetwork.ApplicationSecurityGroup{Properties: &armnetwork.ApplicationSecurityGroupPropertiesFormat{}})
	return notAsync(plan), err // it is a name: what names it changes the kernel
}

// deleteUnused deletes what no other resource names. The kernel has nothing of
// what nobody uses, so it is done at once.
func (p *Provider) deleteUnused(code, kind string) arm.Hook {
	return func(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
		users, err := p.references(ctx, r.ID)
		if err != nil {
			return nil, err
		}
		if len(users) > 0 {
			return nil, fault.New(fault.Invalid, code, "%s %s cannot be deleted because it is in use by the following resources: %s.", kind, r.ID, nameList(users))
		}
		return &arm.Plan{}, nil
	}
}

// viewPlain is a document with Microsoft.Network's etag and GUID.
func viewPlain(_ context.Context, d *arm.Document, _ resource.APIVersion) (any, error) {
	view, _, err := edgeView(d)
	return view, err
}

// viewGroup shows a group with its default rules and who has it.
func (p *Provider) viewGroup(ctx context.Context, d *arm.Document, _ resource.APIVersion) (any, error) {
	view, properties, err := edgeView(d)
	if err != nil {
		return nil, err
	}
	inv, err := p.inventory(ctx)
	if err != nil {
		return nil, err
	}
	uses := inv.backRefs()
	show(properties, "subnets", uses.groupSubnets[d.ID.Key()])
	show(properties, "networkInterfaces", uses.groupNICs[d.ID.Key()])
	properties["defaultSecurityRules"] = defaultRules(d)
	return view, nil
}

// defaultRules are the rules that every group has, as Azure shows them. The
// compiler to the kernel has the same ones.
func defaultRules(d *arm.Document) []any {
	var rules []any
	for _, r := range []struct {
		name, note          string
		priority            int
		direction, access   string
		source, destination string
	}{
		{"AllowVnetInBound", "Allow inbound traffic from all VMs in VNET", 65000, "Inbound", "Allow", "VirtualNetwork", "VirtualNetwork"},
		{"AllowAzureLoadBalancerInBound", "Allow inbound traffic from azure load balancer", 65001, "Inbound", "Allow", "AzureLoadBalancer", "*"},
		{"DenyAllInBound", "Deny all inbound traffic", 65500, "Inbound", "Deny", "*", "*"},
		{"AllowVnetOutBound", "Allow outbound traffic from all VMs to all VMs in VNET", 65000, "Outbound", "Allow", "VirtualNetwork", "VirtualNetwork"},
		{"AllowInternetOutBound", "Allow outbound traffic from all VMs to Internet", 65001, "Outbound", "Allow", "*", "Internet"},
		{"DenyAllOutBound", "Deny all outbound traffic", 65500, "Outbound", "Deny", "*", "*"},
	} {
		rules = append(rules, map[string]any{
			"id": d.ID.Child("defaultSecurityRules", r.name).String(), "name": r.name, "etag": arm.WeakEtag(d),
			"type": Namespace + "/networkSecurityGroups/defaultSecurityRules",
			"properties": map[string]any{
				"provisioningState": resource.Succeeded, "description": r.note, "protocol": "*", "sourcePortRange": "*", "destinationPortRange": "*",
				"sourceAddressPrefix": r.source, "destinationAddressPrefix": r.destination, "access": r.access, "priority": r.priority,
				"direction": r.direction, "sourcePortRanges": []any{}, "destinationPortRanges": []any{},
				"sourceAddressPrefixes": []any{}, "destinationAddressPrefixes": []any{},
			},
		})
	}
	return rules
}

func listDefaultRules(ctx context.Context, r *arm.Request) (any, error) {
	return map[string]any{"value": defaultRules(r.Parent)}, nil
}

func getDefaultRule(_ context.Context, r *arm.Request) (any, error) {
	for _, rule := range defaultRules(r.Parent) {
		if object, ok := rule.(map[string]any); ok && keyOf(fmt.Sprint(object["id"])) == r.Parent.ID.Child("defaultSecurityRules", r.ID.Name()).Key() {
			return rule, nil
		}
	}
	return nil, fault.New(fault.NotFound, "NotFound", "Resource %s not found.", r.ID)
}
