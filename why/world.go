// SPDX-License-Identifier: Apache-2.0

package why

import (
	"net/netip"
	"slices"
	"strings"

	"bastide.dev/dataplane"
)

// World is everything that decides about packets, as it is at one moment.
type World struct {
	Instance string
	// Config is the stored units that the hosts apply, unchanged.
	Config dataplane.Config
	// Health and Digests are by VNet, of the hosts' reports. A VNet without a
	// digest hasn't been reported yet.
	Health  map[string]dataplane.Health
	Digests map[string]string

	Clusters  []Cluster
	VMs       []VM
	Terminals []Terminal
	VNets     map[string]string // names for people, by the data plane's ID
}

// Cluster is one cluster as far as packets are concerned.
type Cluster struct {
	Group, Name  string
	ControlPlane string // its ID, which is also its namespace in the data plane
	FQDN         string
	Server       netip.Addr // in its virtual network
	Port         uint16
	Nodes        []Node
	Objects      *Objects // nil: not asked for yet
}

// Node is one node's part in the way of packets.
type Node struct {
	Name    string
	Machine string
	Address netip.Addr
	Pods    []netip.Prefix // the addresses it gives to its pods
	Inside  []netip.Prefix // what its pods reach with their own addresses
	Local   []netip.Prefix // whose packets to Services kube-proxy doesn't masquerade
	// Services is the range of cluster addresses.
	Services netip.Prefix
	Enforces bool // network policies hold on it
}

// VM is a virtual machine.
type VM struct{ Group, Name, Machine string }

// Terminal is a client on the instance's Internet; ID is the data plane's.
type Terminal struct{ Group, Name, ID string }

// NeedObjects is the error of Explain when the way leads into a cluster whose
// Objects aren't there: get them, and ask again.
type NeedObjects struct{ ControlPlane string }

func (e *NeedObjects) Error() string {
	return "the objects of cluster " + e.ControlPlane + " are needed"
}

// HealthOf is what a VNet's report says of its probed back ends: those that
// aren't unhealthy answer.
func HealthOf(v *dataplane.VNet, s *dataplane.VNetStatus) dataplane.Health {
	if s == nil {
		return nil
	}
	health := dataplane.Health{}
	for _, b := range v.Balancers {
		if b.Probe == "" {
			continue
		}
		if health[b.Probe] == nil {
			health[b.Probe] = map[string]bool{}
		}
		for _, nic := range b.Backends {
			health[b.Probe][nic] = !slices.Contains(s.Unhealthy[b.Probe], nic)
		}
	}
	return health
}

// at is an interface and the network it is in.
type at struct {
	vnet *dataplane.VNet
	nic  *dataplane.NIC
}

// nic finds the first interface that match accepts.
func (w *World) nic(match func(*dataplane.VNet, *dataplane.NIC) bool) (at, bool) {
	for i := range w.Config.VNets {
		v := &w.Config.VNets[i]
		for j := range v.NICs {
			if match(v, &v.NICs[j]) {
				return at{v, &v.NICs[j]}, true
			}
		}
	}
	return at{}, false
}

func (w *World) machineNIC(machine string) (at, bool) {
	return w.nic(func(_ *dataplane.VNet, n *dataplane.NIC) bool { return n.Machine == machine })
}

// node finds the node that a machine is.
func (w *World) node(machine string) (*Cluster, *Node) {
	for i := range w.Clusters {
		c := &w.Clusters[i]
		for j := range c.Nodes {
			if c.Nodes[j].Machine == machine {
				return c, &c.Nodes[j]
			}
		}
	}
	return nil, nil
}

// server finds the cluster whose API server has a namespace.
func (w *World) server(namespace string) *Cluster {
	for i := range w.Clusters {
		if w.Clusters[i].ControlPlane == namespace {
			return &w.Clusters[i]
		}
	}
	return nil
}

func (w *World) vm(machine string) *VM {
	for i := range w.VMs {
		if w.VMs[i].Machine == machine {
			return &w.VMs[i]
		}
	}
	return nil
}

// vnetName is how people know a network.
func (w *World) vnetName(id string) string {
	if name := w.VNets[id]; name != "" {
		return "vnet " + name
	}
	return "vnet " + id
}

// resolve finds a name's address as whoever is in vnet ("": outside) does: the
// network's own names go before the edge's.
func (w *World) resolve(name, vnet string) (netip.Addr, bool) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	lists := [][]dataplane.Name{w.Config.Edge.Names}
	for i := range w.Config.VNets {
		if w.Config.VNets[i].ID == vnet {
			lists = [][]dataplane.Name{w.Config.VNets[i].Names, w.Config.Edge.Names}
		}
	}
	for _, list := range lists {
		for _, exact := range []bool{true, false} {
			for _, n := range list {
				base, wild := strings.CutPrefix(strings.ToLower(n.Name), "*.")
				hit := exact && !wild && base == name || !exact && wild && strings.HasSuffix(name, "."+base)
				if hit && len(n.Addresses) > 0 {
					return n.Addresses[0], true
				}
			}
		}
	}
	return netip.Addr{}, false
}

func covers(list []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}
