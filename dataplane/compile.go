// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
)

// How a packet's mark is laid out. It is set in the router, by its first
// chain, and means one of three things, by its highest byte:
//
//	0:            a back end, or an appliance, that the packet goes to (or nothing)
//	1 to 0xfd:    the route table of the subnet it comes from
//	0xfe, 0xff:   from inside to a public address of the network's own; the
//	              low bytes are the back end
//
// A connection's mark is its back end, as chosen for its first packet.
const (
	backendBits  = 0x00ffffff
	tableShift   = 24
	lastTable    = 0xfd
	ownEndpoint  = 0xfe000000 // to a forwarded port: the sender needs no egress
	ownFrontEnd  = 0xff000000 // to a balancer or an interface: it does
	tableOfHop   = 0x01000000 // routing tables: plus the back end's mark
	tableOfUsers = 0x02000000 // plus the route table's number
)

// Compile makes a network's router from the desired state. It is pure: the
// same input gives the same router, and small changes small differences.
func Compile(instance string, c *Config, v *VNet, health Health) Router {
	k := newCompiler(instance, c, v, health)
	k.fronts() // first: it knows which interfaces packets are marked for
	k.prerouting()
	k.destinationNAT()
	k.input()
	k.forward()
	k.sourceNAT()
	k.inbound()
	return k.router()
}

// compiler holds what the parts of one Compile share.
type compiler struct {
	instance string
	v        *VNet
	health   Health
	table    *tableWriter

	nics    map[string]*port     // by ID
	ports   []*port              // in the order of their links' names
	owners  map[netip.Addr]*port // by address
	peers   []*peer
	tables  []*userTable
	hops    map[string]uint32 // NIC → mark, of those that packets are marked for
	publics []netip.Addr      // the network's own public addresses
	fronted []*front
	cuts    []Cut
}

// port is a NIC with what the compiler knows of it.
type port struct {
	*NIC
	link   string
	subnet Subnet
	mark   uint32
	own    []netip.Prefix // what it may send from without Forwarding
}

// peer is a peering that both sides name.
type peer struct {
	Peer
	link, far string
	other     *VNet
}

func newCompiler(instance string, c *Config, v *VNet, health Health) *compiler {
	k := &compiler{instance: instance, v: v, health: health, table: newTable(TableName(instance)),
		nics: map[string]*port{}, owners: map[netip.Addr]*port{}, hops: map[string]uint32{}, publics: v.PublicAddresses()}
	ids := make([]string, len(v.NICs))
	for i := range v.NICs {
		ids[i] = v.NICs[i].ID
	}
	marks := numbers(ids, backendBits)
	for i := range v.NICs {
		nic := &v.NICs[i]
		p := &port{NIC: nic, link: NICLink(instance, nic.ID), mark: marks[nic.ID]}
		p.subnet, _ = v.Subnet(nic.Subnet) // Validate saw to it
		p.own = append([]netip.Prefix{single(p.Address)}, p.Pods...)
		for _, r := range v.Routes {
			if r.Via == p.Address {
				p.own = append(p.own, r.Prefix)
			}
		}
		k.nics[nic.ID], k.owners[nic.Address] = p, p
		k.ports = append(k.ports, p)
	}
	slices.SortFunc(k.ports, func(a, b *port) int { return cmp.Compare(a.link, b.link) })
	k.peers = peersOf(instance, c, v)
	k.tables = k.userTables()
	k.keepHops()
	return k
}

// peersOf are the peerings that stand: the other network is there and names
// this one, too.
func peersOf(instance string, c *Config, v *VNet) []*peer {
	var all []*peer
	for _, p := range v.Peers {
		for i := range c.VNets {
			other := &c.VNets[i]
			if other.ID != p.VNet || !slices.ContainsFunc(other.Peers, func(q Peer) bool { return q.VNet == v.ID }) {
				continue
			}
			all = append(all, &peer{Peer: p, other: other,
				link: PeerLink(instance, v.ID, p.VNet), far: PeerLink(instance, p.VNet, v.ID)})
		}
	}
	slices.SortFunc(all, func(a, b *peer) int { return cmp.Compare(a.link, b.link) })
	return all
}

// numbers gives each name a number from 1 to limit that depends on the name
// alone, unless two collide.
func numbers(names []string, limit uint32) map[string]uint32 {
	all := make(map[string]uint32, len(names))
	taken := make(map[uint32]bool, len(names))
	for _, name := range slices.Sorted(slices.Values(names)) {
		sum := sha256.Sum256([]byte(name))
		n := binary.BigEndian.Uint32(sum[:4]) % limit
		for taken[n+1] {
			n = (n + 1) % limit
		}
		taken[n+1], all[name] = true, n+1
	}
	return all
}

// hop is the mark that leads to a NIC, whatever the destination.
func (k *compiler) hop(p *port) uint32 {
	k.hops[p.ID] = p.mark
	return p.mark
}

// keepHops leads to every interface that a connection's mark may name: that of a
// back end that is ill, and of one that isn't any more, since connections stay
// with who has them when a node leaves a balancer. Nobody remembers who was one.
func (k *compiler) keepHops() {
	if len(k.v.Balancers) == 0 {
		return
	}
	for _, p := range k.ports {
		if !p.Platform { // an API server is no back end
			k.hop(p)
		}
	}
}

// effective is the address that a NIC's packets have outside; invalid: none.
func (k *compiler) effective(p *port) netip.Addr {
	for i := range k.v.Public {
		if own := &k.v.Public[i]; own.Target == p.Address && k.leavesBy(own) {
			return own.Address
		}
	}
	if len(p.Egress) > 0 {
		return p.Egress[0].Address
	}
	return netip.Addr{}
}

// leavesBy tells whether what an interface sends outside comes from its own
// public address: unless it has another egress, as by a NAT gateway.
func (k *compiler) leavesBy(public *Public) bool {
	if !public.oneToOne() {
		return false
	}
	owner := k.owners[public.Target]
	return owner == nil || len(owner.Egress) == 0 || owner.Egress[0].Address == public.Address
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// contentName names something by what it is.
func contentName(kind string, parts ...any) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%v\x00", p)
	}
	return kind + "-" + hex.EncodeToString(h.Sum(nil)[:8])
}

// router puts the parts together.
func (k *compiler) router() Router {
	r := Router{Table: k.table.finish(), Addresses: []netip.Addr{RouterAddress, WireServer, MetadataAddress}, Routes: k.routes(), Cuts: k.cuts}
	for _, s := range k.v.Subnets {
		r.Addresses = append(r.Addresses, s.Gateway())
	}
	for i := range k.v.NICs {
		r.NICs = append(r.NICs, RouterNIC{ID: k.v.NICs[i].ID, Link: k.nics[k.v.NICs[i].ID].link})
	}
	for _, p := range k.peers {
		r.Peers = append(r.Peers, RouterPeer{VNet: p.VNet, Link: p.link, Far: p.far})
	}
	r.Selectors = k.selectors()
	return r
}
