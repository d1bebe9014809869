// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"bastide.dev/controlplane"
)

func backupKey(t *testing.T) []byte {
	t.Helper()
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return []byte(key.String())
}

// backedUp has a control plane make a backup.
func (r *rig) backedUp(spec *controlplane.Spec, name string) controlplane.Backup {
	r.t.Helper()
	if spec.Backups == nil {
		spec.Backups = &controlplane.Backups{Key: backupKey(r.t)}
	}
	spec.Backups.Take = []string{name}
	r.apply(*spec)
	status := r.until(spec.ID, "backed up", func(s controlplane.Status) bool { return len(backupsOf(s, name)) == 1 })
	b := backupsOf(status, name)[0]
	if b.Error != "" {
		r.t.Fatal(b.Error)
	}
	spec.Backups.Take, spec.Backups.Keep = nil, append(spec.Backups.Keep, name)
	return b
}

func backupsOf(s controlplane.Status, name string) []controlplane.Backup {
	var found []controlplane.Backup
	for _, b := range s.Backups {
		if b.ID == name {
			found = append(found, b)
		}
	}
	return found
}

// restored has a control plane restored, and returns how that ended.
func (r *rig) restored(spec *controlplane.Spec, from *controlplane.Spec, b controlplane.Backup, token string) controlplane.RestoreStatus {
	r.t.Helper()
	spec.Restore = &controlplane.Restore{Token: token, Source: from.ID, Backup: b.ID, SHA256: b.SHA256, Key: from.Backups.Key, Secrets: from.Keys.SecretsEncryption}
	r.apply(*spec)
	var status controlplane.Status
	eventually(r.t, "restore "+token+" ended", func() bool {
		status = r.Status(spec.ID)
		return status.Restore.Ended() && status.Restore.Token == token
	})
	return *status.Restore
}

// kubelet's Nodes are nobody's here: what the agent says of them isn't looked at.
func configMap(name, value string) object {
	return object{"metadata": object{"name": name}, "data": object{"value": value}}
}

const (
	configMaps  = "/api/v1/namespaces/default/configmaps"
	secretsPath = "/api/v1/namespaces/default/secrets"
	podsPath    = "/api/v1/namespaces/default/pods"
)

// A cluster goes back to what it was: what was deleted is there again, what was
// made since is gone, and nodes are those that there are now.
func TestRestoreOfTheSameCluster(t *testing.T) {
	r := newRig(t)
	spec := r.spec("restore")
	spec.Addons = controlplane.Addons{}
	r.apply(spec)
	r.until(spec.ID, "ready", ready)
	admin := r.admin(spec)
	admin.must("POST", configMaps, configMap("kept", "1"))
	admin.must("POST", secretsPath, object{"metadata": object{"name": "word"}, "stringData": object{"word": "treasure"}})
	admin.node("node-1")
	admin.node("gone")
	b := r.backedUp(&spec, "first")
	if b.Objects < 50 || b.Size == 0 || len(b.SHA256) != 64 || b.Version != spec.Version || b.Revision == 0 {
		t.Errorf("the backup is described as %+v", b)
	}
	sealed, err := os.ReadFile(r.kept(spec.ID, "first.age"))
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(r.kept(spec.ID, "first.age")); err != nil || info.Mode().Perm() != 0o600 || bytes.Contains(sealed, []byte("kube-system")) {
		t.Errorf("the backup can be read by others: %v, %v", info.Mode(), err)
	}
	admin.must("DELETE", configMaps+"/kept", nil)
	admin.must("DELETE", secretsPath+"/word", nil)
	admin.must("DELETE", "/api/v1/nodes/gone", nil)
	admin.must("POST", configMaps, configMap("later", "1"))
	admin.node("node-2")
	version := resourceVersion(t, admin.must("GET", configMaps, nil))

	begin := time.Now()
	done := r.restored(&spec, &spec, b, "t1")
	t.Logf("%+v after %v", done, time.Since(begin))
	if done.Phase != controlplane.RestoreDone || done.Objects < 50 || done.Note != "" {
		t.Fatalf("the restore: %+v", done)
	}
	if code, _ := admin.do("GET", configMaps+"/kept", nil); code != 200 {
		t.Errorf("what was deleted: %d", code)
	}
	if code, _ := admin.do("GET", configMaps+"/later", nil); code != 404 {
		t.Errorf("what was made since: %d", code)
	}
	if word := admin.must("GET", secretsPath+"/word", nil); !bytes.Contains(word, []byte(base64.StdEncoding.EncodeToString([]byte("treasure")))) {
		t.Errorf("the secret is %s", word)
	}
	for name, want := range map[string]int{"node-1": 200, "node-2": 200, "gone": 404} {
		if code, _ := admin.do("GET", "/api/v1/nodes/"+name, nil); code != want {
			t.Errorf("node %s: %d, want %d", name, code, want)
		}
	}
	// Who remembers a revision of before is told to read everything anew.
	if code, answer := admin.do("GET", configMaps+"?watch=1&timeoutSeconds=2&resourceVersion="+version, nil); !bytes.Contains(answer, []byte("410")) {
		t.Errorf("a watch from before: %d %s", code, answer)
	}
	r.until(spec.ID, "ready", ready)
	eventually(t, "nothing is left of the data of before", func() bool { // cleared away after clients are let in
		_, before := os.Stat(r.Plane.dir(spec.ID, beforeDir))
		_, made := os.Stat(r.Plane.dir(spec.ID, restoreDir))
		return errors.Is(before, fs.ErrNotExist) && errors.Is(made, fs.ErrNotExist)
	})
	// The token was carried out: another Plane doesn't do so again, and another
	// token of the same backup is ahead of what clients saw since.
	admin.must("POST", configMaps, configMap("after", "1"))
	r.stop()
	r.begin()
	r.apply(spec)
	r.until(spec.ID, "ready", ready)
	if code, _ := admin.do("GET", configMaps+"/after", nil); code != 200 {
		t.Errorf("what was made after the restore: %d", code)
	}
	before := resourceVersion(t, admin.must("GET", configMaps, nil))
	if done := r.restored(&spec, &spec, b, "t2"); done.Phase != controlplane.RestoreDone {
		t.Fatalf("the second restore: %+v", done)
	}
	if after := resourceVersion(t, admin.must("GET", configMaps, nil)); len(after) < len(before) || len(after) == len(before) && after <= before {
		t.Errorf("revision %s after %s", after, before)
	}
	spec.Restore, spec.Backups = nil, nil
	r.apply(spec)
	if left, _ := filepath.Glob(r.kept(spec.ID, "*")); len(left) > 0 {
		t.Errorf("backups that nobody asks for: %v", left)
	}
}

func resourceVersion(t *testing.T, list []byte) string {
	t.Helper()
	var o struct {
		Metadata struct{ ResourceVersion string }
	}
	if err := json.Unmarshal(list, &o); err != nil || o.Metadata.ResourceVersion == "" {
		t.Fatalf("no revision in %s", list)
	}
	return o.Metadata.ResourceVersion
}

// A cluster takes the place of another: its objects and Secrets, and nothing that
// is of the other's machines or keys.
func TestRestoreIntoAnotherCluster(t *testing.T) {
	r := newRig(t)
	spec := r.spec("source")
	spec.Addons = controlplane.Addons{}
	r.apply(spec)
	r.until(spec.ID, "ready", ready)
	admin := r.admin(spec)
	admin.must("POST", configMaps, configMap("kept", "1"))
	admin.must("POST", secretsPath, object{"metadata": object{"name": "word"}, "stringData": object{"word": "treasure"}})
	eventually(t, "the default service account", func() bool {
		code, _ := admin.do("GET", "/api/v1/namespaces/default/serviceaccounts/default", nil)
		return code == 200
	})
	admin.node("node-1")
	for name, on := range map[string]string{"bound": "node-1", "waiting": ""} {
		admin.must("POST", podsPath, object{"metadata": object{"name": name}, "spec": object{"nodeName": on, "schedulerName": "nobody", "containers": []any{object{"name": "c", "image": "i"}}}})
	}
	admin.must("POST", "/api/v1/namespaces/default/services", object{"metadata": object{"name": "lb"}, "spec": object{"type": "LoadBalancer", "ports": []any{object{"port": 80}}}})
	admin.must("PATCH", "/api/v1/namespaces/default/services/lb/status", object{"status": object{"loadBalancer": object{"ingress": []any{object{"ip": "198.51.100.7"}}}}}, "Content-Type", "application/merge-patch+json")
	admin.must("POST", secretsPath, object{"metadata": object{"name": "token", "annotations": object{"kubernetes.io/service-account.name": "default"}}, "type": "kubernetes.io/service-account-token"})
	eventually(t, "a token", func() bool { return bytes.Contains(admin.must("GET", secretsPath+"/token", nil), []byte(`"token":"`)) })
	oldToken := admin.must("GET", secretsPath+"/token", nil)
	b := r.backedUp(&spec, "first")

	other := r.spec("target")
	other.Addons = controlplane.Addons{}
	other.Nodes = []controlplane.Node{{Name: "target-1", Address: netip.MustParseAddr("10.224.0.7")}}
	r.apply(other)
	r.until(other.ID, "ready", ready)
	there := r.admin(other)
	there.node("target-1")
	there.must("POST", configMaps, configMap("own", "1"))
	if done := r.restored(&other, &spec, b, "t1"); done.Phase != controlplane.RestoreDone {
		t.Fatalf("the restore: %+v", done)
	}
	for path, want := range map[string]int{configMaps + "/kept": 200, configMaps + "/own": 404, "/api/v1/nodes/node-1": 404, "/api/v1/nodes/target-1": 200,
		podsPath + "/bound": 404, podsPath + "/waiting": 200} {
		if code, answer := there.do("GET", path, nil); code != want {
			t.Errorf("%s: %d, want %d: %s", path, code, want, answer)
		}
	}
	if word := there.must("GET", secretsPath+"/word", nil); !bytes.Contains(word, []byte(base64.StdEncoding.EncodeToString([]byte("treasure")))) {
		t.Errorf("the secret is %s", word)
	}
	if service := there.must("GET", "/api/v1/namespaces/default/services/lb", nil); bytes.Contains(service, []byte("198.51.100.7")) {
		t.Errorf("the service has the other's address: %s", service)
	}
	eventually(t, "a token of its own", func() bool {
		token := there.must("GET", secretsPath+"/token", nil)
		return bytes.Contains(token, []byte(`"token":"`)) && !bytes.Contains(token, dataOf(t, oldToken, "token"))
	})
	// Both etcds are asked for themselves: the source's key isn't in the target's.
	if raw := r.rawSecret(&other, "default/word"); bytes.Contains(raw, []byte(controlplane.EncryptionKeyName(spec.Keys.SecretsEncryption))) || !bytes.Contains(raw, []byte(controlplane.EncryptionKeyName(other.Keys.SecretsEncryption))) {
		t.Errorf("the secret is kept as %q", raw[:min(len(raw), 60)])
	}
	published := string(there.must("GET", "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication", nil))
	if strings.Contains(published, escaped(spec.Keys.CA.Certificate)) || !strings.Contains(published, escaped(other.Keys.CA.Certificate)) {
		t.Error("the target tells extension API servers to believe the source's authority")
	}
}

func escaped(pem []byte) string {
	text, _ := json.Marshal(string(pem)) // a string always encodes
	return string(text[1 : len(text)-3])
}

func dataOf(t *testing.T, secret []byte, name string) []byte {
	t.Helper()
	var o struct{ Data map[string]string }
	if err := json.Unmarshal(secret, &o); err != nil || o.Data[name] == "" {
		t.Fatalf("no %s in it: %v", name, err)
	}
	return []byte(o.Data[name])
}

func (r *rig) rawSecret(spec *controlplane.Spec, name string) []byte {
	r.t.Helper()
	client, err := r.etcdClient(*spec)
	if err != nil {
		r.t.Fatal(err)
	}
	defer client.Close()
	answer, err := client.Get(r.t.Context(), rootKey+"secrets/"+name)
	if err != nil || len(answer.Kvs) != 1 {
		r.t.Fatalf("%v, %v", answer, err)
	}
	return answer.Kvs[0].Value
}

// What can't be restored is refused while the cluster serves; what doesn't become
// ready is taken back.
func TestRestoreRefusedAndTakenBack(t *testing.T) {
	r := newRig(t)
	spec := r.spec("broken")
	spec.Addons = controlplane.Addons{}
	r.apply(spec)
	r.until(spec.ID, "ready", ready)
	admin := r.admin(spec)
	admin.must("POST", secretsPath, object{"metadata": object{"name": "word"}, "stringData": object{"word": "treasure"}})
	b := r.backedUp(&spec, "first")
	admin.must("POST", configMaps, configMap("later", "1"))
	served := pid(r.Status(spec.ID), controlplane.APIServer)

	sealed, err := os.ReadFile(r.kept(spec.ID, "first.age"))
	if err != nil {
		t.Fatal(err)
	}
	damage := func(change func([]byte) []byte) func(*controlplane.Restore) {
		return func(*controlplane.Restore) {
			if err := os.WriteFile(r.kept(spec.ID, "first.age"), change(bytes.Clone(sealed)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		change func(*controlplane.Restore)
		want   string
	}{
		"flipped":     {damage(func(b []byte) []byte { b[len(b)/2] ^= 1; return b }), "damaged"},
		"cut":         {damage(func(b []byte) []byte { return b[:len(b)-70000] }), "damaged"},
		"other-key":   {func(x *controlplane.Restore) { x.Key = backupKey(t) }, "can't be opened"},
		"other-sum":   {func(x *controlplane.Restore) { x.SHA256 = strings.Repeat("0", 64) }, "another checksum"},
		"wrong-seal":  {func(x *controlplane.Restore) { x.Secrets = bytes.Repeat([]byte{7}, 32) }, "sealed with another key"},
		"not-there":   {func(x *controlplane.Restore) { x.Backup = "second" }, "no such file"},
		"other-place": {func(x *controlplane.Restore) { x.Source = "nowhere" }, "no such file"},
	} {
		damage(func(b []byte) []byte { return b })(nil)
		asked := controlplane.Restore{Token: name, Source: spec.ID, Backup: b.ID, SHA256: b.SHA256, Key: spec.Backups.Key, Secrets: spec.Keys.SecretsEncryption}
		c.change(&asked)
		with := spec
		with.Restore = &asked
		r.apply(with)
		eventually(t, name+" ended", func() bool { s := r.Status(spec.ID).Restore; return s.Ended() && s.Token == name })
		if s := r.Status(spec.ID).Restore; s.Phase != controlplane.RestoreFailed || !strings.Contains(s.Error, c.want) || strings.Contains(s.Error, "AGE-SECRET") {
			t.Errorf("%s: %+v", name, s)
		}
	}
	if now := pid(r.Status(spec.ID), controlplane.APIServer); now != served {
		t.Error("the API server was disturbed by restores that were refused")
	}

	// An API server that can't read the namespace of the system isn't good.
	damage(func(b []byte) []byte { return b })(nil)
	r.Plane.ReadyWithin = 5 * time.Second
	r.Plane.reached = func(point string) {
		if point == "restore-prepared" {
			r.spoil(&spec)
		}
	}
	if s := r.restored(&spec, &spec, b, "spoilt"); s.Phase != controlplane.RestoreFailed || !strings.Contains(s.Error, "as it was") {
		t.Errorf("spoilt: %+v", s)
	}
	r.until(spec.ID, "ready", ready)
	if code, _ := admin.do("GET", configMaps+"/later", nil); code != 200 {
		t.Errorf("what was made after the backup: %d", code)
	}
}

// spoil damages an object in the data that is about to be in charge.
func (r *rig) spoil(spec *controlplane.Spec) {
	client, err := r.trialClient(context.Background(), spec)
	if err != nil {
		r.t.Error(err)
		return
	}
	defer client.Close()
	if _, err := client.Put(context.Background(), rootKey+"namespaces/kube-system", "damaged"); err != nil {
		r.t.Error(err)
	}
}
