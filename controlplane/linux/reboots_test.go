// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"bastide.dev/controlplane"
)

const rebootsMap = "/api/v1/namespaces/kube-system/configmaps/bastide-reboots"

// rebootsAre waits for what the coordinator is told.
func (l *leaver) rebootsAre(what string, ok func(s *controlplane.RebootsStatus) bool) {
	l.rig.t.Helper()
	l.until(l.spec.ID, what, func(s controlplane.Status) bool { return s.Reboots != nil && ok(s.Reboots) })
}

func (l *leaver) wants(reboots *controlplane.Reboots) {
	l.rig.t.Helper()
	l.spec.Reboots = reboots
	l.apply(l.spec)
}

// lock is the annotation as anybody sees it.
func (l *leaver) lock() string {
	l.user.t.Helper()
	var m struct {
		Metadata struct{ Annotations map[string]string }
	}
	if err := json.Unmarshal(l.must("GET", rebootsMap, nil), &m); err != nil {
		l.user.t.Fatal(err)
	}
	return m.Metadata.Annotations["weave.works/kured-node-lock"]
}

func (l *leaver) settings(annotations object, data object) {
	l.user.t.Helper()
	l.must("PATCH", rebootsMap, object{"metadata": object{"annotations": annotations}, "data": data}, "Content-Type", "application/merge-patch+json")
}

// TestWhatBlocksReboots: pods, alerts, settings and a person, against a real API server.
func TestWhatBlocksReboots(t *testing.T) {
	l := newLeaver(t, "reboots")
	both := []string{"node-1", "node-2"}
	granted := func(nodes ...string) func(*controlplane.RebootsStatus) bool {
		return func(s *controlplane.RebootsStatus) bool { return slices.Equal(s.Locked.Granted, nodes) }
	}
	l.wants(&controlplane.Reboots{Waiting: both})
	l.rebootsAre("looked at", func(s *controlplane.RebootsStatus) bool {
		return len(s.Nodes) == 2 && len(s.Nodes[0].Blocked) == 0 && s.Settings.Concurrency == 1
	})
	l.wants(&controlplane.Reboots{Waiting: both, Claims: both})
	l.rebootsAre("granted to one", granted("node-1"))
	if text := l.lock(); !strings.HasPrefix(text, `{"nodeID":"node-1"`) {
		t.Errorf("the lock is %s", text)
	}
	l.wants(&controlplane.Reboots{Waiting: both, Claims: []string{"node-2"}})
	l.rebootsAre("granted to the other", granted("node-2"))
	l.wants(&controlplane.Reboots{Waiting: both})
	l.rebootsAre("given back", granted())
	if text := l.lock(); text != "" {
		t.Errorf("the lock is %s", text)
	}

	l.settings(object{"weave.works/kured-node-lock": `{"nodeID":"manual"}`}, object{"period": "1s"})
	l.wants(&controlplane.Reboots{Waiting: both, Claims: both})
	l.rebootsAre("a person has the lock", func(s *controlplane.RebootsStatus) bool {
		return strings.Contains(s.Locked.Other, "manual") && len(s.Locked.Granted) == 0
	})
	l.pod("db", "node-1", nil)
	l.settings(object{"weave.works/kured-node-lock": nil}, object{"blocking-pod-selector": "app=db"})
	l.rebootsAre("granted to the node without the pod", func(s *controlplane.RebootsStatus) bool {
		return granted("node-2")(s) && len(s.Nodes[0].Blocked) == 1 && strings.Contains(s.Nodes[0].Blocked[0], "default/db")
	})
	l.settings(nil, object{"prometheus-url": "http://prometheus.monitoring:9090"})
	l.rebootsAre("alerts that can't be read block", func(s *controlplane.RebootsStatus) bool {
		return len(s.Nodes[1].Blocked) == 1 && strings.Contains(s.Nodes[1].Blocked[0], "alerts can't be read")
	})
	l.settings(nil, object{"prometheus-url": "http://169.254.169.254/", "start-time": "noon"})
	l.rebootsAre("settings are wrong", func(s *controlplane.RebootsStatus) bool { return len(s.Problems) == 2 })
	eventually(t, "somebody is told", func() bool {
		return strings.Contains(string(l.must("GET", "/api/v1/namespaces/kube-system/events?fieldSelector=reason%3DInvalidSettings", nil)), "start-time")
	})
	l.wants(nil)
	l.until(l.spec.ID, "nobody asks", func(s controlplane.Status) bool { return s.Reboots == nil })
	eventually(t, "the lock is nobody's", func() bool { return l.lock() == "" })
}
