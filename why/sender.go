// SPDX-License-Identifier: Apache-2.0

package why

import (
	"net/netip"
	"slices"
	"strings"

	"bastide.dev/dataplane"
	"bastide.dev/fault"
)

// place is where a connection begins: in a cluster's node (in a pod, or in the
// node itself), or elsewhere on the networks.
type place struct {
	label   string
	address netip.Addr
	vnet    string   // ID of the network it is in; "" outside
	cluster *Cluster // of pods, nodes and API servers
	node    *Node    // of pods and nodes
	pod     *Pod     // on its own network
	start   dataplane.Endpoint
	sender  Sender
}

func notThere(target, format string, args ...any) *fault.Error {
	return fault.New(fault.NotFound, "EndNotFound", format, args...).At(target)
}

// from finds where a connection begins.
func (k *walk) from(e end) (place, error) {
	const target = "from"
	switch e.kind {
	case kindPod:
		c, pod, err := k.pod(target, e)
		if err != nil {
			return place{}, err
		}
		return k.inPod(target, c, pod)
	case kindNode:
		c, n, err := k.nodeNamed(target, e)
		if err != nil {
			return place{}, err
		}
		return k.onNode(c, n), nil
	case kindService:
		return place{}, fault.New(fault.Invalid, "InvalidEnd", "A Service sends nothing itself: name one of its pods.").At(target)
	case kindVM, kindAPIServer:
		at, err := k.interfaceOf(target, e)
		if err != nil {
			return place{}, err
		}
		return k.atInterface(at), nil
	case kindTerminal:
		t, err := k.terminal(target, e)
		if err != nil {
			return place{}, err
		}
		return k.atTerminal(t), nil
	case kindInternet:
		return k.outside(e.address), nil
	case kindName:
		address, ok := k.w.resolve(e.name, "")
		if !ok {
			return place{}, notThere(target, "No virtual network knows the name %s: give an address.", e.name)
		}
		return k.fromAddress(target, address)
	}
	return k.fromAddress(target, e.address)
}

func (k *walk) outside(a netip.Addr) place {
	return place{label: "the Internet (" + a.String() + ")", address: a, start: dataplane.Endpoint{Source: a}, sender: Sender{Outside: true}}
}

// inPod is a pod with a network of its own, or one on its node's.
func (k *walk) inPod(target string, c *Cluster, pod *Pod) (place, error) {
	n := c.node(pod.Node)
	if n == nil {
		return place{}, fault.New(fault.Conflict, "PodNotScheduled", "The pod %s/%s is on no node.", pod.Namespace, pod.Name).At(target)
	}
	p := k.onNode(c, n)
	p.label = "pod " + pod.Namespace + "/" + pod.Name
	if pod.HostNetwork {
		return p, nil
	}
	if len(pod.Addresses) == 0 {
		return place{}, fault.New(fault.Conflict, "PodWithoutAddress", "The pod %s/%s has no address: it is %s.", pod.Namespace, pod.Name, pod.Phase).At(target)
	}
	p.pod, p.address, p.sender.PodUID = pod, pod.Addresses[0], pod.UID
	return p, nil
}

func (k *walk) onNode(c *Cluster, n *Node) place {
	p := place{label: "node " + n.Name, address: n.Address, cluster: c, node: n, sender: Sender{Machine: n.Machine}}
	if at, ok := k.w.machineNIC(n.Machine); ok {
		p.vnet, p.start = at.vnet.ID, dataplane.Endpoint{NIC: at.nic.ID}
	}
	return p
}

// atInterface is a virtual machine or an API server.
func (k *walk) atInterface(a at) place {
	p := place{address: a.nic.Address, vnet: a.vnet.ID, start: dataplane.Endpoint{NIC: a.nic.ID},
		sender: Sender{Machine: a.nic.Machine, Namespace: a.nic.Namespace}}
	p.label = k.ownerOf(a.nic)
	if c := k.w.server(a.nic.Namespace); c != nil && a.nic.Namespace != "" {
		p.cluster = c
	}
	return p
}

// ownerOf says what an interface is a part of.
func (k *walk) ownerOf(n *dataplane.NIC) string {
	if n.Namespace != "" {
		if c := k.w.server(n.Namespace); c != nil {
			return "API server of " + c.Name
		}
		return "namespace " + n.Namespace
	}
	if _, node := k.w.node(n.Machine); node != nil {
		return "node " + node.Name
	}
	if vm := k.w.vm(n.Machine); vm != nil {
		return "VM " + vm.Name
	}
	return "machine " + n.Machine
}

func (k *walk) atTerminal(t *dataplane.Terminal) place {
	return place{label: "terminal " + k.terminalName(t.ID), address: t.Address, start: dataplane.Endpoint{Terminal: t.ID}, sender: Sender{Namespace: t.Namespace}}
}

func (k *walk) terminalName(id string) string {
	for _, t := range k.w.Terminals {
		if t.ID == id {
			return t.Name
		}
	}
	return id
}

// fromAddress finds who has an address.
func (k *walk) fromAddress(target string, a netip.Addr) (place, error) {
	var found []at
	for i := range k.w.Config.VNets {
		v := &k.w.Config.VNets[i]
		for j := range v.NICs {
			if v.NICs[j].Address == a {
				found = append(found, at{v, &v.NICs[j]})
			}
		}
	}
	switch {
	case len(found) > 1:
		return place{}, fault.New(fault.Invalid, "AmbiguousAddress", "Several virtual networks have the address %s: name what you mean instead.", a).At(target)
	case len(found) == 1:
		if c, n := k.w.node(found[0].nic.Machine); n != nil {
			return k.onNode(c, n), nil
		}
		return k.atInterface(found[0]), nil
	}
	for i := range k.w.Config.Edge.Terminals {
		if t := &k.w.Config.Edge.Terminals[i]; t.Address == a {
			return k.atTerminal(t), nil
		}
	}
	if c, pod, err := k.podAt(a); pod != nil || err != nil {
		if err != nil {
			return place{}, err
		}
		return k.inPod(target, c, pod)
	}
	if covers(k.w.Config.Edge.Pools, a) || a.IsPrivate() {
		return place{}, notThere(target, "Nothing that sends has the address %s.", a)
	}
	return k.outside(a), nil
}

// podAt finds the pod with an address of its own.
func (k *walk) podAt(a netip.Addr) (*Cluster, *Pod, error) {
	for i := range k.w.Clusters {
		c := &k.w.Clusters[i]
		if !slices.ContainsFunc(c.Nodes, func(n Node) bool { return covers(n.Pods, a) }) {
			continue
		}
		if c.Objects == nil {
			return nil, nil, &NeedObjects{c.ControlPlane}
		}
		if pod := c.podAt(a); pod != nil {
			return c, pod, nil
		}
	}
	return nil, nil, nil
}

// podAt is the pod that has an address of its own: of several the one that isn't ending.
func (c *Cluster) podAt(a netip.Addr) *Pod {
	var found *Pod
	for i := range c.Objects.Pods {
		p := &c.Objects.Pods[i]
		if !p.HostNetwork && slices.Contains(p.Addresses, a) && p.lives() && (found == nil || found.Deleting || p.Created.After(found.Created) && !p.Deleting) {
			found = p
		}
	}
	return found
}

// lives tells whether a pod hasn't ended.
func (p *Pod) lives() bool { return p.Phase != "Succeeded" && p.Phase != "Failed" }

func (c *Cluster) node(name string) *Node {
	for i := range c.Nodes {
		if c.Nodes[i].Name == name {
			return &c.Nodes[i]
		}
	}
	return nil
}

// cluster finds the cluster that an end names, or the only one.
func (k *walk) cluster(target, name string) (*Cluster, error) {
	var found []*Cluster
	for i := range k.w.Clusters {
		c := &k.w.Clusters[i]
		if name == "" || strings.EqualFold(name, c.Name) || strings.EqualFold(name, c.Group+"/"+c.Name) || name == c.ControlPlane {
			found = append(found, c)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return nil, fault.New(fault.Invalid, "AmbiguousCluster", "There are several clusters: say which with @NAME, or @GROUP/NAME.").At(target)
	case name == "":
		return nil, notThere(target, "There is no cluster.")
	}
	return nil, notThere(target, "There is no cluster %q.", name)
}

func (k *walk) clusterWithObjects(target, name string) (*Cluster, error) {
	c, err := k.cluster(target, name)
	if err == nil && c.Objects == nil {
		return nil, &NeedObjects{c.ControlPlane}
	}
	return c, err
}

func (k *walk) pod(target string, e end) (*Cluster, *Pod, error) {
	c, err := k.clusterWithObjects(target, e.cluster)
	if err != nil {
		return nil, nil, err
	}
	for i := range c.Objects.Pods {
		if p := &c.Objects.Pods[i]; p.Namespace == e.namespace && p.Name == e.name {
			return c, p, nil
		}
	}
	return nil, nil, notThere(target, "The cluster %s has no pod %s/%s.", c.Name, e.namespace, e.name)
}

// nodeNamed finds a node; its name says which cluster, unless two have it.
func (k *walk) nodeNamed(target string, e end) (*Cluster, *Node, error) {
	for i := range k.w.Clusters {
		c := &k.w.Clusters[i]
		if e.cluster != "" && !strings.EqualFold(e.cluster, c.Name) && !strings.EqualFold(e.cluster, c.Group+"/"+c.Name) {
			continue
		}
		if n := c.node(e.name); n != nil {
			return c, n, nil
		}
	}
	return nil, nil, notThere(target, "There is no node %s.", e.name)
}

// interfaceOf finds the interface of a virtual machine or an API server.
func (k *walk) interfaceOf(target string, e end) (at, error) {
	if e.kind == kindAPIServer {
		name := e.name
		if e.namespace != "" {
			name = e.namespace + "/" + e.name
		}
		c, err := k.cluster(target, name)
		if err != nil {
			return at{}, err
		}
		found, ok := k.w.nic(func(_ *dataplane.VNet, n *dataplane.NIC) bool {
			return n.Namespace == c.ControlPlane && n.Address == c.Server
		})
		if !ok {
			return at{}, notThere(target, "The API server of %s is in no virtual network: is the cluster stopped?", c.Name)
		}
		return found, nil
	}
	var machines []string
	for _, vm := range k.w.VMs {
		if strings.EqualFold(vm.Name, e.name) && (e.namespace == "" || strings.EqualFold(vm.Group, e.namespace)) {
			machines = append(machines, vm.Machine)
		}
	}
	switch len(machines) {
	case 0:
		return at{}, notThere(target, "There is no virtual machine %s.", e.name)
	case 1:
	default:
		return at{}, fault.New(fault.Invalid, "AmbiguousMachine", "Several virtual machines are named %s: say vm/GROUP/NAME.", e.name).At(target)
	}
	found, ok := k.w.machineNIC(machines[0])
	if !ok {
		return at{}, notThere(target, "The virtual machine %s has no interface in a virtual network.", e.name)
	}
	return found, nil
}

func (k *walk) terminal(target string, e end) (*dataplane.Terminal, error) {
	for _, t := range k.w.Terminals {
		if !strings.EqualFold(t.Name, e.name) || e.namespace != "" && !strings.EqualFold(t.Group, e.namespace) {
			continue
		}
		for i := range k.w.Config.Edge.Terminals {
			if k.w.Config.Edge.Terminals[i].ID == t.ID {
				return &k.w.Config.Edge.Terminals[i], nil
			}
		}
	}
	return nil, notThere(target, "There is no terminal %s: `bastide outside create %s` makes one.", e.name, e.name)
}
