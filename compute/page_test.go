// SPDX-License-Identifier: Apache-2.0

package compute

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the page anew")

// The page for users says what the table says.
func TestPropertiesPage(t *testing.T) {
	var b strings.Builder
	b.WriteString("# Properties of virtual machines\n\n" +
		"What becomes of each property in a request: it is *effective*, *plain* (kept and given back), *read-only* (ours to say),\n" +
		"*fixed* (only the values that say what is so anyway), or *refused* by name unless it is off or empty. A property that isn't\n" +
		"here is refused; what is said of an object holds for all in it. This page is generated from the table in `compute`.\n" +
		"Scale sets and their instances are made by agent pools.\n" +
		"\n## virtualMachines\n\n| property | treatment | note |\n|---|---|---|\n")
	for _, row := range vmProperties() {
		treatment := string(row.Treatment)
		for _, v := range row.Values {
			treatment += fmt.Sprintf(" `%v`", v)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", row.Path, treatment, row.Note)
	}
	const page = "../docs/properties-compute.md"
	if *update {
		if err := os.WriteFile(page, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(page); err != nil || string(have) != b.String() {
		t.Errorf("%s isn't what the table says; -update writes it anew (%v)", page, err)
	}
}
