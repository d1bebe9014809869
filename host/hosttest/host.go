// SPDX-License-Identifier: Apache-2.0

// Package hosttest is a host without a machine: it answers the units in a store
// as the contract in package host says a host does, at once and in order. For
// tests of what compiles units and waits for reports.
package hosttest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"bastide.dev/controlplane"
	"bastide.dev/dataplane"
	"bastide.dev/fault"
	"bastide.dev/host"
	"bastide.dev/machine"
	"bastide.dev/metadata"
	"bastide.dev/pki"
	"bastide.dev/store"
)

// Host keeps what a real one would have running. It is for one goroutine.
type Host struct {
	Store store.Store
	Name  string
	// Fail, when it returns a text, makes a unit fail with that error.
	Fail func(kind host.Kind, name string) string
	// Told changes what a control plane reports of itself, if set.
	Told func(status *controlplane.Status)
	// Drain answers what is asked of a node that is to be left; without it every
	// node is left at once.
	Drain func(n controlplane.Node) controlplane.Left
	// Guest is what a machine says of itself, if set.
	Guest func(m machine.Spec) json.RawMessage
	// Queries answers queries; without it they fail.
	Queries func(q host.Query) (any, error)

	VNets    map[string]dataplane.VNet
	Edge     dataplane.Edge
	Planes   map[string]controlplane.Spec
	Machines map[string]machine.Spec
	Metadata map[string]metadata.Machine
	// Nodes are the Node objects of each control plane, by name: the kubelet's version.
	Nodes map[string]map[string]string
}

// New returns a host that has nothing yet.
func New(s store.Store, name string) *Host {
	return &Host{Store: s, Name: name, VNets: map[string]dataplane.VNet{}, Planes: map[string]controlplane.Spec{},
		Machines: map[string]machine.Spec{}, Metadata: map[string]metadata.Machine{}, Nodes: map[string]map[string]string{}}
}

// Answer makes every unit so and stores a report on each whose report changes;
// it tells whether any did.
func (h *Host) Answer(ctx context.Context) (bool, error) {
	records, _, err := h.Store.List(ctx, "hosts/"+h.Name+"/units/")
	if err != nil {
		return false, err
	}
	// Machines before control planes: whose nodes are ready depends on them.
	order := []host.Kind{host.EdgeUnit, host.VNetUnit, host.MachineUnit, host.MetadataUnit, host.ControlPlaneUnit, host.QueryUnit}
	changed := false
	for _, kind := range order {
		for _, record := range records {
			name, ours := strings.CutPrefix(record.Key, host.UnitKey(h.Name, kind, ""))
			if !ours {
				continue
			}
			report, err := h.apply(kind, name, record)
			if err != nil {
				return changed, err
			}
			wrote, err := h.report(ctx, record, report)
			if err != nil {
				return changed, err
			}
			changed = changed || wrote
		}
	}
	return changed, nil
}

func (h *Host) apply(kind host.Kind, name string, record store.Record) (host.Report, error) {
	report := host.Report{Kind: kind, Name: name, Generation: record.Revision}
	if h.Fail != nil {
		if report.Error = h.Fail(kind, name); report.Error != "" {
			return report, nil
		}
	}
	if bytes.Equal(record.Value, host.Tombstone) {
		report.Gone = true
		return report, h.remove(kind, name)
	}
	report.Applied = true
	var err error
	switch kind {
	case host.EdgeUnit:
		h.Edge = dataplane.Edge{}
		err = json.Unmarshal(record.Value, &h.Edge)
	case host.VNetUnit:
		h.VNets[name], err = decode[dataplane.VNet](record)
	case host.ControlPlaneUnit:
		h.Planes[name], err = decode[controlplane.Spec](record)
		report.ControlPlane = h.plane(h.Planes[name])
		if h.Told != nil {
			h.Told(report.ControlPlane)
		}
	case host.MachineUnit:
		h.Machines[name], err = decode[machine.Spec](record)
		report.Machine = &machine.Status{ID: name, Phase: machine.Running, Boots: h.Machines[name].Boots, Images: h.Machines[name].Images}
		if h.Guest != nil {
			report.Machine.Guest = h.Guest(h.Machines[name])
		}
	case host.MetadataUnit:
		h.Metadata[name], err = decode[metadata.Machine](record)
	case host.QueryUnit:
		err = h.answer(record, &report)
	}
	return report, err
}

// answer answers a query; that it fails is an answer, too.
func (h *Host) answer(record store.Record, report *host.Report) error {
	q, err := decode[host.Query](record)
	if err != nil {
		return err
	}
	var answer any
	failed := errors.New("this host answers no queries")
	if h.Queries != nil {
		answer, failed = h.Queries(q)
	}
	if failed != nil {
		report.Applied, report.Error = false, failed.Error()
		return nil
	}
	report.Answer, err = json.Marshal(answer)
	return err
}

func decode[T any](record store.Record) (T, error) {
	var v T
	err := json.Unmarshal(record.Value, &v)
	return v, err
}

// remove forgets a unit.
func (h *Host) remove(kind host.Kind, name string) error {
	switch kind {
	case host.VNetUnit:
		delete(h.VNets, name)
	case host.ControlPlaneUnit:
		delete(h.Planes, name)
		delete(h.Nodes, name)
	case host.MachineUnit:
		delete(h.Machines, name)
	case host.MetadataUnit:
		delete(h.Metadata, name)
	}
	return nil
}

// plane is the status of a control plane: nodes register when their machine
// runs, and stay until they are to be removed.
func (h *Host) plane(spec controlplane.Spec) *controlplane.Status {
	status := &controlplane.Status{ID: spec.ID, Phase: controlplane.Ready, Version: "v" + spec.Version}
	if spec.Stopped {
		status.Phase, status.Version = controlplane.Stopped, ""
		return status
	}
	status.Issuer, status.WorkloadIdentity = spec.Issuer, spec.WorkloadIdentity != nil
	if ids, err := spec.SigningKeyIDs(); err == nil { // a test's spec may have no keys
		status.SigningKeys = ids
	}
	status.Authorities = h.authorities(spec)
	objects := h.Nodes[spec.ID]
	if objects == nil {
		objects = map[string]string{}
		h.Nodes[spec.ID] = objects
	}
	running := h.kubelets(spec.ID)
	for _, n := range spec.Nodes {
		if n.Removed {
			delete(objects, n.Name)
		} else if version, runs := running[n.Name]; runs {
			objects[n.Name] = version
		}
	}
	boots, left := h.boots(spec.ID), h.left(spec)
	for name, version := range objects {
		_, runs := running[name]
		status.Nodes = append(status.Nodes, controlplane.NodeStatus{Name: name, Ready: runs, Version: version,
			Boot: boots[name], Left: left[name], Cordoned: !left[name].Since.IsZero()})
		status.CoreDNS = status.CoreDNS || runs
	}
	slices.SortFunc(status.Nodes, func(a, b controlplane.NodeStatus) int { return strings.Compare(a.Name, b.Name) })
	return status
}

// boots are the ids of the boots that machines are in, by node.
func (h *Host) boots(plane string) map[string]string {
	boots := map[string]string{}
	for id, m := range h.Machines {
		if strings.HasPrefix(id, plane+"-") {
			boots[m.Hostname] = fmt.Sprintf("%s/%d/%d", id, m.Images, m.Boots)
		}
	}
	return boots
}

// left is how far nodes were left, by name.
func (h *Host) left(spec controlplane.Spec) map[string]controlplane.Left {
	left := map[string]controlplane.Left{}
	for _, n := range spec.Nodes {
		switch {
		case n.Leave == nil:
		case h.Drain != nil:
			left[n.Name] = h.Drain(n)
		default:
			left[n.Name] = controlplane.Left{Since: n.Leave.Since, Phase: controlplane.LeftNode}
		}
	}
	return left
}

// kubelets are the versions of the kubelets that reach a control plane, by node.
func (h *Host) kubelets(plane string) map[string]string {
	running := map[string]string{}
	for id, m := range h.Machines {
		if !strings.HasPrefix(id, plane+"-") {
			continue
		}
		for _, file := range m.Files {
			var config struct{ KubernetesVersion string } // of a node.Config, which a host needn't know
			if json.Unmarshal(file.Data, &config) == nil && config.KubernetesVersion != "" {
				running[m.Hostname] = "v" + config.KubernetesVersion
			}
		}
	}
	return running
}

// authorities are those that a control plane runs with at once, and that its
// kubelets have their certificates from.
func (h *Host) authorities(spec controlplane.Spec) *controlplane.Authorities {
	a := &controlplane.Authorities{Running: spec.Keys.Digest(), Server: pki.Name(spec.Keys.CA.Certificate), Clients: spec.Keys.ClientNames()}
	for id, m := range h.Machines {
		for _, file := range m.Files {
			var config struct{ CA []byte } // of a node.Config
			if strings.HasPrefix(id, spec.ID+"-") && json.Unmarshal(file.Data, &config) == nil && len(config.CA) > 0 {
				a.Kubelets = append(a.Kubelets, controlplane.KubeletAuthority{Node: m.Hostname, Authority: pki.Name(config.CA)})
			}
		}
	}
	slices.SortFunc(a.Kubelets, func(a, b controlplane.KubeletAuthority) int { return strings.Compare(a.Node, b.Node) })
	return a
}

// report stores a report as serve would: not on a unit that has gone meanwhile.
func (h *Host) report(ctx context.Context, unit store.Record, report host.Report) (bool, error) {
	value, err := json.Marshal(report)
	if err != nil {
		return false, err
	}
	key := host.ReportKey(h.Name, report.Kind, report.Name)
	if old, err := h.Store.Get(ctx, key); err == nil && bytes.Equal(old.Value, value) {
		return false, nil
	}
	_, err = h.Store.Txn(ctx, store.Change{Key: unit.Key, Revision: unit.Revision, Check: true},
		store.Change{Key: key, Value: value, Revision: store.Any})
	if fault.Is(err, fault.Precondition) {
		return true, nil
	}
	return true, err
}
