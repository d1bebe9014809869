// SPDX-License-Identifier: Apache-2.0

// Package bench measures how fast and how small Bastide is, beside the bare
// upstream processes on the same machine: `make bench` prints the table and
// writes results.json. What boots instances is behind the build tag "bench", so
// that `make test` tests the arithmetic alone.
//
// Nobody imports it.
package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"text/tabwriter"
)

// Sense says which side of its target a figure should be on.
type Sense string

// The senses.
const (
	AtMost  Sense = "at most"
	AtLeast Sense = "at least"
	Shown   Sense = "" // without a target
)

// Figure is one line of the table.
type Figure struct {
	Name    string    `json:"name"`
	Unit    string    `json:"unit"`
	Value   float64   `json:"value"` // the samples' median, unless the name says what
	Sense   Sense     `json:"sense,omitempty"`
	Target  float64   `json:"target,omitempty"`
	Reached *bool     `json:"reached,omitempty"` // absent without a target
	Beside  string    `json:"beside,omitempty"`  // the floor or what others reach
	Note    string    `json:"note,omitempty"`
	Samples []float64 `json:"samples"`
}

// NewFigure is a figure without a target. Without samples it couldn't be measured.
func NewFigure(name, unit string, samples []float64) Figure {
	return Figure{Name: name, Unit: unit, Value: Median(samples), Samples: samples}
}

// NewTail is a figure whose value is a percentile of its samples; its name says so.
func NewTail(name, unit string, p float64, samples []float64) Figure {
	return Figure{Name: name, Unit: unit, Value: Percentile(samples, p), Samples: samples}
}

// Against gives the figure its target.
func (f Figure) Against(sense Sense, target float64) Figure {
	reached := len(f.Samples) > 0 && (sense == AtMost && f.Value <= target || sense == AtLeast && f.Value >= target)
	f.Sense, f.Target, f.Reached = sense, target, &reached
	return f
}

// With adds what the figure stands beside, and a note.
func (f Figure) With(beside, note string) Figure {
	f.Beside, f.Note = beside, note
	return f
}

// Verdict is the last column.
func (f Figure) Verdict() string {
	switch {
	case len(f.Samples) == 0:
		return "NOT MEASURED"
	case f.Reached == nil:
		return ""
	case *f.Reached:
		return "reached"
	}
	return "NOT REACHED"
}

// Median is the middle of the samples, or of the two in the middle the mean; 0 of none.
func Median(samples []float64) float64 {
	if len(samples) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(samples))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// Percentile is the smallest sample that p percent of them don't exceed; 0 of none.
func Percentile(samples []float64, p float64) float64 {
	if len(samples) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(samples))
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// Results is what a run leaves.
type Results struct {
	Date    string   `json:"date"`
	Machine Machine  `json:"machine"`
	Figures []Figure `json:"figures"`
	// Problems are promises broken while measuring: a success that wasn't true.
	Problems []string `json:"problems,omitempty"`
}

// Print writes the table.
func (r Results) Print(w io.Writer) error {
	fmt.Fprintf(w, "\n%s, %s\n\n", r.Date, r.Machine)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "FIGURE\tVALUE\tTARGET\tBESIDE\tVERDICT")
	for _, f := range r.Figures {
		target := ""
		if f.Sense != Shown {
			target = string(f.Sense) + " " + number(f.Target, f.Unit)
		}
		value := "-"
		if len(f.Samples) > 0 {
			value = number(f.Value, f.Unit)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", f.Name, value, target, f.Beside, f.Verdict())
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("print results: %w", err)
	}
	for _, f := range r.Figures {
		if f.Note != "" {
			fmt.Fprintf(w, "\n%s: %s", f.Name, f.Note)
		}
	}
	for _, p := range r.Problems {
		fmt.Fprintf(w, "\nPROBLEM: %s", p)
	}
	_, err := fmt.Fprintln(w)
	return err
}

// number shows three digits that mean something.
func number(v float64, unit string) string {
	switch {
	case v >= 100 || v == math.Trunc(v):
		return fmt.Sprintf("%.0f %s", v, unit)
	case v >= 10:
		return fmt.Sprintf("%.1f %s", v, unit)
	}
	return fmt.Sprintf("%.2f %s", v, unit)
}

// Write keeps the results, each sample included, as JSON.
func (r Results) Write(path string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	if err := os.WriteFile(path, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	return nil
}
