// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"bastide.dev/arm"
	"bastide.dev/controlplane"
	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

const (
	testBackup    = testCluster + "/backups/first"
	restoreAction = testCluster + "/restore"
	policyPath    = testCluster + "/backupPolicies/default"
	sumOfBackup   = "00000000000000000000000000000000000000000000000000000000000000ab"
)

// vault is what hosts keep of backups, as package controlplane/linux does.
type vault struct {
	w      *world
	kept   map[string]controlplane.Backup
	taken  int
	broken string                    // why none can be made
	fails  string                    // why none can be restored
	phase  controlplane.RestorePhase // where restores stand; empty: they are done
	seen   []controlplane.Restore    // in their order, each token once
	done   map[string]controlplane.RestoreStatus
}

func newVault(w *world) *vault {
	v := &vault{w: w, kept: map[string]controlplane.Backup{}, done: map[string]controlplane.RestoreStatus{}}
	w.host.Told = v.tell
	return v
}

func (v *vault) tell(status *controlplane.Status) {
	spec := v.w.host.Planes[status.ID]
	if b := spec.Backups; b != nil {
		for _, id := range b.Take {
			if _, made := v.kept[id]; !made && v.broken == "" && len(b.Key) > 0 {
				v.taken++
				v.kept[id] = controlplane.Backup{ID: id, Taken: v.w.p.Now().UTC(), Revision: 7, Objects: 100, Size: 4096, SHA256: sumOfBackup, Version: spec.Version, Etcd: spec.Etcd}
			}
			if v.broken != "" {
				status.Backups = append(status.Backups, controlplane.Backup{ID: id, Error: v.broken})
			}
		}
		for _, id := range slices.Concat(b.Take, b.Keep) {
			if made, is := v.kept[id]; is {
				status.Backups = append(status.Backups, made)
			}
		}
	}
	for id := range v.kept {
		if spec.Backups == nil || !slices.Contains(slices.Concat(spec.Backups.Take, spec.Backups.Keep), id) {
			if strings.HasPrefix(id, "b") && len(v.w.host.Planes) == 1 {
				delete(v.kept, id)
			}
		}
	}
	r := spec.Restore
	if r == nil {
		return
	}
	s, known := v.done[r.Token]
	if !known {
		v.seen = append(v.seen, *r)
		s = controlplane.RestoreStatus{Token: r.Token, Phase: controlplane.RestoreDone}
		if v.fails != "" {
			s.Phase, s.Error = controlplane.RestoreFailed, v.fails
		}
		v.done[r.Token] = s
	}
	if v.phase != "" {
		s.Phase = v.phase
	}
	status.Restore = &s
}

func (w *world) backup(path string) object {
	w.t.Helper()
	return get(w.view(path, testVersion), "properties").(object)
}

func (w *world) backupNames() []string {
	w.t.Helper()
	all, err := w.p.backupsOf(w.t.Context(), resource.MustParseID(testCluster))
	if err != nil {
		w.t.Fatal(err)
	}
	var names []string
	for _, b := range all {
		names = append(names, b.Name)
	}
	slices.Sort(names)
	return names
}

func TestBackupsAreTakenAndForgotten(t *testing.T) {
	w := newWorld(t)
	v := newVault(w)
	w.must("PUT", testCluster, azBody(1), resource.Succeeded)
	if w.plane().Backups != nil {
		t.Error("a cluster without backups is asked for some")
	}
	w.must("PUT", testBackup, "", resource.Succeeded)
	b := w.backup(testBackup)
	for name, want := range map[string]any{"provisioningState": "Succeeded", "available": true, "sha256": sumOfBackup, "objects": 100.0, "kubernetesVersion": "1.35.4", "scheduled": false, "error": nil} {
		if b[name] != want {
			t.Errorf("%s is %v, want %v", name, b[name], want)
		}
	}
	if _, plan, err := w.do(t.Context(), "PUT", testBackup, ""); err != nil || plan.Async {
		t.Errorf("a second PUT of the same backup: %v, %v", plan, err)
	}
	w.settle()
	if v.taken != 1 {
		t.Errorf("%d were taken, want 1", v.taken)
	}
	spec := w.plane()
	if len(spec.Backups.Take) != 0 || len(spec.Backups.Keep) != 1 || !strings.HasPrefix(string(spec.Backups.Key), "AGE-SECRET-KEY-") {
		t.Errorf("the host is asked for take %v, keep %v", spec.Backups.Take, spec.Backups.Keep)
	}
	w.noBackupKeys(spec.Backups.Key)

	// A host that lost it doesn't make another of another time.
	lost := v.kept[spec.Backups.Keep[0]]
	delete(v.kept, lost.ID)
	w.settle()
	if b := w.backup(testBackup); b["available"] != false || b["error"] == nil || v.taken != 1 {
		t.Errorf("a lost backup reads %v after %d were taken", b, v.taken)
	}
	v.kept[lost.ID] = lost
	w.settle()
	if b := w.backup(testBackup); b["available"] != true {
		t.Errorf("a backup that is found again reads %v", b)
	}

	v.broken = "the disk is full"
	w.must("PUT", testCluster+"/backups/second", "", resource.Failed)
	if b := w.backup(testCluster + "/backups/second"); b["provisioningState"] != "Failed" || b["available"] != false || !strings.Contains(fmt.Sprint(b["error"]), "full") {
		t.Errorf("a backup that failed reads %v", b)
	}
	if len(w.plane().Backups.Take) != 0 {
		t.Error("the host is still asked for what failed")
	}
	v.broken = ""
	w.must("PUT", testCluster+"/backups/second", "", resource.Succeeded)

	w.must("POST", testCluster+"/stop", "", resource.Succeeded)
	if _, _, err := w.do(t.Context(), "PUT", testCluster+"/backups/third", ""); err == nil || !strings.Contains(err.Error(), "stopped") {
		t.Errorf("a backup of a stopped cluster: %v", err)
	}
	w.must("DELETE", testCluster, "", resource.Succeeded)
	w.nothingLeft()
}

// noBackupKeys looks for keys where everybody may read.
func (w *world) noBackupKeys(key []byte) {
	w.t.Helper()
	records, _, err := w.memory.List(w.t.Context(), "")
	if err != nil {
		w.t.Fatal(err)
	}
	for _, r := range records {
		if strings.Contains(string(r.Value), string(key)) && !strings.HasPrefix(r.Key, "secrets/") && !strings.Contains(r.Key, "/units/") {
			w.t.Errorf("a key of backups stands in %s", r.Key)
		}
	}
}

func TestBackupsRefused(t *testing.T) {
	w := newWorld(t)
	newVault(w)
	w.must("PUT", testCluster, azBody(1), resource.Succeeded)
	for path, body := range map[string]string{testCluster + "/backups/-x": "", testBackup: `{"kind":"full"}`, testCluster + "/backupPolicies/mine": `{"properties":{"intervalHours":1,"retentionCount":1}}`} {
		if _, _, err := w.do(t.Context(), "PUT", path, body); !fault.Is(err, fault.Invalid) {
			t.Errorf("PUT %s %s: %v", path, body, err)
		}
	}
	for body, want := range map[string]int{
		`{}`: 2, `{"properties":{"intervalHours":0,"retentionCount":101}}`: 2, `{"properties":{"intervalHours":169,"retentionCount":5}}`: 1,
		`{"properties":{"intervalHours":1.5,"retentionCount":"7","days":1},"kind":"x"}`: 4, `{"properties":[]}`: 2,
	} {
		if _, _, err := w.do(t.Context(), "PUT", policyPath, body); len(problems(err)) != want {
			t.Errorf("%s has problems %v, want %d", body, problems(err), want)
		}
	}
}

// A policy has backups made in time, once for all that were missed, and forgets
// the oldest of its own.
func TestBackupPolicy(t *testing.T) {
	w := newWorld(t)
	v := newVault(w)
	now := time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)
	w.p.Now = func() time.Time { return now }
	w.must("PUT", testCluster, azBody(1), resource.Succeeded)
	w.must("PUT", testBackup, "", resource.Succeeded)
	w.must("PUT", policyPath, `{"properties":{"intervalHours":6,"retentionCount":2}}`, resource.Succeeded)
	after := func(d time.Duration, want int, what string) {
		t.Helper()
		now = now.Add(d)
		w.settle()
		if v.taken != want {
			t.Fatalf("%s: %d were taken, want %d", what, v.taken, want)
		}
	}
	after(0, 2, "when the policy is new")
	after(5*time.Hour, 2, "before the next is due")
	after(time.Hour, 3, "when it is due")
	after(100*time.Hour, 4, "many that were missed")
	after(time.Minute, 4, "a moment later")
	if names := w.backupNames(); len(names) != 3 || names[0] != "first" || !strings.HasPrefix(names[2], "scheduled-20270305t2200") {
		t.Errorf("kept are %v", names)
	}
	if len(v.kept) != 3 {
		t.Errorf("the host keeps %d", len(v.kept))
	}
	v.broken = "etcd doesn't answer"
	after(6*time.Hour, 4, "one that fails")
	for range 5 {
		after(time.Hour, 4, "and fails again")
	}
	if names := w.backupNames(); len(names) != 3+failedKept {
		t.Errorf("with those that failed: %v", names)
	}
	v.broken = ""
	after(time.Hour, 5, "it works again")
	after(-1000*time.Hour, 6, "a clock that went back")
	after(time.Hour, 6, "and goes on from there")
	w.must("POST", testCluster+"/stop", "", resource.Succeeded)
	after(50*time.Hour, 6, "of a stopped cluster")
	w.must("POST", testCluster+"/start", "", resource.Succeeded)
	after(0, 7, "when it is started")
	if err := w.memory.Delete(t.Context(), arm.DocumentKey(resource.MustParseID(policyPath)), store.Any); err != nil {
		t.Fatal(err)
	}
	after(50*time.Hour, 7, "without a policy")
}

func TestRestoreOfACluster(t *testing.T) {
	w := newWorld(t)
	v := newVault(w)
	w.must("PUT", testCluster, azBody(1), resource.Succeeded)
	w.must("PUT", testBackup, "", resource.Succeeded)
	body := fmt.Sprintf(`{"backupId":%q}`, testBackup)
	w.must("POST", restoreAction, body, resource.Succeeded)
	if len(v.seen) != 1 || v.seen[0].SHA256 != sumOfBackup || len(v.seen[0].Secrets) != 32 || v.seen[0].Source != w.state().ID {
		t.Fatalf("the host was asked for %d restores", len(v.seen))
	}
	if w.plane().Restore != nil || w.state().Restore != nil {
		t.Error("the restore is still asked for")
	}
	if _, err := w.memory.Get(t.Context(), restoreKeyKey(w.state().UID)); !fault.Is(err, fault.NotFound) {
		t.Errorf("its keys are still there: %v", err)
	}
	w.must("POST", restoreAction, body, resource.Succeeded)
	if len(v.seen) != 2 || v.seen[0].Token == v.seen[1].Token {
		t.Error("a second restore isn't one")
	}

	v.fails = "the backup is damaged"
	op, _, err := w.do(t.Context(), "POST", restoreAction, body)
	if err != nil {
		t.Fatal(err)
	}
	w.settle()
	w.ended(op, resource.Failed)
	if operation, err := w.p.ops.Get(t.Context(), op); err != nil || operation.Error.Code != "RestoreFailed" || !strings.Contains(operation.Error.Message, "damaged") {
		t.Errorf("the operation says %+v, %v", operation.Error, err)
	}
	v.fails = ""
	w.must("PUT", testCluster, azBody(2), resource.Succeeded)

	// A cluster that is restored isn't done before what was restored is in charge.
	v.phase = controlplane.RestoreTrying
	op, _, err = w.do(t.Context(), "POST", restoreAction, body)
	if err != nil {
		t.Fatal(err)
	}
	w.settle()
	w.ended(op, arm.InProgress)
	if state := w.document(t.Context(), resource.MustParseID(testCluster)).ProvisioningState; state != restoringState {
		t.Errorf("the cluster is %s", state)
	}
	v.phase = ""
	w.settle()
	w.ended(op, resource.Succeeded)
}

// gate lets do what isn't denied at a scope.
type gate struct{ denied map[string]string }

func (g gate) Authorize(_ context.Context, _ arm.Principal, action string, scope resource.ID) error {
	if at, is := g.denied[action]; is && strings.EqualFold(at, scope.String()) {
		return fault.New(fault.Forbidden, "AuthorizationFailed", "no")
	}
	return nil
}

func TestRestoreRefused(t *testing.T) {
	w := newWorld(t)
	newVault(w)
	w.must("PUT", testCluster, azBody(1), resource.Succeeded)
	w.must("PUT", testBackup, "", resource.Succeeded)
	other := strings.Replace(testCluster, "/c1", "/c2", 1)
	make := func(path, from, to string) {
		t.Helper()
		w.must("PUT", path, strings.NewReplacer("c1-rg1", "c2-rg1", from, to).Replace(azBody(1)), resource.Succeeded)
	}
	make(other, "x", "x")
	body := fmt.Sprintf(`{"backupId":%q}`, testBackup)
	refused := func(what, path, body, want string) {
		t.Helper()
		_, _, err := w.do(t.Context(), "POST", path, body)
		if f := fault.From(err); err == nil || !strings.Contains(fmt.Sprint(f.Code, problems(err)), want) {
			t.Errorf("%s: %v, want %s", what, err, want)
		}
	}
	for what, body := range map[string]string{"nothing": "{}", "a cluster": fmt.Sprintf(`{"backupId":%q}`, testCluster), "a number": `{"backupId":1}`} {
		refused(what, restoreAction, body, "InvalidBackupId")
	}
	refused("one that isn't there", restoreAction, fmt.Sprintf(`{"backupId":%q}`, testCluster+"/backups/none"), "BackupNotFound")
	refused("more", restoreAction, fmt.Sprintf(`{"backupId":%q,"force":true}`, testBackup), "force")

	// Who may not have all that is in it by himself doesn't get it by way of another cluster.
	for action, scope := range map[string]string{clusterType + "/write": testCluster, clusterType + "/listClusterAdminCredential/action": testCluster, backupType + "/read": testBackup} {
		w.p.Authorizer = gate{map[string]string{action: scope}}
		refused(action, other+"/restore", body, "LinkedAuthorizationFailed")
	}
	w.p.Authorizer = gate{map[string]string{clusterType + "/write": other}}
	refused("the right to change the cluster", other+"/restore", body, "LinkedAuthorizationFailed")
	w.p.Authorizer = anyone{}
	w.must("POST", other+"/restore", body, resource.Succeeded)

	third := strings.Replace(testCluster, "/c1", "/c3", 1)
	make(third, `"serviceCidr":"10.0.0.0/16","dnsServiceIP":"10.0.0.10"`, `"serviceCidr":"10.1.0.0/16","dnsServiceIP":"10.1.0.10"`)
	refused("another service network", third+"/restore", body, "ServiceNetworkDiffers")
	w.rewriteBackup(testBackup, func(s *backupState) { s.Made.Version = "1.36.3" })
	refused("a newer Kubernetes", restoreAction, body, "KubernetesVersionTooOld")
	w.rewriteBackup(testBackup, func(s *backupState) { s.Made = nil })
	refused("one that isn't made", restoreAction, body, "BackupNotAvailable")
	w.must("POST", testCluster+"/stop", "", resource.Succeeded)
	refused("a stopped cluster", restoreAction, body, "OperationNotAllowed")
}

func (w *world) rewriteBackup(path string, change func(*backupState)) {
	w.t.Helper()
	d := w.document(w.t.Context(), resource.MustParseID(path))
	var s backupState
	if err := json.Unmarshal(d.State, &s); err != nil {
		w.t.Fatal(err)
	}
	change(&s)
	changes, err := stateChange(nil, d, s)
	if err == nil {
		_, err = w.memory.Txn(w.t.Context(), changes...)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// A kill at any write leaves what the next process goes on from.
func TestBackupAndRestoreSurviveKills(t *testing.T) {
	deaths := 0
	for died, n := true, 1; died; n++ {
		w := newWorld(t)
		newVault(w)
		w.must("PUT", testCluster, azBody(1), resource.Succeeded)
		w.must("PUT", policyPath, `{"properties":{"intervalHours":6,"retentionCount":2}}`, resource.Succeeded)
		k := &killer{Store: w.memory, left: n, after: n%2 == 0}
		w.restart(k)
		died = w.survive(k, "PUT", testBackup, "")
		died = w.survive(k, "POST", restoreAction, fmt.Sprintf(`{"backupId":%q}`, testBackup)) || died
		if b := w.backup(testBackup); b["available"] != true || w.state().Restore != nil {
			t.Fatalf("killed at write %d: %v", n, b)
		}
		if died {
			deaths++
		}
	}
	if deaths < 5 {
		t.Errorf("only %d writes were there to be killed at", deaths)
	}
}
