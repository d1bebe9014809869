// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"bastide.dev/controlplane"
)

// A Plane that is killed at any step of a restore leaves what the next one ends:
// the cluster is restored, or as it was.
func TestRestoreGoesOnAfterAKill(t *testing.T) {
	r := newRig(t)
	spec := r.spec("killed")
	spec.Addons = controlplane.Addons{}
	r.apply(spec)
	r.until(spec.ID, "ready", ready)
	admin := r.admin(spec)
	admin.must("POST", configMaps, configMap("kept", "1"))
	b := r.backedUp(&spec, "first")
	for _, point := range []string{"restore-prepared", "restore-trying"} {
		if code, _ := admin.do("DELETE", configMaps+"/kept", nil); code != 200 {
			t.Fatalf("delete: %d", code)
		}
		reached := make(chan struct{})
		plane := r.Plane
		plane.reached = func(at string) {
			if at == point {
				plane.cancel()
				close(reached)
			}
		}
		spec.Restore = &controlplane.Restore{Token: "t-" + point[8:], Source: spec.ID, Backup: b.ID, SHA256: b.SHA256, Key: spec.Backups.Key, Secrets: spec.Keys.SecretsEncryption}
		r.apply(spec)
		select {
		case <-reached:
		case <-time.After(2 * time.Minute):
			t.Fatalf("never came to %s", point)
		}
		r.stop()
		r.begin()
		r.apply(spec)
		eventually(t, "the restore ends after a kill at "+point, func() bool {
			s := r.Status(spec.ID).Restore
			return s.Ended() && s.Token == spec.Restore.Token && s.Phase == controlplane.RestoreDone
		})
		r.until(spec.ID, "ready", ready)
		if code, _ := admin.do("GET", configMaps+"/kept", nil); code != 200 {
			t.Errorf("killed at %s: what was deleted: %d", point, code)
		}
	}
}

// Directories are moved by what is written down, wherever it was interrupted.
func TestDataIsMovedWhereverItWasInterrupted(t *testing.T) {
	for name, c := range map[string]struct {
		there string // directories with content, e an empty one
		back  bool
		want  string
	}{
		"begun":              {"etcd=old restore/data=new", false, "etcd=new etcd.before=old"},
		"old one moved":      {"etcd.before=old restore/data=new", false, "etcd=new etcd.before=old"},
		"an empty one made":  {"etcd= etcd.before=old restore/data=new", false, "etcd=new etcd.before=old"},
		"done":               {"etcd=new etcd.before=old", false, "etcd=new etcd.before=old"},
		"back":               {"etcd=new etcd.before=old", true, "etcd=old"},
		"back, new one gone": {"etcd.before=old", true, "etcd=old"},
		"back, an empty one": {"etcd= etcd.before=old", true, "etcd=old"},
		"back, done":         {"etcd=old", true, "etcd=old"},
	} {
		p := &Plane{Config: Config{StateDir: t.TempDir()}}
		for _, text := range strings.Fields(c.there) {
			dir, content, _ := strings.Cut(text, "=")
			if err := os.MkdirAll(p.dir("c", dir), 0o700); err != nil {
				t.Fatal(err)
			}
			if content != "" {
				if err := os.WriteFile(p.dir("c", dir, "db"), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		move := p.replaceData
		if c.back {
			move = p.returnData
		}
		for range 2 {
			if err := move("c"); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		var is []string
		for _, dir := range []string{"etcd", "etcd.before", "restore/data"} {
			if data, err := os.ReadFile(p.dir("c", dir, "db")); err == nil {
				is = append(is, dir+"="+string(data))
			}
		}
		if got := strings.Join(is, " "); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// Ten thousand objects come back within the time that an operator may wait.
func TestRestoreOfTenThousandObjects(t *testing.T) {
	r := newRig(t)
	spec := r.spec("large")
	spec.Addons = controlplane.Addons{}
	r.apply(spec)
	r.until(spec.ID, "ready", ready)
	const objects = 10_000
	r.fill(&spec, objects)
	b := r.backedUp(&spec, "first")
	if b.Objects < objects {
		t.Errorf("the backup has %d objects", b.Objects)
	}
	begin := time.Now()
	done := r.restored(&spec, &spec, b, "t1")
	if done.Phase != controlplane.RestoreDone || done.Objects < objects {
		t.Fatalf("the restore: %+v", done)
	}
	t.Logf("%d objects, %d bytes restored after %v", done.Objects, b.Size, time.Since(begin))
	list := r.admin(spec).must("GET", secretsPath+"?limit=1", nil)
	if !bytes.Contains(list, []byte(`"remainingItemCount":`)) {
		t.Errorf("the list says %s", list[:min(len(list), 300)])
	}
}

// fill makes secrets and config maps as the API server keeps them.
func (r *rig) fill(spec *controlplane.Spec, n int) {
	r.t.Helper()
	codec, err := newCodec()
	if err != nil {
		r.t.Fatal(err)
	}
	client, err := r.etcdClient(*spec)
	if err != nil {
		r.t.Fatal(err)
	}
	defer client.Close()
	w := &batch{client: client}
	for i := range n {
		meta := metav1.ObjectMeta{Name: fmt.Sprintf("o%05d", i), Namespace: "default", UID: types.UID(fmt.Sprintf("00000000-0000-0000-0000-%012d", i))}
		plain, err := codec.encode(&corev1.Secret{ObjectMeta: meta, Type: corev1.SecretTypeOpaque, Data: map[string][]byte{"a": bytes.Repeat([]byte{7}, 1000)}}, "Secret")
		if err != nil {
			r.t.Fatal(err)
		}
		value, err := sealSecret(plain, spec.Keys.SecretsEncryption)
		if err == nil {
			err = w.add(r.t.Context(), clientv3.OpPut(rootKey+"secrets/default/"+meta.Name, string(value)))
		}
		if err != nil {
			r.t.Fatal(err)
		}
	}
	if err := w.flush(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

// A cluster whose etcd is lost is restored all the same, with a note; and clients
// that knew a former restore's revisions meet none of them again.
func TestRestoreOfALostEtcd(t *testing.T) {
	r := newRig(t)
	spec := r.spec("lost")
	spec.Addons = controlplane.Addons{}
	r.apply(spec)
	r.until(spec.ID, "ready", ready)
	admin := r.admin(spec)
	admin.must("POST", configMaps, configMap("kept", "1"))
	b := r.backedUp(&spec, "first")
	if done := r.restored(&spec, &spec, b, "t1"); done.Phase != controlplane.RestoreDone {
		t.Fatalf("the first restore: %+v", done)
	}
	r.until(spec.ID, "ready", ready)
	before := resourceVersion(t, admin.must("GET", configMaps, nil))
	member := r.Plane.dir(spec.ID, etcdDir, "member", "snap", "db")
	if err := os.WriteFile(member, []byte("this is no database"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid(r.Status(spec.ID), controlplane.Etcd), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	done := r.restored(&spec, &spec, b, "t2")
	if done.Phase != controlplane.RestoreDone || done.Note == "" {
		t.Fatalf("the restore: %+v", done)
	}
	r.until(spec.ID, "ready", ready)
	if code, _ := admin.do("GET", configMaps+"/kept", nil); code != 200 {
		t.Errorf("what was backed up: %d", code)
	}
	if after := resourceVersion(t, admin.must("GET", configMaps, nil)); len(after) < len(before) || len(after) == len(before) && after <= before {
		t.Errorf("revision %s after %s", after, before)
	}
}
