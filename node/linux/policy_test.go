// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"bastide.dev/netpolicy"
	"bastide.dev/ruleset"
)

// TestPolicies is network policies against a real API server, on a real node:
// with real pods, whose very first packets count.
func TestPolicies(t *testing.T) {
	program := filepath.Join(t.TempDir(), netpolicy.ProgramName)
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "bastide.dev/cmd/bastide-netpolicy")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	w := newWorldWith(t, program)
	w.prepareWire()
	w.startServer()
	w.must("", "apply", "-f", "../../controlplane/addons/netpolicy.yaml")
	w.up()
	bridge, err := netlink.LinkByName("nodetest0")
	w.check(err)
	pods := &net.IPNet{IP: net.IPv4(10, 231, 78, 0), Mask: net.CIDRMask(24, 32)}
	w.check(netlink.RouteReplace(&netlink.Route{LinkIndex: bridge.Attrs().Index, Dst: pods, Gw: w.address.AsSlice()}))
	w.ready()
	w.approveServing()
	w.eventually("the default account is there", time.Minute, func() bool {
		_, err := w.kubectl("", "get", "serviceaccount", "default")
		return err == nil
	})
	p := &policed{world: w}
	p.client = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", fmt.Sprintf("/proc/%d/root%s", w.pid(), netpolicy.SocketPath))
	}}}
	p.start()
	for _, step := range []struct {
		name string
		do   func()
	}{
		{"no policy", p.open},
		{"first packet", p.firstPacket},
		{"default deny", p.defaultDeny},
		{"allow by label and named port", p.allowByLabel},
		{"addresses", p.allowByAddress},
		{"egress", p.egress},
		{"agent dies", p.agentDies},
		{"first packet of the forbidden", p.forbiddenFirst},
		{"cluster-wide", p.clusterWide},
		{"memory", p.memory},
	} {
		if !t.Run(step.name, func(t *testing.T) {
			outer := w.t
			w.t = t
			defer func() { w.t = outer }()
			step.do()
		}) {
			return
		}
	}
}

type policed struct {
	*world
	client     *http.Client
	web, a, b  string // addresses of pods
	serviceWeb string
	last       string // what the last try to connect said
}

// pid is the machine's PID 1 as seen from here.
func (w *world) pid() int {
	all, err := w.provider.Status(context.Background())
	w.check(err)
	return all[0].PID
}

// tools makes a pod of the node's own files, for a shell in it.
const toolsPod = `
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, labels: {app: %[2]s}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: bastide.local/web:1
    imagePullPolicy: Never
    command: [/usr/bin/bash, -c, %[3]q]
    env: [{name: PATH, value: /usr/bin}]
    volumeMounts:
    - {name: usr, mountPath: /usr, readOnly: true}
    - {name: lib, mountPath: /lib, readOnly: true}
    - {name: lib64, mountPath: /lib64, readOnly: true}
  volumes:
  - {name: usr, hostPath: {path: /usr}}
  - {name: lib, hostPath: {path: /usr/lib}}
  - {name: lib64, hostPath: {path: /usr/lib64}}
`

const policedWeb = `
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers:
  - name: web
    image: bastide.local/web:1
    imagePullPolicy: Never
    ports: [{name: http, containerPort: 8080}]
    readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1, failureThreshold: 1}
`

func (p *policed) start() {
	begin := time.Now()
	p.must(policedWeb, "apply", "-f", "-")
	p.must(fmt.Sprintf(toolsPod, "a", "a", "sleep infinity"), "apply", "-f", "-")
	p.must(fmt.Sprintf(toolsPod, "b", "b", "sleep infinity"), "apply", "-f", "-")
	p.must("", "wait", "--for=condition=Ready", "pod/web", "pod/a", "pod/b", "--timeout=60s")
	p.t.Logf("pods Ready after %v", time.Since(begin))
	address := func(pod string) string { return p.must("", "get", "pod", pod, "-o", "jsonpath={.status.podIP}") }
	p.web, p.a, p.b = address("web"), address("a"), address("b")
	p.must("", "expose", "pod", "web", "--port=80", "--target-port=8080")
	p.serviceWeb = p.must("", "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
}

// reaches tries a connection from a pod.
func (p *policed) reaches(pod, address string, port int) bool {
	out, err := p.kubectl("", "exec", pod, "--", "/usr/bin/timeout", "0.4", "/usr/bin/bash", "-c", fmt.Sprintf("exec 3<>/dev/tcp/%s/%d", address, port))
	p.last = out
	return err == nil
}

// expect waits until a connection is as it should be, and stays so.
func (p *policed) expect(pod, address string, port int, want bool) {
	p.t.Helper()
	defer func() {
		if p.t.Failed() {
			p.t.Logf("last: %s", p.last)
			logs, _ := p.kubectl("", "logs", pod)
			about, _ := p.kubectl("", "get", "pod", pod, "-o", "jsonpath={.status.containerStatuses}")
			p.t.Logf("%s: %s %s", pod, logs, about)
		}
	}()
	p.eventually(fmt.Sprintf("%s reaches %s:%d: %v", pod, address, port, want), 10*time.Second, func() bool { return p.reaches(pod, address, port) == want })
	if p.reaches(pod, address, port) != want {
		p.t.Errorf("%s reaches %s:%d: not %v any more", pod, address, port, want)
	}
}

func (p *policed) open() {
	p.expect("a", p.web, 8080, true)
	p.expect("b", p.web, 8080, true)
	p.eventually("the Service answers", 10*time.Second, func() bool { return p.reaches("a", p.serviceWeb, 80) })
}

// policy applies one and tells how long the kernel took to have it.
func (p *policed) policy(yaml string) {
	p.t.Helper()
	puts := p.status().Puts
	begin := time.Now()
	p.must(yaml, "apply", "-f", "-")
	applied := time.Since(begin)
	for p.status().Puts == puts && time.Since(begin) < 10*time.Second {
		time.Sleep(time.Millisecond)
	}
	s := p.status()
	p.t.Logf("applied after %v, in the kernel %v later (compile %dµs, put %dµs)", applied, time.Since(begin)-applied, s.CompileMicros, s.PutMicros)
}

func (p *policed) ask(path string, answer any) {
	p.t.Helper()
	response, err := p.client.Get("http://agent" + path)
	p.check(err)
	defer response.Body.Close()
	p.check(json.NewDecoder(response.Body).Decode(answer))
}

func (p *policed) status() (s netpolicy.AgentStatus) {
	p.t.Helper()
	p.ask(netpolicy.StatusPath, &s)
	return s
}

func (p *policed) counters() (all []ruleset.Counter) {
	p.t.Helper()
	p.ask(netpolicy.CountersPath, &all)
	return all
}

const denyAll = `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: deny},
 spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress]}}`

func (p *policed) defaultDeny() {
	p.policy(denyAll)
	p.expect("a", p.web, 8080, false)
	p.expect("a", p.serviceWeb, 80, false)
	if out := p.must("", "get", "pod", "web", "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`); out != "True" {
		p.t.Error("kubelet's probes don't come through")
	}
	if _, err := p.in("timeout", "1", "bash", "-c", "exec 3<>/dev/tcp/"+p.web+"/8080"); err != nil {
		p.t.Error("the pod's own node doesn't reach it")
	}
}

func (p *policed) allowByLabel() {
	p.policy(`{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: allow-a},
 spec: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: a}}}], ports: [{port: http}]}]}}`)
	p.expect("a", p.web, 8080, true)
	p.expect("a", p.serviceWeb, 80, true)
	p.expect("b", p.web, 8080, false)
	p.must("", "label", "pod", "b", "app=a", "--overwrite")
	p.expect("b", p.web, 8080, true)
	p.must("", "label", "pod", "b", "app=b", "--overwrite")
	p.expect("b", p.web, 8080, false)
}

func (p *policed) allowByAddress() {
	p.policy(fmt.Sprintf(`{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: block},
 spec: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{ipBlock: {cidr: 10.231.78.0/24, except: [%s/32]}}], ports: [{port: 8000, endPort: 8100}]}]}}`, p.a))
	p.expect("b", p.web, 8080, true)
	p.must("", "delete", "networkpolicy", "allow-a")
	p.expect("a", p.web, 8080, false)
	p.must("", "delete", "networkpolicy", "block")
	p.expect("b", p.web, 8080, false)
}

func (p *policed) egress() {
	p.must("", "delete", "networkpolicy", "deny")
	p.expect("a", p.server.String(), 6443, true)
	p.policy(`{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: only-web},
 spec: {podSelector: {matchLabels: {app: a}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: http}]}]}}`)
	p.expect("a", p.server.String(), 6443, false)
	p.expect("a", p.address.String(), 10250, false) // the node's own
	p.expect("a", p.web, 8080, true)
	p.expect("a", p.serviceWeb, 80, true)
	p.expect("b", p.address.String(), 10250, true)
	p.must("", "delete", "networkpolicy", "only-web")
	p.policy(denyAll)
}

// agentDies: policies hold while there is no agent, and go on with the next.
func (p *policed) agentDies() {
	before := p.agentPID()
	if _, err := p.in("kill", "-9", strconv.Itoa(before)); err != nil {
		p.t.Fatal(err)
	}
	for range 20 {
		if p.reaches("a", p.web, 8080) {
			p.t.Fatal("a connection came through while the agent was away")
		}
		if now := p.agentPID(); now != 0 && now != before {
			break
		}
	}
	p.eventually("an agent is back", 10*time.Second, func() bool {
		now := p.agentPID()
		return now != 0 && now != before
	})
	p.eventually("it has seen all", 10*time.Second, func() bool {
		response, err := p.client.Get("http://agent" + netpolicy.TablePath)
		if err != nil {
			return false
		}
		defer response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
	p.expect("b", p.web, 8080, false)
	p.must("", "delete", "networkpolicy", "deny")
	p.expect("b", p.web, 8080, true)
	p.policy(denyAll)
}

func (p *policed) agentPID() int {
	out, _ := p.in("sh", "-c", `for p in /proc/[0-9]*; do [ "$(tr '\0' ' ' <$p/cmdline)" = "`+netpolicy.ProgramPath+` agent " ] && echo ${p#/proc/}; done; true`)
	pid, _ := strconv.Atoi(strings.TrimSpace(out))
	return pid
}

// eager connects at once, as often as it can for a while; its end says whether
// it came through.
const eager = `for i in 1 2 3 4 5 6 7 8 9 10; do timeout 0.2 bash -c "exec 3<>/dev/tcp/%s/8080" 2>/dev/null && { echo reached at $i; exit 0; }; done; echo never`

func (p *policed) eagerPods(label string, count int) map[string]int {
	p.t.Helper()
	var all strings.Builder
	for i := range count {
		fmt.Fprintf(&all, "---\n"+toolsPod, fmt.Sprintf("%s%d", label, i), label, fmt.Sprintf(eager, p.web))
	}
	p.must(all.String(), "apply", "-f", "-")
	answers := map[string]int{}
	for i := range count {
		name := fmt.Sprintf("pod/%s%d", label, i)
		p.must("", "wait", "--for=jsonpath={.status.phase}=Succeeded", name, "--timeout=120s")
		answers[p.must("", "logs", name)]++
	}
	p.must("", "delete", "pod", "-l", "app="+label, "--wait=false")
	p.t.Logf("%v", answers)
	return answers
}

// firstPacket: what may connect does so at its first try, policies or none.
func (p *policed) firstPacket() {
	if answers := p.eagerPods("free", 3); answers["never"] != 0 {
		p.t.Errorf("%v", answers)
	}
	p.policy(`{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: friends},
 spec: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: friend}}}]}]}}`)
	// Under load a shell may need longer than its try; a drop would be counted.
	if answers := p.eagerPods("friend", 10); answers["never"] != 0 {
		p.t.Errorf("%v", answers)
	}
	for _, c := range p.counters() {
		if c.Packets > 0 && (c.Origin == netpolicy.OriginUnknown || strings.Contains(c.Origin, "isolated by friends")) {
			p.t.Errorf("%+v", c)
		}
	}
	p.must("", "delete", "networkpolicy", "friends")
}

// forbiddenFirst: what may not connect never does, from its first moment on.
func (p *policed) forbiddenFirst() {
	if answers := p.eagerPods("stranger", 20); answers["never"] != 20 {
		p.t.Errorf("%v", answers)
	}
	p.must("", "delete", "networkpolicy", "deny")
	p.must(`{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: locked},
 spec: {podSelector: {matchLabels: {app: locked}}, policyTypes: [Egress]}}`, "apply", "-f", "-") // of nobody yet
	if answers := p.eagerPods("locked", 10); answers["never"] != 10 {
		p.t.Errorf("%v", answers)
	}
}

// clusterWide: the API comes while the agent runs; the administrator's word
// goes before that of the namespace.
func (p *policed) clusterWide() {
	p.must("", "apply", "--server-side", "-f", "../../controlplane/addons/clusternetworkpolicies.yaml")
	p.must("", "wait", "--for=condition=Established", "crd/clusternetworkpolicies.policy.networking.k8s.io", "--timeout=30s")
	p.expect("a", p.web, 8080, true)
	p.policy(`{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: no-a},
 spec: {tier: Admin, priority: 5, subject: {namespaces: {}}, ingress: [
  {name: pass-b, action: Pass, from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: b}}}}]},
  {name: no-pods, action: Deny, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 8080}}}]}]}}`)
	p.expect("a", p.web, 8080, false)
	p.expect("b", p.web, 8080, true)
	_, err := p.kubectl(`{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: names},
 spec: {tier: Admin, priority: 6, subject: {namespaces: {}}, egress: [{action: Accept, to: [{domainNames: ["example.com"]}]}]}}`, "apply", "-f", "-")
	if err == nil {
		p.t.Error("names as peers are accepted, and not enforced")
	}
	p.must("", "delete", "clusternetworkpolicy", "no-a")
	p.expect("a", p.web, 8080, true)
}

func (p *policed) memory() {
	time.Sleep(3 * time.Second)
	connections, _ := p.in("sh", "-c", "ss -tnp | grep netpolicy")
	if strings.Count(connections, "\n") > 0 {
		p.t.Errorf("more than one connection to the API server:\n%s", connections)
	}
	out, err := p.in("sh", "-c", fmt.Sprintf("grep -E '^(Pss|Rss|Pss_Anon|Pss_File):' /proc/%d/smaps_rollup; cat /proc/%[1]d/stat | cut -d' ' -f14,15", p.agentPID()))
	p.check(err)
	p.t.Logf("the agent's memory and CPU ticks: %s; %+v", strings.ReplaceAll(out, "\n", " "), p.status())
	for line := range strings.Lines(out) {
		if fields := strings.Fields(line); fields[0] == "Pss:" {
			if kib, err := strconv.Atoi(fields[1]); err != nil || kib > 25<<10 {
				p.t.Errorf("%s is more than 25 MiB", line)
			}
		}
	}
}
