// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"bastide.dev/autoscale"
	"bastide.dev/controlplane"
)

// A real scheduler finds no place for pods: the control plane wishes nodes for
// them at once, says so in the cluster, and wishes them away when they are idle.
func TestPoolsAreWished(t *testing.T) {
	r := newRig(t)
	spec := r.spec("scale")
	spec.Addons = controlplane.Addons{}
	r.apply(spec)
	r.until(spec.ID, "ready", ready)
	admin := r.admin(spec)
	eventually(t, "the default service account", func() bool {
		code, _ := admin.do("GET", "/api/v1/namespaces/default/serviceaccounts/default", nil)
		return code == http.StatusOK
	})
	node := func(name string) {
		admin.node(name)
		amounts := object{"cpu": "1900m", "memory": "4Gi", "pods": "30"}
		admin.must("PATCH", "/api/v1/nodes/"+name+"/status", object{"status": object{"allocatable": amounts, "capacity": amounts}}, "Content-Type", "application/merge-patch+json")
		// Who registers a node in a cloud takes this taint off when it is known there.
		admin.must("PATCH", "/api/v1/nodes/"+name, object{"spec": object{"taints": nil}}, "Content-Type", "application/merge-patch+json")
	}
	node("node-1")
	spec.Nodes[0].Pool, spec.Nodes[1].Pool = "np", "np"
	pool := autoscale.Pool{Name: "np", Min: 1, Max: 5, Count: 1, Template: autoscale.Template{CPU: 1900, Memory: 4 << 30, Pods: 30}}
	scaler := controlplane.Autoscaler{Profile: autoscale.DefaultProfile(), Pools: []autoscale.Pool{pool}, Going: []string{"node-2"}}
	scaler.Profile.Unneeded, scaler.Profile.AfterAdd, scaler.Profile.AfterDelete, scaler.Profile.Scan = 0, 0, 0, time.Second
	spec.Autoscaler = &scaler
	r.apply(spec)
	r.until(spec.ID, "wishes", func(s controlplane.Status) bool { return s.Scaling != nil })

	for _, name := range []string{"big-1", "big-2", "big-3"} {
		admin.must("POST", "/api/v1/namespaces/default/pods", object{"metadata": object{"name": name}, "spec": object{"containers": []any{object{"name": "c", "image": "i", "resources": object{"requests": object{"cpu": "1500m"}}}}}})
	}
	began := time.Now()
	r.until(spec.ID, "three nodes wished", func(s controlplane.Status) bool {
		return s.Scaling != nil && len(s.Scaling.Pools) == 1 && s.Scaling.Pools[0] == controlplane.PoolWish{Pool: "np", From: 1, Want: 3}
	})
	t.Logf("wished after %s", time.Since(began))
	events := func() string {
		_, raw := admin.do("GET", "/api/v1/namespaces/default/events", nil)
		return string(raw)
	}
	eventually(t, "an event on a pod", func() bool {
		return strings.Contains(events(), "pod triggered scale-up: [{np 1-") && strings.Contains(events(), "TriggeredScaleUp")
	})
	eventually(t, "the status in kube-system", func() bool {
		var m struct{ Data map[string]string }
		code, raw := admin.do("GET", "/api/v1/namespaces/kube-system/configmaps/cluster-autoscaler-status", nil)
		return code == http.StatusOK && json.Unmarshal(raw, &m) == nil && strings.Contains(m.Data["status"], "autoscalerStatus: Running") && strings.Contains(m.Data["status"], "name: np")
	})

	// Two more nodes are given, and one comes: nothing more is wished.
	next := spec
	next.Autoscaler = &controlplane.Autoscaler{Profile: scaler.Profile, Pools: []autoscale.Pool{pool}}
	next.Autoscaler.Pools[0].Count = 3
	r.apply(next)
	node("node-2")
	r.until(spec.ID, "nothing wished", func(s controlplane.Status) bool {
		return s.Scaling != nil && len(s.Scaling.Pools) == 0 && s.Scaling.Unschedulable == 1
	})

	// The pods go; the node that stands idle is to go as well, and the minimum stays.
	for _, name := range []string{"big-1", "big-2", "big-3"} {
		admin.must("DELETE", "/api/v1/namespaces/default/pods/"+name+"?gracePeriodSeconds=0", nil)
	}
	idle := next
	idle.Autoscaler = &controlplane.Autoscaler{Profile: scaler.Profile, Pools: []autoscale.Pool{pool}}
	idle.Autoscaler.Pools[0].Count = 2
	r.apply(idle)
	s := r.until(spec.ID, "one node to go", func(s controlplane.Status) bool { return s.Scaling != nil && len(s.Scaling.Remove) == 1 })
	eventually(t, "an event on the node", func() bool { return strings.Contains(events(), `"ScaleDown"`) })

	// A node that is repaired is told of, once.
	note := idle
	note.Nodes = append([]controlplane.Node(nil), idle.Nodes...)
	note.Nodes[0].Note = &controlplane.Note{Reason: "NodeRebootStart", Message: "it isn't ready", Warning: true, At: time.Now()}
	note.Autoscaler = nil
	r.apply(note)
	eventually(t, "an event of the note", func() bool { return strings.Count(events(), `"reason":"NodeRebootStart"`) == 1 })
	r.until(spec.ID, "no wishes any more", func(s controlplane.Status) bool { return s.Scaling == nil })
	t.Logf("%s was to go", s.Scaling.Remove[0])
}
