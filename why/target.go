// SPDX-License-Identifier: Apache-2.0

package why

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"bastide.dev/fault"
	"bastide.dev/ruleset"
)

// goal is where a connection is to go.
type goal struct {
	label   string
	address netip.Addr
	port    uint16
}

// goals are what the question asks for, as whoever is at from finds it: several
// only of a Service without an address of its own.
func (k *walk) goals(e end, from *place, port uint16) ([]goal, error) {
	if e.port != "" && port != 0 && e.port != strconv.Itoa(int(port)) {
		return nil, fault.New(fault.Invalid, "TwoPorts", "The port is said twice: %s and %d.", e.port, port).At("port")
	}
	if e.port == "" && port != 0 {
		e.port = strconv.Itoa(int(port))
	}
	if e.kind == kindName {
		if service, ok := serviceName(e, from); ok {
			e = service
		}
	}
	if e.cluster == "" && from.cluster != nil && (e.kind == kindPod || e.kind == kindService) {
		e.cluster = from.cluster.ControlPlane // who is in one means that one
	}
	if e.kind == kindService {
		return k.serviceGoals(e, from)
	}
	g, err := k.goal(e, from)
	if err != nil {
		return nil, err
	}
	if e.port == "" && e.kind == kindAPIServer && k.protocol == ruleset.TCP {
		e.port = "443"
	}
	if g.port, err = k.number(e.port); err != nil {
		return nil, err
	}
	return []goal{g}, nil
}

// number is a port; protocols without ports have none.
func (k *walk) number(text string) (uint16, error) {
	if !ruleset.HasPorts(k.protocol) {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 16)
	switch {
	case text == "":
		return 0, fault.New(fault.Invalid, "PortMissing", "Which port? Say it behind the name: …:443.").At("to")
	case err != nil || n == 0:
		return 0, fault.New(fault.Invalid, "InvalidPort", "%q isn't a port: a number from 1 to 65535, or the name of a Service's port.", text).At("to")
	}
	return uint16(n), nil
}

func (k *walk) goal(e end, from *place) (goal, error) {
	const target = "to"
	switch e.kind {
	case kindPod:
		_, pod, err := k.pod(target, e)
		if err != nil {
			return goal{}, err
		}
		if len(pod.Addresses) == 0 {
			return goal{}, fault.New(fault.Conflict, "PodWithoutAddress", "The pod %s/%s has no address: it is %s.", pod.Namespace, pod.Name, pod.Phase).At(target)
		}
		return goal{label: "pod " + pod.Namespace + "/" + pod.Name, address: pod.Addresses[0]}, nil
	case kindNode:
		_, n, err := k.nodeNamed(target, e)
		if err != nil {
			return goal{}, err
		}
		return goal{label: "node " + n.Name, address: n.Address}, nil
	case kindVM:
		at, err := k.interfaceOf(target, e)
		if err != nil {
			return goal{}, err
		}
		return goal{label: "VM " + e.name, address: seenFrom(from, at)}, nil
	case kindTerminal:
		t, err := k.terminal(target, e)
		if err != nil {
			return goal{}, err
		}
		return goal{label: "terminal " + e.name, address: t.Address}, nil
	case kindAPIServer:
		return k.serverGoal(e, from)
	case kindInternet:
		return goal{label: "the Internet", address: e.address}, nil
	case kindName:
		address, ok := k.w.resolve(e.name, from.vnet)
		if !ok {
			return goal{}, notThere(target, "No name server of the instance knows %s there: a name of the Internet has to be given as an address.", e.name)
		}
		return goal{label: e.name, address: address}, nil
	}
	return goal{label: e.address.String(), address: e.address}, nil
}

// seenFrom is a virtual machine's address: its public one to those outside.
func seenFrom(from *place, a at) netip.Addr {
	if from.vnet == "" {
		for _, p := range a.vnet.Public {
			if p.Port == 0 && p.Target == a.nic.Address {
				return p.Address
			}
		}
	}
	return a.nic.Address
}

// serverGoal is an API server by its name, or, where that isn't known, by the
// address that it has in its network.
func (k *walk) serverGoal(e end, from *place) (goal, error) {
	at, err := k.interfaceOf("to", e)
	if err != nil {
		return goal{}, err
	}
	c := k.w.server(at.nic.Namespace)
	g := goal{label: "API server of " + c.Name, address: c.Server}
	if address, ok := k.w.resolve(c.FQDN, from.vnet); ok && c.FQDN != "" {
		g.address = address
	} else {
		k.note("%s has no name that %s knows: the address in its virtual network is taken.", g.label, from.label)
	}
	return g, nil
}

// serviceName reads NAME.NAMESPACE.svc[.cluster.local] where cluster DNS is.
func serviceName(e end, from *place) (end, bool) {
	parts := strings.Split(strings.TrimSuffix(e.name, "."), ".")
	if from.node == nil || len(parts) < 3 || parts[2] != "svc" || len(parts) > 3 && strings.Join(parts[3:], ".") != "cluster.local" {
		return end{}, false
	}
	return end{kind: kindService, namespace: parts[1], name: parts[0], cluster: from.cluster.Group + "/" + from.cluster.Name, port: e.port}, true
}

func (k *walk) serviceGoals(e end, from *place) ([]goal, error) {
	c, err := k.clusterWithObjects("to", e.cluster)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(c.Objects.Services, func(s Service) bool { return s.Namespace == e.namespace && s.Name == e.name })
	if i < 0 {
		return nil, notThere("to", "The cluster %s has no Service %s/%s.", c.Name, e.namespace, e.name)
	}
	s := &c.Objects.Services[i]
	if s.Type == "ExternalName" {
		return nil, fault.New(fault.Invalid, "InvalidEnd", "The Service is only another name for %s: ask about that.", s.ExternalName).At("to")
	}
	port, err := k.servicePort(s, e.port)
	if err != nil {
		return nil, err
	}
	g := goal{label: "Service " + s.Namespace + "/" + s.Name, port: port.Port}
	inside := from.cluster == c && from.node != nil
	switch {
	// An API server knows no cluster addresses: it goes to endpoints itself.
	case len(s.ClusterIPs) == 0 || from.cluster == c && from.node == nil:
		return k.endpointGoals(c, s, port, g)
	case !inside && len(s.ExternalIPs) > 0:
		g.address = s.ExternalIPs[0]
	default:
		g.address = s.ClusterIPs[0]
	}
	return []goal{g}, nil
}

// servicePort finds a Service's port by number or name; the only one when none is said.
func (k *walk) servicePort(s *Service, text string) (ServicePort, error) {
	var names []string
	for _, p := range s.Ports {
		if p.Protocol != k.protocol {
			continue
		}
		if text != "" && (text == p.Name || text == strconv.Itoa(int(p.Port))) {
			return p, nil
		}
		names = append(names, strings.TrimSuffix(strconv.Itoa(int(p.Port))+" "+p.Name, " "))
	}
	if !ruleset.HasPorts(k.protocol) {
		return ServicePort{Protocol: k.protocol}, nil
	}
	if text == "" && len(names) == 1 {
		return s.Ports[slices.IndexFunc(s.Ports, func(p ServicePort) bool { return p.Protocol == k.protocol })], nil
	}
	if n, err := strconv.ParseUint(text, 10, 16); err == nil && n > 0 {
		return ServicePort{Protocol: k.protocol, Port: uint16(n)}, nil // it will be told that the Service has none
	}
	return ServicePort{}, fault.New(fault.Invalid, "InvalidPort", "Which port of the Service %s/%s? It has these of %s: %s.",
		s.Namespace, s.Name, protocolName(k.protocol), strings.Join(names, ", ")).At("to")
}

// endpointGoals are a Service's endpoints themselves.
func (k *walk) endpointGoals(c *Cluster, s *Service, port ServicePort, g goal) ([]goal, error) {
	var found []goal
	for _, e := range usable(c.endpoints(s, port)) {
		found = append(found, goal{label: g.label, address: e.address, port: e.port})
	}
	if len(found) == 0 {
		return nil, fault.New(fault.Conflict, "NoEndpoints", "The Service %s/%s has no endpoint that is ready.", s.Namespace, s.Name).At("to")
	}
	return found, nil
}
