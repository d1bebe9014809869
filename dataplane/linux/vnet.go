// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"

	"github.com/vishvananda/netlink"

	"bastide.dev/dataplane"
)

// vnet is a VNet's router and what this process runs in it.
type vnet struct {
	*router
	input    input
	compiled dataplane.Router
	digest   string           // "" until it is asked for
	health   dataplane.Health // that it is compiled for
	standing []string         // the NICs that stand, by ID
	cuts     []dataplane.Cut  // that were made
	publics  []netip.Addr     // that strays were looked for with
	swept    bool             // cuts and strays were looked for
	// routes and selectors are those that were made last; nil: nobody knows.
	routes    []dataplane.RouterRoute
	selectors []dataplane.Selector
	prober    *prober     // nil until there is something to probe
	flows     *flowLogger // nil unless a security group logs
	metadata  *metadataServer

	// settled says that all of it was as it should be; watch and places tell
	// whether it still is.
	settled bool
	watch   *watch
	places  map[string]*place // by NIC
}

// input is all that a network's router is compiled from, but for health.
type input struct {
	vnet  *dataplane.VNet
	pools []netip.Prefix
	door  netip.Addr
	peers []*dataplane.VNet
	mtu   int
}

func (p *Plane) inputOf(c *dataplane.Config, v *dataplane.VNet) input {
	in := input{vnet: v, pools: c.Edge.Pools, door: c.Edge.FrontDoor, mtu: p.mtu}
	for i := range c.VNets {
		if slices.ContainsFunc(v.Peers, func(peer dataplane.Peer) bool { return peer.VNet == c.VNets[i].ID }) {
			in.peers = append(in.peers, &c.VNets[i])
		}
	}
	return in
}

// program makes the network's rules what they should be.
func (p *Plane) program(n *vnet, c *dataplane.Config, changed bool) error {
	health := dataplane.Health{}
	if n.prober != nil {
		health = n.prober.known()
	}
	if changed || !reflect.DeepEqual(health, n.health) {
		n.compiled = dataplane.Compile(p.Instance, c, n.input.vnet, health)
		n.digest, n.health = "", health
	}
	if err := n.fw.Put(n.compiled.Table); err != nil {
		return err
	}
	return n.cut()
}

// cut ends the connections that the rules don't let in any more, and those by
// public addresses that the network lost. To find them costs ten milliseconds,
// so it is done only when there may be some: after a change, and at first in a
// router that an earlier process left.
func (n *vnet) cut() error {
	publics := n.input.vnet.PublicAddresses()
	var filters []netlink.CustomConntrackFilter
	if n.swept || !n.made {
		filters = endings(newCuts(n.cuts, n.compiled.Cuts))
	}
	lost := slices.ContainsFunc(n.publics, func(a netip.Addr) bool { return !slices.Contains(publics, a) })
	if lost || !n.swept && !n.made {
		own := map[netip.Addr]bool{}
		for _, a := range publics {
			own[a] = true
		}
		filters = append(filters, &strays{pools: n.input.pools, own: own})
	}
	if _, err := cut(n.ns, filters); err != nil {
		return err
	}
	n.swept, n.cuts, n.publics = true, n.compiled.Cuts, publics
	return nil
}

// finish does what comes after all links of a network are there.
func (p *Plane) finish(one *pass) error {
	n, v := one.n, one.v
	if one.linked || !n.routed(&n.compiled) {
		if err := n.route(); err != nil {
			return err
		}
	}
	if err := p.serveNames(v, n); err != nil {
		return err
	}
	if err := p.serveMetadata(v, n); err != nil {
		return err
	}
	if err := p.logFlows(v, n); err != nil {
		return err
	}
	p.probe(v, n)
	n.settled = one.err == nil
	return nil
}

// route makes the router's routing tables, and then what leads to them, what
// they should be. A route over a link that isn't there waits for it.
func (n *vnet) route() error {
	byName, err := links(n.nl)
	if err != nil {
		return err
	}
	if err := syncRoutes(n.nl, kernelRoutes(n.compiled.Routes, byName), 0); err != nil {
		return err
	}
	want := make([]selector, len(n.compiled.Selectors))
	for i, s := range n.compiled.Selectors {
		want[i] = selector{priority: s.Priority, mark: s.Mark, mask: s.Mask, table: int(s.Table)}
	}
	if err := syncSelectors(n.nl, want); err != nil {
		n.routes = nil
		return err
	}
	n.routes, n.selectors = n.compiled.Routes, n.compiled.Selectors
	return nil
}

// routed tells whether a compiled form has the routes that were made last.
func (n *vnet) routed(r *dataplane.Router) bool {
	return n.routes != nil && slices.Equal(n.routes, r.Routes) && slices.Equal(n.selectors, r.Selectors)
}

// kernelRoutes gives routes their links' numbers.
func kernelRoutes(compiled []dataplane.RouterRoute, byName map[string]netlink.Link) []route {
	routes := make([]route, 0, len(compiled))
	for _, r := range compiled {
		if !r.Prefix.Addr().Is4() {
			continue // no network has addresses that it could be for
		}
		k := route{table: int(r.Table), dst: r.Prefix, via: r.Via, src: r.Source, blackhole: r.Link == ""}
		if !k.blackhole {
			link, there := byName[r.Link]
			if !there {
				continue
			}
			k.link = link.Attrs().Index
		}
		routes = append(routes, k)
	}
	return dedupe(routes)
}

// probe watches the back ends that the network's balancers ask about.
func (p *Plane) probe(v *dataplane.VNet, n *vnet) {
	want := targets(v)
	if n.prober == nil {
		if len(want) == 0 {
			return
		}
		n.prober = newProber(n.ns, func() { p.renew.wish(v.ID) })
	}
	n.prober.set(want)
}

// logFlows writes the network's flow log while a security group wants one.
func (p *Plane) logFlows(v *dataplane.VNet, n *vnet) error {
	logged := slices.ContainsFunc(v.NSGs, func(g dataplane.NSG) bool { return g.Log })
	if !logged && n.flows != nil {
		flows := n.flows
		n.flows = nil
		return flows.close()
	}
	if logged && n.flows == nil {
		path := filepath.Join(p.LogDir, "flowlogs", v.ID+".jsonl")
		flows, err := startFlowLog(n.ns, dataplane.FlowLogGroup, path, p.log)
		if err != nil {
			return err
		}
		n.flows = flows
	}
	if logged {
		n.flows.set(v)
	}
	return nil
}

// serveNames starts the network's name server, or gives it what changed.
func (p *Plane) serveNames(v *dataplane.VNet, n *vnet) error {
	if n.dns == nil {
		server, err := p.startNames(n.ns)
		if err != nil {
			return fmt.Errorf("name server: %w", err)
		}
		n.dns = server
	}
	n.dns.set(v.Names)
	return nil
}

// status is what the kernel has of a network.
func (n *vnet) status(id string) dataplane.VNetStatus {
	if n.digest == "" {
		n.digest = n.compiled.Digest()
	}
	s := dataplane.VNetStatus{ID: id, NICs: n.standing, Digest: n.digest}
	for probe, nics := range n.health {
		for nic, healthy := range nics {
			if healthy {
				continue
			}
			if s.Unhealthy == nil {
				s.Unhealthy = map[string][]string{}
			}
			s.Unhealthy[probe] = append(s.Unhealthy[probe], nic)
		}
		slices.Sort(s.Unhealthy[probe])
	}
	return s
}

// vnetRouter is a VNet's router: the one in use, one that an earlier process
// left, or a new one.
func (p *Plane) vnetRouter(id string) (*vnet, error) {
	n := p.vnets[id]
	if n != nil && n.current() {
		return n, nil
	}
	if n != nil {
		delete(p.vnets, id)
		if err := n.close(); err != nil {
			return nil, err
		}
	}
	r, err := p.openRouter(p.vnetPath(id), vnetSettings())
	if err != nil {
		return nil, err
	}
	w, err := newWatch(r.ns)
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	n = &vnet{router: r, watch: w, places: map[string]*place{}}
	p.vnets[id] = n
	return n, nil
}

// close ends what runs for the network and gives up its handles.
func (n *vnet) close() error {
	if n.prober != nil {
		n.prober.close()
	}
	failed := []error{n.forgetPlaces(nil), n.watch.close()}
	if n.metadata != nil {
		failed = append(failed, n.metadata.close())
	}
	if n.flows != nil {
		failed = append(failed, n.flows.close())
	}
	return errors.Join(append(failed, n.router.close())...)
}

// connectVNet makes the pair between the edge and a router, unless it stands.
func (p *Plane) connectVNet(id string, n *vnet) error {
	_, _, err := join(p.edge.space, dataplane.TransitLink(p.Instance, id), n.space, dataplane.RouterLink, p.mtu)
	return err
}
