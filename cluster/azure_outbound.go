// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"bastide.dev/resource"
)

// egressIP is a public address that the cluster made for what its nodes send.
type egressIP struct {
	Name    string     `json:"name"`
	Address netip.Addr `json:"address"`
}

// outboundDocs are the load balancer or the gateway that nodes leave by, with
// its managed addresses.
func (w *whole) outboundDocs() []azureDoc {
	o := &w.state.Desired.Outbound
	var docs []azureDoc
	for _, ip := range w.state.Outbound {
		docs = append(docs, azureDoc{id: w.own("publicIPAddresses", ip.Name), tags: map[string]string{"aks-managed-type": "aks-slb-managed-outbound-ip"},
			body: object{"sku": object{"name": "Standard", "tier": "Regional"}, "properties": object{
				"publicIPAllocationMethod": "Static", "publicIPAddressVersion": "IPv4", "idleTimeoutInMinutes": 30, "ipAddress": ip.Address.String()}}})
	}
	switch {
	case o.Type == byLoadBalancer && len(w.frontEnds()) > 0:
		docs = append(docs, w.balancerDoc())
	case o.Type == byManagedNAT && len(w.state.Outbound) > 0:
		docs = append(docs, w.gatewayDoc())
	}
	return docs
}

// frontEnd is a front end of the outbound rule.
type frontEnd struct {
	name   string
	source string // the property that names where its addresses come from
	id     resource.ID
}

func (w *whole) frontEnds() []frontEnd {
	o := &w.state.Desired.Outbound
	var all []frontEnd
	for _, ip := range w.state.Outbound {
		all = append(all, frontEnd{ip.Name, "publicIPAddress", w.own("publicIPAddresses", ip.Name)})
	}
	for _, id := range o.Addresses {
		all = append(all, frontEnd{id.Name(), "publicIPAddress", id})
	}
	for _, id := range o.Prefixes {
		all = append(all, frontEnd{id.Name(), "publicIPPrefix", id})
	}
	return all
}

// balancerDoc is the load balancer `kubernetes`. The cluster keeps the outbound
// rule with its front ends and the two pools; all else is the
// cloud-controller-manager's.
func (w *whole) balancerDoc() azureDoc {
	body := object{"sku": object{"name": "Standard", "tier": "Regional"}, "properties": object{
		"frontendIPConfigurations": []any{}, "backendAddressPools": []any{}, "loadBalancingRules": []any{},
		"probes": []any{}, "inboundNatRules": []any{}, "outboundRules": []any{},
	}}
	w.keepBalancer(body)
	return azureDoc{id: w.balancerID(), body: body, tags: map[string]string{"aks-managed-cluster-name": w.doc.Name}, merge: w.keepBalancer}
}

func (w *whole) keepBalancer(body object) bool {
	before, _ := json.Marshal(body) // maps of JSON values always encode
	properties, _ := body["properties"].(object)
	if properties == nil {
		properties = object{}
		body["properties"] = properties
	}
	o := &w.state.Desired.Outbound
	fronts, _ := properties["frontendIPConfigurations"].([]any)
	rules, _ := properties["outboundRules"].([]any)
	wanted := map[string]bool{}
	var references []any
	for _, f := range w.frontEnds() {
		wanted[strings.ToLower(f.name)] = true
		fronts = upsert(fronts, f.name, object{f.source: ref(f.id)})
		references = append(references, ref(w.balancerID().Child("frontendIPConfigurations", f.name)))
	}
	for _, was := range ruleFronts(rules) {
		if !wanted[strings.ToLower(was)] {
			fronts = without(fronts, was)
		}
	}
	properties["frontendIPConfigurations"] = fronts
	pools, _ := properties["backendAddressPools"].([]any)
	for _, name := range []string{outboundPool, servicePool} {
		if find(pools, name) == nil {
			pools = append(pools, named(name, object{}))
		}
	}
	properties["backendAddressPools"] = pools
	properties["outboundRules"] = upsert(rules, outboundRule, object{
		"protocol": "All", "allocatedOutboundPorts": o.Ports, "idleTimeoutInMinutes": o.Idle, "enableTcpReset": true,
		"backendAddressPool":       ref(w.balancerID().Child("backendAddressPools", outboundPool)),
		"frontendIPConfigurations": references,
	})
	after, _ := json.Marshal(body)
	return string(before) != string(after)
}

// ruleFronts are the names of the front ends that the outbound rule has now.
func ruleFronts(rules []any) []string {
	rule := find(rules, outboundRule)
	list, _ := get(rule, "properties.frontendIPConfigurations").([]any)
	var names []string
	for _, element := range list {
		if o, ok := element.(object); ok {
			text := fmt.Sprint(o["id"])
			names = append(names, text[strings.LastIndex(text, "/")+1:])
		}
	}
	return names
}

func (w *whole) gatewayDoc() azureDoc {
	var addresses []any
	for _, ip := range w.state.Outbound {
		addresses = append(addresses, ref(w.own("publicIPAddresses", ip.Name)))
	}
	idle := w.state.Desired.Outbound.Idle
	return azureDoc{id: w.gatewayID(),
		body: object{"sku": object{"name": "Standard"}, "properties": object{"idleTimeoutInMinutes": idle, "publicIpAddresses": addresses}},
		merge: func(body object) bool {
			before, _ := json.Marshal(body)
			set(body, "properties.idleTimeoutInMinutes", idle)
			set(body, "properties.publicIpAddresses", addresses)
			after, _ := json.Marshal(body)
			return string(before) != string(after)
		}}
}

// find is the element of a list with that name, nil when there is none.
func find(list []any, name string) object {
	for _, element := range list {
		if o, ok := element.(object); ok && strings.EqualFold(fmt.Sprint(o["name"]), name) {
			return o
		}
	}
	return nil
}

// upsert gives the element of that name these properties, beside what it has.
func upsert(list []any, name string, properties object) []any {
	element := find(list, name)
	if element == nil {
		return append(list, named(name, properties))
	}
	have, _ := element["properties"].(object)
	if have == nil {
		have = object{}
		element["properties"] = have
	}
	for k, v := range properties {
		have[k] = v
	}
	return list
}

func without(list []any, name string) []any {
	return slices.DeleteFunc(list, func(element any) bool {
		o, ok := element.(object)
		return ok && strings.EqualFold(fmt.Sprint(o["name"]), name)
	})
}

func toInt(v any) int {
	switch v := v.(type) {
	case int:
		return v
	case float64:
		return int(v)
	case json.Number:
		n, _ := v.Int64()
		return int(n)
	}
	return -1
}

// uuidOf is a UUID that derives from a cluster's and a purpose.
func uuidOf(uid, purpose string) string {
	d := digest(uid, purpose)
	return d[:8] + "-" + d[8:12] + "-" + d[12:16] + "-" + d[16:20] + "-" + d[20:32]
}
