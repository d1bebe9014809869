// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"bastide.dev/controlplane"
	"bastide.dev/host"
	"bastide.dev/machine"
	"bastide.dev/node"
	"bastide.dev/resource"
)

const (
	clusterDomain  = "cluster.local"
	apiServerPort  = 443
	nodeConfigMode = 0o600
)

// unit is one unit of a host, before it is stored.
type unit struct {
	kind host.Kind
	name string
	spec any
}

// compile says, purely, what a host should run for a cluster: its control plane
// and a machine per node. What is stopped or removed has no machine. Networks
// are compiled by package network, from the documents and Server.
func (p *Provider) compile(w *whole, keys secrets) ([]unit, error) {
	units := []unit{
		{host.ControlPlaneUnit, w.state.ID, p.compileControlPlane(w, keys)},
	}
	if w.state.Stopped {
		return units, nil
	}
	for _, pool := range w.pools {
		for _, n := range pool.Nodes {
			if n.Removed {
				continue
			}
			spec, err := p.compileMachine(w, pool, n, keys)
			if err != nil {
				return nil, err
			}
			units = append(units, unit{host.MachineUnit, n.Machine, spec})
		}
	}
	return units, nil
}

func (p *Provider) compileControlPlane(w *whole, keys secrets) controlplane.Spec {
	s := &w.state
	d := &s.Desired
	spec := controlplane.Spec{
		ID: s.ID, Version: d.Version.String(), Etcd: s.Etcd, Stopped: s.Stopped,
		Namespace: s.ID, Address: s.Server, Endpoint: s.FQDN, Public: s.Public, Names: w.serverNames(),
		ServiceCIDR: d.ServiceCIDR, DNSServiceIP: d.DNS, ClusterDomain: clusterDomain,
		Keys: keys.believed(), Attempt: keys.Asked, Addons: p.Addons, Policies: d.Policy != "", Cloud: p.compileCloud(w, keys),
		Directory: p.compileDirectory(w, keys), Reboots: w.reboots, Autoscaler: p.compileAutoscaler(w),
	}
	p.compileIssuer(&spec, s, keys)
	w.compileBackups(&spec, keys)
	if d.PodCIDR.IsValid() {
		spec.PodCIDRs = []netip.Prefix{d.PodCIDR}
	}
	for _, pool := range w.pools {
		for _, n := range pool.Nodes {
			entry := controlplane.Node{Name: n.Name, Address: n.Address, Removed: n.Removed, Pool: pool.Pool.Name, Note: n.Note, Labels: imageLabel(n), Leave: pool.leave(&n)}
			if !d.podsInSubnet() {
				entry.Pods = n.Pods
			}
			spec.Nodes = append(spec.Nodes, entry)
		}
	}
	return spec
}

func (p *Provider) compileMachine(w *whole, pool *poolDoc, n allotted, keys secrets) (machine.Spec, error) {
	size, known := machine.SizeByName(pool.Pool.Size)
	if !known {
		return machine.Spec{}, fmt.Errorf("machine %s: size %s isn't known any more", n.Machine, pool.Pool.Size)
	}
	config, err := json.Marshal(p.nodeConfig(w, pool, n, size, keys))
	if err != nil {
		return machine.Spec{}, fmt.Errorf("machine %s: %w", n.Machine, err)
	}
	return machine.Spec{
		ID: n.Machine, Hostname: n.Name, Image: n.Parts.Image, Layers: n.Parts.Layers,
		CPUs: size.CPUs, Memory: size.Memory, Boots: n.Boots, Images: n.Images,
		Files: []machine.File{{Path: node.ConfigPath, Mode: nodeConfigMode, Data: config}},
	}, nil
}

func (p *Provider) nodeConfig(w *whole, pool *poolDoc, n allotted, size machine.Size, keys secrets) node.Config {
	d := &w.state.Desired
	credentials := keys.nodeCredentials(n)
	subnet := w.subnets[w.subnet(&pool.Pool).Key()]
	pods := node.PodNetwork{Plugin: kubenet, Pods: n.Pods}
	inside := d.PodCIDR
	if d.podsInSubnet() {
		// Others in the network know such pods by their own addresses.
		inside, pods.Plugin, pods.VNet = subnet.Prefix, azureCNI, subnet.Prefixes
	}
	config := node.Config{
		Hostname: n.Name, Address: n.Address, KubernetesVersion: n.Version.String(),
		Server: fmt.Sprintf("https://%s", netip.AddrPortFrom(w.state.Server, apiServerPort)), CA: credentials.CA, Authority: keys.nodeAuthority(n),
		BootstrapToken: keys.BootstrapTokenID + "." + keys.BootstrapTokenCode,
		Proxy:          node.Credential(credentials.Proxy),
		ClusterDomain:  clusterDomain, ClusterDNS: d.DNS, ServiceCIDR: d.ServiceCIDR, ClusterCIDR: []netip.Prefix{inside},
		Network: pods, Policy: policyOf(d, credentials),
		MaxPods: pool.Pool.MaxPods, Labels: p.nodeLabels(w, pool, n, size), Taints: pool.Pool.Taints,
		ProviderID: providerID(w, pool, n), CPUs: size.CPUs, Memory: size.Memory,
		Registry: p.Registry, InstanceCA: p.InstanceCA(), PauseImage: p.PauseImage,
		AuthorizedKeys: d.Keys, AdminUser: d.Admin,
	}
	w.orders(&config, p.Mirror)
	return config
}

// nodeLabels are the pool's own and those that AKS gives every node, as far as
// a kubelet may set them itself (NodeRestriction).
func (p *Provider) nodeLabels(w *whole, pool *poolDoc, n allotted, size machine.Size) map[string]string {
	labels := map[string]string{}
	for k, v := range pool.Pool.Labels {
		labels[k] = v
	}
	for k, v := range map[string]string{
		"agentpool":                               pool.Pool.Name,
		"kubernetes.azure.com/agentpool":          pool.Pool.Name,
		"kubernetes.azure.com/mode":               strings.ToLower(pool.Pool.Mode),
		"kubernetes.azure.com/role":               "agent",
		"kubernetes.azure.com/cluster":            cutLabel(w.state.Desired.NodeGroup),
		"kubernetes.azure.com/os-sku":             "Debian",
		"kubernetes.azure.com/node-image-version": cutLabel(imageVersion(n.Parts.Image)),
		"node.kubernetes.io/instance-type":        size.Name,
		"topology.kubernetes.io/region":           p.Location,
	} {
		labels[k] = v
	}
	return labels
}

// cutLabel makes a label's value of a longer or differently made text.
func cutLabel(text string) string {
	kept := strings.Map(func(r rune) rune {
		if r == '-' || r == '_' || r == '.' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '-'
	}, text)
	return strings.Trim(kept[:min(len(kept), 63)], "-_.")
}

// providerID is a node's id in the form of a scale set's machine on Azure.
func providerID(w *whole, pool *poolDoc, n allotted) string {
	return fmt.Sprintf("azure:///subscriptions/%s/resourceGroups/%s/providers/Microsoft.Compute/virtualMachineScaleSets/aks-%s-%s-vmss/virtualMachines/%d",
		w.doc.ID.Subscription(), strings.ToLower(w.state.Desired.NodeGroup), pool.Pool.Name, nodeDigits(w.state.UID), n.Number)
}

// serverNames are the API server's further names: a private cluster's inside.
func (w *whole) serverNames() []string {
	if name := w.privateName(); name != "" {
		return []string{name}
	}
	return nil
}

// policyOf switches a node's network policies on.
func policyOf(d *Desired, credentials replaced) *node.Policy {
	if d.Policy == "" {
		return nil
	}
	return &node.Policy{Credential: node.Credential(credentials.Policy)}
}

// compileCloud is how the cloud-controller-manager acts for the cluster.
func (p *Provider) compileCloud(w *whole, keys secrets) *controlplane.Cloud {
	s := &w.state
	d := &s.Desired
	if p.Cloud == "" {
		return nil
	}
	subnet := s.ServerSubnet
	cloud := &controlplane.Cloud{
		Bundle: p.Cloud, Endpoint: p.ResourceManager, Login: p.Login, CA: p.InstanceCA(),
		Tenant: p.Tenant, Subscription: w.doc.ID.Subscription(), ClientID: keys.Cloud.ClientID, Secret: keys.Cloud.Secret,
		Location: d.Location, Group: d.NodeGroup, VNetGroup: subnet.Group(), VNet: subnet.Parent().Name(), Subnet: subnet.Name(),
		NSG: w.nsgID().Name(), ScaleSet: scaleSetName(w.systemPool(), w.digits()), BackendPoolType: or(d.Outbound.PoolType, poolOfInterfaces),
	}
	if d.Plugin == kubenet {
		table := w.routeTable()
		cloud.Routes, cloud.RouteTable, cloud.RouteTableGroup, cloud.ClusterCIDR = true, table.Name(), table.Group(), d.PodCIDR
	}
	return cloud
}

// systemPool is the name of the first system pool.
func (w *whole) systemPool() string {
	for _, pool := range w.pools {
		if pool.Pool.Mode == systemMode && pool.ProvisioningState != resource.Deleting {
			return pool.Pool.Name
		}
	}
	return w.pools[0].Pool.Name
}
