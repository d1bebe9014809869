// SPDX-License-Identifier: Apache-2.0

package drill

import (
	"context"
	"fmt"
	"net/netip"
)

func groupDrills() []Drill {
	return []Drill{
		{ID: "nsg-source-range", Title: "SSH to the jump host from one source alone",
			Control: "network security group: source address range",
			Explains: "A jump host has a public address and its security group lets SSH in from anywhere: whoever finds it can knock. " +
				"The control allows the operator's address and denies port 22 to all other sources.",
			Setup: sourceRange},
		{ID: "nsg-between-subnets", Title: "One subnet may not reach another's port",
			Control: "network security group: deny rule between subnets",
			Explains: "Within a virtual network everything may talk to everything (rule AllowVnetInBound). " +
				"A rule on the application's subnet stops one port for the jump hosts' subnet, and leaves the others.",
			Setup: betweenSubnets},
		{ID: "ssh-to-nodes", Title: "SSH to nodes only from inside, and only while a rule allows it",
			Control: "network security group: deny SSH on the nodes' subnet",
			Explains: "Nodes have internal addresses only. With the cluster's key, an operator gets to a node through the jump host; nobody gets " +
				"to it from outside. A rule on the nodes' subnet closes port 22 inside too.",
			Setup: nodeSSH},
	}
}

// session is the attack of opening an SSH session.
func (s *Stage) session(from *Terminal, alias, what string, to netip.Addr, via ...netip.Addr) Attack {
	text := fmt.Sprintf("ssh %s (%s)", to, what)
	for _, v := range via {
		text += fmt.Sprintf(" through %s", v)
	}
	return Attack{From: from.Who(), To: text, Try: func(ctx context.Context) (Result, error) { return s.SSH(ctx, from, alias, to, via...) }}
}

func sourceRange(ctx context.Context, s *Stage) (*Scene, error) {
	jump, err := s.Jump(ctx)
	if err != nil {
		return nil, err
	}
	operator, err := s.Terminal(ctx, "operator")
	if err != nil {
		return nil, err
	}
	outsider, err := s.Terminal(ctx, "outsider")
	if err != nil {
		return nil, err
	}
	group := s.nsg("jump")
	allow, _ := s.ruleSwitch(group, "ssh-from-operator", rule(300, "Inbound", "Allow", "Tcp", operator.Address.String(), "*", "22"))
	if err := allow(ctx); err != nil {
		return nil, err
	}
	on, off := s.ruleSwitch(group, "no-other-ssh", rule(310, "Inbound", "Deny", "Tcp", "*", "*", "22"))
	return &Scene{
		Attacks:  []Attack{connect(outsider, "the jump host's SSH", onPort(jump.Public, "22")), s.session(outsider, "jump", "the jump host", jump.Public)},
		Wanted:   []Attack{s.session(operator, "jump", "the jump host", jump.Public)},
		On:       on,
		Off:      off,
		Question: func() Question { return Question{"terminal/" + s.Group() + "/outsider", onPort(jump.Public, "22")} },
		Groups:   []string{group},
	}, nil
}

func betweenSubnets(ctx context.Context, s *Stage) (*Scene, error) {
	jump, err := s.Jump(ctx)
	if err != nil {
		return nil, err
	}
	app, err := s.App(ctx)
	if err != nil {
		return nil, err
	}
	group := s.nsg("app")
	on, off := s.ruleSwitch(group, "no-8080-from-jump", rule(300, "Inbound", "Deny", "Tcp", labSubnets["jump"], "*", "8080"))
	return &Scene{
		Attacks:  []Attack{get(jump, "the app's port 8080", onPort(app.Address, "8080"))},
		Wanted:   []Attack{get(jump, "the app's port 8081", onPort(app.Address, "8081"))},
		On:       on,
		Off:      off,
		Question: func() Question { return Question{"vm/" + s.Group() + "/jump", onPort(app.Address, "8080")} },
		Groups:   []string{group},
	}, nil
}

func nodeSSH(ctx context.Context, s *Stage) (*Scene, error) {
	c, err := s.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	jump, err := s.Jump(ctx)
	if err != nil {
		return nil, err
	}
	operator, err := s.Terminal(ctx, "operator")
	if err != nil {
		return nil, err
	}
	node := c.Nodes[0]
	group := s.nsg("aks")
	on, off := s.ruleSwitch(group, "no-ssh-to-nodes", rule(300, "Inbound", "Deny", "Tcp", "*", "*", "22"))
	return &Scene{
		Attacks: []Attack{s.session(operator, node.Name, "node "+node.Name, node.Address, jump.Public)},
		Never:   []Attack{connect(operator, "the node's SSH, straight from outside", onPort(node.Address, "22"))},
		Wanted: []Attack{{From: "the machine", To: "kubectl get node " + node.Name, Try: func(ctx context.Context) (Result, error) {
			return s.nodesReady(ctx, c)
		}}},
		On:       on,
		Off:      off,
		Question: func() Question { return Question{"vm/" + s.Group() + "/jump", onPort(node.Address, "22")} },
		Groups:   []string{group},
	}, nil
}

// nodesReady works as long as every node of a cluster is Ready.
func (s *Stage) nodesReady(ctx context.Context, c *Cluster) (Result, error) {
	var list struct {
		Items []struct {
			Metadata struct{ Name string }
			Status   struct {
				Conditions []struct{ Type, Status string }
			}
		}
	}
	if err := c.get(ctx, &list, "nodes"); err != nil {
		return Result{}, err
	}
	ready := 0
	for _, n := range list.Items {
		for _, condition := range n.Status.Conditions {
			if condition.Type == "Ready" && condition.Status == "True" {
				ready++
			}
		}
	}
	return Result{Worked: ready == len(list.Items) && ready > 0, Got: fmt.Sprintf("%d of %d nodes are Ready", ready, len(list.Items))}, nil
}
