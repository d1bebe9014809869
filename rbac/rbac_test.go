// SPDX-License-Identifier: Apache-2.0

package rbac_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"bastide.dev/rbac"
)

var update = flag.Bool("update", false, "write golden files")

const (
	sub     = "/subscriptions/11111111-1111-1111-1111-111111111111"
	rg1     = sub + "/resourceGroups/rg1"
	cluster = rg1 + "/providers/Microsoft.ContainerService/managedClusters/c1"
	aks     = "Microsoft.ContainerService/managedClusters/"
)

func assigned(n int, principal, role, scope string) *rbac.Assignment {
	return &rbac.Assignment{ID: fmt.Sprintf("%s/providers/Microsoft.Authorization/roleAssignments/%d", strings.TrimSuffix(scope, "/"), n),
		Scope: scope, PrincipalID: principal, Role: role}
}

// TestDefinitionsAreAzures holds what was taken down from Azure's documents: a
// change of it has to be wanted.
func TestDefinitionsAreAzures(t *testing.T) {
	var b strings.Builder
	ids := map[string]bool{}
	for _, d := range rbac.Builtin() {
		if ids[d.ID] || d.ID != strings.ToLower(d.ID) || len(d.ID) != 36 || d.Custom || d.Name == "" || d.Description == "" {
			t.Errorf("definition %+v", d)
		}
		ids[d.ID] = true
		fmt.Fprintf(&b, "%s %s\n", d.ID, d.Name)
		for _, p := range d.Permissions {
			for _, list := range []struct {
				sign    string
				actions []string
			}{{"+", p.Actions}, {"-", p.NotActions}, {"+data", p.DataActions}, {"-data", p.NotDataActions}} {
				for _, action := range list.actions {
					fmt.Fprintf(&b, "  %s %s\n", list.sign, action)
				}
			}
		}
	}
	golden := filepath.Join("testdata", "builtin.golden")
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Error("the built-in definitions aren't those of testdata/builtin.golden (-update writes it)")
	}
}

func TestRolesGrantWhatAzureSays(t *testing.T) {
	all := map[string]string{}
	for _, d := range rbac.Builtin() {
		all[d.Name] = d.ID
	}
	short := map[string]string{"owner": "Owner", "contributor": "Contributor", "reader": "Reader", "access": "User Access Administrator", "rbacadmin": "Role Based Access Control Administrator",
		"network": "Network Contributor", "vm": "Virtual Machine Contributor", "vmuser": "Virtual Machine User Login", "operator": "Managed Identity Operator", "midcontributor": "Managed Identity Contributor",
		"pull": "AcrPull", "push": "AcrPush", "akscontributor": "Azure Kubernetes Service Contributor Role", "aksadmin": "Azure Kubernetes Service Cluster Admin Role", "aksuser": "Azure Kubernetes Service Cluster User Role",
		"kreader": "Azure Kubernetes Service RBAC Reader", "kwriter": "Azure Kubernetes Service RBAC Writer", "kadmin": "Azure Kubernetes Service RBAC Admin", "kcluster": "Azure Kubernetes Service RBAC Cluster Admin"}
	table := rbac.NewTable()
	n := 0
	for who, name := range short {
		if all[name] == "" {
			t.Fatalf("there is no role %s", name)
		}
		n++
		table.Put(assigned(n, who, strings.ToUpper(all[name]), rg1))
	}
	for _, c := range []struct{ action, scope, may string }{
		{"Microsoft.Network/loadBalancers/write", rg1 + "/providers/Microsoft.Network/loadBalancers/a", "contributor network owner"},
		{"microsoft.network/loadbalancers/READ", strings.ToUpper(rg1) + "/providers/x/y/z", "contributor network owner reader access rbacadmin vm vmuser"},
		{"Microsoft.Network/virtualNetworks/subnets/join/action", rg1, "contributor network owner vm"},
		{"Microsoft.Compute/virtualMachines/write", rg1, "contributor owner vm"},
		{"Microsoft.Compute/virtualMachines/read", rg1, "contributor owner vm reader access rbacadmin vmuser"},
		{"Microsoft.ContainerService/managedClusters/listClusterAdminCredential/action", cluster, "contributor owner akscontributor aksadmin"},
		{"Microsoft.ContainerService/managedClusters/listClusterUserCredential/action", cluster, "contributor owner akscontributor aksuser kadmin kcluster"},
		{"Microsoft.Authorization/roleAssignments/write", rg1, "owner access rbacadmin"},
		{"Microsoft.Authorization/roleAssignments/DELETE", rg1, "owner access rbacadmin"},
		{"Microsoft.Authorization/roleDefinitions/write", rg1, "owner access"},
		{"Microsoft.Authorization/elevateAccess/action", rg1, "owner access"},
		{"Microsoft.Authorization/roleAssignments/read", rg1, "contributor network operator midcontributor owner reader access rbacadmin vm akscontributor kreader kwriter kadmin kcluster"},
		{"Microsoft.ManagedIdentity/userAssignedIdentities/assign/action", rg1, "contributor operator owner"},
		{"Microsoft.ManagedIdentity/userAssignedIdentities/read", rg1, "contributor operator midcontributor owner reader access rbacadmin"},
		{"Microsoft.ManagedIdentity/userAssignedIdentities/write", rg1, "contributor midcontributor owner"},
		{"Microsoft.ContainerRegistry/registries/pull/read", rg1, "contributor owner reader access rbacadmin pull push"},
		{"Microsoft.ContainerRegistry/registries/push/write", rg1, "contributor owner push"},
		{"Microsoft.Resources/subscriptions/resourceGroups/read", rg1, "contributor network operator midcontributor owner reader access rbacadmin vm akscontributor kreader kwriter kadmin kcluster"},
		{"Microsoft.Network/loadBalancers/read", rg1 + "0", ""},
		{"Microsoft.Network/loadBalancers/read", sub, ""},
		{"Microsoft.Network/loadBalancers/read", rg1 + "/../rg10", ""},
		{"Microsoft.Network/loadBalancers/read", rg1 + "%2f..", ""},
		{"Microsoft.Network/loadBalancers/read", rg1 + "//x", ""},
		{"Microsoft.Network/loadBalancers/read", "x" + rg1, ""},
		{"", rg1, "owner contributor"},
	} {
		check(t, table, short, c.action, false, c.scope, c.may)
	}
	for _, c := range []struct{ action, scope, may string }{
		{aks + "pods/read", cluster + "/namespaces/a", "kreader kwriter kadmin kcluster"},
		{aks + "pods/write", cluster, "kwriter kadmin kcluster"},
		{aks + "pods/exec/action", cluster, "kwriter kadmin kcluster"},
		{aks + "secrets/read", cluster, "kwriter kadmin kcluster"},
		{aks + "rbac.authorization.k8s.io/roles/write", cluster, "kadmin kcluster"},
		{aks + "rbac.authorization.k8s.io/clusterroles/bind/action", cluster, "kadmin kcluster"},
		{aks + "resourcequotas/write", cluster, "kcluster"},
		{aks + "resourcequotas/read", cluster, "kreader kwriter kadmin kcluster"},
		{aks + "namespaces/delete", cluster, "kcluster"},
		{aks + "nodes/read", cluster, "kadmin kcluster"},
		{aks + "pods/read", rg1 + "0/providers/Microsoft.ContainerService/managedClusters/c1", ""},
		{"Microsoft.Compute/virtualMachines/login/action", rg1, "vmuser"},
		{"Microsoft.Compute/virtualMachines/loginAsAdmin/action", rg1, ""},
	} {
		check(t, table, short, c.action, true, c.scope, c.may)
	}
}

func check(t *testing.T, table *rbac.Table, who map[string]string, action string, data bool, scope, may string) {
	t.Helper()
	for name := range who {
		d := table.Decide(rbac.Request{Subject: rbac.Subject{ID: name}, Action: action, Data: data, Scope: scope})
		if want := slices.Contains(strings.Fields(may), name); d.Allowed != want {
			t.Errorf("%s may %s (data %v) on %s: %v, want %v: %s", name, action, data, scope, d.Allowed, want, d.Reason)
		}
		if d.Allowed == (d.Assignment == nil) || d.Reason == "" {
			t.Errorf("decision %+v", d)
		}
	}
}

func TestManagementGroups(t *testing.T) {
	const top, inner, beside = "/providers/Microsoft.Management/managementGroups/top", "/providers/Microsoft.Management/managementGroups/inner", "/providers/Microsoft.Management/managementGroups/beside"
	table := rbac.NewTable()
	table.SetParents(map[string]string{strings.ToUpper(sub): inner, inner: top, top: "/", beside: top, "/loop/a/b": "/loop/c/d", "/loop/c/d": "/loop/a/b"})
	table.Put(assigned(1, "a", rbac.ReaderRole, strings.ToUpper(top)))
	table.Put(assigned(2, "b", rbac.ReaderRole, beside))
	table.Put(assigned(3, "c", rbac.ReaderRole, "/"))
	for who, want := range map[string]bool{"a": true, "b": false, "c": true} {
		if d := table.Decide(rbac.Request{Subject: rbac.Subject{ID: who}, Action: "x/read", Scope: cluster}); d.Allowed != want {
			t.Errorf("%s: %+v", who, d)
		}
	}
	if got := fmt.Sprint(table.Lineage(rg1)); !strings.Contains(got, "inner /providers/microsoft.management/managementgroups/top") || !strings.HasSuffix(got, " /]") {
		t.Errorf("lineage %s", got)
	}
	if d := table.Decide(rbac.Request{Subject: rbac.Subject{ID: "b"}, Action: "x/read", Scope: "/loop/a/b"}); d.Allowed {
		t.Error("a circle of management groups grants")
	}
	table.SetParents(map[string]string{sub: beside, beside: top, top: "/"})
	if d := table.Decide(rbac.Request{Subject: rbac.Subject{ID: "b"}, Action: "x/read", Scope: cluster}); !d.Allowed {
		t.Errorf("after the subscription moved: %+v", d)
	}
}

func TestAssignmentsEndAndChange(t *testing.T) {
	now := time.Now()
	table := rbac.NewTable()
	a := assigned(1, "group", rbac.ReaderRole, rg1)
	a.Expires = now.Add(time.Hour)
	table.Put(a)
	r := rbac.Request{Subject: rbac.Subject{ID: "u", Groups: []string{"other", "GROUP"}}, Action: "x/read", Scope: rg1, Now: now}
	if d := table.Decide(r); !d.Allowed || d.Through != "GROUP" || d.Role.Name != "Reader" {
		t.Errorf("%+v", d)
	}
	if !table.Below(r.Subject, sub, now) || table.Below(r.Subject, cluster, now) || !table.Related(r.Subject, cluster, now) || table.Related(r.Subject, rg1+"0", now) {
		t.Error("below and related")
	}
	r.Now = a.Expires
	if d := table.Decide(r); d.Allowed || !strings.Contains(d.Reason, "ended") || table.Below(r.Subject, sub, r.Now) {
		t.Errorf("at its end: %+v", d)
	}
	table.Put(assigned(1, "group", rbac.OwnerRole, rg1)) // the same id
	if d := table.Decide(r); !d.Allowed || d.Role.Name != "Owner" || len(table.Of("group")) != 1 {
		t.Errorf("replaced: %+v", d)
	}
	custom := &rbac.Definition{ID: "99999999-0000-0000-0000-000000000000", Name: "C", Custom: true, Permissions: []rbac.Permission{{Actions: []string{"a/*/c"}}}}
	table.Define(custom)
	table.Put(assigned(2, "v", custom.ID, rg1))
	r.Subject = rbac.Subject{ID: "v"}
	for action, want := range map[string]bool{"a/b/c": true, "a/c": true, "A/x/y/C": true, "ac": false, "a/b/cd": false} {
		if r.Action = action; table.Decide(r).Allowed != want {
			t.Errorf("%s: %v", action, !want)
		}
	}
	table.Undefine(custom.ID)
	if r.Action = "a/b/c"; table.Decide(r).Allowed {
		t.Error("a role that is gone grants")
	}
	table.Define(&rbac.Definition{ID: rbac.ReaderRole, Custom: true, Permissions: []rbac.Permission{{Actions: []string{"*"}}}})
	if table.Definition(rbac.ReaderRole).Custom {
		t.Error("a built-in role was replaced")
	}
	table.Remove(strings.ToUpper(a.ID))
	if len(table.Of("group")) != 0 || len(table.WhoCan("x/read", false, rg1, now)) != 0 {
		t.Error("a removed assignment is there")
	}
}

// TestAgainstPlainEvaluator compares the table with an evaluation that has no index at all.
func TestAgainstPlainEvaluator(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	roles := rbac.Builtin()
	scopes := []string{"/", sub, rg1, rg1 + "0", cluster, cluster + "/namespaces/a", cluster + "/namespaces/ab", cluster + "0", sub + "/resourceGroups/RG1/providers/a/b/c"}
	actions := []string{"Microsoft.Network/loadBalancers/read", "Microsoft.ContainerService/managedClusters/write", "Microsoft.Authorization/roleAssignments/write", aks + "pods/read", aks + "secrets/write", "*/read", "x"}
	principals := []string{"a", "b", "g1", "g2"}
	for range 200 {
		table := rbac.NewTable()
		var all []*rbac.Assignment
		for n := range random.IntN(8) {
			a := assigned(n, principals[random.IntN(4)], roles[random.IntN(len(roles))].ID, scopes[random.IntN(len(scopes))])
			all = append(all, a)
			table.Put(a)
		}
		for range 40 {
			r := rbac.Request{Subject: rbac.Subject{ID: "a", Groups: []string{"g1"}}, Action: actions[random.IntN(len(actions))], Data: random.IntN(2) == 0, Scope: scopes[random.IntN(len(scopes))]}
			if got, want := table.Decide(r).Allowed, plain(all, roles, r); got != want {
				t.Fatalf("%+v: %v, want %v", r, got, want)
			}
		}
	}
}

func plain(all []*rbac.Assignment, roles []*rbac.Definition, r rbac.Request) bool {
	any := func(patterns []string) bool {
		return slices.ContainsFunc(patterns, func(p string) bool { return rbac.MatchAction(p, r.Action) })
	}
	for _, a := range all {
		at := strings.ToLower(strings.TrimSuffix(a.Scope, "/"))
		if a.PrincipalID != "a" && a.PrincipalID != "g1" || !strings.HasPrefix(strings.ToLower(strings.TrimSuffix(r.Scope, "/"))+"/", at+"/") {
			continue
		}
		for _, d := range roles {
			p := d.Permissions[0]
			if d.ID == a.Role && (!r.Data && any(p.Actions) && !any(p.NotActions) || r.Data && any(p.DataActions) && !any(p.NotDataActions)) {
				return true
			}
		}
	}
	return false
}

func TestConcurrentUse(t *testing.T) {
	table := rbac.NewTable()
	var wait sync.WaitGroup
	for n := range 4 {
		wait.Go(func() {
			who := fmt.Sprint("p", n)
			a := assigned(n, who, rbac.ReaderRole, rg1)
			for range 500 {
				table.Put(a)
				if !table.Decide(rbac.Request{Subject: rbac.Subject{ID: who}, Action: "a/read", Scope: cluster}).Allowed {
					t.Error("denied after it was assigned")
				}
				table.Remove(a.ID)
				if table.Decide(rbac.Request{Subject: rbac.Subject{ID: who}, Action: "a/read", Scope: cluster}).Allowed {
					t.Error("allowed after it was removed")
				}
			}
		})
	}
	wait.Wait()
}

// TestQuestionsFromWithin asks the table while it lists, with writers waiting: a
// read lock taken twice would stand still.
func TestQuestionsFromWithin(t *testing.T) {
	table := rbac.NewTable()
	for n := range 50 {
		table.Put(assigned(n, "p", rbac.ReaderRole, fmt.Sprint(rg1, n)))
	}
	stop, writer := make(chan struct{}), sync.WaitGroup{}
	writer.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				table.SetParents(map[string]string{sub: "/"})
			}
		}
	})
	for range 200 {
		found := table.Assignments(func(a *rbac.Assignment) bool { return table.Covers(a.Scope, sub) && table.Definition(a.Role) != nil })
		if len(found) != 50 {
			t.Errorf("%d found", len(found))
		}
	}
	close(stop)
	writer.Wait()
}

// large is a table of 10,000 assignments.
func large() (*rbac.Table, rbac.Subject) {
	table := rbac.NewTable()
	roles := rbac.Builtin()
	for n := range 10_000 {
		scope := fmt.Sprintf("%s/resourceGroups/g%d", sub, n%500)
		table.Put(assigned(n, fmt.Sprint("p", n%2000), roles[n%len(roles)].ID, scope))
	}
	who := rbac.Subject{ID: "p77"}
	for n := range 20 {
		who.Groups = append(who.Groups, fmt.Sprint("p", 100+n))
	}
	return table, who
}

func BenchmarkDecide(b *testing.B) {
	table, who := large()
	for name, scope := range map[string]string{"denied": sub + "/resourceGroups/g499/providers/Microsoft.ContainerService/managedClusters/c", "granted": sub + "/resourceGroups/g100/providers/Microsoft.ContainerService/managedClusters/c"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				table.Decide(rbac.Request{Subject: who, Action: "microsoft.containerservice/managedclusters/read", Scope: scope})
			}
		})
	}
}

// BenchmarkDecideTail measures the slowest hundredth of decisions.
func BenchmarkDecideTail(b *testing.B) {
	table, who := large()
	var took []time.Duration
	for n := 0; b.Loop(); n++ {
		start := time.Now()
		table.Decide(rbac.Request{Subject: who, Action: "Microsoft.ContainerService/managedClusters/write", Scope: fmt.Sprintf("%s/resourceGroups/g%d", sub, n%500)})
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds()), "p99-ns")
}
