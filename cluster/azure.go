// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"strconv"
	"strings"

	"bastide.dev/resource"
)

// What a cluster has in its node resource group, by AKS's names. These are
// resources like anybody's: the cloud-controller-manager reads and changes them,
// and so may users, as far as AKS lets them.

// The parts of the load balancer that AKS makes, and the cloud-controller-manager knows.
const (
	balancerName = "kubernetes"
	servicePool  = "kubernetes"
	outboundPool = "aksOutboundBackendPool"
	outboundRule = "aksOutboundRule"
	ipConfigName = "ipconfig1"
)

// group is the node resource group.
func (w *whole) group() resource.ID {
	return resource.GroupID(w.doc.ID.Subscription(), w.state.Desired.NodeGroup)
}

func (w *whole) own(typ, name string) resource.ID {
	return w.group().Resource("Microsoft.Network", typ, name)
}

func (w *whole) digits() string { return nodeDigits(w.state.UID) }

func (w *whole) vnetID() resource.ID    { return w.own("virtualNetworks", "aks-vnet-"+w.digits()) }
func (w *whole) ownSubnet() resource.ID { return w.vnetID().Child("subnets", subnetName) }
func (w *whole) nsgID() resource.ID {
	return w.own("networkSecurityGroups", "aks-agentpool-"+w.digits()+"-nsg")
}
func (w *whole) ownRouteTable() resource.ID {
	return w.own("routeTables", "aks-agentpool-"+w.digits()+"-routetable")
}
func (w *whole) gatewayID() resource.ID {
	return w.own("natGateways", "aks-agentpool-"+w.digits()+"-natgateway")
}
func (w *whole) balancerID() resource.ID { return w.own("loadBalancers", balancerName) }

// scaleSet is a pool's.
func (w *whole) scaleSet(pool string) resource.ID {
	return w.group().Resource("Microsoft.Compute", "virtualMachineScaleSets", scaleSetName(pool, w.digits()))
}

func scaleSetName(pool, digits string) string { return "aks-" + pool + "-" + digits + "-vmss" }

// instance is a node's.
func (w *whole) instance(pool string, number int64) resource.ID {
	return w.scaleSet(pool).Child("virtualMachines", strconv.FormatInt(number, 10))
}

// subnet is where a pool's nodes are.
func (w *whole) subnet(pool *Pool) resource.ID {
	if pool.Subnet.IsRoot() {
		return w.ownSubnet()
	}
	return pool.Subnet
}

// routeTable is what kubenet's pod routes are in: the one that the subnet had,
// or the cluster's own.
func (w *whole) routeTable() resource.ID {
	if s, known := w.subnets[w.state.ServerSubnet.Key()]; known && !s.RouteTable.IsRoot() {
		return s.RouteTable
	}
	return w.ownRouteTable()
}

// azureDoc is a document that a cluster keeps in its node resource group.
type azureDoc struct {
	id       resource.ID
	location string
	tags     map[string]string
	body     object
	state    any
	// merge brings an existing body to what it should be and tells whether that
	// changed it; nil leaves it as it is. Others write these bodies, too.
	merge func(body object) bool
}

func ref(id resource.ID) object { return object{"id": id.String()} }

func named(name string, properties object) object {
	return object{"name": name, "properties": properties}
}

// documents are all that a cluster should have.
func (w *whole) documents() []azureDoc {
	d := &w.state.Desired
	docs := []azureDoc{{id: w.nsgID(), body: object{"properties": object{"securityRules": []any{}}}}}
	if len(d.subnets()) == 0 && w.state.ServerSubnet.Equal(w.ownSubnet()) {
		docs = append(docs, w.vnetDoc())
	}
	if d.Plugin == kubenet && w.routeTable().Equal(w.ownRouteTable()) {
		docs = append(docs, azureDoc{id: w.ownRouteTable(),
			body: object{"properties": object{"disableBgpRoutePropagation": false, "routes": []any{}}}})
	}
	docs = append(docs, w.outboundDocs()...)
	docs = append(docs, w.zoneDocs()...)
	for _, pool := range w.pools {
		docs = append(docs, w.poolDocs(pool)...)
	}
	for i := range docs {
		if docs[i].location == "" {
			docs[i].location = d.Location
		}
	}
	return docs
}

func (w *whole) vnetDoc() azureDoc {
	d := &w.state.Desired
	subnet := object{"addressPrefix": subnetPrefix().String(), "networkSecurityGroup": ref(w.nsgID())}
	if d.Plugin == kubenet {
		subnet["routeTable"] = ref(w.ownRouteTable())
	}
	if d.Outbound.Type == byManagedNAT {
		subnet["natGateway"] = ref(w.gatewayID())
	}
	return azureDoc{id: w.vnetID(), body: object{"properties": object{
		"addressSpace": object{"addressPrefixes": []any{vnetPrefix().String()}},
		"subnets":      []any{named(subnetName, subnet)},
	}}}
}

// poolDocs are a pool's scale set and its instances.
func (w *whole) poolDocs(pool *poolDoc) []azureDoc {
	set := w.scaleSet(pool.Pool.Name)
	live := pool.live()
	tags := map[string]string{"aks-managed-poolName": pool.Pool.Name, "aks-managed-resourceNameSuffix": w.digits(),
		"aks-managed-orchestrator": "Kubernetes:" + pool.Pool.Version.String(),
		// With this tag the cloud-controller-manager changes instances in parallel.
		"aks-managed-coordination": "true"}
	size := object{"name": pool.Pool.Size, "tier": "Standard", "capacity": live}
	prefix := scaleSetName(pool.Pool.Name, w.digits())
	docs := []azureDoc{{id: set, tags: tags,
		body: object{"sku": size, "properties": object{
			"singlePlacementGroup": false, "overprovision": false, "orchestrationMode": "Uniform", "upgradePolicy": object{"mode": "Manual"},
			"virtualMachineProfile": object{
				"osProfile":      object{"computerNamePrefix": prefix, "adminUsername": w.state.Desired.Admin},
				"networkProfile": w.interfaces(pool, prefix),
			},
		}},
		merge: func(body object) bool {
			changed := w.mergeIdentity(body)
			if toInt(get(body, "sku.capacity")) == live && get(body, "sku.name") == pool.Pool.Size {
				return changed
			}
			set := object{"name": pool.Pool.Size, "tier": "Standard", "capacity": live}
			body["sku"] = set
			return true
		}}}
	if identity := w.nodeIdentity(); identity != nil {
		docs[0].body["identity"] = identity
	}
	for _, n := range pool.Nodes {
		docs = append(docs, w.instanceDoc(pool, n, prefix, tags))
	}
	return docs
}

// instanceState is the private part of an instance's document: which machine it
// is, and its addresses (network reads it).
type instanceState struct {
	Machine string `json:"machine"`
	Address any    `json:"address"`
	Pods    any    `json:"pods,omitempty"`
	// NoMetadata closes the metadata address to the node's pods.
	NoMetadata bool `json:"noMetadata,omitempty"`
}

func (w *whole) instanceDoc(pool *poolDoc, n allotted, prefix string, tags map[string]string) azureDoc {
	id := w.instance(pool.Pool.Name, n.Number)
	state := instanceState{Machine: n.Machine, Address: n.Address, NoMetadata: w.state.Desired.NoPodMetadata}
	if w.state.Desired.Plugin != kubenet { // kubenet's pods come by route table
		state.Pods = n.Pods
	}
	properties := object{
		"latestModelApplied": true, "provisioningState": "Succeeded",
		"vmId":            uuidOf(w.state.UID, n.Machine),
		"hardwareProfile": object{"vmSize": pool.Pool.Size},
		"osProfile": object{"computerName": n.Name, "adminUsername": w.state.Desired.Admin,
			"linuxConfiguration": object{"disablePasswordAuthentication": true}},
		"storageProfile": object{"imageReference": object{"exactVersion": n.Parts.Image}, "osDisk": object{"osType": "Linux"}},
		"networkProfile": object{"networkInterfaces": []any{object{
			"id": id.Child("networkInterfaces", prefix).String(), "properties": object{"primary": true}}}},
		"networkProfileConfiguration": w.interfaces(pool, prefix),
	}
	doc := azureDoc{id: id, tags: tags, state: state, body: object{"instanceId": strconv.FormatInt(n.Number, 10),
		"sku": object{"name": pool.Pool.Size, "tier": "Standard"}, "properties": properties}}
	if n.Images > 0 { // made anew, maybe of another image
		const path = "properties.storageProfile.imageReference.exactVersion"
		doc.merge = func(body object) bool {
			if get(body, path) == n.Parts.Image {
				return false
			}
			set(body, path, n.Parts.Image)
			return true
		}
	}
	return doc
}

// interfaces is the one interface of a pool's machines. In the cluster's own
// network the group guards the subnet; in a network of the user's, the interface.
func (w *whole) interfaces(pool *poolDoc, name string) object {
	d := &w.state.Desired
	address := object{"primary": true, "privateIPAddressVersion": "IPv4", "subnet": ref(w.subnet(&pool.Pool))}
	if d.Outbound.Type == byLoadBalancer && d.Outbound.PoolType == poolOfInterfaces {
		address["loadBalancerBackendAddressPools"] = []any{
			ref(w.balancerID().Child("backendAddressPools", outboundPool)), ref(w.balancerID().Child("backendAddressPools", servicePool))}
	}
	properties := object{"primary": true, "enableAcceleratedNetworking": false, "enableIPForwarding": d.Plugin == kubenet,
		"ipConfigurations": []any{named(ipConfigName, address)}}
	if !pool.Pool.Subnet.IsRoot() {
		properties["networkSecurityGroup"] = ref(w.nsgID())
	}
	return object{"networkInterfaceConfigurations": []any{named(name, properties)}}
}

// privateLabel is the first label of a private cluster's names.
func (w *whole) privateLabel() string {
	label, _, _ := strings.Cut(w.state.FQDN, ".")
	if s := w.state.Desired.Access.Subdomain; s != "" {
		return strings.ToLower(s)
	}
	return label
}
