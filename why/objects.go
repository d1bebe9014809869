// SPDX-License-Identifier: Apache-2.0

package why

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"bastide.dev/host"
	"bastide.dev/netpolicy"
)

// Objects are a cluster's, as far as they decide about packets.
type Objects struct {
	Pods            []Pod
	Services        []Service
	Slices          []Slice
	Namespaces      []*netpolicy.Namespace
	Nodes           []*netpolicy.Node
	Policies        []*netpolicy.Policy
	ClusterPolicies []*netpolicy.ClusterPolicy
}

// Pod is a pod as policies see it, and what listens in it.
type Pod struct {
	netpolicy.Pod
	Phase string
	Ready bool
	// Declared are the ports that its containers say they have.
	Declared []netpolicy.NamedPort
}

// Service is a Service.
type Service struct {
	Namespace, Name string
	Type            string
	ClusterIPs      []netip.Addr
	ExternalIPs     []netip.Addr // also of load balancers, unless they proxy
	// Balanced are those of ExternalIPs that SourceRanges hold for.
	Balanced       []netip.Addr
	ExternalName   string
	Ports          []ServicePort
	LocalExternal  bool // externalTrafficPolicy: Local
	LocalInternal  bool // internalTrafficPolicy: Local
	SourceRanges   []netip.Prefix
	PublishUnready bool
	HealthPort     uint16
}

// ServicePort is one of its ports.
type ServicePort struct {
	Name     string
	Protocol uint8
	Port     uint16
	NodePort uint16
}

// Slice is an EndpointSlice.
type Slice struct {
	Namespace, Service string
	Endpoints          []Endpoint
	Ports              []ServicePort // Port is the endpoints'
}

// Endpoint is one of a Slice.
type Endpoint struct {
	Addresses   []netip.Addr
	Ready       bool
	Serving     bool
	Terminating bool
	Node        string
	Pod         string // in the Slice's namespace; "" none
}

// ReadObjects decodes what a host answered.
func ReadObjects(o host.Objects) (*Objects, error) {
	var found Objects
	err := errors.Join(
		read(o.Pods, "pods", func(p *wirePod) { found.addPod(p) }),
		read(o.Namespaces, "namespaces", func(n *wireMeta) {
			found.Namespaces = append(found.Namespaces, &netpolicy.Namespace{Name: n.Metadata.Name, Labels: n.Metadata.Labels})
		}),
		read(o.Nodes, "nodes", func(n *wireNode) { found.Nodes = append(found.Nodes, n.node()) }),
		read(o.Services, "services", func(s *wireService) { found.Services = append(found.Services, s.service()) }),
		read(o.EndpointSlices, "endpoint slices", func(s *wireSlice) { found.Slices = append(found.Slices, s.slice()) }),
		read(o.NetworkPolicies, "network policies", func(p *netpolicy.Policy) { found.Policies = append(found.Policies, p) }),
		read(o.ClusterPolicies, "cluster network policies", func(p *netpolicy.ClusterPolicy) { found.ClusterPolicies = append(found.ClusterPolicies, p) }))
	return &found, err
}

// read decodes a *List.
func read[T any](raw json.RawMessage, what string, add func(*T)) error {
	if len(raw) == 0 || bytes.Equal(raw, []byte("null")) {
		return nil
	}
	var list struct {
		Items []*T `json:"items"`
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	for _, item := range list.Items {
		add(item)
	}
	return nil
}

type wireMeta struct {
	Metadata struct {
		Namespace string            `json:"namespace"`
		Name      string            `json:"name"`
		UID       string            `json:"uid"`
		Labels    map[string]string `json:"labels"`
		Created   time.Time         `json:"creationTimestamp"`
		Deleted   *time.Time        `json:"deletionTimestamp"`
	} `json:"metadata"`
}

type wireContainer struct {
	RestartPolicy string `json:"restartPolicy"`
	Ports         []struct {
		Name     string `json:"name"`
		Protocol string `json:"protocol"`
		Port     uint16 `json:"containerPort"`
	} `json:"ports"`
}

type wirePod struct {
	wireMeta
	Spec struct {
		NodeName       string          `json:"nodeName"`
		HostNetwork    bool            `json:"hostNetwork"`
		Containers     []wireContainer `json:"containers"`
		InitContainers []wireContainer `json:"initContainers"`
	} `json:"spec"`
	Status struct {
		Phase  string `json:"phase"`
		PodIPs []struct {
			IP netip.Addr `json:"ip"`
		} `json:"podIPs"`
		Conditions []struct {
			Type   string `json:"type"`
			Status string `json:"status"`
		} `json:"conditions"`
	} `json:"status"`
}

// addPod keeps a pod. Only an init container that keeps running listens.
func (o *Objects) addPod(w *wirePod) {
	m := &w.Metadata
	p := Pod{Phase: w.Status.Phase, Pod: netpolicy.Pod{Namespace: m.Namespace, Name: m.Name, UID: m.UID, Labels: m.Labels,
		Node: w.Spec.NodeName, HostNetwork: w.Spec.HostNetwork, Deleting: m.Deleted != nil, Created: m.Created}}
	for _, a := range w.Status.PodIPs {
		p.Addresses = append(p.Addresses, a.IP)
	}
	for _, c := range w.Status.Conditions {
		p.Ready = p.Ready || c.Type == "Ready" && c.Status == "True"
	}
	running := w.Spec.Containers
	for _, c := range w.Spec.InitContainers {
		if c.RestartPolicy == "Always" {
			running = append(running, c)
		}
	}
	for _, c := range running {
		for _, port := range c.Ports {
			p.Declared = append(p.Declared, netpolicy.NamedPort{Name: port.Name, Protocol: port.Protocol, Port: port.Port})
			if port.Name != "" {
				p.Ports = append(p.Ports, p.Declared[len(p.Declared)-1])
			}
		}
	}
	o.Pods = append(o.Pods, p)
}

type wireNode struct {
	wireMeta
	Status struct {
		Addresses []struct {
			Address string `json:"address"`
		} `json:"addresses"`
	} `json:"status"`
}

func (w *wireNode) node() *netpolicy.Node {
	n := &netpolicy.Node{Name: w.Metadata.Name, Labels: w.Metadata.Labels}
	for _, a := range w.Status.Addresses {
		if parsed, err := netip.ParseAddr(a.Address); err == nil { // others are names
			n.Addresses = append(n.Addresses, parsed)
		}
	}
	return n
}

type wireService struct {
	wireMeta
	Spec struct {
		Type           string   `json:"type"`
		ClusterIPs     []string `json:"clusterIPs"`
		ExternalIPs    []string `json:"externalIPs"`
		ExternalName   string   `json:"externalName"`
		External       string   `json:"externalTrafficPolicy"`
		Internal       string   `json:"internalTrafficPolicy"`
		SourceRanges   []string `json:"loadBalancerSourceRanges"`
		PublishUnready bool     `json:"publishNotReadyAddresses"`
		HealthPort     uint16   `json:"healthCheckNodePort"`
		Ports          []struct {
			Name     string `json:"name"`
			Protocol string `json:"protocol"`
			Port     uint16 `json:"port"`
			NodePort uint16 `json:"nodePort"`
		} `json:"ports"`
	} `json:"spec"`
	Status struct {
		LoadBalancer struct {
			Ingress []struct {
				IP   string `json:"ip"`
				Mode string `json:"ipMode"`
			} `json:"ingress"`
		} `json:"loadBalancer"`
	} `json:"status"`
}

func (w *wireService) service() Service {
	spec := &w.Spec
	s := Service{Namespace: w.Metadata.Namespace, Name: w.Metadata.Name, Type: spec.Type, ExternalName: spec.ExternalName,
		ClusterIPs: addresses(spec.ClusterIPs), ExternalIPs: addresses(spec.ExternalIPs), LocalExternal: spec.External == "Local",
		LocalInternal: spec.Internal == "Local", PublishUnready: spec.PublishUnready, HealthPort: spec.HealthPort}
	for _, i := range w.Status.LoadBalancer.Ingress {
		if i.Mode != "Proxy" {
			s.Balanced = append(s.Balanced, addresses([]string{i.IP})...)
		}
	}
	s.ExternalIPs = append(s.ExternalIPs, s.Balanced...)
	for _, r := range spec.SourceRanges {
		if p, err := netip.ParsePrefix(r); err == nil { // the API server saw to it
			s.SourceRanges = append(s.SourceRanges, p)
		}
	}
	for _, p := range spec.Ports {
		s.Ports = append(s.Ports, ServicePort{Name: p.Name, Protocol: protocolOf(p.Protocol), Port: p.Port, NodePort: p.NodePort})
	}
	return s
}

// addresses leaves out what is none: "None" of a headless Service, names.
func addresses(texts []string) []netip.Addr {
	var found []netip.Addr
	for _, t := range texts {
		if a, err := netip.ParseAddr(t); err == nil {
			found = append(found, a)
		}
	}
	return found
}

type wireSlice struct {
	wireMeta
	Endpoints []struct {
		Addresses  []string `json:"addresses"`
		NodeName   string   `json:"nodeName"`
		Conditions struct {
			Ready       *bool `json:"ready"`
			Serving     *bool `json:"serving"`
			Terminating *bool `json:"terminating"`
		} `json:"conditions"`
		Target *struct {
			Kind string `json:"kind"`
			Name string `json:"name"`
		} `json:"targetRef"`
	} `json:"endpoints"`
	Ports []struct {
		Name     string `json:"name"`
		Protocol string `json:"protocol"`
		Port     uint16 `json:"port"`
	} `json:"ports"`
}

// slice takes conditions that nobody set as the API's documents say.
func (w *wireSlice) slice() Slice {
	s := Slice{Namespace: w.Metadata.Namespace, Service: w.Metadata.Labels["kubernetes.io/service-name"]}
	for _, e := range w.Endpoints {
		c := &e.Conditions
		ready := c.Ready == nil || *c.Ready
		one := Endpoint{Addresses: addresses(e.Addresses), Node: e.NodeName, Ready: ready, Serving: ready, Terminating: c.Terminating != nil && *c.Terminating}
		if c.Serving != nil {
			one.Serving = *c.Serving
		}
		if e.Target != nil && e.Target.Kind == "Pod" {
			one.Pod = e.Target.Name
		}
		s.Endpoints = append(s.Endpoints, one)
	}
	for _, p := range w.Ports {
		s.Ports = append(s.Ports, ServicePort{Name: p.Name, Protocol: protocolOf(p.Protocol), Port: p.Port})
	}
	return s
}
