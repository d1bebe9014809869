// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"testing"
	"time"

	"bastide.dev/netpolicy"
)

const podsPath, policiesPath = "/api/v1/pods", "/apis/networking.k8s.io/v1/networkpolicies"

func podJSON(name, uid, node, address string) string {
	ips := ""
	if address != "" {
		ips = fmt.Sprintf(`{"ip":%q}`, address)
	}
	return fmt.Sprintf(`{"metadata":{"namespace":"ns","name":%q,"uid":%q,"labels":{"app":%[1]q}},"spec":{"nodeName":%[3]q,"containers":[
		{"name":"c","ports":[{"name":"http","containerPort":8080}]}]},"status":{"podIPs":[%[4]s]}}`, name, uid, node, ips)
}

const isolate = `{"metadata":{"namespace":"ns","name":"isolate"},"spec":{"podSelector":{},"policyTypes":["Ingress"]}}`

func sandbox(id, name, uid, address string) netpolicy.Sandbox {
	return netpolicy.Sandbox{ID: id, Namespace: "ns", Name: name, UID: uid, Addresses: []netip.Addr{netip.MustParseAddr(address)}}
}

// TestFollow: what the server has is what the kernel gets, through pages,
// watches that end, versions that are gone, and an API that comes late.
func TestFollow(t *testing.T) {
	r := newRig(t)
	for i := range 5 {
		r.server.set(podsPath, fmt.Sprint(i), podJSON(fmt.Sprintf("p%d", i), fmt.Sprint(i), "n0", fmt.Sprintf("10.244.0.%d", 10+i)))
	}
	r.start()
	r.eventually("all pods are known", r.has("10.244.0.14 . 10.244.0.14"))
	begin := time.Now()
	r.server.set(policiesPath, "isolate", isolate)
	r.eventually("the policy holds", r.has("isolated by isolate"))
	t.Logf("a policy took %v", time.Since(begin))

	r.server.mu.Lock() // watches end, and what they would go on from is gone
	r.server.forgot = r.server.version + 1
	close(r.server.ends)
	r.server.ends = make(chan struct{})
	r.server.mu.Unlock()
	r.server.set(policiesPath, "isolate", "")
	r.server.set(podsPath, "0", "")
	r.eventually("the policy went", func() bool { return !r.has("isolated by")() && !r.has("10.244.0.10 .")() })

	r.server.mu.Lock()
	delete(r.server.absent, resources[clusterPolicies].path)
	r.server.mu.Unlock()
	r.server.set(resources[clusterPolicies].path, "c", `{"metadata":{"name":"c"},"spec":{"tier":"Admin","priority":1,"subject":{"namespaces":{}},
		"ingress":[{"name":"none","action":"Deny","from":[{"namespaces":{}}]}]}}`)
	r.eventually("the cluster's policy holds", r.has("clusternetworkpolicy/c/ingress/none"))
	puts := len(r.kernel.put)
	r.server.set(podsPath, "1", podJSON("p1", "1", "n0", "10.244.0.11")) // nothing that matters
	r.server.set(podsPath, "2", "")
	r.eventually("the pod went", func() bool { return !r.has("10.244.0.12 .")() })
	if now := len(r.kernel.put); now != puts+1 {
		t.Errorf("%d tables were put for one change", now-puts)
	}
}

// TestSandboxWaits: a pod goes on when its rules are in the kernel, not before.
func TestSandboxWaits(t *testing.T) {
	r := newRig(t)
	r.server.set(policiesPath, "isolate", isolate)
	r.start()
	answers := make(chan int)
	go func() {
		code, _ := r.call(t.Context(), http.MethodPut, netpolicy.SandboxPath+"box", sandbox("box", "web", "u1", "10.244.0.7"))
		answers <- code
	}()
	select {
	case code := <-answers:
		t.Fatalf("answered %d before anybody knew the pod", code)
	case <-time.After(100 * time.Millisecond):
	}
	r.server.set(podsPath, "web", podJSON("web", "other", "n0", "")) // an earlier pod of that name
	r.kernel.mu.Lock()
	r.kernel.fail = errors.New("no")
	r.kernel.mu.Unlock()
	r.server.set(podsPath, "web", podJSON("web", "u1", "n0", ""))
	select {
	case code := <-answers:
		t.Fatalf("answered %d before the kernel took the table", code)
	case <-time.After(100 * time.Millisecond):
	}
	r.kernel.mu.Lock()
	r.kernel.fail = nil
	r.kernel.mu.Unlock()
	if code := <-answers; code != http.StatusNoContent || !r.has("10.244.0.7 : goto ingress-")() {
		t.Errorf("%d\n%s", code, r.kernel.text())
	}
	if code, text := r.call(t.Context(), http.MethodGet, netpolicy.SandboxPath+"box", nil); code != http.StatusNoContent {
		t.Error(code, text)
	}

	// The API server hears of the address late, and of its end later.
	r.server.set(podsPath, "web", podJSON("web", "u1", "n0", "10.244.0.7"))
	if code, text := r.call(t.Context(), http.MethodDelete, netpolicy.SandboxPath+"box", nil); code != http.StatusNoContent {
		t.Error(code, text)
	}
	r.eventually("the address is nobody's", func() bool { return !r.has("10.244.0.7")() })
	if code, _ := r.call(t.Context(), http.MethodGet, netpolicy.SandboxPath+"box", nil); code != http.StatusNotFound {
		t.Error("the sandbox is still there:", code)
	}
	for _, wrong := range []any{"x", netpolicy.Sandbox{Name: "web"}} {
		if code, _ := r.call(t.Context(), http.MethodPut, netpolicy.SandboxPath+"bad", wrong); code != http.StatusBadRequest {
			t.Errorf("%v: %d", wrong, code)
		}
	}
}

// TestRestart: an agent that comes back knows the addresses that only its
// forerunner was told of, and touches nothing before it has seen all.
func TestRestart(t *testing.T) {
	r := newRig(t)
	r.server.set(podsPath, "web", podJSON("web", "u1", "n0", ""))
	r.server.set(podsPath, "gone", podJSON("gone", "u2", "n0", ""))
	r.start()
	for _, s := range []netpolicy.Sandbox{sandbox("box", "web", "u1", "10.244.0.7"), sandbox("box2", "gone", "u2", "10.244.0.8")} {
		if code, text := r.call(t.Context(), http.MethodPut, netpolicy.SandboxPath+s.ID, s); code != http.StatusNoContent {
			t.Fatal(code, text)
		}
	}
	r.end()
	if info, err := os.Stat(r.config.Sandboxes); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info, err)
	}
	r.server.set(podsPath, "gone", "")
	r.kernel.put = nil
	r.server.mu.Lock()
	r.server.absent[policiesPath] = true // it can't see all
	r.server.mu.Unlock()
	r.start()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if code, text := r.call(ctx, http.MethodPut, netpolicy.SandboxPath+"box3", sandbox("box3", "web", "u1", "10.244.0.9")); code != 0 {
		t.Error(code, text)
	}
	if r.kernel.text() != "" {
		t.Error("a table was put before all was known")
	}
	r.server.mu.Lock()
	delete(r.server.absent, policiesPath)
	r.server.mu.Unlock()
	r.eventually("the pod's newest address is known", r.has("10.244.0.9 . 10.244.0.9"))
	if r.has("10.244.0.8")() {
		t.Error("who went while no agent ran has still an address")
	}
}
