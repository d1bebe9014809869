// SPDX-License-Identifier: Apache-2.0

package drill

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

var update = flag.Bool("update", false, "write the golden files anew")

// example is a report with one drill of each outcome, and texts that want to be markup.
func example() *Report {
	at := time.Date(2026, 11, 21, 7, 0, 0, 0, time.UTC)
	return &Report{SchemaVersion: SchemaVersion, Instance: "default", Versions: map[string]string{"bastide": "v0.3"}, Started: at, Seconds: 12.5, Passed: 1, Failed: 1,
		Drills: []*Record{
			{ID: "nsg-source-range", Title: "SSH from one source", Control: "security group", Explains: "Attack & defence.", Outcome: Passed,
				Started: at, Seconds: 4, SwitchMillis: 18, EnforcedMillis: 31.4, ReleasedMillis: 20.2,
				Phases: []*Phase{
					{Name: Before, Started: at, Seconds: 1, Tries: []Try{{At: at, From: "terminal a (192.88.99.2)", To: "ssh", Expected: Works, Got: "a session", AsWanted: true, Millis: 120, Times: 1}}},
					{Name: During, Started: at, Seconds: 1, Tries: []Try{{At: at, From: "terminal a (192.88.99.2)", To: "ssh", Expected: Stopped, Got: "no answer", AsWanted: true, Millis: 800, Times: 4}}},
					{Name: After, Started: at, Seconds: 1, Tries: []Try{{At: at, From: "terminal a (192.88.99.2)", To: "ssh", Expected: Works, Got: "a session", AsWanted: true, Millis: 90, Times: 1}}},
				},
				Changes:  []Change{{At: at, How: "PUT", Target: "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/networkSecurityGroups/n", Body: object{"priority": 300}, Millis: 18}},
				Counters: []Counter{{Group: "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/networkSecurityGroups/n", Rule: "deny", After: 4}},
				Verdict:  &Verdict{From: "terminal a", To: "vm jump", Reachable: "no", By: "Rule deny denies it.", Rule: "nsg/g/n/deny"},
				Notes:    []string{"A note."}},
			{ID: "lb-internal", Title: "<script>alert(1)</script>", Control: "annotation", Outcome: Failed, Reason: "set up: it isn't there", Started: at, Seconds: 1, Phases: []*Phase{}, Changes: []Change{}},
		}}
}

func TestReportGolden(t *testing.T) {
	var page bytes.Buffer
	if err := example().HTML(&page); err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "report.golden.html")
	if *update {
		if err := os.WriteFile(golden, page.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(page.Bytes(), want) {
		t.Errorf("the page is another than %s; look at it, then run with -update", golden)
	}
	for _, outside := range []string{"<script", "http://", "src=", "@import", "url("} {
		if strings.Contains(page.String(), outside) {
			t.Errorf("the page has %q: it is to need nothing else", outside)
		}
	}
}

func TestReportIsWhatItsSchemaSays(t *testing.T) {
	dir := t.TempDir()
	if err := example().Write(dir); err != nil {
		t.Fatal(err)
	}
	schema := compiled(t)
	text, err := os.ReadFile(filepath.Join(dir, JSONFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := validate(schema, text); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Report){
		"an outcome that there isn't": func(r *Report) { r.Drills[0].Outcome = "skipped" },
		"passed without phases":       func(r *Report) { r.Drills[0].Phases = []*Phase{} },
		"failed without a reason":     func(r *Report) { r.Drills[1].Reason = "" },
		"a try that got nothing":      func(r *Report) { r.Drills[0].Phases[0].Tries[0].Got = "" },
	} {
		r := example()
		change(r)
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var invalid *jsonschema.ValidationError
		if err := validate(schema, text); !errors.As(err, &invalid) {
			t.Errorf("%s is valid: %v", name, err)
		}
	}
}

func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("report.schema.json", document); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("report.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

func validate(schema *jsonschema.Schema, text []byte) error {
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return err
	}
	return schema.Validate(document)
}
