// SPDX-License-Identifier: Apache-2.0

package drill

import (
	"sync"
	"time"
)

// SchemaVersion is the version of the report's JSON, which report.schema.json
// describes. A field that is added leaves it, anything else raises it.
const SchemaVersion = 1

// Report is what a run of drills found.
type Report struct {
	SchemaVersion int               `json:"schemaVersion"`
	Instance      string            `json:"instance"`
	Versions      map[string]string `json:"versions"` // of bastide, Kubernetes, the kernel
	Started       time.Time         `json:"started"`
	Seconds       float64           `json:"seconds"`
	Passed        int               `json:"passed"`
	Failed        int               `json:"failed"`
	Drills        []*Record         `json:"drills"`
}

// Outcome is how a drill ended.
type Outcome string

// Outcomes. There is no third: a drill that couldn't show what it is to show failed.
const (
	Passed Outcome = "passed"
	Failed Outcome = "failed"
)

// Record is the evidence of one drill.
type Record struct {
	ID       string  `json:"id"`
	Title    string  `json:"title"`
	Control  string  `json:"control"`
	Explains string  `json:"explains"`
	Outcome  Outcome `json:"outcome"`
	Reason   string  `json:"reason,omitempty"` // why it failed

	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"`
	// EnforcedMillis is the time from sending the change that switches the
	// control on to the start of the first try that failed; ReleasedMillis
	// likewise back. They are upper bounds, since tries take time themselves, and
	// missing where nothing is switched but the attack's target.
	EnforcedMillis float64 `json:"enforcedMillis,omitempty"`
	ReleasedMillis float64 `json:"releasedMillis,omitempty"`
	// SwitchMillis is how long the change itself took, until it was answered: it's
	// a part of EnforcedMillis, and mostly the client's start where that is kubectl.
	SwitchMillis float64 `json:"switchMillis,omitempty"`

	Phases   []*Phase  `json:"phases"`
	Changes  []Change  `json:"changes"`
	Counters []Counter `json:"counters,omitempty"`
	Verdict  *Verdict  `json:"verdict,omitempty"`
	Notes    []string  `json:"notes,omitempty"`

	mu sync.Mutex // guards Changes and Notes: fixtures are made in parallel
}

// Phase is one part of a drill: with the control or without it.
type Phase struct {
	Part    string    `json:"part,omitempty"` // of a drill that has several
	Name    PhaseName `json:"name"`
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"`
	Tries   []Try     `json:"tries"`
}

// PhaseName says how the control stands.
type PhaseName string

// The phases, in their order.
const (
	Before PhaseName = "without the control"
	During PhaseName = "with the control"
	After  PhaseName = "without it again"
)

// Expectation is what ought to become of an attack.
type Expectation string

// What can be expected.
const (
	Works   Expectation = "works"
	Stopped Expectation = "stopped"
)

// Try is one attempt, or several of one kind with the same outcome in a row.
type Try struct {
	At       time.Time   `json:"at"`
	From     string      `json:"from"`
	To       string      `json:"to"`
	Expected Expectation `json:"expected"`
	Got      string      `json:"got"`
	AsWanted bool        `json:"asExpected"`
	Millis   float64     `json:"millis"` // of the last
	Times    int         `json:"times"`
}

// Change is one request that changed something.
type Change struct {
	At     time.Time `json:"at"`
	How    string    `json:"how"` // "PUT", "kubectl apply"
	Target string    `json:"target"`
	Body   any       `json:"body,omitempty"`
	Millis float64   `json:"millis"`
	Error  string    `json:"error,omitempty"`
}

// Counter is what the kernel counted for one rule while the control was on.
type Counter struct {
	Group  string `json:"group"`
	Rule   string `json:"rule"`
	Before uint64 `json:"before"`
	After  uint64 `json:"after"`
}

// Verdict is what `bastide why` said while the control was on.
type Verdict struct {
	From      string `json:"from"`
	To        string `json:"to"`
	Reachable string `json:"reachable"`
	By        string `json:"by"`
	Rule      string `json:"rule,omitempty"`
}

// add records a try; the same again in a row only counts up.
func (p *Phase) add(t Try) {
	if n := len(p.Tries); n > 0 {
		last := &p.Tries[n-1]
		if last.From == t.From && last.To == t.To && last.Expected == t.Expected && last.Got == t.Got {
			last.Times, last.Millis = last.Times+1, t.Millis
			return
		}
	}
	t.Times = 1
	p.Tries = append(p.Tries, t)
}

func (r *Record) change(c Change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Changes = append(r.Changes, c)
}

func (r *Record) note(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Notes = append(r.Notes, text)
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
