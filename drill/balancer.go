// SPDX-License-Identifier: Apache-2.0

package drill

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"

	"bastide.dev/client"
)

// annotation is the prefix of what cloud-provider-azure reads of a Service.
const annotation = "service.beta.kubernetes.io/azure-"

func balancerDrills() []Drill {
	return []Drill{
		{ID: "lb-source-ranges", Title: "A public Service for some sources alone",
			Control: "spec.loadBalancerSourceRanges",
			Explains: "A Service of type LoadBalancer is open to the whole Internet. With source ranges the cluster's security group lets " +
				"those through and nobody else.",
			Setup: sourceRanges},
		{ID: "lb-allowed-service-tags", Title: "A public Service for a service tag alone",
			Control: annotation + "allowed-service-tags",
			Explains: "The annotation names a service tag, AzureCloud: the platform's own addresses. The Internet, which reached the Service before, " +
				"doesn't any more.",
			Setup: serviceTags},
		{ID: "lb-deny-all-except", Title: "Allowed ranges that hold inside the network too",
			Control: annotation + "deny-all-except-load-balancer-source-ranges",
			Explains: "Allowed ranges alone don't stop machines of the same network: the default rule AllowVnetInBound lets them through. " +
				"The annotation adds a rule that denies all but the ranges.",
			Setup: denyAllExcept},
		{ID: "lb-internal", Title: "An internal Service isn't on the Internet",
			Control: annotation + "load-balancer-internal",
			Explains: "The annotation gives a Service an address in the cluster's network in place of a public one. " +
				"Machines of the network reach it there; from outside neither the old address nor the new one answers.",
			Setup: internalBalancer},
	}
}

// published is a web app behind a Service of the drill's own.
type published struct {
	cluster *Cluster
	name    string // of the namespace and the Service alike
	mu      sync.Mutex
	address netip.Addr
}

// publish makes a web app and a Service for it.
func (s *Stage) publish(ctx context.Context, annotations, spec object) (*published, error) {
	c, err := s.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.Namespace(ctx, c, s.Name); err != nil {
		return nil, err
	}
	o := service(s.Name, s.Name, annotations, spec)
	s.Undo("remove the service", func(ctx context.Context) error {
		// Waiting gives the load balancer's rules back before the namespace goes.
		_, err := c.Kubectl(ctx, "", "delete", "service", "--namespace", s.Name, s.Name, "--ignore-not-found", "--timeout=30s")
		return err
	})
	if err := s.Apply(ctx, c, o); err != nil {
		return nil, err
	}
	if _, err := s.Pods(ctx, c, c.webPod(s.Name, s.Name, 0)); err != nil {
		return nil, err
	}
	p := &published{cluster: c, name: s.Name}
	p.address, err = c.Ingress(ctx, s.Name, s.Name, netip.Addr{})
	return p, err
}

func (p *published) at() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return onPort(p.address, "80")
}

// reach is the attack of asking for the app's page.
func (p *published) reach(from place) Attack {
	return Attack{From: from.Who(), To: "GET http://" + p.at() + "/ (the Service)",
		Try: func(ctx context.Context) (Result, error) { return p.ask(ctx, from, p.at()) }}
}

// ask asks at an address. An address that was given back may be another's soon:
// an answer counts only when it is the app's.
func (p *published) ask(ctx context.Context, from place, address string) (Result, error) {
	r, err := from.HTTP(ctx, address)
	if r.Worked && !strings.Contains(r.Body, "hostname: "+p.name+"\n") {
		r = Result{Got: "another's answer: " + r.Got}
	}
	return r, err
}

// change is a switch that applies the Service anew.
func (p *published) change(s *Stage, annotations, spec object) func(context.Context) error {
	return func(ctx context.Context) error {
		return s.Apply(ctx, p.cluster, service(p.name, p.name, annotations, spec))
	}
}

// groups are the security groups in a cluster's node resource group.
func (s *Stage) groups(ctx context.Context, c *Cluster) ([]string, error) {
	list, err := client.List[struct {
		ID string `json:"id"`
	}](ctx, s.Client, c.Resources+"/providers/Microsoft.Network/networkSecurityGroups", networkVersion)
	var ids []string
	for _, g := range list {
		ids = append(ids, g.ID)
	}
	return ids, err
}

// here is the machine that the drills run on: its address is the front door's.
type here struct{ address netip.Addr }

func (h here) Who() string { return "this machine (" + h.address.String() + ")" }

func (here) HTTP(ctx context.Context, address string) (Result, error) {
	ctx, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp4", address)
	if err != nil {
		return refusal(err)
	}
	defer func() { _ = conn.Close() }()
	body, err := askPage(ctx, conn)
	if err != nil {
		return refusal(err)
	}
	return page(body), nil
}

// terminalPair are the outsider and the operator.
func (s *Stage) terminalPair(ctx context.Context) (outsider, operator *Terminal, err error) {
	if outsider, err = s.Terminal(ctx, "outsider"); err == nil {
		operator, err = s.Terminal(ctx, "operator")
	}
	return outsider, operator, err
}

func sourceRanges(ctx context.Context, s *Stage) (*Scene, error) {
	outsider, operator, err := s.terminalPair(ctx)
	if err != nil {
		return nil, err
	}
	p, err := s.publish(ctx, object{}, nil)
	if err != nil {
		return nil, err
	}
	groups, err := s.groups(ctx, p.cluster)
	return &Scene{
		Attacks:  []Attack{p.reach(outsider)},
		Wanted:   []Attack{p.reach(operator)},
		On:       p.change(s, object{}, object{"loadBalancerSourceRanges": []any{operator.Address.String() + "/32"}}),
		Off:      p.change(s, object{}, nil),
		Question: func() Question { return Question{"terminal/" + s.Group() + "/outsider", p.at()} },
		Groups:   groups,
	}, err
}

func serviceTags(ctx context.Context, s *Stage) (*Scene, error) {
	outsider, _, err := s.terminalPair(ctx)
	if err != nil {
		return nil, err
	}
	p, err := s.publish(ctx, object{}, nil)
	if err != nil {
		return nil, err
	}
	groups, err := s.groups(ctx, p.cluster)
	return &Scene{
		Attacks:  []Attack{p.reach(outsider)},
		Wanted:   []Attack{p.reach(here{s.Instance.Address})},
		On:       p.change(s, object{annotation + "allowed-service-tags": "AzureCloud"}, nil),
		Off:      p.change(s, object{}, nil),
		Question: func() Question { return Question{"terminal/" + s.Group() + "/outsider", p.at()} },
		Groups:   groups,
	}, err
}

func denyAllExcept(ctx context.Context, s *Stage) (*Scene, error) {
	jump, err := s.Jump(ctx)
	if err != nil {
		return nil, err
	}
	app, err := s.App(ctx)
	if err != nil {
		return nil, err
	}
	// Ranges in the annotation, since those in spec kube-proxy enforces as well.
	annotations := object{annotation + "load-balancer-internal": "true", annotation + "allowed-ip-ranges": labSubnets["app"]}
	p, err := s.publish(ctx, annotations, nil)
	if err != nil {
		return nil, err
	}
	groups, err := s.groups(ctx, p.cluster)
	return &Scene{
		Attacks:  []Attack{p.reach(jump)},
		Wanted:   []Attack{p.reach(app)},
		On:       p.change(s, merged(annotations, object{annotation + "deny-all-except-load-balancer-source-ranges": "true"}), nil),
		Off:      p.change(s, annotations, nil),
		Question: func() Question { return Question{"vm/" + s.Group() + "/jump", p.at()} },
		Groups:   groups,
	}, err
}

func internalBalancer(ctx context.Context, s *Stage) (*Scene, error) {
	outsider, _, err := s.terminalPair(ctx)
	if err != nil {
		return nil, err
	}
	jump, err := s.Jump(ctx)
	if err != nil {
		return nil, err
	}
	p, err := s.publish(ctx, object{}, nil)
	if err != nil {
		return nil, err
	}
	public := p.address
	move := func(annotations object) func(context.Context) error {
		return func(ctx context.Context) error {
			p.mu.Lock()
			defer p.mu.Unlock()
			if err := s.Apply(ctx, p.cluster, service(p.name, p.name, annotations, nil)); err != nil {
				return err
			}
			address, err := p.cluster.Ingress(ctx, p.name, p.name, p.address)
			p.address = address
			return err
		}
	}
	old := Attack{From: outsider.Who(), To: "GET the Service at its public address", Try: func(ctx context.Context) (Result, error) {
		address := public
		if now := p.now(); !now.IsPrivate() {
			address = now // given anew
		}
		r, err := p.ask(ctx, outsider, onPort(address, "80"))
		r.Got += " (" + address.String() + ")"
		return r, err
	}}
	return &Scene{
		Attacks:  []Attack{old, {From: outsider.Who(), To: "GET the Service at the address that it has now", Try: p.reach(outsider).Try}},
		Wanted:   []Attack{{From: jump.Who(), To: "GET the Service at the address that it has now", Try: p.reach(jump).Try}},
		On:       move(object{annotation + "load-balancer-internal": "true"}),
		Off:      move(object{}),
		Question: func() Question { return Question{"terminal/" + s.Group() + "/outsider", p.at()} },
	}, nil
}

func (p *published) now() netip.Addr {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.address
}
