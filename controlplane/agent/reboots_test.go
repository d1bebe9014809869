// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bastide.dev/controlplane"
	"bastide.dev/reboots"
)

const threeAlerts = `{"status":"success","data":{"resultType":"vector","result":[
 {"metric":{"__name__":"ALERTS","alertname":"Watchdog","alertstate":"firing"},"value":[1,"1"]},
 {"metric":{"__name__":"ALERTS","alertname":"DiskFull","alertstate":"pending"},"value":[1,"1"]},
 {"metric":{"__name__":"ALERTS","alertname":"Slow","alertstate":"firing"},"value":[1,"1"]},
 {"metric":{"__name__":"ALERTS","alertname":"Slow","alertstate":"firing"},"value":[1,"1"]},
 {"metric":{"__name__":"ALERTS","alertname":"Over","alertstate":"firing"},"value":[1,"0"]},
 {"metric":{"__name__":"up"},"value":[1,"1"]}]}}`

func TestWhichAlertsBlock(t *testing.T) {
	for name, c := range map[string]struct {
		settings reboots.Settings
		want     string
	}{
		"all":            {reboots.Settings{}, "DiskFull Slow Watchdog"},
		"firing":         {reboots.Settings{AlertFiringOnly: true}, "Slow Watchdog"},
		"ignored":        {reboots.Settings{AlertFilter: "^Watch"}, "DiskFull Slow"},
		"these":          {reboots.Settings{AlertFilter: "^Watch", AlertFilterMatchOnly: true}, "Watchdog"},
		"these, firing":  {reboots.Settings{AlertFilter: "Disk", AlertFilterMatchOnly: true, AlertFiringOnly: true}, ""},
		"without filter": {reboots.Settings{AlertFilterMatchOnly: true}, "DiskFull Slow Watchdog"},
	} {
		active, err := activeAlerts([]byte(threeAlerts), &c.settings)
		if err != nil || strings.Join(active, " ") != c.want {
			t.Errorf("%s: %q %v", name, active, err)
		}
	}
}

func FuzzAlerts(f *testing.F) {
	f.Add([]byte(threeAlerts))
	f.Fuzz(func(t *testing.T, body []byte) {
		active, err := activeAlerts(body, &reboots.Settings{})
		if err == nil && slices.ContainsFunc(active, func(name string) bool { return name == "" || len(name) > 128 }) {
			t.Error(active)
		}
	})
}

func TestWhatIsWrittenOnANode(t *testing.T) {
	now := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	leave := &controlplane.Leave{Out: true, Reboot: true, Reason: "security updates"}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", ResourceVersion: "7"}}
	change := nodeChange(node, leave, nil, now)
	meta := change["metadata"].(map[string]any)
	annotations := meta["annotations"].(map[string]any)
	if meta["resourceVersion"] != "7" || annotations[cordonMark] != "security updates" || annotations[kuredInProgress] != "2026-03-02T12:00:00Z" ||
		meta["labels"].(map[string]any)[excludeLabel] != "true" || change["spec"].(map[string]any)["unschedulable"] != true {
		t.Errorf("%+v", change)
	}
	// As written, nothing more is to be done, and all of it is to be undone.
	node.Spec.Unschedulable, node.Labels = true, map[string]string{excludeLabel: "true"}
	node.Annotations = map[string]string{cordonMark: "x", outMark: "true", rebootMark: "true", kuredInProgress: "t", kuredMostRecentNeed: "t"}
	if change = nodeChange(node, leave, nil, now); change != nil {
		t.Errorf("again: %+v", change)
	}
	annotations = nodeChange(node, nil, nil, now)["metadata"].(map[string]any)["annotations"].(map[string]any)
	if _, undone := annotations[kuredMostRecentNeed]; undone || len(annotations) != 4 {
		t.Errorf("undone: %+v", annotations)
	}
	// What isn't ours is left alone; a kured of the user's own too.
	theirs := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{excludeLabel: "yes"}, Annotations: map[string]string{kuredInProgress: "t"}},
		Spec: corev1.NodeSpec{Unschedulable: true}}
	if change = nodeChange(theirs, nil, nil, now); change != nil {
		t.Errorf("theirs: %+v", change)
	}
	if change = nodeChange(theirs, &controlplane.Leave{Out: true}, nil, now); change != nil {
		t.Errorf("theirs, while it is left: %+v", change)
	}
}

func TestWhatHoldsAPod(t *testing.T) {
	old := metav1.NewTime(time.Now().Add(-time.Hour))
	pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &old, Finalizers: []string{"a/b"}}}
	if text := lasting(pod); !strings.Contains(text, "a/b") || !lingers(pod) {
		t.Error(text)
	}
	soon := metav1.NewTime(time.Now().Add(time.Minute))
	pod.DeletionTimestamp = &soon
	if text := lasting(pod); text != "" || lingers(pod) {
		t.Error(text)
	}
}

// Labels that a kubelet doesn't renew, and that of a node that couldn't be drained.
func TestLabelsOfNodes(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{"image": "1", "mine": "x"}}}
	wanted := map[string]string{"image": "2"}
	labels := func(change map[string]any) map[string]any {
		return change["metadata"].(map[string]any)["labels"].(map[string]any)
	}
	got := labels(nodeChange(node, &controlplane.Leave{Quarantined: true}, wanted, time.Now()))
	if got["image"] != "2" || got[statusLabel] != quarantinedStatus || len(got) != 2 {
		t.Errorf("labels %v", got)
	}
	node.Labels = map[string]string{"image": "2", statusLabel: quarantinedStatus}
	got = labels(nodeChange(node, nil, wanted, time.Now()))
	if gone, there := got[statusLabel]; !there || gone != nil || len(got) != 1 {
		t.Errorf("labels %v", got)
	}
	delete(node.Labels, statusLabel)
	if change := nodeChange(node, nil, wanted, time.Now()); change != nil {
		t.Errorf("nothing is to be changed, and %v is", change)
	}
}
