// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

func breakGlass() BreakGlass {
	return BreakGlass{Cluster: resource.MustParseID(testCluster), User: "anna", Groups: []string{"on-call"}, Lifetime: 90 * time.Second}
}

func TestBreakGlass(t *testing.T) {
	w := newWorld(t)
	w.must("PUT", testCluster, azBody(1), resource.Succeeded)
	b := breakGlass()
	text, err := b.Issue(t.Context(), w.memory, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.Load(text)
	if err != nil {
		t.Fatal(err)
	}
	entry := config.AuthInfos[config.Contexts[config.CurrentContext].AuthInfo]
	block, _ := pem.Decode(entry.ClientCertificateData)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(leaf.NotAfter); left > 90*time.Second || left < 60*time.Second {
		t.Errorf("it ends in %s", left)
	}
	if s := leaf.Subject; s.CommonName != "anna" || len(s.Organization) != 1 || s.Organization[0] != "on-call" {
		t.Errorf("it is of %s", s)
	}
	// The authority of local accounts signed it, which goes when they are disabled, and no other.
	local := x509.NewCertPool()
	local.AppendCertsFromPEM(w.spec().Keys.LocalCA.Certificate)
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: local, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Error(err)
	}
	records, _, err := w.memory.List(t.Context(), arm.ActivityPrefix)
	if err != nil || len(records) == 0 {
		t.Fatalf("%d records: %v", len(records), err)
	}
	var last arm.Activity
	if err := json.Unmarshal(records[len(records)-1].Value, &last); err != nil || last.Action != breakGlassAction || !strings.Contains(last.SubStatus, "user anna, groups on-call") {
		t.Errorf("the log has %+v: %v", last, err)
	}
	if strings.Contains(string(records[len(records)-1].Value), "PRIVATE KEY") {
		t.Error("the log has the key")
	}
}

// unwritten is a store that takes nothing.
type unwritten struct{ store.Store }

func (unwritten) Txn(context.Context, ...store.Change) (int64, error) { return 0, errors.New("full") }

func TestBreakGlassOffTheRecord(t *testing.T) {
	w := newWorld(t)
	w.must("PUT", testCluster, azBody(1), resource.Succeeded)
	b := breakGlass()
	if config, err := b.Issue(t.Context(), unwritten{w.memory}, time.Now()); err == nil || config != nil {
		t.Errorf("what isn't on record was given out: %v", err)
	}
}

func TestBreakGlassRefused(t *testing.T) {
	w := newWorld(t)
	w.must("PUT", testCluster, with(t, `{"aadProfile":{"managed":true,"adminGroupObjectIDs":["`+groupA+`"]},"disableLocalAccounts":true}`), resource.Succeeded)
	b := breakGlass()
	if config, err := b.Issue(t.Context(), w.memory, time.Now()); err == nil || config != nil || !strings.Contains(err.Error(), "disable local accounts") {
		t.Errorf("of a cluster without local accounts: %v", err)
	}
	b.Cluster = resource.MustParseID(testCluster + "-of-nobody")
	if _, err := b.Issue(t.Context(), w.memory, time.Now()); !fault.Is(err, fault.NotFound) {
		t.Errorf("of a cluster that isn't: %v", err)
	}
	for name, change := range map[string]func(*BreakGlass){
		"for ever":            func(b *BreakGlass) { b.Lifetime = 24*time.Hour + 1 },
		"over already":        func(b *BreakGlass) { b.Lifetime = 0 },
		"a node":              func(b *BreakGlass) { b.User = "system:node:n1" },
		"nobody":              func(b *BreakGlass) { b.User = "" },
		"a line":              func(b *BreakGlass) { b.User = "anna\nbob" },
		"too long a name":     func(b *BreakGlass) { b.User = strings.Repeat("a", 64) },
		"a group of nodes":    func(b *BreakGlass) { b.Groups = []string{"system:nodes"} },
		"an aggregated one":   func(b *BreakGlass) { b.Groups = []string{"on-call", "system:kube-controller-manager"} },
		"a crowd":             func(b *BreakGlass) { b.Groups = make([]string, mostGroups+1) },
		"a group with commas": func(b *BreakGlass) { b.Groups = []string{"a,b"} },
	} {
		b := breakGlass()
		change(&b)
		if config, err := b.Issue(t.Context(), w.memory, time.Now()); !fault.Is(err, fault.Invalid) || config != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	b = BreakGlass{Cluster: b.Cluster, User: "system:x", Groups: []string{"system:y"}}
	if err := b.check(); err == nil || !strings.Contains(err.Error(), "lifetime") {
		t.Errorf("not all problems at once: %v", err)
	}
}
