// SPDX-License-Identifier: Apache-2.0

package dataplane_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bastide.dev/dataplane"
)

var update = flag.Bool("update", false, "write the golden files")

// routesText is a line for each route and selector.
func routesText(routes []dataplane.RouterRoute, selectors []dataplane.Selector) string {
	var b strings.Builder
	for _, s := range selectors {
		fmt.Fprintf(&b, "%d: mark %#x/%#x table %#x\n", s.Priority, s.Mark, s.Mask, s.Table)
	}
	for _, r := range routes {
		to := "blackhole"
		if r.Link != "" {
			to = "dev " + r.Link
		}
		if r.Via.IsValid() {
			to = "via " + r.Via.String() + " " + to
		}
		fmt.Fprintf(&b, "table %#x: %s %s # %s\n", r.Table, r.Prefix, to, r.Origin)
	}
	return b.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; -update and look at the difference", path)
	}
}

func TestGolden(t *testing.T) {
	c := world()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"c", "hub", "s1"} {
		r := compile(t, c, id)
		text := r.Table.Text() + routesText(r.Routes, r.Selectors)
		for _, cut := range r.Cuts {
			text += fmt.Sprintf("cut %s:%d but from %v\n", cut.Destination, cut.Port, cut.Allowed)
		}
		golden(t, "vnet-"+id, text)
	}
	e := dataplane.CompileEdge(instance, c)
	for _, table := range []string{e.Table.Text(), e.Root.Text()} {
		if strings.Contains(table, "ctstate") && table == e.Table.Text() {
			t.Error("the edge's table tracks connections")
		}
	}
	if err := e.Table.Validate(); err != nil {
		t.Error(err)
	}
	if err := e.Root.Validate(); err != nil {
		t.Error(err)
	}
	golden(t, "edge", e.Table.Text()+e.Root.Text()+routesText(e.Routes, nil)+routesText(e.RootRoutes, nil))
}
