// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"bastide.dev/bundle"
	"bastide.dev/controlplane"
	"bastide.dev/supervise"
)

type object = map[string]any

// TestSecurity looks at one running control plane from all sides.
func TestSecurity(t *testing.T) {
	r := newRig(t)
	spec, other := r.spec("sec"), r.spec("other")
	r.cloud(&spec)
	r.apply(spec)
	r.apply(other)
	r.until("sec", "complete", func(s controlplane.Status) bool { return ready(s) && pid(s, controlplane.CloudController) != 0 })
	r.until("other", "ready", ready)
	t.Run("anonymous may ask for health only", func(t *testing.T) { anonymous(t, r, spec) })
	t.Run("secrets are sealed in etcd", func(t *testing.T) { sealed(t, r, spec) })
	t.Run("audit has requests and no secrets", func(t *testing.T) { audited(t, r, spec) })
	t.Run("a node may not label another", func(t *testing.T) { nodeRestricted(t, r, spec) })
	t.Run("others can't read or connect", func(t *testing.T) { isolated(t, r, spec, other) })
	t.Run("processes are confined", func(t *testing.T) { confined(t, r, "sec") })
	t.Run("no secret in arguments or logs", func(t *testing.T) { discreet(t, r, spec) })
	t.Run("old TLS is refused", func(t *testing.T) { oldTLS(t, r, spec) })
	t.Run("a foreign bootstrap token is refused", func(t *testing.T) { bootstrap(t, r, spec) })
}

func anonymous(t *testing.T, r *rig, spec controlplane.Spec) {
	nobody := r.as(spec, "")
	for path, want := range map[string]int{"/readyz": 200, "/livez": 200, "/healthz": 200, "/version": 401, "/api/v1/namespaces": 401, "/metrics": 401, "/openid/v1/jwks": 401} {
		if code, body := nobody.do("GET", path, nil); code != want {
			t.Errorf("%s: %d %s, want %d", path, code, body, want)
		}
	}
	if code, _ := r.as(spec, "somebody").do("GET", "/api/v1/namespaces", nil); code != 403 {
		t.Errorf("a user without rights gets %d", code)
	}
}

const treasure = "the-treasure-is-buried"

func sealed(t *testing.T, r *rig, spec controlplane.Spec) {
	admin := r.admin(spec)
	admin.must("POST", "/api/v1/namespaces/default/secrets", object{"metadata": object{"name": "map"}, "stringData": object{"where": treasure}})
	if back := admin.must("GET", "/api/v1/namespaces/default/secrets/map", nil); !bytes.Contains(back, []byte(`"where"`)) {
		t.Errorf("read back: %s", back)
	}
	raw := etcdctl(t, r, spec, "get", "/registry/secrets/default/map")
	if !strings.Contains(raw, "k8s:enc:secretbox:v1:key-") || strings.Contains(raw, treasure) {
		t.Errorf("etcd holds %q", raw)
	}
	admin.must("POST", "/api/v1/namespaces/default/configmaps", object{"metadata": object{"name": "open"}, "data": object{"k": "in-the-clear"}})
	if raw := etcdctl(t, r, spec, "get", "/registry/configmaps/default/open"); !strings.Contains(raw, "in-the-clear") {
		t.Errorf("the test reads etcd wrongly: %q", raw)
	}
}

// etcdctl asks a control plane's etcd with its API server's certificate.
func etcdctl(t *testing.T, r *rig, spec controlplane.Spec, args ...string) string {
	t.Helper()
	out, err := etcdctlWith(t, r, spec, spec.ID, args...)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return out
}

func etcdctlWith(t *testing.T, r *rig, spec controlplane.Spec, credentialsOf string, args ...string) (string, error) {
	t.Helper()
	b, err := bundle.Open(r.CacheDir, "etcd", spec.Etcd)
	if err != nil {
		t.Fatal(err)
	}
	file := func(id, name string) string { return r.Plane.dir(id, configDir, controlplane.APIServer, name) }
	args = append([]string{"--endpoints=https://127.0.0.1:2379", "--cacert=" + file(spec.ID, "etcd-ca.crt"), "--dial-timeout=2s", "--command-timeout=3s",
		"--cert=" + file(credentialsOf, "etcd-client.crt"), "--key=" + file(credentialsOf, "etcd-client.key")}, args...)
	var out []byte
	err = supervise.InNetns(r.Netns(spec.Namespace), func() error {
		var err error
		out, err = exec.Command(b.Path("etcdctl"), args...).CombinedOutput()
		return err
	})
	return string(out), err
}

func audited(t *testing.T, r *rig, spec controlplane.Spec) {
	admin := r.admin(spec)
	admin.must("PUT", "/api/v1/namespaces/default/secrets/map", object{"metadata": object{"name": "map"}, "stringData": object{"where": treasure}})
	admin.must("POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", object{"metadata": object{"name": "audited-role"}, "rules": []object{}})
	path := filepath.Join(r.Plane.dir("sec", auditDir), "audit.log")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	levels := map[string]string{}
	for line := range bytes.Lines(data) {
		var e struct {
			Level, Verb, RequestURI string
			RequestObject           any
		}
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		uri, _, _ := strings.Cut(e.RequestURI, "?")
		levels[e.Verb+" "+uri] = e.Level
	}
	for what, want := range map[string]string{"create /api/v1/namespaces/default/secrets": "Metadata", "update /api/v1/namespaces/default/secrets/map": "Metadata",
		"create /apis/rbac.authorization.k8s.io/v1/clusterroles": "RequestResponse"} {
		if levels[what] != want {
			t.Errorf("%s is recorded as %q, want %q", what, levels[what], want)
		}
	}
	for _, secret := range []string{treasure, spec.Keys.BootstrapTokenCode, "PRIVATE KEY"} {
		if bytes.Contains(data, []byte(secret)) {
			t.Errorf("the audit log has %q", secret)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("audit log: %v, %v", info.Mode(), err)
	}
}

func nodeRestricted(t *testing.T, r *rig, spec controlplane.Spec) {
	one := r.as(spec, "system:node:node-1", "system:nodes")
	two := r.as(spec, "system:node:node-2", "system:nodes")
	one.must("POST", "/api/v1/nodes", object{"metadata": object{"name": "node-1"}})
	two.must("POST", "/api/v1/nodes", object{"metadata": object{"name": "node-2"}})
	patch := func(u *user, name, label string) int {
		code, _ := u.do("PATCH", "/api/v1/nodes/"+name, object{"metadata": object{"labels": object{label: "x"}}}, "Content-Type", "application/merge-patch+json")
		return code
	}
	if code := patch(one, "node-1", "mine"); code != 200 {
		t.Errorf("a node can't label itself: %d", code)
	}
	if code := patch(one, "node-2", "mine"); code != 403 {
		t.Errorf("a node labels another: %d", code)
	}
	if code := patch(one, "node-1", "node-restriction.kubernetes.io/x"); code != 403 {
		t.Errorf("a node takes a restricted label: %d", code)
	}
	if code, _ := one.do("GET", "/api/v1/namespaces/default/secrets/map", nil); code != 403 {
		t.Errorf("a node reads a secret of no pod of its own: %d", code)
	}
	admin := r.admin(spec)
	eventually(t, "node-1 has its pod range, node-2 none", func() bool {
		range1, range2 := admin.must("GET", "/api/v1/nodes/node-1", nil), admin.must("GET", "/api/v1/nodes/node-2", nil)
		return bytes.Contains(range1, []byte(`"podCIDR":"10.244.1.0/24"`)) && !bytes.Contains(range2, []byte(`"podCIDR"`))
	})
	spec.Nodes[1].Removed = true
	r.apply(spec)
	eventually(t, "node-2 is gone", func() bool {
		code, _ := admin.do("GET", "/api/v1/nodes/node-2", nil)
		return code == 404
	})
	r.until("sec", "of one node", func(s controlplane.Status) bool { return len(s.Nodes) == 1 && s.Nodes[0].Name == "node-1" })
}

// isolated tries as the one control plane's uid what it must not reach of the other.
func isolated(t *testing.T, r *rig, spec, other controlplane.Spec) {
	uid, err := r.readUID(other.ID)
	if err != nil {
		t.Fatal(err)
	}
	mine, err := r.readUID(spec.ID)
	if err != nil || mine == uid {
		t.Fatalf("uids %d and %d, %v", mine, uid, err)
	}
	as := func(uid int, args ...string) error {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
		return cmd.Run()
	}
	err = filepath.WalkDir(r.Plane.dir(spec.ID), func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if as(uid, "test", "-r", path) == nil || as(uid, "test", "-w", path) == nil {
			t.Errorf("uid %d reaches %s", uid, path)
		}
		if info, err := d.Info(); err == nil && !d.IsDir() && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s is %v", path, info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if err := as(mine, "test", "-r", r.Plane.dir(spec.ID, configDir, controlplane.APIServer, "server.key")); err != nil {
		t.Errorf("the test's own way fails: %v", err)
	}
	if err := as(mine, "touch", r.Plane.dir(spec.ID, configDir, controlplane.APIServer, "planted")); err == nil {
		t.Error("a control plane can plant files where root writes")
	}
	if out, err := etcdctlWith(t, r, spec, other.ID, "get", "/registry", "--prefix", "--keys-only"); err == nil {
		t.Errorf("another cluster's certificate opens this etcd: %s", out)
	}
	if conn, err := Dialer(r.Netns(other.Namespace))(t.Context(), "tcp", "127.0.0.1:2379"); err != nil {
		t.Error(err)
	} else {
		defer conn.Close()
		if err := tls.Client(conn, &tls.Config{InsecureSkipVerify: true}).HandshakeContext(t.Context()); err == nil {
			if _, err := etcdctlWith(t, r, other, spec.ID, "get", "/registry"); err == nil {
				t.Error("etcd speaks to whom it doesn't know")
			}
		}
	}
}

func confined(t *testing.T, r *rig, id string) {
	uid, err := r.readUID(id)
	if err != nil {
		t.Fatal(err)
	}
	processes := r.Status(id).Processes
	if len(processes) != len(controlplane.Programs()) {
		t.Fatalf("%+v", processes)
	}
	for _, p := range processes {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{fmt.Sprintf("Uid:\t%d\t%d\t%d\t%d\n", uid, uid, uid, uid), "Groups:\t \n", "NoNewPrivs:\t1\n", "CapEff:\t0000000000000000\n", "CapBnd:\t0000000000000000\n"} {
			if !strings.Contains(string(status), want) {
				t.Errorf("%s: no %q in\n%s", p.Name, want, status)
			}
		}
		root := fmt.Sprintf("/proc/%d/root", p.PID)
		for _, hidden := range []string{"/root", "/home", "/var/lib", "/etc/shadow", "/sys", "/run"} {
			if _, err := os.Stat(root + hidden); err == nil {
				t.Errorf("%s sees %s", p.Name, hidden)
			}
		}
		entries, err := os.ReadDir(root + r.Plane.dir(id, configDir))
		if err != nil || len(entries) != 1 || entries[0].Name() != p.Name {
			t.Errorf("%s sees the files of %v, %v", p.Name, entries, err)
		}
	}
}

func discreet(t *testing.T, r *rig, spec controlplane.Spec) {
	secrets := []string{"PRIVATE KEY", spec.Keys.BootstrapTokenCode, spec.Cloud.Secret, treasure}
	for _, p := range r.Status(spec.ID).Processes {
		for _, path := range []string{fmt.Sprintf("/proc/%d/cmdline", p.PID), fmt.Sprintf("/proc/%d/environ", p.PID), r.Plane.dir(spec.ID, logsDir, p.Name+".log")} {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, secret := range secrets {
				if bytes.Contains(data, []byte(secret)) {
					t.Errorf("%s has %q", path, secret)
				}
			}
		}
	}
}

func oldTLS(t *testing.T, r *rig, spec controlplane.Spec) {
	for version, ok := range map[uint16]bool{tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		conn, err := Dialer(r.Netns(spec.Namespace))(t.Context(), "tcp", "10.224.0.4:443")
		if err != nil {
			t.Fatal(err)
		}
		err = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: version, MaxVersion: version}).HandshakeContext(t.Context())
		if (err == nil) != ok {
			t.Errorf("TLS %x: %v", version, err)
		}
		conn.Close()
	}
}

func bootstrap(t *testing.T, r *rig, spec controlplane.Spec) {
	nobody := r.as(spec, "")
	csrs := "/apis/certificates.k8s.io/v1/certificatesigningrequests"
	if code, _ := nobody.do("POST", csrs, object{}, "Authorization", "Bearer abcdef.0000000000000000"); code != 401 {
		t.Errorf("a wrong token gets %d", code)
	}
	token := "Bearer " + spec.Keys.BootstrapTokenID + "." + spec.Keys.BootstrapTokenCode
	eventually(t, "the token is known", func() bool {
		code, _ := nobody.do("GET", csrs+"/nothing", nil, "Authorization", token)
		return code == 404
	})
	if code, _ := nobody.do("GET", "/api/v1/namespaces/kube-system/secrets", nil, "Authorization", token); code != 403 {
		t.Errorf("the token reads secrets: %d", code)
	}
}
