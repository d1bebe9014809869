// SPDX-License-Identifier: Apache-2.0

//go:build bench

package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"bastide.dev/bundle"
	"bastide.dev/nodeimage"
	"bastide.dev/stream"
	"bastide.dev/testcloud"
)

const (
	rollName     = "roll"
	rollNodes    = 3
	apiRate      = 100 // requests a second
	webRate      = 200
	manyObjects  = 10_000
	grownNodes   = 10
	growPatience = 2 * time.Minute
	// nightPatience is above what twelve packages take on a slow line.
	nightPatience = 10 * time.Minute
)

// lifecycle is a cluster that is upgraded, rotated and restored, with users.
type lifecycle struct {
	*outsider
	*kube
	name     string
	image    string // of its nodes; empty: the newest
	r        *report
	config   []byte
	terminal string
	web      string
}

// benchLifecycle measures what users notice of a platform at work: nothing, is
// what is promised, so each operation goes on under a stream of requests.
func benchLifecycle(t *testing.T, r *report, o *outsider) {
	l := &lifecycle{outsider: o, r: r, name: rollName}
	if err := l.set(); err != nil {
		r.problem(fmt.Errorf("lifecycle: %w", err))
		return
	}
	for _, part := range []struct {
		name string
		do   func() error
	}{
		{"control plane", l.benchControlPlane}, {"nodes", l.benchNodes}, {"certificates", l.benchCertificates}, {"restore", l.benchRestore}, {"growth", l.benchGrowth},
	} {
		t.Run(part.name, func(t *testing.T) {
			o.t = t
			if err := part.do(); err != nil {
				r.problem(fmt.Errorf("%s: %w", part.name, err))
			}
		})
	}
	o.t = t
	if _, err := o.remove(rollName); err != nil {
		r.problem(err)
	}
	t.Run("night", func(t *testing.T) {
		o.t = t
		if err := benchNight(t, r, o); err != nil {
			r.problem(fmt.Errorf("night: %w", err))
		}
	})
	o.t = t
}

// benchNight lets nodes that lack Debian's updates get them, and reboot.
func benchNight(t *testing.T, r *report, o *outsider) error {
	image, err := nodeimage.Build(t.Context(), nodeimage.Config{Cache: bundle.DefaultCache, Variant: nodeimage.Unpatched})
	if err != nil {
		return err
	}
	l := &lifecycle{outsider: o, r: r, name: "night", image: image.Version}
	if err := l.set(); err != nil {
		return err
	}
	before, err := l.boots()
	if err != nil {
		return err
	}
	err = l.under("three nodes patched and rebooted", func() error {
		begin := time.Now()
		if status, answer := l.do(http.MethodPost, l.clusterPath(l.name)+"/patchNodes", map[string]any{}); status/100 != 2 {
			return fmt.Errorf("patchNodes: %d %s", status, answer)
		}
		var packages int
		for ; time.Since(begin) < nightPatience; time.Sleep(200 * time.Millisecond) {
			var err error
			if packages, err = l.patched(before); err == nil {
				r.add(NewFigure("three nodes patched and rebooted, one after another", "s", []float64{time.Since(begin).Seconds()}).
					With("", fmt.Sprintf("%d packages of Debian's security updates on each", packages)))
				return nil
			}
		}
		return errors.New("the night took too long")
	})
	_, removed := o.remove(l.name)
	return errors.Join(err, removed)
}

// patched is how many packages each node has installed; an error as long as
// there is something to do.
func (l *lifecycle) patched(before []string) (packages int, err error) {
	var list struct {
		Value []struct {
			Properties struct {
				Upgradable     []any
				RebootRequired bool
				Runs           []struct {
					Ended     time.Time
					Error     string
					Installed []any
				}
			}
		}
	}
	if err := l.get(l.clusterPath(l.name)+"/nodePatches", &list); err != nil {
		return 0, err
	}
	for _, n := range list.Value {
		p := n.Properties
		if len(p.Runs) == 0 || p.Runs[0].Ended.IsZero() || p.Runs[0].Error != "" || p.RebootRequired || len(p.Upgradable) > 0 {
			return 0, errors.New("not yet")
		}
		packages = len(p.Runs[0].Installed)
	}
	ready, err := l.kubectl("get", "nodes", "--no-headers")
	if err != nil || strings.Count(ready, " Ready ") != rollNodes {
		return 0, fmt.Errorf("not all nodes are back: %w", err)
	}
	boots, err := l.boots()
	if err != nil {
		return 0, err
	}
	for _, id := range boots {
		if slices.Contains(before, id) {
			return 0, errors.New("a node hasn't rebooted")
		}
	}
	return packages, nil
}

// boots are the nodes' boot ids.
func (l *lifecycle) boots() ([]string, error) {
	text, err := l.kubectl("get", "nodes", "-o", "jsonpath={.items[*].status.nodeInfo.bootID}")
	return strings.Fields(text), err
}

func (l *lifecycle) set() error {
	body := oneNode(l.name)
	properties := body["properties"].(map[string]any)
	properties["kubernetesVersion"] = bundle.KubernetesVersions()[1]
	pool := agentPool(rollNodes)
	if l.image != "" {
		pool["tags"] = map[string]any{"bastide-node-image": l.image}
	}
	properties["agentPoolProfiles"] = []any{pool}
	if _, err := l.change(http.MethodPut, l.clusterPath(l.name), body); err != nil {
		return err
	}
	if err := l.credentials(); err != nil {
		return err
	}
	manifest := l.t.TempDir() + "/web.yaml"
	if err := os.WriteFile(manifest, []byte(testcloud.WebApp(2, 1)), 0o600); err != nil {
		return err
	}
	for _, args := range [][]string{{"apply", "-f", manifest}, {"rollout", "status", "deployment/web", "--timeout=120s"}} {
		if _, err := l.kubectl(args...); err != nil {
			return err
		}
	}
	s := &scene{outsider: l.outsider}
	if err := s.terminalAt("user-" + l.name); err != nil {
		return err
	}
	l.terminal = s.terminal
	var service struct {
		Status struct {
			LoadBalancer struct{ Ingress []struct{ IP string } }
		}
	}
	if err := l.await("/api/v1/namespaces/default/services/web", &service, func() bool { return len(service.Status.LoadBalancer.Ingress) > 0 }); err != nil {
		return err
	}
	l.web = service.Status.LoadBalancer.Ingress[0].IP + ":80"
	page := testcloud.Web(l.terminal, l.web)
	var err error
	for begin := time.Now(); time.Since(begin) < 30*time.Second; time.Sleep(100 * time.Millisecond) {
		if err = page(l.t.Context()); err == nil {
			return nil
		}
	}
	return err
}

// credentials are a client's by certificate, which measures, and one's by
// token, which outlasts every certificate.
func (l *lifecycle) credentials() error {
	var err error
	if l.kube, err = l.outsider.kube(l.name); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"create", "serviceaccount", "user"}, {"create", "rolebinding", "user", "--clusterrole=edit", "--serviceaccount=default:user"},
	} {
		if _, err := l.kubectl(args...); err != nil {
			return err
		}
	}
	token, err := l.kubectl("create", "token", "user", "--duration=6h")
	if err != nil {
		return err
	}
	text, err := l.kubectl("config", "view", "--raw", "-o", "json")
	if err != nil {
		return err
	}
	var config map[string]any
	if err := json.Unmarshal([]byte(text), &config); err != nil {
		return err
	}
	for _, user := range config["users"].([]any) {
		user.(map[string]any)["user"] = map[string]any{"token": strings.TrimSpace(token)}
	}
	l.config, err = json.Marshal(config)
	return err
}

func (l *lifecycle) kubectl(args ...string) (string, error) {
	path, err := l.kubeconfig(l.name)
	if err != nil {
		return "", err
	}
	out, stderr, err := l.cloud.Try(l.t.Context(), "kubectl", append([]string{"--kubeconfig=" + path}, args...)...)
	if err != nil {
		return "", fmt.Errorf("kubectl %v: %w %s", args, err, stderr)
	}
	return out, nil
}

// under does something under streams of requests and adds how many failed.
func (l *lifecycle) under(what string, do func() error) error {
	request, err := testcloud.API(l.t.Context(), l.config)
	if err != nil {
		return err
	}
	api := stream.Begin(l.t.Context(), apiRate, request)
	web := stream.Begin(l.t.Context(), webRate, testcloud.Web(l.terminal, l.web))
	err = do()
	for _, of := range []struct {
		name  string
		tally stream.Tally
	}{{fmt.Sprintf("of %d requests a second to the API", apiRate), api.End()}, {fmt.Sprintf("of %d connections a second to the web app", webRate), web.End()}} {
		say("%s, %s: %s", what, of.name, of.tally)
		l.r.add(NewFigure(what+": failed "+of.name, "", []float64{float64(of.tally.Failed)}).Against(AtMost, 0).
			With(fmt.Sprintf("%d sent", of.tally.Sent), fmt.Sprintf("longest time without an answer %.0f ms, slowest answer %.0f ms; %s",
				millis(of.tally.Gap), millis(of.tally.Longest), strings.Join(of.tally.Failures, "; "))))
	}
	return err
}

// base is the address of Resource Manager.
func (l *lifecycle) base() string { return l.outsider.base }

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (l *lifecycle) benchControlPlane() error {
	return l.under("control plane 1.35 → 1.36", func() error {
		took, err := l.changeCluster(func(p map[string]any) { p["kubernetesVersion"] = bundle.KubernetesVersions()[0] })
		if err == nil {
			l.r.add(NewFigure("control plane 1.35 → 1.36", "s", []float64{took}).Against(AtMost, 10).With("AKS: 5–10 min", ""))
		}
		return err
	})
}

// changeCluster reads the cluster, changes its properties and writes it.
func (l *lifecycle) changeCluster(edit func(properties map[string]any)) (float64, error) {
	var cluster map[string]any
	if err := l.get(l.clusterPath(rollName), &cluster); err != nil {
		return 0, err
	}
	edit(cluster["properties"].(map[string]any))
	return l.change(http.MethodPut, l.clusterPath(rollName), cluster)
}

func (l *lifecycle) get(path string, into any) error {
	status, answer := l.do(http.MethodGet, path, nil)
	if status != http.StatusOK {
		return fmt.Errorf("GET %s: %d %s", path, status, answer)
	}
	return json.Unmarshal(answer, into)
}

// changePool is changeCluster for its pool.
func (l *lifecycle) changePool(edit func(properties map[string]any)) (float64, error) {
	path := l.clusterPath(rollName) + "/agentPools/np"
	var pool map[string]any
	if err := l.get(path, &pool); err != nil {
		return 0, err
	}
	edit(pool["properties"].(map[string]any))
	return l.change(http.MethodPut, path, pool)
}

func (l *lifecycle) benchNodes() error {
	return l.under("three nodes 1.35 → 1.36, surge 1", func() error {
		took, err := l.changePool(func(p map[string]any) {
			p["orchestratorVersion"] = bundle.KubernetesVersions()[0]
			p["upgradeSettings"] = map[string]any{"maxSurge": "1"}
		})
		if err == nil {
			l.r.add(NewFigure("three nodes 1.35 → 1.36, surge 1: seconds a node", "s", []float64{took / rollNodes}).Against(AtMost, 10).
				With("AKS: minutes a node", fmt.Sprintf("%.1f s in all, with the surge node's coming and going", took)))
		}
		return err
	})
}

func (l *lifecycle) benchCertificates() error {
	return l.under("rotation of all certificates", func() error {
		took, err := l.change(http.MethodPost, l.clusterPath(rollName)+"/rotateClusterCertificates", nil)
		if err == nil {
			l.r.add(NewFigure("rotation of all certificates, three nodes", "s", []float64{took}).Against(AtMost, 30).With("AKS: up to 30 min without an API", ""))
		}
		return err
	})
}

// benchRestore brings a cluster with many objects back to a moment before one was lost.
func (l *lifecycle) benchRestore() error {
	object := func(i int) map[string]any {
		return map[string]any{"metadata": map[string]any{"name": fmt.Sprintf("many-%d", i)}, "data": map[string]any{"text": strings.Repeat("x", 512)}}
	}
	const maps = "/api/v1/namespaces/default/configmaps"
	var err error
	if l.kube, err = l.outsider.kube(l.name); err != nil { // the certificate of before the rotation is refused
		return err
	}
	if err := parallel(manyObjects, func(i int) error { return l.post(maps, object(i)) }); err != nil {
		return err
	}
	const version = "?api-version=2026-03-01"
	backup := l.clusterPath(rollName) + "/backups/bench"
	taken, err := l.changeAt(http.MethodPut, l.base()+backup+version, nil)
	if err != nil {
		return err
	}
	if err := l.delete(maps + "/many-7"); err != nil {
		return err
	}
	took, err := l.changeAt(http.MethodPost, l.base()+l.clusterPath(rollName)+"/restore"+version, map[string]any{"backupId": backup})
	if err != nil {
		return err
	}
	if _, err := l.kube.send(http.MethodGet, maps+"/many-7", nil); err != nil {
		return fmt.Errorf("the restore succeeded, but: %w", err)
	}
	l.r.add(NewFigure("restore of a cluster with 10,000 objects", "s", []float64{took}).Against(AtMost, 30).With("", fmt.Sprintf("its backup took %.1f s", taken)))
	return nil
}

// benchGrowth lets pods that fit nowhere make nodes.
func (l *lifecycle) benchGrowth() error {
	const name = "grow"
	body := oneNode(name)
	pool := agentPool(1)
	pool["enableAutoScaling"], pool["minCount"], pool["maxCount"] = true, 1, grownNodes
	body["properties"].(map[string]any)["agentPoolProfiles"] = []any{pool}
	if _, err := l.change(http.MethodPut, l.clusterPath(name), body); err != nil {
		return err
	}
	k, err := l.outsider.kube(name)
	if err != nil {
		return err
	}
	// Of each node's two CPUs such a pod takes more than half.
	app := map[string]any{"metadata": map[string]any{"name": "big"}, "spec": map[string]any{"replicas": grownNodes,
		"selector": map[string]any{"matchLabels": map[string]any{"app": "big"}},
		"template": map[string]any{"metadata": map[string]any{"labels": map[string]any{"app": "big"}}, "spec": map[string]any{
			"containers": []any{map[string]any{"name": "web", "image": webImage, "resources": map[string]any{"requests": map[string]any{"cpu": "1100m"}}}}}}}}
	begin := time.Now()
	if err := k.post("/apis/apps/v1/namespaces/default/deployments", app); err != nil {
		return err
	}
	var state struct{ Status struct{ ReadyReplicas int } }
	err = errors.New("never looked")
	for time.Since(begin) < growPatience && err != nil {
		err = k.await("/apis/apps/v1/namespaces/default/deployments/big", &state, func() bool { return state.Status.ReadyReplicas == grownNodes })
	}
	if err != nil {
		return fmt.Errorf("%d of %d pods run: %w", state.Status.ReadyReplicas, grownNodes, err)
	}
	l.r.add(NewFigure("1 → 10 nodes by pending pods, to all pods running", "s", []float64{time.Since(begin).Seconds()}).Against(AtMost, 10).With("AKS: minutes", ""))
	_, err = l.remove(name)
	return err
}
