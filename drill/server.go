// SPDX-License-Identifier: Apache-2.0

package drill

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"bastide.dev/client"
)

func serverDrills() []Drill {
	return []Drill{
		{ID: "api-server-authorized-ranges", Title: "The API server answers authorised ranges alone",
			Control: "az aks update --api-server-authorized-ip-ranges",
			Explains: "A public cluster's API server answers the whole Internet; a stolen kubeconfig is enough from anywhere. With authorised ranges " +
				"an outsider gets no connection, and what the outsider had open is cut. The cluster's own nodes and pods go on as before.",
			Setup: authorizedRanges},
		{ID: "api-server-private-cluster", Title: "A private cluster's API server is in its network alone",
			Control: "az aks create --enable-private-cluster",
			Explains: "The API server of a private cluster has no public listener: it has an address in the cluster's network and a name in a private zone. " +
				"Machines in the network and in peered networks reach it, also over SSH from outside; other networks and the Internet don't.",
			Setup: privateCluster},
	}
}

// kubectlFrom is the attack of using the cluster's kubeconfig on a terminal.
func (s *Stage) kubectlFrom(t *Terminal, c *Cluster) Attack {
	return Attack{From: t.Who(), To: "kubectl get --raw /version from https://" + c.FQDN, Try: func(ctx context.Context) (Result, error) {
		out, code, err := t.Command(ctx, 3*time.Second, c.kubectl, "--kubeconfig", c.Kubeconfig, "--request-timeout=1s", "get", "--raw", "/version")
		if err != nil {
			return Result{}, err
		}
		return versionResult(out, code), nil
	}}
}

func versionResult(out string, code int) Result {
	if code == 0 && strings.Contains(out, "gitVersion") {
		return Result{Worked: true, Got: "the version"}
	}
	return Result{Got: lastLine(out)}
}

func authorizedRanges(ctx context.Context, s *Stage) (*Scene, error) {
	c, err := s.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	outsider, err := s.Terminal(ctx, "outsider")
	if err != nil {
		return nil, err
	}
	office, err := s.Terminal(ctx, "office")
	if err != nil {
		return nil, err
	}
	server, own, err := c.endpoint(ctx)
	if err != nil {
		return nil, err
	}
	box, err := s.box(ctx, c, s.Name)
	if err != nil {
		return nil, err
	}
	w := &watch{cluster: c, from: outsider, address: server.String(), namespace: s.Name}
	s.Undo("close the watch", func(context.Context) error { w.close(); return nil })
	set := func(ranges ...any) func(context.Context) error {
		if ranges == nil {
			ranges = []any{} // null would mean: as it was
		}
		return func(ctx context.Context) error {
			return s.Set(ctx, c, "apiServerAccessProfile", object{"authorizedIPRanges": ranges})
		}
	}
	s.Undo("open the API server again", func(ctx context.Context) error { return set()(ctx) })
	return &Scene{
		Attacks: []Attack{connect(outsider, "the API server", server.String()), s.kubectlFrom(outsider, c), w.attack()},
		Wanted: []Attack{connect(office, "the API server", server.String()),
			{From: "the nodes", To: "stay Ready", Try: func(ctx context.Context) (Result, error) { return s.nodesReady(ctx, c) }},
			{From: box.Who(), To: "TCP " + server.String() + " (the API server, from the cluster itself)", Try: func(ctx context.Context) (Result, error) {
				out, code, err := box.shell.run(ctx, fmt.Sprintf("nc -w 1 %s %d", server.Addr(), server.Port()))
				return Result{Worked: err == nil && code == 0, Got: strings.TrimSpace(fmt.Sprintf("exit code %d %s", code, out))}, err
			}}},
		// The machine that the drills run on is an administrator's: it keeps its way in.
		On:  set(office.Address.String()+"/32", own.String()+"/32"),
		Off: set(),
		Question: func() Question {
			return Question{"terminal/" + s.Group() + "/outsider", "apiserver/" + s.Group() + "/" + c.Name}
		},
	}, nil
}

// endpoint is the API server's public address, and this machine's as the API
// server sees it.
func (c *Cluster) endpoint(ctx context.Context) (server netip.AddrPort, own netip.Addr, err error) {
	conn, err := (&net.Dialer{Timeout: tryTime}).DialContext(ctx, "tcp4", net.JoinHostPort(c.FQDN, "443"))
	if err != nil {
		return server, own, fmt.Errorf("API server of %s: %w", c.Name, err)
	}
	defer func() { _ = conn.Close() }()
	if server, err = netip.ParseAddrPort(conn.RemoteAddr().String()); err != nil {
		return server, own, fmt.Errorf("API server of %s: %w", c.Name, err)
	}
	local, err := netip.ParseAddrPort(conn.LocalAddr().String())
	return server, local.Addr(), err
}

// Private is the lab's private cluster, with one node.
func (l *Lab) Private(ctx context.Context) (*Cluster, error) {
	return l.private.get(func() (*Cluster, error) {
		if err := l.base(ctx); err != nil {
			return nil, err
		}
		// Pods of two clusters in one network have addresses of their own.
		return l.makeCluster(ctx, "private", 1, l.subnet("private"), object{"apiServerAccessProfile": object{"enablePrivateCluster": true},
			"networkProfile": merged(labNetwork(), object{"podCidr": "10.245.0.0/16"})})
	})
}

// kubeconfig copies a cluster's kubeconfig to a machine.
func (m *Machine) kubeconfig(ctx context.Context, c *Cluster) error {
	text, err := readFile(c.Kubeconfig)
	if err != nil {
		return err
	}
	_, err = m.Must(ctx, fmt.Sprintf("umask 077; echo %s | base64 -d > ~/%s.kubeconfig", base64.StdEncoding.EncodeToString(text), c.Name))
	return err
}

// kubectlOn is the attack of using a cluster's kubeconfig on a machine.
func kubectlOn(m *Machine, now func() *Cluster) Attack {
	return Attack{From: m.Who() + ", by SSH", To: "kubectl get --raw /version", Try: func(ctx context.Context) (Result, error) {
		c := now()
		out, code, err := m.Run(ctx, fmt.Sprintf("timeout 4 kubectl --kubeconfig ~/%s.kubeconfig --request-timeout=1s get --raw /version", c.Name))
		if err != nil {
			return Result{}, err
		}
		r := versionResult(out, code)
		r.Got += " (https://" + c.FQDN + ")"
		return r, nil
	}}
}

func privateCluster(ctx context.Context, s *Stage) (*Scene, error) {
	public, err := s.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	private, err := s.Private(ctx)
	if err != nil {
		return nil, err
	}
	jump, err := s.Jump(ctx)
	if err != nil {
		return nil, err
	}
	peered, err := s.neighbour(ctx, "neighbour", "10.91.0.0/16", true)
	if err != nil {
		return nil, err
	}
	stranger, err := s.neighbour(ctx, "stranger", "10.92.0.0/16", false)
	if err != nil {
		return nil, err
	}
	if err := s.linkZones(ctx, private, "neighbour"); err != nil {
		return nil, err
	}
	for _, m := range []*Machine{jump, peered, stranger} {
		for _, c := range []*Cluster{public, private} {
			if err := m.kubeconfig(ctx, c); err != nil {
				return nil, err
			}
		}
	}
	outsider, err := s.Terminal(ctx, "outsider")
	if err != nil {
		return nil, err
	}
	now := public
	return &Scene{
		Untimed: true,
		Attacks: []Attack{reachServer(outsider, jump, func() *Cluster { return now }), reachServer(stranger, jump, func() *Cluster { return now }),
			kubectlOn(stranger, func() *Cluster { return now })},
		Wanted: []Attack{kubectlOn(jump, func() *Cluster { return now }), kubectlOn(peered, func() *Cluster { return now })},
		On: func(ctx context.Context) error {
			now = private
			s.note("The private cluster was created with the body on record; AKS doesn't make a public cluster private, so that the attack turns from the public cluster to it.")
			s.did("PUT", private.ID+"?api-version="+clusterVersion, private.body, time.Now(), nil)
			return nil
		},
		Off: func(context.Context) error { now = public; return nil },
		Question: func() Question {
			return Question{"terminal/" + s.Group() + "/outsider", "apiserver/" + s.Group() + "/private"}
		},
	}, nil
}

// linkZones makes a cluster's private names known in another network, as one
// does for peered networks.
func (s *Stage) linkZones(ctx context.Context, c *Cluster, vnet string) error {
	zones, err := client.List[struct {
		ID string `json:"id"`
	}](ctx, s.Client, c.Resources+"/providers/Microsoft.Network/privateDnsZones", zoneVersion)
	if err != nil {
		return fmt.Errorf("private zones of %s: %w", c.Name, err)
	}
	for _, z := range zones {
		body := object{"location": "global", "properties": object{"registrationEnabled": false, "virtualNetwork": ref(s.network("virtualNetworks", vnet))}}
		if _, err := s.Put(ctx, z.ID+"/virtualNetworkLinks/"+vnet, zoneVersion, body); err != nil {
			return err
		}
	}
	return nil
}

// knocker is where connections are tried from.
type knocker interface {
	Who() string
	Lookup(ctx context.Context, name string) ([]string, error)
	TCP(ctx context.Context, address string) (Result, error)
}

// reachServer is the attack of connecting to an API server at each address that
// its name has, where the attacker is and inside the network.
func reachServer(from knocker, inside *Machine, now func() *Cluster) Attack {
	return Attack{From: from.Who(), To: "TCP to the API server, at every address that its name has here or inside", Try: func(ctx context.Context) (Result, error) {
		c := now()
		addresses, err := from.Lookup(ctx, c.FQDN)
		if err != nil {
			return Result{}, err
		}
		more, err := inside.Lookup(ctx, c.FQDN)
		if err != nil {
			return Result{}, err
		}
		addresses = append(addresses, more...)
		slices.Sort(addresses)
		addresses = slices.Compact(addresses)
		if len(addresses) == 0 {
			return Result{}, fmt.Errorf("%s has no address, not even inside", c.FQDN)
		}
		var all Result
		for _, a := range addresses {
			r, err := from.TCP(ctx, net.JoinHostPort(a, "443"))
			if err != nil {
				return Result{}, err
			}
			all.Worked = all.Worked || r.Worked
			all.Got += "; " + a + ": " + r.Got
		}
		all.Got = strings.TrimPrefix(all.Got, "; ")
		return all, nil
	}}
}

// neighbour is a machine in a network of its own, peered with the lab's if asked for.
func (l *Lab) neighbour(ctx context.Context, name, prefix string, peer bool) (*Machine, error) {
	if err := l.base(ctx); err != nil {
		return nil, err
	}
	return keyed(&l.mu, l.hosts, name).get(func() (*Machine, error) {
		subnet := name
		first := strings.TrimSuffix(prefix, "0.0/16") + "1.0/24"
		if err := l.makeVNet(ctx, name, prefix, map[string]string{subnet: first}); err != nil {
			return nil, err
		}
		if peer {
			if err := l.peer(ctx, "lab", name); err != nil {
				return nil, err
			}
		}
		return l.makeMachine(ctx, name, l.network("virtualNetworks", name, "subnets", subnet))
	})
}

// peer peers two networks, both ways.
func (l *Lab) peer(ctx context.Context, a, b string) error {
	for _, ends := range [][2]string{{a, b}, {b, a}} {
		if _, err := l.put(ctx, l.peering(ends[0], ends[1]), networkVersion, l.peeringBody(ends[1])); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) peering(from, to string) string {
	return l.network("virtualNetworks", from, "virtualNetworkPeerings", from+"-"+to)
}

func (l *Lab) peeringBody(to string) object {
	return object{"properties": object{"remoteVirtualNetwork": ref(l.network("virtualNetworks", to)), "allowVirtualNetworkAccess": true, "allowForwardedTraffic": true}}
}

// Lookup is what a name means outside: at the resolver of terminals.
func (t *Terminal) Lookup(ctx context.Context, name string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	found, err := t.resolver().LookupHost(ctx, name)
	var missing *net.DNSError
	if errors.As(err, &missing) && missing.IsNotFound {
		return nil, nil // a name that there isn't has no addresses
	}
	return found, err
}

// Lookup is what a name means on the machine.
func (m *Machine) Lookup(ctx context.Context, name string) ([]string, error) {
	out, code, err := m.Run(ctx, "getent ahostsv4 "+name)
	if err != nil || code != 0 {
		return nil, err // code 2: there is no such name
	}
	var found []string
	for line := range strings.Lines(out) {
		if fields := strings.Fields(line); len(fields) > 0 {
			found = append(found, fields[0])
		}
	}
	return found, nil
}
