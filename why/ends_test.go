// SPDX-License-Identifier: Apache-2.0

package why_test

import (
	"errors"
	"strings"
	"testing"

	"bastide.dev/fault"
	"bastide.dev/why"
)

func TestWrongQuestions(t *testing.T) {
	for _, tc := range []struct {
		q    why.Question
		kind fault.Kind
		text string
	}{
		{why.Question{From: "nonsense", To: "internet:80"}, fault.Invalid, "isn't an end"},
		{why.Question{From: "pod/a", To: "internet:80"}, fault.Invalid, "isn't an end"},
		{why.Question{From: "cow/a/b", To: "internet:80"}, fault.Invalid, "isn't an end"},
		{why.Question{From: "pod/a/client", To: ""}, fault.Invalid, "isn't an end"},
		{why.Question{From: "pod/a/client", To: "internet"}, fault.Invalid, "Which port"},
		{why.Question{From: "pod/a/client", To: "internet:70000"}, fault.Invalid, "isn't an end"},
		{why.Question{From: "pod/a/client", To: "pod/a/web-0:http"}, fault.Invalid, "isn't a port"},
		{why.Question{From: "pod/a/client", To: "service/a/web:no-such"}, fault.Invalid, "80 http"},
		{why.Question{From: "pod/a/client", To: "internet:80", Port: 81}, fault.Invalid, "said twice"},
		{why.Question{From: "pod/a/client", To: "internet:80", Protocol: "gre"}, fault.Invalid, "isn't a protocol"},
		{why.Question{From: "service/a/web", To: "internet:80"}, fault.Invalid, "sends nothing"},
		{why.Question{From: "pod/a/nobody", To: "internet:80"}, fault.NotFound, "no pod a/nobody"},
		{why.Question{From: "pod/a/client@three", To: "internet:80"}, fault.NotFound, `no cluster "three"`},
		{why.Question{From: "pod/a/client", To: "internet:80"}, fault.Invalid, "several clusters"},
		{why.Question{From: "vm/none", To: "internet:80"}, fault.NotFound, "no virtual machine"},
		{why.Question{From: "terminal/none", To: "internet:80"}, fault.NotFound, "bastide outside create none"},
		{why.Question{From: "vm/jump", To: "example.org:80"}, fault.NotFound, "example.org"},
		{why.Question{From: "192.88.99.200", To: "internet:80"}, fault.NotFound, "Nothing that sends"},
	} {
		w := world(t, start())
		if !strings.Contains(tc.text, "several") {
			w.Clusters = w.Clusters[:1]
		}
		_, err := why.Explain(w, tc.q)
		if !fault.Is(err, tc.kind) || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%+v: %v, want %s with %q", tc.q, err, tc.kind, tc.text)
		}
	}
}

// TestEnds: forms that mean the same give the same answer.
func TestEnds(t *testing.T) {
	for _, same := range [][]string{
		{"pod/a/web-1:8080@one", "pod/a/web-1@one:8080", "pod/a/web-1@rg/one:8080", "10.244.1.10:8080"},
		{"service/a/web:80@one", "svc/a/web:http@one", "10.0.0.10:80"},
		{"internet:443", "internet:8.8.8.8:443", "8.8.8.8:443"},
		{"apiserver/one", "apiserver/rg/one:443", "one.hcp.test:443"},
		{"vm/jump:22", "vm/rg/jump:22", "10.1.2.4:22"},
	} {
		var first why.Target
		for i, to := range same {
			a, err := why.Explain(world(t, start()), why.Question{From: "pod/a/client@one", To: to})
			if err != nil {
				t.Fatalf("%s: %v", to, err)
			}
			if i == 0 {
				first = a.Target
			} else if a.Target != first {
				t.Errorf("%s leads to %+v, %s to %+v", same[0], first, to, a.Target)
			}
		}
	}
}

func TestSenders(t *testing.T) {
	for from, want := range map[string]why.Sender{
		"pod/a/client@one":          {Machine: "c-n0", PodUID: "a-client"},
		"10.244.0.20":               {Machine: "c-n0", PodUID: "a-client"},
		"pod/kube-system/proxy@one": {Machine: "c-n0"},
		"node/n1":                   {Machine: "c-n1"},
		"10.1.0.5":                  {Machine: "c-n1"},
		"vm/jump":                   {Machine: "m-jump"},
		"apiserver/one":             {Namespace: "c1"},
		"terminal/good":             {Namespace: "tg"},
		"192.88.99.60":              {Namespace: "tg"},
		"internet":                  {Outside: true},
		"internet:198.51.100.9":     {Outside: true},
	} {
		a, err := why.Explain(world(t, start()), why.Question{From: from, To: "1.1.1.1:443"})
		if err != nil {
			t.Fatalf("%s: %v", from, err)
		}
		if a.Sender != want {
			t.Errorf("%s is sent from %+v, want %+v", from, a.Sender, want)
		}
	}
}

// TestNeeds: objects are asked for where the way leads into a cluster, and only there.
func TestNeeds(t *testing.T) {
	for _, q := range []why.Question{{From: "terminal/good", To: "192.88.99.12:80"}, {From: "pod/a/client@one", To: "internet:1"}, {From: "vm/jump", To: "node/n0:22"}} {
		_, err := why.Explain(world(t, nil), q)
		var need *why.NeedObjects
		if !errors.As(err, &need) || need.ControlPlane != "c1" {
			t.Errorf("%+v: %v, want the objects of c1 asked for", q, err)
		}
	}
	if _, err := why.Explain(world(t, nil), why.Question{From: "terminal/good", To: "vm/jump:22"}); err != nil {
		t.Errorf("no cluster is on the way: %v", err)
	}
}

// TestStale: a host that has something else is told of, where the way leads.
func TestStale(t *testing.T) {
	w := world(t, start())
	q := why.Question{From: "terminal/good", To: "vm/jump:22"}
	if a, err := why.Explain(w, q); err != nil || a.Stale {
		t.Errorf("%v, stale at %v", err, a.StaleAt)
	}
	w.Digests["p"] = "other" // not on the way
	if a, err := why.Explain(w, q); err != nil || a.Stale {
		t.Errorf("%v, stale at %v", err, a.StaleAt)
	}
	w.Digests["c"] = "other"
	if a, err := why.Explain(w, q); err != nil || !a.Stale || a.StaleAt[0] != "vnet rg/vnet-c" {
		t.Errorf("%v, stale at %v", err, a.StaleAt)
	}
}

// TestTables: the policies of the nodes that were asked come along, others don't.
func TestTables(t *testing.T) {
	a, err := why.Explain(world(t, start()), why.Question{From: "pod/a/client@one", To: "pod/a/web-1:8080"})
	if err != nil || len(a.Tables) != 2 || a.Tables[0].Machine != "c-n0" || a.Tables[1].Node != "n1" {
		t.Fatalf("%v: %+v", err, a.Tables)
	}
	if !a.Tables[0].Is(a.Tables[0].Table) || a.Tables[0].Is(a.Tables[1].Table) {
		t.Error("tables of two nodes are told apart wrongly")
	}
	if a, err = why.Explain(world(t, start()), why.Question{From: "terminal/good", To: "vm/jump:22"}); err != nil || len(a.Tables) != 0 {
		t.Errorf("%v: %+v", err, a.Tables)
	}
}
