// SPDX-License-Identifier: Apache-2.0

package testcloud_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"bastide.dev/drill"
	"bastide.dev/testcloud"
)

// TestDrills runs every drill as a user would, and requires that all controls
// hold, with evidence that the published schema describes.
func TestDrills(t *testing.T) {
	c := testcloud.Start(t, "drills")
	dir := filepath.Join(t.TempDir(), "report")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	out, err := c.Bastide(ctx, "drill", "run", "--all", "--report", dir)
	t.Log("\n" + out)
	if err != nil {
		t.Errorf("bastide drill run: %v", err)
	}
	text, err := os.ReadFile(filepath.Join(dir, drill.JSONFile))
	if err != nil {
		t.Fatal(err)
	}
	valid(t, text)
	var report drill.Report
	if err := json.Unmarshal(text, &report); err != nil {
		t.Fatal(err)
	}
	if all := len(drill.All()); report.Passed != all || report.Failed != 0 || len(report.Drills) != all {
		t.Errorf("%d of %d drills passed", report.Passed, all)
	}
	for _, d := range report.Drills {
		if d.Outcome != drill.Passed {
			t.Errorf("%s failed: %s", d.ID, d.Reason)
			continue
		}
		for _, n := range d.Notes {
			if strings.Contains(n, "couldn't") {
				t.Errorf("%s lacks evidence: %s", d.ID, n)
			}
		}
		decided(t, d)
	}
	page, err := os.ReadFile(filepath.Join(dir, drill.HTMLFile))
	if err != nil || !bytes.Contains(page, []byte("</html>")) {
		t.Errorf("the page isn't whole: %v", err)
	}
	if left := c.Must(t, "drill", "list"); !strings.Contains(left, "workshop") {
		t.Errorf("drill list: %s", left)
	}
}

// decided wants the rule that decided wherever `bastide why` was asked.
func decided(t *testing.T, d *drill.Record) {
	if d.Verdict != nil && (d.Verdict.Reachable != "no" || d.Verdict.Rule == "") {
		t.Errorf("%s: why says %q, by %q, rule %q", d.ID, d.Verdict.Reachable, d.Verdict.By, d.Verdict.Rule)
	}
}

func valid(t *testing.T, text []byte) {
	t.Helper()
	schema, err := jsonschema.UnmarshalJSON(bytes.NewReader(drill.Schema))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	if err := compiler.AddResource("report.schema.json", schema); err != nil {
		t.Fatal(err)
	}
	compiled, err := compiler.Compile("report.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := compiled.Validate(document); err != nil {
		t.Errorf("the report isn't what its schema says: %v", err)
	}
}
