// SPDX-License-Identifier: Apache-2.0

package testcloud_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bastide.dev/testcloud"
)

const (
	kills = 50
	seed  = 2
)

// TestChaos kills a random process of the instance at fifty random moments
// while clusters are made, given a Service, scaled and deleted, and security
// rules come and go; then it looks whether all that was acknowledged is true.
func TestChaos(t *testing.T) {
	c := testcloud.Start(t, "chaos", "--public-pool", "198.18.65.0/24")
	s := newStubborn(t, c)
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	var calm atomic.Bool
	var churners sync.WaitGroup
	for i := range 3 {
		churners.Go(func() {
			if err := churn(ctx, s, fmt.Sprintf("c%d", i), &calm); err != nil {
				t.Error(err)
			}
		})
	}
	rules := &ruleChurn{stubborn: s}
	churners.Go(func() {
		if err := rules.run(ctx, &calm); err != nil {
			t.Error(err)
		}
	})
	killAround(ctx, t, c)
	calm.Store(true)
	churners.Wait()
	if t.Failed() {
		return
	}
	t.Run("operations ended truthfully", func(t *testing.T) { endings(ctx, t, s) })
	t.Run("clusters are whole", func(t *testing.T) {
		s.whole(t, "c0", 1)
		s.whole(t, "c1", 2)
		s.served(t, "c0")
		s.served(t, "c1")
	})
	t.Run("rules are those that were acknowledged", func(t *testing.T) { rules.check(ctx, t) })
	t.Run("nothing is orphaned", func(t *testing.T) {
		retry(t, func() error { return orphans(c, 3, s.networks(t)) })
	})
	t.Run("all is reusable", func(t *testing.T) { reuse(ctx, t, c, s) })
	c.Must(t, "down")
	if left := testcloud.Leftovers(t, c); len(left) > 0 {
		t.Errorf("down left: %s", strings.Join(left, "\n"))
	}
}

// churn lives a cluster's life again and again, until it is calm; it then
// leaves c0 with one node, c1 with two, and c2 deleted.
func churn(ctx context.Context, s *stubborn, name string, calm *atomic.Bool) error {
	for {
		if err := s.create(ctx, name); err != nil {
			return err
		}
		if err := s.expose(ctx, name); err != nil {
			return err
		}
		if calm.Load() && name == "c0" {
			return nil
		}
		if err := s.scale(ctx, name, 2); err != nil {
			return err
		}
		if calm.Load() && name == "c1" {
			return nil
		}
		if err := s.scale(ctx, name, 1); err != nil {
			return err
		}
		if err := s.remove(ctx, name); err != nil {
			return err
		}
		if calm.Load() && name == "c2" {
			return nil
		}
	}
}

// killAround kills, at moments and of kinds that the seed decides. Nobody but
// the user restarts the daemon.
func killAround(ctx context.Context, t *testing.T, c *testcloud.Cloud) {
	random := rand.New(rand.NewPCG(seed, seed))
	hit := map[string]bool{}
	for n := range kills {
		pause(ctx, time.Duration(200+random.IntN(3800))*time.Millisecond)
		if ctx.Err() != nil {
			t.Errorf("only %d of %d kills in time", n, kills)
			return
		}
		v, err := kill(random, c)
		if err != nil {
			t.Error(err)
			return
		}
		hit[v.role] = true
		t.Logf("%s kill %d: %s %d %s", time.Now().Format("15:04:05.0"), n+1, v.role, v.pid, v.name)
		if v.role == "daemon" {
			if out, err := c.Bastide(ctx, "up"); err != nil {
				t.Errorf("bastide up after the daemon's death: %v\n%s", err, out)
			}
		}
	}
	if len(hit) != len(roles) {
		t.Errorf("of %q only these were hit: %v", roles, hit)
	}
}

// endings: every operation that the service acknowledged has ended, and well:
// nothing that was broken stayed so.
func endings(ctx context.Context, t *testing.T, s *stubborn) {
	if len(s.accepted) < 6 {
		t.Errorf("only %d operations in all that time", len(s.accepted))
	}
	for address, what := range s.accepted {
		a, err := s.send(ctx, http.MethodGet, address, nil)
		if err != nil {
			t.Fatal(err)
		}
		var operation struct{ Status string }
		if err := json.Unmarshal(a.body, &operation); err != nil || operation.Status != "Succeeded" {
			t.Errorf("%s: %d %s", what, a.status, a.body)
		}
	}
	for name, want := range map[string]string{"c0": "Succeeded", "c1": "Succeeded", "c2": "", "c0/agentPools/np": "Succeeded", "c1/agentPools/np": "Succeeded"} {
		if state, err := s.settled(ctx, managedClusters+name); err != nil || state != want {
			t.Errorf("%s is %q, not %q; %v", name, state, want, err)
		}
	}
	groups, err := s.send(ctx, http.MethodGet, s.base+"/subscriptions/"+s.sub+"/resourceGroups?api-version=2021-04-01", nil)
	if err != nil || strings.Contains(string(groups.body), "MC_rg_c2_") || !strings.Contains(string(groups.body), "MC_rg_c0_") {
		t.Errorf("resource groups: %s %v", groups.body, err)
	}
}

// orphans compares what is on the machine with what should be: a cluster in
// each network, and so many machines in all.
func orphans(c *testcloud.Cloud, machines int, networks []string) error {
	clusters := len(networks)
	planes := names(c.StateDir, "host", "controlplanes")
	if len(planes) != clusters {
		return fmt.Errorf("control planes on disk: %q, should be %d", planes, clusters)
	}
	boxes := names(c.StateDir, "host", "machines", "machines")
	if len(boxes) != machines {
		return fmt.Errorf("machines on disk: %q, should be %d", boxes, machines)
	}
	for kind, known := range map[string][]string{"controlplanes": planes, "machines": boxes} {
		groups, _ := filepath.Glob("/sys/fs/cgroup/*/bastide-" + c.Name + "/" + kind + "/*")
		v2, _ := filepath.Glob("/sys/fs/cgroup/bastide-" + c.Name + "/" + kind + "/*")
		for _, group := range append(groups, v2...) {
			info, err := os.Stat(group)
			if err == nil && info.IsDir() && !slices.Contains(known, filepath.Base(group)) {
				return fmt.Errorf("cgroup %s belongs to nothing", group)
			}
		}
	}
	owned := func(name string) bool {
		return slices.ContainsFunc(planes, func(id string) bool { return strings.Contains(name, id) })
	}
	for _, ns := range append(names("/run/bastide", c.Name, "netns"), names("/run/bastide", c.Name, "routers")...) {
		if !owned(ns) && ns != "edge" && !slices.Contains(networks, strings.TrimPrefix(ns, "vnet-")) {
			return fmt.Errorf("network namespace %s belongs to nothing", ns)
		}
	}
	count := map[string]int{}
	for _, v := range victims(c) {
		count[v.role]++
		if strings.Contains(v.name, "/") && !strings.HasPrefix(v.name, "service/") && !owned(v.name) {
			return fmt.Errorf("process %d, %s, belongs to nothing", v.pid, v.name)
		}
	}
	want := map[string]int{"serve": 1, "host": 1, "service etcd": 1, "daemon": 1, "etcd": clusters, "kube-apiserver": clusters,
		"kube-controller-manager": clusters, "kube-scheduler": clusters, "machine": machines}
	for _, role := range roles {
		if count[role] != want[role] {
			return fmt.Errorf("%d processes are %s, should be %d", count[role], role, want[role])
		}
	}
	return nil
}

func names(parts ...string) []string {
	entries, err := os.ReadDir(filepath.Join(parts...))
	if err != nil {
		return nil
	}
	var all []string
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), ".") {
			all = append(all, entry.Name())
		}
	}
	return all
}

// reuse deletes everything and makes a cluster again: it gets the lowest
// address of the pool, unless one was lost.
func reuse(ctx context.Context, t *testing.T, c *testcloud.Cloud, s *stubborn) {
	for _, name := range []string{"c0", "c1"} {
		if err := s.remove(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	if left := testcloud.OfClusters(t, c); len(left) > 0 {
		t.Errorf("deletion left: %s", strings.Join(left, "\n"))
	}
	if err := orphans(c, 0, nil); err != nil {
		t.Error(err)
	}
	if err := s.create(ctx, "c0"); err != nil {
		t.Fatal(err)
	}
	s.whole(t, "c0", 1)
	got, err := s.clusters(t).Get(ctx, "rg", "c0", nil)
	if err != nil {
		t.Fatal(err)
	}
	if address := hostsBlock(t, c.Name)[*got.Properties.Fqdn]; address.String() != "198.18.65.2" {
		t.Errorf("the only cluster's API server has the address %v: lower ones are lost", address)
	}
}
