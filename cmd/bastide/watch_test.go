// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bastide.dev/arm"
	"bastide.dev/cluster"
	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
	"bastide.dev/store/memory"
)

const watchedCluster = "/subscriptions/s/resourceGroups/rg/providers/Microsoft.ContainerService/managedClusters/c1"

// flaky is a store that can't be reached for a while.
type flaky struct {
	store.Store
	away bool
}

func (f *flaky) List(ctx context.Context, prefix string) ([]store.Record, int64, error) {
	if f.away {
		return nil, 0, fault.New(fault.Unavailable, "", "The store is away.")
	}
	return f.Store.List(ctx, prefix)
}

func put(t *testing.T, s store.Store, key string, v any) {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Txn(t.Context(), store.Change{Key: key, Value: raw, Revision: store.Any}); err != nil {
		t.Fatal(err)
	}
}

func TestWatchTellsEachChangeOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &flaky{Store: memory.New(0)}
		p := cluster.Progress{Operation: "op1", Resource: watchedCluster + "/agentPools/np1", State: resource.Upgrading, Total: 3, Waits: "node n1: is being drained, 2 pods to go"}
		op := arm.Operation{ID: "op1", Status: arm.InProgress, Start: time.Now()}
		put(t, s, arm.OperationPrefix+"op1", op)
		ctx, cancel := context.WithCancel(t.Context())
		var lines []string
		ended := make(chan error, 1)
		go func() {
			ended <- watchProgress(ctx, s, func(w watched) { lines = append(lines, w.line()[len("15:04:05  "):]) })
		}()
		rest := func() { time.Sleep(3 * lookEvery); synctest.Wait() }
		rest()
		put(t, s, "progress/x", []cluster.Progress{p})
		rest()
		s.away = true
		rest()
		s.away = false
		p.Done, p.Waits = 3, ""
		put(t, s, "progress/x", []cluster.Progress{p})
		rest()
		if err := s.Delete(t.Context(), "progress/x", store.Any); err != nil {
			t.Fatal(err)
		}
		rest() // the operation's end is told when it has one
		op.Status, op.End, op.Error = resource.Failed, op.Start.Add(42*time.Second), &arm.WireError{Message: "it was\x1b[2J full"}
		put(t, s, arm.OperationPrefix+"op1", op)
		rest()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		want := []string{
			"c1/np1  Upgrading  0 of 3 nodes  node n1: is being drained, 2 pods to go",
			"c1/np1  Upgrading  3 of 3 nodes",
			"c1/np1  Upgrading: Failed after 42.00 s: it was?[2J full",
		}
		if !slices.Equal(lines, want) {
			t.Errorf("told:\n%s\nwant:\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
		}
	})
}

func TestWatchEndsOnWhatTimeDoesNotMend(t *testing.T) {
	s := memory.New(0)
	put(t, s, "progress/x", "no list")
	if err := watchProgress(t.Context(), s, func(watched) {}); err == nil {
		t.Error("what can't be read is no error")
	}
}

// A bundle that is put into the cache while the service runs is a release that
// clusters can have, and one that is damaged hides none of the others.
func TestCatalogueSeesNewBundles(t *testing.T) {
	c := &catalogue{cacheDir: t.TempDir()}
	bundle := func(version, manifest string) {
		t.Helper()
		dir := filepath.Join(c.cacheDir, "bundles", "kubernetes@"+version)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "manifest.json"), []byte(manifest), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	bundle("1.35.4", `{"name":"kubernetes","version":"1.35.4"}`)
	if got := c.Kubernetes(); !slices.Equal(got, []string{"1.35.4"}) {
		t.Errorf("there are %v", got)
	}
	bundle("1.36.3", `{"name":"kubernetes","version":"1.36.3"}`)
	if got := c.Kubernetes(); !slices.Equal(got, []string{"1.35.4", "1.36.3"}) {
		t.Errorf("there are %v", got)
	}
	bundle("1.99.0", `{`)
	bundle("nightly", `{"name":"kubernetes","version":"nightly"}`)
	if got := c.Kubernetes(); !slices.Equal(got, []string{"1.35.4", "1.36.3"}) {
		t.Errorf("beside a damaged one there are %v", got)
	}
}
