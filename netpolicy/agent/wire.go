// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"time"

	"bastide.dev/netpolicy"
)

// kind is a resource that the agent follows.
type kind int

const (
	pods kind = iota
	namespaces
	nodes
	policies
	clusterPolicies
	kinds
)

// resource says where a kind is in the API and how to read it. What read
// returns holds what policies need and nothing else.
type resource struct {
	path, fields string
	optional     bool // its API may not be there
	read         func(data []byte, m *meta) (any, error)
}

var resources = [kinds]resource{
	pods:       {path: "/api/v1/pods", fields: "status.phase!=Succeeded,status.phase!=Failed", read: readPod},
	namespaces: {path: "/api/v1/namespaces", read: readNamespace},
	nodes:      {path: "/api/v1/nodes", read: readNode},
	policies:   {path: "/apis/networking.k8s.io/v1/networkpolicies", read: readAs[netpolicy.Policy]},
	clusterPolicies: {path: "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies", optional: true,
		read: readAs[netpolicy.ClusterPolicy]},
}

// meta is what every object is followed by.
type meta struct {
	Metadata struct {
		Namespace       string            `json:"namespace"`
		Name            string            `json:"name"`
		UID             string            `json:"uid"`
		ResourceVersion string            `json:"resourceVersion"`
		Labels          map[string]string `json:"labels"`
		Created         time.Time         `json:"creationTimestamp"`
		Deleted         *time.Time        `json:"deletionTimestamp"`
		Annotations     struct {
			// Static is the UID that kubelet knows a pod from a file by.
			Static string `json:"kubernetes.io/config.hash"`
		} `json:"annotations"`
	} `json:"metadata"`
}

// key is an object's name among those of its kind.
func (m *meta) key() string { return m.Metadata.Namespace + "/" + m.Metadata.Name }

type container struct {
	RestartPolicy string `json:"restartPolicy"`
	Ports         []struct {
		Name     string `json:"name"`
		Protocol string `json:"protocol"`
		Port     uint16 `json:"containerPort"`
	} `json:"ports"`
}

// pod is a pod with the UID by which its node's CNI plugins know it.
type pod struct {
	netpolicy.Pod
	localUID string
}

func readPod(data []byte, m *meta) (any, error) {
	var wire struct {
		meta
		Spec struct {
			NodeName       string      `json:"nodeName"`
			HostNetwork    bool        `json:"hostNetwork"`
			Containers     []container `json:"containers"`
			InitContainers []container `json:"initContainers"`
		} `json:"spec"`
		Status struct {
			PodIPs []struct {
				IP netip.Addr `json:"ip"`
			} `json:"podIPs"`
		} `json:"status"`
	}
	if err := json.Unmarshal(data, &wire); err != nil {
		return nil, err
	}
	*m = wire.meta
	d := &wire.Metadata
	p := &pod{localUID: d.UID, Pod: netpolicy.Pod{Namespace: d.Namespace, Name: d.Name, UID: d.UID, Labels: d.Labels, Node: wire.Spec.NodeName,
		HostNetwork: wire.Spec.HostNetwork, Deleting: d.Deleted != nil, Created: d.Created}}
	if d.Annotations.Static != "" {
		p.localUID = d.Annotations.Static
	}
	for _, ip := range wire.Status.PodIPs {
		p.Addresses = append(p.Addresses, ip.IP)
	}
	sidecars := slices.DeleteFunc(wire.Spec.InitContainers, func(c container) bool { return c.RestartPolicy != "Always" })
	for _, c := range append(wire.Spec.Containers, sidecars...) {
		for _, port := range c.Ports {
			if port.Name != "" {
				p.Ports = append(p.Ports, netpolicy.NamedPort{Name: port.Name, Protocol: port.Protocol, Port: port.Port})
			}
		}
	}
	return p, nil
}

func readNamespace(data []byte, m *meta) (any, error) {
	if err := json.Unmarshal(data, m); err != nil {
		return nil, err
	}
	return &netpolicy.Namespace{Name: m.Metadata.Name, Labels: m.Metadata.Labels}, nil
}

// readNode leaves out what changes all the time: a node's state and times.
func readNode(data []byte, m *meta) (any, error) {
	var wire struct {
		meta
		Status struct {
			Addresses []struct {
				Type    string `json:"type"`
				Address string `json:"address"`
			} `json:"addresses"`
		} `json:"status"`
	}
	if err := json.Unmarshal(data, &wire); err != nil {
		return nil, err
	}
	*m = wire.meta
	n := &netpolicy.Node{Name: wire.Metadata.Name, Labels: wire.Metadata.Labels}
	for _, a := range wire.Status.Addresses {
		if parsed, err := netip.ParseAddr(a.Address); err == nil { // others are names
			n.Addresses = append(n.Addresses, parsed)
		}
	}
	return n, nil
}

func readAs[T any](data []byte, m *meta) (any, error) {
	object := new(T)
	if err := errors.Join(json.Unmarshal(data, m), json.Unmarshal(data, object)); err != nil {
		return nil, err
	}
	return object, nil
}
