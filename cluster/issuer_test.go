// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"bastide.dev/controlplane"
	"bastide.dev/fault"
	"bastide.dev/oidc"
	"bastide.dev/resource"
)

// withIssuer is azBody with further properties.
func withIssuer(more string) string {
	return strings.Replace(azBody(1), `"properties":{`, `"properties":{`+more+`,`, 1)
}

const issuerOn = `"oidcIssuerProfile":{"enabled":true}`

func (w *world) plane() controlplane.Spec {
	w.t.Helper()
	return w.host.Planes[w.state().ID]
}

// published are the ids of the keys that the world may know.
func (w *world) published() []string {
	w.t.Helper()
	record, err := w.store.Get(w.t.Context(), oidc.StoreKey("t1", w.state().UID))
	if err != nil {
		w.t.Fatal(err)
	}
	if strings.Contains(string(record.Value), "PRIVATE") || strings.Contains(string(record.Value), `"d":`) {
		w.t.Fatal("a private key is published")
	}
	var d oidc.Document
	if err := json.Unmarshal(record.Value, &d); err != nil {
		w.t.Fatal(err)
	}
	if d.Issuer != "https://oidc.bastide.internal/t1/"+w.state().UID+"/" {
		w.t.Errorf("issuer %s", d.Issuer)
	}
	return d.IDs()
}

// TestIssuerIsEnabledInPlace: tokens of before stay good, and there is no way back.
func TestIssuerIsEnabledInPlace(t *testing.T) {
	w := newWorld(t)
	w.must("PUT", testCluster, azBody(1), resource.Succeeded)
	before := w.plane()
	if before.Issuer != "https://"+w.state().FQDN || before.KeysURL != "" || before.WorkloadIdentity != nil {
		t.Errorf("issuer %s, keys at %q", before.Issuer, before.KeysURL)
	}
	if got := get(w.view(testCluster, testVersion), "properties.oidcIssuerProfile.issuerURL"); got != nil {
		t.Errorf("issuer of none: %v", got)
	}
	w.must("PUT", testCluster, withIssuer(issuerOn), resource.Succeeded)
	after, url := w.plane(), get(w.view(testCluster, testVersion), "properties.oidcIssuerProfile.issuerURL")
	if after.Issuer != url || !slices.Equal(after.FormerIssuers, []string{before.Issuer}) || after.KeysURL != oidc.KeysURL(after.Issuer) {
		t.Errorf("issuer %s, before %v, keys at %s, shown %v", after.Issuer, after.FormerIssuers, after.KeysURL, url)
	}
	if string(after.Keys.ServiceAccounts) != string(before.Keys.ServiceAccounts) {
		t.Error("enabling the issuer changed the key")
	}
	if ids, err := after.SigningKeyIDs(); err != nil || !slices.Equal(ids, w.published()) {
		t.Errorf("%v published, %v accepted: %v", w.published(), ids, err)
	}
	w.must("PUT", testCluster, azBody(1), resource.Succeeded) // az leaves out what it doesn't know
	if w.plane().Issuer != after.Issuer {
		t.Error("a body that says nothing of the issuer switched it off")
	}
	if _, _, err := w.do(t.Context(), "PUT", testCluster, withIssuer(`"oidcIssuerProfile":{"enabled":false}`)); err == nil || problems(err)[0].Target != issuerEnabled {
		t.Errorf("disabled again: %v", err)
	}
	w.must("DELETE", testCluster, "", resource.Succeeded)
	w.nothingLeft()
}

func TestWorkloadIdentity(t *testing.T) {
	w := newWorld(t)
	const identity = `"securityProfile":{"workloadIdentity":{"enabled":true}}`
	for more, target := range map[string]string{
		identity:                                workloadEnabled,
		`"podIdentityProfile":{"enabled":true}`: "properties.podIdentityProfile.enabled",
		issuerOn + `,"securityProfile":{"defender":{"securityMonitoring":{"enabled":true}}}`: "properties.securityProfile.defender.securityMonitoring.enabled",
		issuerOn + `,"securityProfile":{"workloadIdentity":{"enabled":"yes"}}`:               "properties.securityProfile.workloadIdentity.enabled",
		`"oidcIssuerProfile":{"enabled":true,"surprise":"x"}`:                                "properties.oidcIssuerProfile.surprise",
		`"podIdentityProfile":{"userAssignedIdentities":[{"name":"x","namespace":"y"}]}`:     "properties.podIdentityProfile.userAssignedIdentities[0].name",
	} {
		_, _, err := w.do(t.Context(), "PUT", testCluster, withIssuer(more))
		if err == nil || !slices.ContainsFunc(problems(err), func(f *fault.Error) bool { return strings.EqualFold(f.Target, target) }) {
			t.Errorf("%s: %v", more, err)
		}
		if strings.Contains(more, "podIdentity") && !strings.Contains(err.Error(), "workloadIdentity") {
			t.Errorf("the refusal doesn't name the successor: %v", err)
		}
	}
	w.must("PUT", testCluster, withIssuer(issuerOn+","+identity), resource.Succeeded)
	if got := w.plane().WorkloadIdentity; got == nil || got.Tenant != "t1" || got.Authority != "https://login.bastide.internal/" {
		t.Errorf("%+v", got)
	}
	w.must("PUT", testCluster, withIssuer(`"securityProfile":{"workloadIdentity":{"enabled":false}}`), resource.Succeeded)
	if w.plane().WorkloadIdentity != nil {
		t.Error("it is on still")
	}
}

// TestKeysRotate: the old key is good for a day or until the next rotation, and
// only its public half is kept.
func TestKeysRotate(t *testing.T) {
	w := newWorld(t)
	now := time.Now()
	w.p.Now = func() time.Time { return now }
	w.must("PUT", testCluster, azBody(1), resource.Succeeded)
	if _, _, err := w.do(t.Context(), "POST", testCluster+"/rotateServiceAccountSigningKeys", ""); err == nil {
		t.Error("keys of no issuer were rotated")
	}
	w.must("PUT", testCluster, withIssuer(issuerOn), resource.Succeeded)
	rotate := func() (ids []string) {
		t.Helper()
		w.must("POST", testCluster+"/rotateServiceAccountSigningKeys", "", resource.Succeeded)
		ids = w.published()
		plane := w.plane()
		accepted, err := plane.SigningKeyIDs()
		if err != nil || len(ids) != 2 || len(accepted) != 2 || !slices.Contains(accepted, ids[0]) || !slices.Contains(accepted, ids[1]) {
			t.Fatalf("published %v, accepted %v: %v", ids, accepted, err)
		}
		return ids
	}
	first := w.published()
	one := rotate()
	if one[1] != first[0] || one[0] == first[0] {
		t.Errorf("first %v, then %v", first, one)
	}
	two := rotate()
	if two[1] != one[0] || slices.Contains(two, first[0]) {
		t.Errorf("after %v came %v", one, two)
	}
	for _, key := range w.plane().Keys.RetiredServiceAccounts {
		if strings.Contains(string(key), "PRIVATE") {
			t.Error("a retired key is kept whole")
		}
	}
	id := resource.MustParseID(testCluster)
	if again, err := w.runner.reconcile(t.Context(), id.Key()); err != nil || again <= 0 || again > keyOverlap {
		t.Errorf("looked at again after %s: %v", again, err)
	}
	now = now.Add(keyOverlap - time.Second)
	if w.settle(); len(w.published()) != 2 {
		t.Error("the old key ended early")
	}
	now = now.Add(time.Second)
	if w.settle(); !slices.Equal(w.published(), two[:1]) || len(w.plane().Keys.RetiredServiceAccounts) != 0 {
		t.Errorf("a day later %v is published", w.published())
	}
	now = time.Now() // operations have begun by it
	w.must("POST", testCluster+"/stop", "", resource.Succeeded)
	if _, _, err := w.do(t.Context(), "POST", testCluster+"/rotateServiceAccountSigningKeys", ""); err == nil {
		t.Error("keys of a stopped cluster were rotated")
	}
	w.must("DELETE", testCluster, "", resource.Succeeded)
	w.nothingLeft()
}

// TestRotationKilledAtEveryWrite: whatever write serve dies before, what signs
// is published by then, and the rotation ends in the end.
func TestRotationKilledAtEveryWrite(t *testing.T) {
	for n := 1; ; n++ {
		w := newWorld(t)
		w.must("PUT", testCluster, withIssuer(issuerOn), resource.Succeeded)
		before := w.published()
		k := &killer{Store: w.memory, left: n}
		w.restart(k)
		died := w.survive(k, "POST", testCluster+"/rotateServiceAccountSigningKeys", "")
		plane := w.plane()
		ids, err := plane.SigningKeyIDs()
		if err != nil {
			t.Fatal(err)
		}
		published := w.published()
		for _, id := range ids {
			if !slices.Contains(published, id) {
				t.Errorf("killed at write %d: %s signs and isn't published", n, id)
			}
		}
		if len(published) != 2 || published[1] != before[0] {
			t.Errorf("killed at write %d: %v published, before %v", n, published, before)
		}
		if !died {
			if n < 2 {
				t.Fatal(errors.New("nothing was killed"))
			}
			return
		}
	}
}
