// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bastide.dev/cgroup"
	"bastide.dev/controlplane"
)

func pid(s controlplane.Status, program string) int {
	for _, p := range s.Processes {
		if p.Name == program {
			return p.PID
		}
	}
	return 0
}

func TestHealsAdoptsStopsAndRemoves(t *testing.T) {
	r := newRig(t)
	spec := r.spec("life")
	r.cloud(&spec)
	r.apply(spec)
	r.until("life", "ready", ready)
	admin := r.admin(spec)
	admin.must("POST", "/api/v1/namespaces/default/configmaps", object{"metadata": object{"name": "kept"}})
	for _, program := range spec.Programs() {
		heals(t, r, program, admin)
	}
	adopts(t, r, spec)
	stopsAndStarts(t, r, spec)
	leavesNothing(t, r, spec)
}

func heals(t *testing.T, r *rig, program string, admin *user) {
	before := pid(r.until("life", "running "+program, func(s controlplane.Status) bool { return pid(s, program) != 0 }), program)
	begin := time.Now()
	if err := unix.Kill(before, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.until("life", program+" again", func(s controlplane.Status) bool {
		p := pid(s, program)
		return p != 0 && p != before
	})
	eventually(t, program+" killed, and its API answers", func() bool {
		request, err := admin.http.Get("https://127.0.0.1/api/v1/namespaces/default/configmaps/kept")
		if err != nil {
			return false
		}
		defer request.Body.Close()
		return request.StatusCode == 200
	})
	r.until("life", "ready after "+program, ready)
	t.Logf("%s killed: all well after %v", program, time.Since(begin))
}

// adopts ends the Plane and begins another, which finds all processes.
func adopts(t *testing.T, r *rig, spec controlplane.Spec) {
	before := r.Status("life")
	r.stop()
	r.begin()
	r.apply(spec)
	after := r.until("life", "ready", ready)
	for _, program := range spec.Programs() {
		if pid(before, program) == 0 || pid(before, program) != pid(after, program) {
			t.Errorf("%s was pid %d and is %d", program, pid(before, program), pid(after, program))
		}
	}
}

func stopsAndStarts(t *testing.T, r *rig, spec controlplane.Spec) {
	stopped := spec
	stopped.Stopped = true
	r.apply(stopped)
	status := r.until("life", "stopped", func(s controlplane.Status) bool { return s.Phase == controlplane.Stopped })
	if pids, err := cgroup.Procs(r.group("life")); len(status.Processes) > 0 || len(pids) > 0 || err != nil {
		t.Errorf("still there: %+v, %v, %v", status.Processes, pids, err)
	}
	r.apply(spec)
	r.until("life", "ready", ready)
	r.admin(spec).must("GET", "/api/v1/namespaces/default/configmaps/kept", nil)
}

func leavesNothing(t *testing.T, r *rig, spec controlplane.Spec) {
	uid, err := r.readUID("life")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Remove(t.Context(), "life"); err != nil {
		t.Fatal(err)
	}
	if err := r.Remove(t.Context(), "life"); err != nil {
		t.Errorf("again: %v", err)
	}
	if _, err := os.Stat(r.Plane.dir("life")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("directory: %v", err)
	}
	hierarchies, err := cgroup.Hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range hierarchies {
		if _, err := os.Stat(filepath.Join(h.Mount, r.group("life"))); err == nil {
			t.Errorf("group left in %s", h.Mount)
		}
	}
	if left, err := filepath.Glob(filepath.Join(r.RunDir, "controlplanes", "*")); err != nil || len(left) > 0 {
		t.Errorf("records left: %v, %v", left, err)
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range processes {
		var st unix.Stat_t
		// A dead process stays until its parent, here the test, has asked for it.
		if stat, err := os.ReadFile(p + "/stat"); err != nil || strings.Contains(string(stat), ") Z ") {
			continue
		}
		if unix.Stat(p, &st) == nil && int(st.Uid) == uid {
			t.Errorf("%s is uid %d's", p, uid)
		}
	}
	if again, err := r.ensureUID("next"); err != nil || again != uid {
		t.Errorf("uid %d isn't free: got %d, %v", uid, again, err)
	}
}

func TestRemoveWithoutPlane(t *testing.T) {
	r := newRig(t)
	spec := r.spec("lost")
	r.apply(spec)
	r.until("lost", "ready", ready)
	r.stop()
	r.begin() // never told of the cluster
	if ids := r.IDs(); len(ids) != 1 || ids[0] != "lost" {
		t.Fatalf("IDs %v", ids)
	}
	if err := r.Remove(context.Background(), "lost"); err != nil {
		t.Fatal(err)
	}
	if pids, err := cgroup.Procs(r.group("lost")); len(pids) > 0 || err != nil {
		t.Errorf("left %v, %v", pids, err)
	}
}

func TestAddonsAreKept(t *testing.T) {
	r := newRig(t)
	spec := r.spec("kept")
	r.apply(spec)
	r.until("kept", "ready", ready)
	admin := r.admin(spec)
	admin.node("n1")
	paths := map[string]string{
		"/apis/apps/v1/namespaces/kube-system/deployments/coredns":      `{"spec":{"template":{"spec":{"dnsPolicy":"ClusterFirst"}}}}`,
		"/api/v1/namespaces/kube-system/services/kube-dns":              `{"spec":{"selector":{"k8s-app":"evil"}}}`,
		"/api/v1/namespaces/kube-system/configmaps/coredns":             `{"data":{"Corefile":"nonsense"}}`,
		"/api/v1/namespaces/kube-system/serviceaccounts/metrics-server": ``,
	}
	get := func(path string) (uid, content string) {
		var o struct {
			Metadata struct{ UID string }
			Spec     json.RawMessage
			Data     json.RawMessage
		}
		code, body := admin.do("GET", path, nil)
		if code != 200 {
			return "", ""
		}
		if err := json.Unmarshal(body, &o); err != nil {
			t.Fatal(err)
		}
		return o.Metadata.UID, string(o.Spec) + string(o.Data)
	}
	for path, change := range paths {
		eventually(t, path+" is there", func() bool { uid, _ := get(path); return uid != "" })
		uid, content := get(path)
		if change != "" {
			admin.must("PATCH", path, json.RawMessage(change), "Content-Type", "application/merge-patch+json")
			if _, changed := get(path); changed == content {
				t.Logf("%s was put right before it could be looked at", path)
			}
			eventually(t, path+" is put right", func() bool { _, now := get(path); return now == content })
		}
		admin.must("DELETE", path, nil)
		eventually(t, path+" is back", func() bool { now, _ := get(path); return now != "" && now != uid })
	}
	api := admin.must("GET", "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io", nil)
	var service struct{ Spec map[string]any }
	if err := json.Unmarshal(api, &service); err != nil || service.Spec["insecureSkipTLSVerify"] != nil || service.Spec["caBundle"] == nil {
		t.Errorf("metrics-server isn't verified: %v, %v", service.Spec, err)
	}
}

func TestServingCertificates(t *testing.T) {
	r := newRig(t)
	spec := r.spec("csr")
	spec.Nodes = spec.Nodes[:1]
	r.apply(spec)
	r.until("csr", "ready", ready)
	admin := r.admin(spec)
	node := func(name string) *user { return r.as(spec, "system:node:"+name, "system:nodes") }
	serving := []string{"digital signature", "server auth"}
	const signer = "kubernetes.io/kubelet-serving"
	ask(t, node("node-1"), "right", signer, serving, "node-1", []string{"node-1"}, "10.224.0.5")
	ask(t, node("node-1"), "foreign-address", signer, serving, "node-1", []string{"node-1"}, "10.224.0.6")
	ask(t, node("node-1"), "foreign-name", signer, serving, "node-1", []string{"node-1", "kubernetes.default.svc"}, "10.224.0.5")
	ask(t, node("node-2"), "unexpected", signer, serving, "node-2", []string{"node-2"}, "10.224.0.6")
	ask(t, admin, "by-another", signer, serving, "node-1", []string{"node-1"}, "10.224.0.5")
	for name, want := range map[string]string{"right": "Approved", "foreign-address": "Denied", "foreign-name": "Denied", "unexpected": "Denied", "by-another": "Denied"} {
		eventually(t, name+" is "+want, func() bool { return decision(t, admin, name) == want })
	}
	eventually(t, "the certificate is issued", func() bool {
		var o struct{ Status struct{ Certificate []byte } }
		body := admin.must("GET", "/apis/certificates.k8s.io/v1/certificatesigningrequests/right", nil)
		return json.Unmarshal(body, &o) == nil && len(o.Status.Certificate) > 0
	})
	joins(t, r, spec, admin)
}

// joins asks as a machine with a bootstrap token, before and after its node is expected.
func joins(t *testing.T, r *rig, spec controlplane.Spec, admin *user) {
	newcomer := r.as(spec, "")
	newcomer.token = spec.Keys.BootstrapTokenID + "." + spec.Keys.BootstrapTokenCode
	const signer = "kubernetes.io/kube-apiserver-client-kubelet"
	client := []string{"digital signature", "client auth"}
	eventually(t, "the token is known", func() bool {
		code, _ := newcomer.do("GET", "/apis/certificates.k8s.io/v1/certificatesigningrequests/nothing", nil)
		return code == 404
	})
	ask(t, newcomer, "known", signer, client, "node-1", nil, "")
	ask(t, newcomer, "early", signer, client, "node-9", nil, "")
	eventually(t, "the expected node is let in", func() bool { return decision(t, admin, "known") == "Approved" })
	if d := decision(t, admin, "early"); d != "" {
		t.Errorf("an unexpected node is %s", d)
	}
	spec.Nodes = append(spec.Nodes, controlplane.Node{Name: "node-9", Address: spec.Nodes[0].Address.Next()})
	r.apply(spec)
	eventually(t, "the node is let in once it is expected", func() bool { return decision(t, admin, "early") == "Approved" })
}

// ask makes a CertificateSigningRequest as u.
func ask(t *testing.T, u *user, name, signer string, usages []string, node string, dns []string, ip string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:" + node, Organization: []string{"system:nodes"}}, DNSNames: dns}
	if ip != "" {
		template.IPAddresses = []net.IP{net.ParseIP(ip)}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	u.must("POST", "/apis/certificates.k8s.io/v1/certificatesigningrequests", object{"metadata": object{"name": name}, "spec": object{
		"signerName": signer, "usages": usages, "request": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})}})
}

func decision(t *testing.T, admin *user, name string) string {
	t.Helper()
	var o struct {
		Status struct{ Conditions []struct{ Type string } }
	}
	if err := json.Unmarshal(admin.must("GET", "/apis/certificates.k8s.io/v1/certificatesigningrequests/"+name, nil), &o); err != nil {
		t.Fatal(err)
	}
	if len(o.Status.Conditions) == 0 {
		return ""
	}
	return o.Status.Conditions[0].Type
}
