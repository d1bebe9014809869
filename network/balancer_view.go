// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"strings"

	"bastide.dev/arm"
	"bastide.dev/resource"
)

// viewBalancer shows a load balancer with what its parts say of each other, and
// the interfaces that say they are in its pools.
func (p *Provider) viewBalancer(ctx context.Context, d *arm.Document, _ resource.APIVersion) (any, error) {
	body, properties, err := edgeView(d)
	if err != nil {
		return nil, err
	}
	inv, err := p.inventory(ctx)
	if err != nil {
		return nil, err
	}
	for _, list := range append(balancerLists(), "inboundNatPools") {
		if properties[list] == nil {
			properties[list] = []any{}
		}
	}
	v := balancerView{id: d.ID, body: body, members: inv.members()}
	v.backReferences(listRules, map[string]string{"frontendIPConfiguration": listFrontends, "backendAddressPool": listPools, "probe": listProbes})
	v.backReferences(listOutbound, map[string]string{"frontendIPConfigurations": listFrontends, "backendAddressPool": listPools})
	v.backReferences(listNAT, map[string]string{"frontendIPConfiguration": listFrontends})
	v.pools()
	for _, element := range arm.Elements(body, "properties."+listRules) {
		if props, _ := element["properties"].(map[string]any); props != nil && props["backendAddressPool"] != nil {
			props["backendAddressPools"] = []any{props["backendAddressPool"]}
		}
	}
	for _, element := range arm.Elements(body, "properties."+listNAT) {
		name, _ := element["name"].(string)
		if members := v.members[d.ID.Child(listNAT, name).Key()]; len(members) > 0 {
			v.props(element)["backendIPConfiguration"] = map[string]any{"id": members[0].String()}
		}
	}
	return body, nil
}

type balancerView struct {
	id      resource.ID
	body    map[string]any
	members map[string][]resource.ID
}

func (v *balancerView) props(element map[string]any) map[string]any {
	props, _ := element["properties"].(map[string]any)
	if props == nil {
		props = map[string]any{}
		element["properties"] = props
	}
	return props
}

// backReferences notes, in each part that an element of list names by one of the properties, that it does.
func (v *balancerView) backReferences(list string, named map[string]string) {
	for _, element := range arm.Elements(v.body, "properties."+list) {
		name, _ := element["name"].(string)
		for property, target := range named {
			for _, ref := range idsIn(v.props(element)[property]) {
				for _, other := range arm.Elements(v.body, "properties."+target) {
					otherName, _ := other["name"].(string)
					if !strings.EqualFold(ref, v.id.Child(target, otherName).String()) {
						continue
					}
					props := v.props(other)
					all, _ := props[list].([]any)
					props[list] = append(all, map[string]any{"id": v.id.Child(list, name).String()})
				}
			}
		}
	}
}

// idsIn are the ids in one sub-resource or a list of them.
func idsIn(named any) []string {
	switch named := named.(type) {
	case map[string]any:
		id, _ := named["id"].(string)
		return []string{id}
	case []any:
		var ids []string
		for _, each := range named {
			ids = append(ids, idsIn(each)...)
		}
		return ids
	}
	return nil
}

func (v *balancerView) pools() {
	for _, element := range arm.Elements(v.body, "properties."+listPools) {
		name, _ := element["name"].(string)
		props := v.props(element)
		if members := v.members[v.id.Child(listPools, name).Key()]; len(members) > 0 {
			props["backendIPConfigurations"] = subResources(members...)
		}
		if rules, _ := props[listOutbound].([]any); len(rules) > 0 {
			props["outboundRule"] = rules[0]
		}
		addresses, _ := props["loadBalancerBackendAddresses"].([]any)
		if addresses == nil {
			props["loadBalancerBackendAddresses"] = []any{}
		}
	}
}
