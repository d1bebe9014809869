// SPDX-License-Identifier: Apache-2.0

//go:build conformance

package testcloud_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// spec is what we read of a test in ginkgo's report.
type spec struct {
	LeafNodeType            string
	LeafNodeText            string
	ContainerHierarchyTexts []string
	State                   string
	RunTime                 time.Duration
	Failure                 struct {
		Message  string
		Location struct {
			FileName   string
			LineNumber int
		}
	}
}

func (s spec) name() string {
	return strings.Join(append(slices.Clone(s.ContainerHierarchyTexts), cmp.Or(s.LeafNodeText, s.LeafNodeType)), " ")
}

// reason is the first line of why a test failed or skipped itself.
func (s spec) reason() string {
	first, _, _ := strings.Cut(strings.TrimSpace(s.Failure.Message), "\n")
	return first
}

// report has the tests that were chosen, by their end.
type report struct {
	passed, failed, skipped []spec
	took                    time.Duration
}

func readReport(path string) (*report, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var suites []struct {
		RunTime     time.Duration
		SpecReports []spec
	}
	if err := json.Unmarshal(data, &suites); err != nil {
		return nil, fmt.Errorf("read ginkgo's report: %w", err)
	}
	r := &report{}
	for _, suite := range suites {
		r.took += suite.RunTime
		for _, s := range suite.SpecReports {
			r.add(s)
		}
	}
	return r, nil
}

// add sorts a test in. What surrounds the tests counts when it fails; a test that
// the filter left out has no reason.
func (r *report) add(s spec) {
	switch {
	case s.State == "passed" && s.LeafNodeType == "It":
		r.passed = append(r.passed, s)
	case s.State == "passed" || s.State == "pending":
	case s.State == "skipped" && s.reason() != "":
		r.skipped = append(r.skipped, s)
	case s.State != "skipped":
		r.failed = append(r.failed, s)
	}
}

func (r *report) summary(name string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "## %s\n\n%d passed, %d failed, %d skipped themselves, in %s\n", name, len(r.passed), len(r.failed), len(r.skipped), r.took.Round(time.Second))
	list := func(title string, specs []spec) {
		if len(specs) == 0 {
			return
		}
		fmt.Fprintf(&b, "\n%s:\n\n", title)
		slices.SortFunc(specs, func(a, b spec) int { return cmp.Compare(a.name(), b.name()) })
		for _, s := range specs {
			fmt.Fprintf(&b, "- %s: %s\n", s.name(), s.reason())
		}
	}
	list("Failed", r.failed)
	list("Skipped themselves", r.skipped)
	return b.String()
}
