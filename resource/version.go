// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// APIVersion is an ARM API version: "2022-11-01" or "2022-11-02-preview". Its
// text form orders versions, a preview before the release of the same day.
type APIVersion string

// ParseAPIVersion checks the form; it doesn't know which versions exist.
func ParseAPIVersion(s string) (APIVersion, error) {
	day, suffix, _ := strings.Cut(strings.ToLower(s), "-preview")
	if _, err := time.Parse(time.DateOnly, day); err != nil || suffix != "" {
		return "", fmt.Errorf("resource: API version %q isn't of the form YYYY-MM-DD or YYYY-MM-DD-preview", s)
	}
	return APIVersion(strings.ToLower(s)), nil
}

// Preview tells whether the version is a preview.
func (v APIVersion) Preview() bool { return strings.HasSuffix(string(v), "-preview") }

// Day is the date part.
func (v APIVersion) Day() string { return strings.TrimSuffix(string(v), "-preview") }

// Compare orders by day; on one day a preview comes before the release.
func (v APIVersion) Compare(other APIVersion) int {
	if c := strings.Compare(v.Day(), other.Day()); c != 0 {
		return c
	}
	switch {
	case v.Preview() == other.Preview():
		return 0
	case v.Preview():
		return -1
	}
	return 1
}

// AtLeast tells whether v is other or newer.
func (v APIVersion) AtLeast(other APIVersion) bool { return v.Compare(other) >= 0 }

// MonthlyVersions lists the first day of each month between two days, newest
// first: the rhythm in which AKS publishes its API versions.
func MonthlyVersions(from, to string) []APIVersion {
	first, err1 := time.Parse(time.DateOnly, from)
	last, err2 := time.Parse(time.DateOnly, to)
	if err1 != nil || err2 != nil {
		return nil
	}
	var versions []APIVersion
	for day := first; !day.After(last); day = day.AddDate(0, 1, 0) {
		versions = append(versions, APIVersion(day.Format(time.DateOnly)))
	}
	slices.Reverse(versions)
	return versions
}
