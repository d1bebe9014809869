// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	userMade = "/subscriptions/s/resourceGroups/rg1/providers/Microsoft.ManagedIdentity/userAssignedIdentities/"
	cluster1 = "/subscriptions/s/resourceGroups/rg1/providers/Microsoft.ContainerService/managedClusters/c1"
)

func managedOf(id, resource string, made time.Time) principalView {
	return principalView{ID: id, Name: id, Type: "ManagedIdentity", Created: made, Alternate: []string{"isExplicit=True", resource}}
}

func TestDangling(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	ago := func(days int) time.Time { return now.AddDate(0, 0, -days) }
	long := now.AddDate(1, 0, 0)
	d := directoryView{
		principals: []principalView{
			managedOf("p-gone", cluster1+"x", ago(200)), managedOf("p-there", cluster1, ago(200)),
			managedOf("p-idle", userMade+"idle", ago(200)), managedOf("p-new", userMade+"new", ago(2)),
			managedOf("p-held", userMade+"Held", ago(200)), managedOf("p-federated", userMade+"federated", ago(200)),
			managedOf("p-used", userMade+"used", ago(200)),
			{ID: "p-app", Type: "Application", Alternate: []string{cluster1 + "x"}},
		},
		applications: []applicationView{
			{ID: "a1", AppID: "expired", Name: "it's", Created: ago(400), Secrets: []credentialView{{KeyID: "k1", End: ago(1)}}},
			{ID: "a2", AppID: "idle", Created: ago(400), Secrets: []credentialView{{KeyID: "k2", Start: ago(100), End: long}}},
			{ID: "a3", AppID: "used", Created: ago(400), Secrets: []credentialView{{KeyID: "K3", Start: ago(100), End: long}}},
			{ID: "a4", AppID: "soon", Created: ago(1), Keys: []credentialView{{KeyID: "k4", Start: ago(1), End: now.AddDate(0, 0, 29)}}},
			{ID: "a5", AppID: "public", Public: true},
			{ID: "a6", AppID: "federated"},
			{ID: "a7", AppID: "bare"},
		},
		known:     map[string]bool{"p-there": true},
		gone:      map[string]bool{strings.ToLower(cluster1 + "x"): true},
		users:     map[string][]string{strings.ToLower(userMade + "held"): {cluster1}},
		federated: map[string]bool{strings.ToLower(userMade + "federated"): true, "a6": true},
		used:      map[string]time.Time{"k3": ago(3), "p-used": ago(3)},
	}
	d.assignments = make([]assignmentView, 2)
	d.assignments[0].ID, d.assignments[0].Properties.PrincipalID = "/kept", "P-There"
	d.assignments[1].ID, d.assignments[1].Properties.PrincipalID = "/of nobody", "p-nobody"
	d.clusters = make([]clusterView, 2)
	d.clusters[1].ID, d.clusters[1].Name, d.clusters[1].Properties.Status.ProvisioningError.Message = cluster1, "c1", "It expired."

	ids := func() (all []string) {
		for _, f := range d.dangling(now, 90*24*time.Hour) {
			all = append(all, f.Kind+" "+f.ID)
		}
		return all
	}
	want := []string{"cluster " + cluster1, "managedIdentity p-gone", "managedIdentity " + userMade + "idle", "credential k1", "application expired",
		"credential k2", "credential k4", "application bare", "roleAssignment /of nobody"}
	if got := ids(); !slices.Equal(got, want) {
		t.Errorf("found\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if found := d.dangling(now, 90*24*time.Hour); found[len(found)-1].Command != "az role assignment delete --ids '/of nobody'" {
		t.Errorf("a command that can't be pasted: %s", found[len(found)-1].Command)
	}
	d.blind = true
	want = slices.DeleteFunc(want, func(s string) bool { return s == "credential k2" || strings.HasSuffix(s, "/idle") })
	if got := ids(); !slices.Equal(got, want) {
		t.Errorf("without knowing of uses found\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestDays(t *testing.T) {
	for text, want := range map[string]time.Duration{"90d": 90 * 24 * time.Hour, "12h": 12 * time.Hour, "0d": 0} {
		if got, err := parseDays(text); err != nil || got != want {
			t.Errorf("%s is %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "d", "-1d", "-3h", "90", "99999999999d", "1.5d"} {
		if got, err := parseDays(text); err == nil {
			t.Errorf("%q is %s", text, got)
		}
	}
}

// A name that somebody chose writes nothing on the reader's terminal.
func TestNamesAreShownPlainly(t *testing.T) {
	if got := shown("a\x1b[2Jb\nc\u202e"); got != "a?[2Jb?c?" {
		t.Errorf("%q", got)
	}
}

func TestPrincipalWarnings(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	clusters := make([]clusterView, 4)
	for i, id := range []string{"long", "soon", "msi", "gone"} {
		clusters[i].Name, clusters[i].ID, clusters[i].Properties.Principal.ClientID = id, cluster1, id
	}
	clusters[3].Properties.Status.ProvisioningError.Message = "It is gone."
	applications := []applicationView{
		{AppID: "long", Secrets: []credentialView{{End: now.AddDate(0, 0, 3)}, {End: now.AddDate(1, 0, 0)}}},
		{AppID: "SOON", Secrets: []credentialView{{End: now.AddDate(0, 0, 29)}, {End: now.AddDate(0, 0, -3)}}},
	}
	got := principalWarnings(clusters, applications, now)
	if len(got) != 2 || !strings.Contains(got[0], "soon") || !strings.Contains(got[0], "2026-12-20") || got[1] != "cluster gone: It is gone." {
		t.Errorf("%q", got)
	}
	if !withPrincipals(clusters) || withPrincipals(clusters[2:3]) {
		t.Error("which clusters act as a service principal")
	}
}
