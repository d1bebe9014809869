// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"bastide.dev/controlplane"
)

// leaver is a cluster with a node that pods are on. The test is their kubelet:
// pods without a grace period go when they are told to.
type leaver struct {
	*rig
	*user
	spec controlplane.Spec
}

func newLeaver(t *testing.T, id string) *leaver {
	t.Helper()
	r := newRig(t)
	spec := r.spec(id)
	spec.Addons = controlplane.Addons{}
	r.apply(spec)
	r.until(id, "ready", ready)
	l := &leaver{rig: r, user: r.admin(spec), spec: spec}
	l.node("node-1")
	l.node("node-2")
	eventually(t, "the default service account", func() bool {
		code, _ := l.do("GET", "/api/v1/namespaces/default/serviceaccounts/default", nil)
		return code == http.StatusOK
	})
	return l
}

// pod makes a pod that runs on a node.
func (l *leaver) pod(name, node string, change func(pod object)) {
	l.user.t.Helper()
	pod := object{"metadata": object{"name": name, "labels": object{"app": name}}, "spec": object{"nodeName": node, "terminationGracePeriodSeconds": 0,
		"containers": []any{object{"name": "c", "image": "i"}}}}
	if change != nil {
		change(pod)
	}
	l.must("POST", "/api/v1/namespaces/default/pods", pod)
	l.must("PATCH", "/api/v1/namespaces/default/pods/"+name+"/status", object{"status": object{"phase": "Running",
		"conditions": []any{object{"type": "Ready", "status": "True"}}}}, "Content-Type", "application/merge-patch+json")
}

func (l *leaver) budget(app string, minimum int) {
	l.user.t.Helper()
	l.must("POST", "/apis/policy/v1/namespaces/default/poddisruptionbudgets", object{"metadata": object{"name": app},
		"spec": object{"minAvailable": minimum, "selector": object{"matchLabels": object{"app": app}}}})
	eventually(l.user.t, "the budget is counted", func() bool {
		var b struct {
			Status struct{ ObservedGeneration, ExpectedPods int64 }
		}
		raw := l.must("GET", "/apis/policy/v1/namespaces/default/poddisruptionbudgets/"+app, nil)
		return json.Unmarshal(raw, &b) == nil && b.Status.ObservedGeneration > 0 && b.Status.ExpectedPods == 1
	})
}

func (l *leaver) there(name string) bool {
	code, _ := l.do("GET", "/api/v1/namespaces/default/pods/"+name, nil)
	return code == http.StatusOK
}

// asks gives node-1 a Leave, or takes it.
func (l *leaver) asks(leave *controlplane.Leave) {
	l.rig.t.Helper()
	l.spec.Nodes[0].Leave = leave
	l.apply(l.spec)
}

func (l *leaver) left(what string, ok func(controlplane.NodeStatus) bool) controlplane.NodeStatus {
	l.rig.t.Helper()
	var found controlplane.NodeStatus
	l.until(l.spec.ID, what, func(s controlplane.Status) bool {
		for _, n := range s.Nodes {
			if n.Name == "node-1" && ok(n) {
				found = n
				return true
			}
		}
		return false
	})
	return found
}

func phase(p controlplane.LeftPhase, leave *controlplane.Leave) func(controlplane.NodeStatus) bool {
	return func(n controlplane.NodeStatus) bool { return n.Left.Phase == p && n.Left.Since.Equal(leave.Since) }
}

// marks are what is on node-1.
func (l *leaver) marks() (n struct {
	Metadata struct{ Labels, Annotations map[string]string }
	Spec     struct{ Unschedulable bool }
}) {
	l.user.t.Helper()
	if err := json.Unmarshal(l.must("GET", "/api/v1/nodes/node-1", nil), &n); err != nil {
		l.user.t.Fatal(err)
	}
	return n
}

const excluded = "node.kubernetes.io/exclude-from-external-load-balancers"

// TestANodeIsLeft drains a node on which a pod of each kind is, across an end of
// this process, and gives it back.
func TestANodeIsLeft(t *testing.T) {
	l := newLeaver(t, "leave")
	l.pod("plain", "node-1", nil)
	l.pod("scratch", "node-1", func(pod object) {
		pod["spec"].(object)["volumes"] = []any{object{"name": "v", "emptyDir": object{}}}
	})
	l.pod("elsewhere", "node-2", nil)
	l.pod("mirror", "node-1", func(pod object) {
		pod["metadata"].(object)["annotations"] = object{"kubernetes.io/config.mirror": "x"}
	})
	l.daemon()
	l.pod("web", "node-1", nil)
	l.budget("web", 1)

	leave := &controlplane.Leave{Drain: true, Out: true, Reboot: true, Timeout: time.Hour, Since: time.Now(), Reason: "a test"}
	l.asks(leave)
	n := l.left("held by the budget", func(n controlplane.NodeStatus) bool {
		return phase(controlplane.Leaving, leave)(n) && n.Left.Held != "" && n.Left.Pods == 1 && n.Cordoned
	})
	if !strings.Contains(n.Left.Held, "default/web") || !strings.Contains(n.Left.Held, "needs 1 healthy pods") {
		t.Errorf("held by %q", n.Left.Held)
	}
	m := l.marks()
	if !m.Spec.Unschedulable || m.Metadata.Labels[excluded] == "" || m.Metadata.Annotations["weave.works/kured-reboot-in-progress"] == "" {
		t.Errorf("marks: %+v", m)
	}
	l.rig.stop() // another process goes on
	l.begin()
	l.apply(l.spec)
	l.left("still held", func(n controlplane.NodeStatus) bool {
		return phase(controlplane.Leaving, leave)(n) && n.Left.Held != ""
	})
	l.must("DELETE", "/apis/policy/v1/namespaces/default/poddisruptionbudgets/web", nil)
	l.left("left", phase(controlplane.LeftNode, leave))
	for name, stays := range map[string]bool{"plain": false, "scratch": false, "web": false, "mirror": true, "daemon": true, "elsewhere": true} {
		if l.there(name) != stays {
			t.Errorf("pod %s is there: %v", name, !stays)
		}
	}
	l.events("Draining node: [node-1]", "Eviction blocked: pod default/web", "Drained node: [node-1]")

	l.asks(nil)
	l.left("given back", func(n controlplane.NodeStatus) bool { return n.Left == (controlplane.Left{}) && !n.Cordoned })
	m = l.marks()
	if _, in := m.Metadata.Annotations["weave.works/kured-reboot-in-progress"]; in || m.Metadata.Labels[excluded] != "" || m.Spec.Unschedulable {
		t.Errorf("marks are left: %+v", m)
	}
	for name := range m.Metadata.Annotations {
		if strings.HasPrefix(name, "bastide.dev/") {
			t.Errorf("annotation %s is left", name)
		}
	}
}

// daemon has a DaemonSet take over a pod of node-1.
func (l *leaver) daemon() {
	l.user.t.Helper()
	l.pod("daemon", "node-1", nil)
	l.must("POST", "/apis/apps/v1/namespaces/default/daemonsets", object{"metadata": object{"name": "daemon"}, "spec": object{
		"selector": object{"matchLabels": object{"app": "daemon"}}, "updateStrategy": object{"type": "OnDelete"},
		"template": object{"metadata": object{"labels": object{"app": "daemon"}}, "spec": object{"containers": []any{object{"name": "c", "image": "i"}}}}}})
	eventually(l.user.t, "the pod is the DaemonSet's", func() bool {
		return strings.Contains(string(l.must("GET", "/api/v1/namespaces/default/pods/daemon", nil)), `"kind":"DaemonSet"`)
	})
}

// events demands that each message is said, and once.
func (l *leaver) events(messages ...string) {
	l.user.t.Helper()
	for _, message := range messages {
		eventually(l.user.t, "event "+message, func() bool {
			n := strings.Count(string(l.must("GET", "/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Dnode-1", nil)), message)
			if n > 1 {
				l.user.t.Fatalf("%q is said %d times", message, n)
			}
			return n == 1
		})
	}
}

// TestALeaveEnds: a budget that never allows it fails the drain in time, force
// ends it, and what a user cordoned stays so.
func TestALeaveEnds(t *testing.T) {
	l := newLeaver(t, "ends")
	l.must("PATCH", "/api/v1/nodes/node-1", object{"spec": object{"unschedulable": true}}, "Content-Type", "application/merge-patch+json")
	l.must("PATCH", "/api/v1/nodes/node-1", object{"metadata": object{"labels": object{excluded: "mine"}}}, "Content-Type", "application/merge-patch+json")
	l.pod("web", "node-1", nil)
	l.budget("web", 1)

	late := &controlplane.Leave{Drain: true, Out: true, Timeout: time.Millisecond, Since: time.Now().Add(-time.Minute)}
	l.asks(late)
	n := l.left("failed", phase(controlplane.LeaveFailed, late))
	if n.Left.Pods != 1 || !strings.Contains(n.Left.Error, "default/web") || !l.there("web") {
		t.Errorf("%+v", n.Left)
	}
	again := &controlplane.Leave{Drain: true, Out: true, Timeout: time.Hour, Since: time.Now()}
	l.asks(again) // another's turn counts anew
	l.left("tried again", func(n controlplane.NodeStatus) bool {
		return phase(controlplane.Leaving, again)(n) && n.Left.Held != ""
	})
	forced := &controlplane.Leave{Drain: true, Out: true, Timeout: time.Millisecond, Since: time.Now().Add(-time.Second), Force: true}
	l.asks(forced)
	l.left("left by force", phase(controlplane.LeftNode, forced))
	if l.there("web") {
		t.Error("the pod is there")
	}
	l.asks(nil)
	l.left("given back", func(n controlplane.NodeStatus) bool { return n.Left == (controlplane.Left{}) })
	if m := l.marks(); !m.Spec.Unschedulable || m.Metadata.Labels[excluded] != "mine" {
		t.Errorf("what the user did is undone: %+v", m)
	}
}

// TestManyPodsLeaveAtOnce: evictions aren't waited for one after another.
func TestManyPodsLeaveAtOnce(t *testing.T) {
	l := newLeaver(t, "many")
	for i := range 40 {
		l.pod(fmt.Sprintf("p%d", i), "node-1", nil)
	}
	leave := &controlplane.Leave{Drain: true, Since: time.Now()}
	begin := time.Now()
	l.asks(leave)
	l.left("left", phase(controlplane.LeftNode, leave))
	t.Logf("40 pods left in %v", time.Since(begin))
}
