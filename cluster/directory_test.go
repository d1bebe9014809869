// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	aks "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"

	"bastide.dev/controlplane"
	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

const (
	groupA = "11111111-2222-3333-4444-55555555aaaa"
	groupB = "11111111-2222-3333-4444-55555555bbbb"
)

// with is azBody with further properties.
func with(t *testing.T, properties string) string {
	t.Helper()
	var body, more object
	if err := errors.Join(json.Unmarshal([]byte(azBody(1)), &body), json.Unmarshal([]byte(properties), &more)); err != nil {
		t.Fatal(err)
	}
	for name, value := range more {
		set(body, "properties."+name, value)
	}
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// spec is the control plane that the cluster is compiled to now.
func (w *world) spec() controlplane.Spec {
	w.t.Helper()
	doc := w.document(w.t.Context(), resource.MustParseID(testCluster))
	all, err := w.p.load(w.t.Context(), doc)
	if err != nil {
		w.t.Fatal(err)
	}
	keys, err := w.p.keys(w.t.Context(), all.state.UID)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.p.compileControlPlane(all, keys)
}

func (w *world) credential(action, format string) (string, error) {
	w.t.Helper()
	_, plan, err := w.ask("POST", testCluster+"/"+action, "", map[string]string{"format": format})
	if err != nil {
		return "", err
	}
	return string(plan.Answer.(aks.CredentialResults).Kubeconfigs[0].Value), nil
}

func TestIntegration(t *testing.T) {
	w := newWorld(t)
	w.must("PUT", testCluster, with(t, `{"aadProfile":{"managed":true,"adminGroupObjectIDs":["`+strings.ToUpper(groupA)+`"]}}`), resource.Succeeded)
	spec := w.spec()
	d := spec.Directory
	if d == nil || d.Issuer != "https://login.bastide.internal/t1/" || d.Admins[0] != groupA || !strings.HasPrefix(d.Guard, "https://guard.bastide.internal/clusters/") {
		t.Fatalf("the control plane's directory: %+v", d)
	}
	uid := d.Guard[strings.LastIndex(d.Guard, "/")+1:]
	g, err := w.p.Guarded(t.Context(), uid)
	if err != nil || g.Secret != sha256.Sum256([]byte(d.Secret)) || !g.Directory || g.AzureRBAC || g.Resource != testCluster {
		t.Errorf("guard knows %+v, %v", g, err)
	}
	body := w.view(testCluster, testVersion)
	if get(body, "properties.aadProfile.managed") != true || get(body, "properties.aadProfile.tenantID") != "t1" || get(body, "properties.disableLocalAccounts") != false {
		t.Errorf("aadProfile is %v", get(body, "properties.aadProfile"))
	}

	// Azure RBAC can be switched on and off; what is left out stays.
	w.must("PUT", testCluster, with(t, `{"aadProfile":{"managed":true,"enableAzureRBAC":true}}`), resource.Succeeded)
	if g, err = w.p.Guarded(t.Context(), uid); err != nil || !g.AzureRBAC || w.spec().Directory.Admins[0] != groupA {
		t.Errorf("with Azure RBAC guard knows %+v, %v", g, err)
	}
	w.must("PUT", testCluster, azBody(1), resource.Succeeded)
	if g, err = w.p.Guarded(t.Context(), uid); err != nil || !g.AzureRBAC || !g.Directory {
		t.Errorf("after a body without aadProfile guard knows %+v, %v", g, err)
	}
	w.must("PUT", testCluster, with(t, `{"aadProfile":{"managed":true,"enableAzureRBAC":false,"adminGroupObjectIDs":["`+groupB+`"]}}`), resource.Succeeded)
	if g, err = w.p.Guarded(t.Context(), uid); err != nil || g.AzureRBAC || w.spec().Directory.Admins[0] != groupB {
		t.Errorf("without Azure RBAC guard knows %+v, %v", g, err)
	}
	_, _, err = w.do(t.Context(), "PUT", testCluster, with(t, `{"aadProfile":{"managed":false}}`))
	if f := problems(err); len(f) != 1 || f[0].Code != "OperationNotAllowed" {
		t.Errorf("switching the integration off: %v", err)
	}
	_, _, err = w.do(t.Context(), "POST", testCluster+"/resetAADProfile", `{"clientAppID":"x"}`)
	if f := problems(err); len(f) != 1 || f[0].Code != "OperationNotAllowed" {
		t.Errorf("resetAADProfile: %v", err)
	}
	w.must("DELETE", testCluster, "", resource.Succeeded)
	w.nothingLeft()
}

func TestIntegrationOfARunningCluster(t *testing.T) {
	w := newWorld(t)
	w.must("PUT", testCluster, azBody(1), resource.Succeeded)
	if w.spec().Directory != nil {
		t.Fatal("a cluster without aadProfile takes the directory's tokens")
	}
	machines := len(w.host.Machines)
	w.must("PUT", testCluster, with(t, `{"aadProfile":{"managed":true}}`), resource.Succeeded)
	if w.spec().Directory == nil || len(w.host.Machines) != machines {
		t.Error("the cluster wasn't integrated in place")
	}
}

func TestUserCredentialSignsInWithKubelogin(t *testing.T) {
	w := newWorld(t)
	w.must("PUT", testCluster, with(t, `{"aadProfile":{"managed":true}}`), resource.Succeeded)
	for _, format := range []string{"", "exec"} {
		config, err := w.credential("listClusterUserCredential", format)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"command: kubelogin", serverApp, clientApp, "devicecode", "https://login.bastide.internal/", "--disable-instance-discovery", "name: clusterUser_rg1_c1"} {
			if !strings.Contains(config, want) {
				t.Errorf("format %q lacks %s:\n%s", format, want, config)
			}
		}
		if strings.Contains(config, "client-key") {
			t.Errorf("format %q gives out a key", format)
		}
	}
	if config, err := w.credential("listClusterUserCredential", "azure"); err != nil || !strings.Contains(config, "auth-provider") || strings.Contains(config, "client-key") {
		t.Errorf("format azure: %v\n%s", err, config)
	}
	if config, err := w.credential("listClusterAdminCredential", ""); err != nil || !strings.Contains(config, "client-key-data") {
		t.Errorf("the admin's: %v", err)
	}
}

func TestLocalAccounts(t *testing.T) {
	w := newWorld(t)
	w.must("PUT", testCluster, with(t, `{"aadProfile":{"managed":true}}`), resource.Succeeded)
	before := w.spec().Keys
	if len(before.LocalCA.Certificate) == 0 || bytes.Equal(before.LocalCA.Certificate, before.CA.Certificate) {
		t.Fatal("local accounts have no authority of their own")
	}
	w.must("PUT", testCluster, with(t, `{"disableLocalAccounts":true}`), resource.Succeeded)
	if spec := w.spec(); len(spec.Keys.LocalCA.Certificate) != 0 || !bytes.Equal(spec.Keys.CA.Certificate, before.CA.Certificate) {
		t.Error("the authority of local accounts is still trusted")
	}
	for _, action := range []string{"listClusterAdminCredential", "listClusterMonitoringUserCredential"} {
		if _, err := w.credential(action, ""); !badRequest(err) {
			t.Errorf("%s: %v", action, err)
		}
	}
	if _, err := w.credential("listClusterUserCredential", ""); err != nil {
		t.Errorf("listClusterUserCredential: %v", err)
	}
	profile := testCluster + "/accessProfiles/clusterAdmin/listCredential"
	if _, _, err := w.do(t.Context(), "POST", profile, ""); !badRequest(err) {
		t.Errorf("the access profile: %v", err)
	}
	// They come back with another authority: certificates of before stay dead.
	w.must("PUT", testCluster, with(t, `{"disableLocalAccounts":false}`), resource.Succeeded)
	if after := w.spec().Keys.LocalCA.Certificate; len(after) == 0 || bytes.Equal(after, before.LocalCA.Certificate) {
		t.Error("local accounts came back with the authority of before, or without")
	}
}

func badRequest(err error) bool {
	f := fault.From(err)
	return f != nil && f.Code == "BadRequest" && strings.Contains(f.Message, "disable local accounts")
}

func TestOlderClustersGetTheirAccessLater(t *testing.T) {
	w := newWorld(t)
	w.must("PUT", testCluster, azBody(1), resource.Succeeded)
	uid := w.state().UID
	for _, key := range []string{accessKey(uid), guardKey(uid)} {
		if err := w.memory.Delete(t.Context(), key, store.Any); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.credential("listClusterAdminCredential", ""); fault.From(err) == nil {
		t.Error("a credential was issued by an authority that isn't there")
	}
	w.settle()
	if spec := w.spec(); len(spec.Keys.LocalCA.Certificate) == 0 {
		t.Error("an older cluster got no authority for local accounts")
	}
	_, _, err := w.do(t.Context(), "PUT", testCluster, with(t, `{"aadProfile":{"managed":true},"disableLocalAccounts":true}`))
	if f := problems(err); len(f) != 1 || f[0].Target != "properties.disableLocalAccounts" {
		t.Errorf("local accounts of an older cluster, whose certificates are its own authority's: %v", err)
	}
}

func TestGuardKnowsNoOtherNames(t *testing.T) {
	w := newWorld(t)
	for _, id := range []string{"", "..", "../secrets/clusters/x", strings.Repeat("a", 4096), groupA} {
		if _, err := w.p.Guarded(t.Context(), id); !fault.Is(err, fault.NotFound) {
			t.Errorf("Guarded(%.20q): %v", id, err)
		}
	}
}
