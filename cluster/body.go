// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"bastide.dev/arm"
	"bastide.dev/resource"
)

// object is a JSON object; numbers stay json.Number, names are found without regard to case.
type object = map[string]any

// clone copies a JSON object in depth.
func clone(body object) (object, error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("copy body: %w", err)
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	var copied object
	if err := decoder.Decode(&copied); err != nil {
		return nil, fmt.Errorf("copy body: %w", err)
	}
	if copied == nil {
		copied = object{}
	}
	return copied, nil
}

// member is the object's name for a property, as the client wrote it.
func member(o object, name string) string {
	if _, ok := o[name]; ok {
		return name
	}
	for k := range o {
		if strings.EqualFold(k, name) {
			return k
		}
	}
	return name
}

// set puts a value at a path such as "properties.networkProfile.podCidr", making the objects on the way.
func set(o object, path string, value any) {
	name, rest, more := strings.Cut(path, ".")
	name = member(o, name)
	if !more {
		o[name] = value
		return
	}
	inner, _ := o[name].(object)
	if inner == nil {
		inner = object{}
		o[name] = inner
	}
	set(inner, rest, value)
}

// preset is set for what isn't there, null or empty.
func preset(o object, path string, value any) {
	if empty(get(o, path)) {
		set(o, path, value)
	}
}

// get reads a value at a path; nil when there is none.
func get(o object, path string) any {
	name, rest, more := strings.Cut(path, ".")
	v := o[member(o, name)]
	if !more {
		return v
	}
	inner, _ := v.(object)
	if inner == nil {
		return nil
	}
	return get(inner, rest)
}

// readOnly lists the paths of a table's read-only rows, for arm to drop.
func readOnly(rows []Property) []string {
	var paths []string
	for _, row := range rows {
		if row.Treatment == ReadOnly {
			paths = append(paths, row.Path)
		}
	}
	return paths
}

// fillCluster completes a cluster's body with what was decided. The pools have
// documents of their own, and a secret isn't kept: it was checked.
func fillCluster(body object, d *Desired) (object, error) {
	body, err := clone(body)
	if err != nil {
		return nil, err
	}
	arm.Drop(body, "properties.agentPoolProfiles")
	arm.Drop(body, "properties.servicePrincipalProfile.secret")
	set(body, "properties.kubernetesVersion", d.Version.String())
	set(body, "properties.dnsPrefix", d.DNSPrefix)
	set(body, "properties.nodeResourceGroup", d.NodeGroup)
	fillIdentity(body, d)
	if len(d.Keys) > 0 {
		keys := make([]any, len(d.Keys))
		for i, key := range d.Keys {
			keys[i] = object{"keyData": key}
		}
		set(body, "properties.linuxProfile.adminUsername", d.Admin)
		set(body, "properties.linuxProfile.ssh", object{"publicKeys": keys})
	}
	const network = "properties.networkProfile."
	set(body, network+"networkPlugin", d.Plugin)
	set(body, network+"serviceCidr", d.ServiceCIDR.String())
	set(body, network+"serviceCidrs", []any{d.ServiceCIDR.String()})
	set(body, network+"dnsServiceIP", d.DNS.String())
	if d.PodCIDR.IsValid() {
		set(body, network+"podCidr", d.PodCIDR.String())
		set(body, network+"podCidrs", []any{d.PodCIDR.String()})
	}
	set(body, network+"ipFamilies", []any{"IPv4"})
	set(body, network+"loadBalancerSku", "standard")
	fillNetwork(body, d)
	fillPodAccess(body, d)
	fillIssuer(body, d)
	fillOverride(body, d)
	fillChannels(body, d)
	set(body, "properties.enableRBAC", true)
	preset(body, "properties.supportPlan", "KubernetesOfficial")
	preset(body, "sku.name", "Base")
	preset(body, "sku.tier", "Free")
	return body, nil
}

// fillPool completes a pool's properties with what was decided.
func fillPool(properties object, pool Pool) {
	arm.Drop(properties, "name")
	set(properties, "count", pool.Count)
	set(properties, "vmSize", pool.Size)
	set(properties, "mode", pool.Mode)
	set(properties, "maxPods", pool.MaxPods)
	set(properties, "orchestratorVersion", pool.Version.String())
	if !pool.Subnet.IsRoot() {
		set(properties, "vnetSubnetID", pool.Subnet.String())
	}
	if len(pool.Labels) > 0 {
		set(properties, "nodeLabels", pool.Labels)
	}
	if len(pool.Taints) > 0 {
		set(properties, "nodeTaints", pool.Taints)
	}
	fillUpgrade(properties, pool.Upgrade)
	fillScaling(properties, pool)
	fillImage(properties, pool)
	preset(properties, "osType", "Linux")
	preset(properties, "osSKU", "Debian")
	preset(properties, "osDiskType", "Managed")
	preset(properties, "kubeletDiskType", "OS")
	preset(properties, "type", "VirtualMachineScaleSets")
	preset(properties, "scaleDownMode", "Delete")
	for _, never := range []string{"enableNodePublicIP", "enableEncryptionAtHost", "enableUltraSSD", "enableFIPS"} {
		set(properties, never, false)
	}
}

// fillNetwork completes what a body says of policies, of how nodes leave, and of
// who reaches the API server.
func fillNetwork(body object, d *Desired) {
	const network, access = "properties.networkProfile.", "properties.apiServerAccessProfile."
	arm.Drop(body, network+"networkPluginMode")
	if d.Overlay {
		set(body, network+"networkPluginMode", "overlay")
	}
	arm.Drop(body, network+"networkPolicy")
	if d.Policy != "" {
		set(body, network+"networkPolicy", d.Policy)
	}
	o := &d.Outbound
	set(body, network+"outboundType", o.Type)
	arm.Drop(body, network+"loadBalancerProfile")
	arm.Drop(body, network+"natGatewayProfile")
	switch o.Type {
	case byLoadBalancer:
		profile := object{"backendPoolType": o.PoolType, "allocatedOutboundPorts": o.Ports, "idleTimeoutInMinutes": o.Idle}
		switch {
		case len(o.Addresses) > 0:
			profile["outboundIPs"] = object{"publicIPs": references(o.Addresses)}
		case len(o.Prefixes) > 0:
			profile["outboundIPPrefixes"] = object{"publicIPPrefixes": references(o.Prefixes)}
		default:
			profile["managedOutboundIPs"] = object{"count": o.Managed}
		}
		set(body, network+"loadBalancerProfile", profile)
	case byManagedNAT:
		set(body, network+"natGatewayProfile", object{"managedOutboundIPProfile": object{"count": o.Managed}, "idleTimeoutInMinutes": o.Idle})
	}
	a := &d.Access
	if a.Private {
		set(body, access+"enablePrivateCluster", true)
		set(body, access+"privateDNSZone", a.Zone)
		set(body, access+"enablePrivateClusterPublicFQDN", a.PublicName)
	} else {
		arm.Drop(body, access+"privateDNSZone")
		arm.Drop(body, access+"enablePrivateClusterPublicFQDN")
	}
	arm.Drop(body, access+"authorizedIPRanges")
	if a.Restricted {
		ranges := []any{}
		for _, r := range a.Ranges {
			ranges = append(ranges, r.String())
		}
		if len(ranges) == 0 {
			ranges = append(ranges, everyoneOff)
		}
		set(body, access+"authorizedIPRanges", ranges)
	}
}

func references(ids []resource.ID) []any {
	list := make([]any, len(ids))
	for i, id := range ids {
		list[i] = ref(id)
	}
	return list
}
