// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bastide.dev/bundle"
	"bastide.dev/controlplane"
	"bastide.dev/pki"
)

// anotherEtcd is what makes etcd start anew: it trusts one authority more.
func anotherEtcd(t *testing.T, spec *controlplane.Spec) {
	t.Helper()
	pair, err := pki.NewCA("another", 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	spec.Keys.Former.Etcd = append(bytes.Clone(spec.Keys.Former.Etcd), pair.Certificate...)
}

// TestEtcdUnnoticed starts etcd anew, and the API server with it, under load.
func TestEtcdUnnoticed(t *testing.T) {
	r := newRig(t)
	spec := r.spec("a-etcd")
	r.apply(spec)
	r.until(spec.ID, "ready", ready)
	before := pid(r.Status(spec.ID), controlplane.Etcd)
	l := newLoad(r, spec)
	for n := range 3 {
		anotherEtcd(t, &spec)
		begin := time.Now()
		r.apply(spec)
		status := r.until(spec.ID, "ready", ready)
		t.Logf("%d: etcd and API server anew in %v", n, time.Since(begin))
		if now := pid(status, controlplane.Etcd); now == before || status.Refused != "" {
			t.Errorf("etcd is pid %d still: %+v", now, status)
		} else {
			before = now
		}
	}
	for _, point := range []string{"etcd", "held", "replaced"} {
		anotherEtcd(t, &spec)
		r.killedAt(point, spec)
		if status := r.until(spec.ID, "ready after "+point, ready); status.Refused != "" {
			t.Errorf("%s: %+v", point, status)
		}
		if now := r.readRunning(spec.ID); now.Holding {
			t.Errorf("%s: clients are held still: %+v", point, now)
		}
	}
	l.end()
	kept, err := filepath.Glob(r.Plane.dir(spec.ID, backupsDir, "*"))
	if err != nil || len(kept) != upgradeKept {
		t.Errorf("snapshots %v, %v", kept, err)
	}
	restores(t, r, spec, kept[len(kept)-1])
}

// restores has etcd's own tool read a snapshot.
func restores(t *testing.T, r *rig, spec controlplane.Spec, snapshot string) {
	t.Helper()
	b, err := bundle.Open(r.CacheDir, "etcd", spec.Etcd)
	if err != nil {
		t.Fatal(err)
	}
	tool := b.Path("etcdutl")
	if tool == "" {
		t.Fatal("the bundle has no etcdutl")
	}
	to := filepath.Join(t.TempDir(), "restored")
	if out, err := exec.Command(tool, "snapshot", "restore", snapshot, "--data-dir="+to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := os.Stat(filepath.Join(to, "member", "snap", "db")); err != nil {
		t.Error(err)
	}
}

// TestEtcdRefused asks for an etcd that there isn't.
func TestEtcdGoesBack(t *testing.T) {
	r := newRig(t)
	spec := r.spec("a-etcdback")
	r.apply(spec)
	r.until(spec.ID, "ready", ready)
	in := r.instance(spec.ID)
	a := &attempt{key: "k", spec: spec}
	in.mu.Lock()
	in.attempt = a
	in.mu.Unlock()
	d, err := r.draft(spec, controlplane.FirstSlot, r.UIDBase)
	if err != nil {
		t.Fatal(err)
	}
	broken, err := d.standing(controlplane.Etcd)
	if err != nil {
		t.Fatal(err)
	}
	whole := broken
	broken.Args = append(strings.Fields(strings.Join(broken.Args, " ")), "--no-such-flag")
	if err := r.launchEtcd(t.Context(), in, a, broken); err != nil {
		t.Fatal(err)
	}
	r.until(spec.ID, "without etcd", func(s controlplane.Status) bool { return pid(s, controlplane.Etcd) == 0 })
	api, err := dialSlot(spec, r.Netns(spec.Namespace), controlplane.FirstSlot)
	if err != nil {
		t.Fatal(err)
	}
	defer api.hangUp()
	if err := r.etcdBack(t.Context(), in, a, whole, api); err != nil {
		t.Error(err)
	}
	if now := r.readRunning(spec.ID); !same(now.Launched[controlplane.Etcd], whole) {
		t.Errorf("%+v", now)
	}
	in.mu.Lock()
	in.attempt = nil
	in.mu.Unlock()
}

// TestSnapshotsAreFew keeps the newest, whatever the clock says.
func TestSnapshotsAreFew(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{halfSnapshot + "123", "scheduled.db", upgradeMark + "20250101.db", upgradeMark + "20300101.db", upgradeMark + "20300102.db", upgradeMark + "20300103.db", upgradeMark + "20260101.db"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := &Plane{}
	if err := p.pruneSnapshots(dir, upgradeMark+"20260101.db"); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, e := range entries {
		left = append(left, strings.TrimSuffix(strings.TrimPrefix(e.Name(), upgradeMark), ".db"))
	}
	if got := strings.Join(left, " "); got != "20260101 20300102 20300103 scheduled" {
		t.Errorf("left %s", got)
	}
}

func TestCountExecuting(t *testing.T) {
	const table = "PriorityLevelName, ActiveQueues, IsIdle, IsQuiescing, WaitingRequests, ExecutingRequests, DispatchedRequests, RejectedRequests, TimedoutRequests, CancelledRequests\n" +
		"system, 0, true, false, 2, 3, 100, 0, 0, 0\nexempt, <none>, <none>, <none>, <none>, 1, 5, <none>, <none>, <none>\n"
	if n, err := countExecuting(table); n != 6 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	for _, wrong := range []string{"", "a, b\n1, 2\n", "\"x"} {
		if _, err := countExecuting(wrong); err == nil {
			t.Errorf("%q is a table", wrong)
		}
	}
}
