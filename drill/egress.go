// SPDX-License-Identifier: Apache-2.0

package drill

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"strings"
)

func egressDrills() []Drill {
	return []Drill{
		{ID: "egress-load-balancer-address", Title: "A cluster's own address on the Internet",
			Control: "az aks update --load-balancer-outbound-ips",
			Explains: "A partner lets one address in. With a managed outbound address the cluster shows up with one that the partner doesn't know; " +
				"with an outbound address of the user's it's always that one. The attack is to be seen with any other.",
			Setup: balancerAddress},
		{ID: "egress-nat-gateway", Title: "A subnet that leaves through a NAT gateway",
			Control: "NAT gateway on the subnet",
			Explains: "A machine leaves with its own public address. With a NAT gateway on its subnet it is seen with the gateway's address alone. " +
				"The attack is to be seen with any other.",
			Setup: natGateway},
		{ID: "egress-route-none", Title: "A route that leads nowhere",
			Control:  "route table: next hop None",
			Explains: "A machine sends data to a server on the Internet. A route on its subnet whose next hop is None drops what goes there, and only that.",
			Setup:    routeNone},
		{ID: "egress-firewall", Title: "What leaves passes the firewall",
			Control:  "route table: next hop virtual appliance",
			Explains: "Pods send to a server on the Internet. A user-defined route leads them through a firewall, a machine with IP forwarding, that lets one port through and drops the other.",
			Setup:    firewall},
	}
}

// seenAs is the attack of being seen with another address than the one that is known.
func seenAs(from place, partner netip.AddrPort, known netip.Addr) Attack {
	return Attack{From: from.Who(), To: fmt.Sprintf("be seen by http://%s/ with another address than %s", partner, known), Try: func(ctx context.Context) (Result, error) {
		r, err := from.HTTP(ctx, partner.String())
		if err != nil {
			return r, err
		}
		if !r.Worked {
			return Result{}, fmt.Errorf("the partner doesn't answer: %s", r.Got)
		}
		r.Worked = !strings.Contains(r.Body, "client: "+known.String()+"\n")
		return r, nil
	}}
}

// address makes a static public address of the drill's own.
func (s *Stage) address(ctx context.Context) (string, netip.Addr, error) {
	id := s.network("publicIPAddresses", s.Name)
	answer, err := s.Put(ctx, id, networkVersion, object{"location": s.Instance.Location, "sku": object{"name": "Standard"},
		"properties": object{"publicIPAllocationMethod": "Static"}})
	if err != nil {
		return "", netip.Addr{}, err
	}
	a, err := parseAddr(dig(answer, "properties", "ipAddress"), "public address")
	return id, a, err
}

func balancerAddress(ctx context.Context, s *Stage) (*Scene, error) {
	c, err := s.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	partner, err := s.Partner(ctx, "partner")
	if err != nil {
		return nil, err
	}
	id, known, err := s.address(ctx)
	if err != nil {
		return nil, err
	}
	box, err := s.box(ctx, c, s.Name)
	if err != nil {
		return nil, err
	}
	set := func(profile object) func(context.Context) error {
		return func(ctx context.Context) error {
			return s.Set(ctx, c, "networkProfile", merged(c.body["properties"].(object)["networkProfile"], object{"loadBalancerProfile": profile}))
		}
	}
	off := set(object{"managedOutboundIPs": object{"count": 1}})
	s.Undo("managed outbound addresses", off)
	return &Scene{
		Attacks: []Attack{seenAs(box, partner.Address, known)},
		Wanted:  []Attack{get(box, "the partner", partner.Address.String())},
		On:      set(object{"outboundIPs": object{"publicIPs": []any{ref(id)}}}),
		Off:     off,
	}, nil
}

// merged is an object with further properties.
func merged(o any, extra object) object {
	m, _ := o.(object)
	m = maps.Clone(m)
	maps.Copy(m, extra)
	return m
}

// subnetSwitch changes a subnet of the lab's network: with further properties, and without.
func (s *Stage) subnetSwitch(name string, extra object) (on, off func(context.Context) error) {
	put := func(extra object) func(context.Context) error {
		return func(ctx context.Context) error {
			body := object{"properties": merged(object{"addressPrefix": labSubnets[name], "networkSecurityGroup": ref(s.nsg(name))}, extra)}
			_, err := s.Put(ctx, s.subnet(name), networkVersion, body)
			return err
		}
	}
	off = put(nil)
	return func(ctx context.Context) error {
		s.Undo("the subnet as it was", off)
		return put(extra)(ctx)
	}, off
}

func natGateway(ctx context.Context, s *Stage) (*Scene, error) {
	m, err := s.machineIn(ctx, "out", "out")
	if err != nil {
		return nil, err
	}
	partner, err := s.Partner(ctx, "partner")
	if err != nil {
		return nil, err
	}
	id, known, err := s.address(ctx)
	if err != nil {
		return nil, err
	}
	gateway := s.network("natGateways", s.Name)
	if _, err := s.Put(ctx, gateway, networkVersion, object{"location": s.Instance.Location, "sku": object{"name": "Standard"},
		"properties": object{"publicIpAddresses": []any{ref(id)}}}); err != nil {
		return nil, err
	}
	on, off := s.subnetSwitch("out", object{"natGateway": ref(gateway)})
	return &Scene{
		Attacks: []Attack{seenAs(m, partner.Address, known)},
		Wanted:  []Attack{get(m, "the partner", partner.Address.String())},
		On:      on,
		Off:     off,
	}, nil
}

// routes makes a route table with one route and returns its ID.
func (s *Stage) routes(ctx context.Context, to netip.Addr, hop object) (string, error) {
	id := s.network("routeTables", s.Name)
	_, err := s.Put(ctx, id, networkVersion, object{"location": s.Instance.Location, "properties": object{"routes": []any{
		object{"name": "server", "properties": merged(object{"addressPrefix": to.String() + "/32"}, hop)}}}})
	return id, err
}

func routeNone(ctx context.Context, s *Stage) (*Scene, error) {
	m, err := s.machineIn(ctx, "routed", "routed")
	if err != nil {
		return nil, err
	}
	forbidden, err := s.Partner(ctx, "forbidden")
	if err != nil {
		return nil, err
	}
	partner, err := s.Partner(ctx, "partner")
	if err != nil {
		return nil, err
	}
	table, err := s.routes(ctx, forbidden.Address.Addr(), object{"nextHopType": "None"})
	if err != nil {
		return nil, err
	}
	on, off := s.subnetSwitch("routed", object{"routeTable": ref(table)})
	return &Scene{
		Attacks:  []Attack{get(m, "the server that is routed nowhere", forbidden.Address.String())},
		Wanted:   []Attack{get(m, "another server", partner.Address.String())},
		On:       on,
		Off:      off,
		Question: func() Question { return Question{"vm/" + s.Group() + "/routed", forbidden.Address.String()} },
	}, nil
}

// firewallRules let port 80 pass and nothing else, and put the firewall's
// address in place of the sender's.
const firewallRules = `sudo nft -f - <<'END'
table inet firewall {
  chain forward { type filter hook forward priority 0; policy drop; ct state established,related accept; tcp dport 80 accept; }
  chain nat { type nat hook postrouting priority 100; masquerade; }
}
END
sudo sysctl -qw net.ipv4.ip_forward=1`

func firewall(ctx context.Context, s *Stage) (*Scene, error) {
	c, err := s.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	wall, err := s.machineIn(ctx, "firewall", "app")
	if err != nil {
		return nil, err
	}
	if _, err := s.Put(ctx, wall.NIC, networkVersion, s.nicBody("firewall", s.subnet("app"), object{"enableIPForwarding": true})); err != nil {
		return nil, err
	}
	if _, err := wall.Must(ctx, firewallRules); err != nil {
		return nil, err
	}
	server, err := s.Terminal(ctx, "services")
	if err != nil {
		return nil, err
	}
	var ports []*Server
	for _, port := range []uint16{80, 8080} {
		l, err := server.Serve(ctx, port)
		if err != nil {
			return nil, err
		}
		s.Undo("close the server", func(context.Context) error { return l.Close() })
		ports = append(ports, l)
	}
	box, err := s.box(ctx, c, s.Name)
	if err != nil {
		return nil, err
	}
	table, err := s.routes(ctx, server.Address, object{"nextHopType": "VirtualAppliance", "nextHopIpAddress": wall.Address.String()})
	if err != nil {
		return nil, err
	}
	on, off := s.subnetSwitch("aks", object{"routeTable": ref(table)})
	return &Scene{
		Attacks: []Attack{get(box, "the server's other port", ports[1].Address.String()), seenAs(box, ports[0].Address, wall.Public)},
		Wanted:  []Attack{get(box, "the server's port 80", ports[0].Address.String())},
		On:      on,
		Off:     off,
	}, nil
}
