// SPDX-License-Identifier: Apache-2.0

package testcloud_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"bastide.dev/testcloud"
)

const (
	lifecycleKills = 100
	lifecycleSeed  = 5
)

// TestChaosOfLifecycle kills a random process of the instance at a hundred
// random moments, while a cluster is upgraded, rotated, stopped and scaled;
// then it looks whether what is said is true, and nothing was left halfway.
func TestChaosOfLifecycle(t *testing.T) {
	c := testcloud.Start(t, "chaoslife", "--public-pool", "198.18.66.0/24")
	s := newStubborn(t, c)
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	var calm atomic.Bool
	e := &eventful{stubborn: s, name: "c"}
	lived := make(chan struct{})
	go func() {
		defer close(lived)
		if err := e.live(ctx, &calm); err != nil {
			t.Error(err)
		}
	}()
	random := rand.New(rand.NewPCG(lifecycleSeed, lifecycleSeed))
	for n := range lifecycleKills {
		pause(ctx, time.Duration(200+random.IntN(3800))*time.Millisecond)
		v, err := kill(random, c)
		if err != nil {
			t.Error(err)
			break
		}
		t.Logf("%s kill %d during %s: %s %d %s", time.Now().Format("15:04:05.0"), n+1, e.now.Load(), v.role, v.pid, v.name)
		if v.role == "daemon" {
			if out, err := c.Bastide(ctx, "up"); err != nil {
				t.Errorf("bastide up after the daemon's death: %v\n%s", err, out)
			}
		}
		if ctx.Err() != nil || t.Failed() {
			t.Errorf("only %d of %d kills", n+1, lifecycleKills)
			break
		}
	}
	calm.Store(true)
	<-lived
	t.Logf("operations: %v", e.done)
	if t.Failed() {
		t.Logf("%s", first(c.Bastide(context.WithoutCancel(ctx), "status")))
		return
	}
	s.whole(t, e.name, 2)
	e.consistent(t)
	retry(t, func() error { return orphans(c, 2, s.networks(t)) })
}

func first(text string, _ error) string { return text }

// eventful is a cluster to which all happens that a platform does to one.
type eventful struct {
	*stubborn
	name string
	now  atomic.Value   // what is being done
	done map[string]int // how often each was done, by name and end
}

var errDeadline = errors.New("no time is left")

// live repeats a cluster's life until it is calm and a life has been whole.
func (e *eventful) live(ctx context.Context, calm *atomic.Bool) error {
	e.done = map[string]int{}
	for lap := 0; ; lap++ {
		for _, event := range e.events() {
			if err := e.insist(ctx, event); err != nil {
				return err
			}
			if calm.Load() && lap > 0 {
				return e.settle(ctx)
			}
		}
	}
}

type event struct {
	name   string
	method string
	path   string // below the cluster
	body   any
}

func (e *eventful) events() []event {
	cluster := func(version string) object {
		return object{"location": "eastus", "identity": object{"type": "SystemAssigned"}, "properties": object{
			"dnsPrefix": e.name, "kubernetesVersion": version, "oidcIssuerProfile": object{"enabled": true}, "agentPoolProfiles": []any{
				object{"name": "np", "count": 2, "mode": "System", "vmSize": "Standard_B2s", "osType": "Linux"}}}}
	}
	pool := func(version string, count int) object {
		return object{"properties": object{"count": count, "mode": "System", "vmSize": "Standard_B2s", "osType": "Linux", "orchestratorVersion": version}}
	}
	post := func(name string) event { return event{name, http.MethodPost, "/" + name, object{}} }
	return []event{
		{"create", http.MethodPut, "", cluster("1.35.4")},
		{"control plane", http.MethodPut, "", cluster("1.36.3")},
		post("rotateClusterCertificates"),
		{"nodes", http.MethodPut, "/agentPools/np", pool("1.36.3", 2)},
		post("rotateServiceAccountSigningKeys"),
		{"backup", http.MethodPut, "/backups/b", nil},
		{"restore", http.MethodPost, "/restore", object{"backupId": "/subscriptions/" + e.sub + "/resourceGroups/rg" + managedClusters + e.name + "/backups/b"}},
		{"more", http.MethodPut, "/agentPools/np", pool("1.36.3", 3)},
		{"fewer", http.MethodPut, "/agentPools/np", pool("1.36.3", 2)},
		post("stop"), post("start"),
		{"delete", http.MethodDelete, "", nil},
	}
}

// insist repeats an event until it succeeds: one that ended as failed said why,
// and may be asked for again.
func (e *eventful) insist(ctx context.Context, v event) error {
	e.now.Store(v.name)
	var last string
	for range 10 {
		state, err := e.once(ctx, v)
		if err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		e.done[v.name+" "+state]++
		if state == "Succeeded" || state == "" && v.method == http.MethodDelete {
			return nil
		}
		last = state
	}
	return fmt.Errorf("%s: %s ten times", v.name, last)
}

func (e *eventful) once(ctx context.Context, v event) (string, error) {
	var data []byte
	if v.body != nil {
		data = must(json.Marshal(v.body))
	}
	target := managedClusters + e.name
	if strings.Count(v.path, "/") > 1 {
		target += v.path
	}
	for ctx.Err() == nil {
		a, err := e.stubborn.send(ctx, v.method, e.address(managedClusters+e.name+v.path), data)
		if err != nil {
			return "", err
		}
		if a.status == http.StatusConflict {
			if _, err := e.settled(ctx, target); err != nil {
				return "", err
			}
			pause(ctx, 100*time.Millisecond)
			continue
		}
		if a.status/100 != 2 && !(v.method == http.MethodDelete && a.status == http.StatusNotFound) {
			return "", fmt.Errorf("%d %s", a.status, a.body)
		}
		state, err := e.settled(ctx, target)
		if state == "Failed" && a.operation != "" {
			end := e.ending(ctx, a.operation)
			if !strings.Contains(end, `"message"`) {
				return "", fmt.Errorf("it failed, and doesn't say why: %s", end)
			}
		}
		return state, err
	}
	return "", errDeadline
}

// settle leaves the cluster with two nodes of the newest release.
func (e *eventful) settle(ctx context.Context) error {
	all := e.events()
	for _, v := range []event{all[0], all[1], all[3]} {
		if v.name == "create" {
			a, err := e.stubborn.send(ctx, http.MethodGet, e.address(managedClusters+e.name), nil)
			if err != nil {
				return err
			}
			if a.status == http.StatusOK {
				continue
			}
		}
		if err := e.insist(ctx, v); err != nil {
			return err
		}
	}
	return nil
}

// consistent: nodes are of the release that the pool is said to be of, none is
// kept from taking pods, and there is one API server.
func (e *eventful) consistent(t *testing.T) {
	t.Helper()
	kubectl := e.kubectl(t, e.name)
	out, err := kubectl("get", "nodes", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		Items []struct {
			Metadata struct {
				Name   string
				Labels map[string]string
			}
			Spec   struct{ Unschedulable bool }
			Status struct {
				NodeInfo struct{ KubeletVersion string }
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatal(err)
	}
	for _, n := range list.Items {
		_, out := n.Metadata.Labels["node.kubernetes.io/exclude-from-external-load-balancers"]
		if n.Spec.Unschedulable || out || n.Status.NodeInfo.KubeletVersion != "v1.36.3" {
			t.Errorf("node %s: unschedulable %v, out of balancers %v, kubelet %s", n.Metadata.Name, n.Spec.Unschedulable, out, n.Status.NodeInfo.KubeletVersion)
		}
	}
	secrets, err := filepath.Glob(filepath.Join(e.cloud.StateDir, "host", "controlplanes", "*", "config", "kube-apiserver*", "*.key"))
	if err != nil || len(secrets) == 0 {
		t.Fatalf("no keys of API servers are found: %v", err)
	}
	slots := map[string]bool{}
	for _, key := range secrets {
		slots[filepath.Dir(key)] = true
		if info, err := os.Stat(key); err != nil || info.Mode().Perm()&0o007 != 0 {
			t.Errorf("%s: %v %v", key, info.Mode(), err)
		}
	}
	if len(slots) != 1 {
		t.Errorf("keys of %d API servers lie on disk: %v", len(slots), slots)
	}
}
