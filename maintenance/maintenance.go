// SPDX-License-Identifier: Apache-2.0

// Package maintenance is the calendar of a cluster's planned maintenance: from
// what a maintenance configuration says, purely, when its windows are. The
// cluster provider asks it what may begin now and when to look again; nothing
// here knows a clock, a store or Azure's wire forms. Only cluster imports it.
package maintenance

import (
	"time"

	"bastide.dev/fault"
)

// The names that configurations may have; each has a form of its own.
const (
	Default = "default"                         // hours of the week
	Cluster = "aksManagedAutoUpgradeSchedule"   // a recurring window
	NodeOS  = "aksManagedNodeOSUpgradeSchedule" // a recurring window
)

// Names are the configurations that a cluster may have.
func Names() []string { return []string{Default, Cluster, NodeOS} }

// Config is what a configuration says, in either form.
type Config struct {
	Name string

	Hours      []Hours // form of Default
	NotAllowed []Span

	Window *Recurring // form of the others
}

// Hours are hours of a day of the week, in UTC, that maintenance may use.
type Hours struct {
	Day   string // "Monday"
	Hours []int  // 0 is 00:00 to 01:00
}

// Span is a time with its end left out.
type Span struct{ Start, End time.Time }

// Recurring is a window that comes back. Its offset is fixed: no clock is ever
// put forward or back in it.
type Recurring struct {
	Daily           *Daily
	Weekly          *Weekly
	AbsoluteMonthly *AbsoluteMonthly
	RelativeMonthly *RelativeMonthly

	DurationHours int
	UTCOffset     string // "+05:30"; "" is +00:00
	StartTime     string // "02:00"
	// StartDate is the first day that a window may begin on, and where intervals
	// are counted from. Only its date counts.
	StartDate time.Time
	Blackouts []Dates
}

// Daily is every so many days, the start date the first of them.
type Daily struct{ Days int }

// Weekly is a day of every so many weeks.
type Weekly struct {
	Weeks int
	Day   string
}

// AbsoluteMonthly is a day of every so many months. In a month that is too
// short for the day it is the month's last.
type AbsoluteMonthly struct{ Months, Day int }

// RelativeMonthly is the first to fourth, or the last, such day of every so many months.
type RelativeMonthly struct {
	Months int
	Index  string // "First"
	Day    string
}

// Dates are days, both included, on which nothing may be done. Only dates count.
type Dates struct{ Start, End time.Time }

// Window is when maintenance may begin.
type Window struct {
	// Occurrence is when the window would begin were nothing cut out of it: by it
	// two parts of one window are known as one.
	Occurrence time.Time
	Start, End time.Time
}

// Contains tells whether t is in the window.
func (w Window) Contains(t time.Time) bool { return !t.Before(w.Start) && t.Before(w.End) }

// horizon is how far ahead a next window is looked for.
const horizon = 3 * 366 * 24 * time.Hour

// Calendar knows a configuration's windows.
type Calendar struct {
	recurs    recurrence
	blackouts []Span // sorted, apart
}

// recurrence lists the windows that end after from and begin before to, in
// order, with nothing cut out.
type recurrence interface {
	between(from, to time.Time) []Span
}

// Windows lists the windows that overlap the time from from to to, whole, in order.
func (c *Calendar) Windows(from, to time.Time) []Window {
	var all []Window
	for _, whole := range c.recurs.between(from, to) {
		for _, part := range cut(whole, c.blackouts) {
			if part.End.After(from) && part.Start.Before(to) {
				all = append(all, Window{Occurrence: whole.Start, Start: part.Start, End: part.End})
			}
		}
	}
	return all
}

// Now is the window that t is in.
func (c *Calendar) Now(t time.Time) (Window, bool) {
	for _, w := range c.Windows(t, t.Add(1)) {
		if w.Contains(t) {
			return w, true
		}
	}
	return Window{}, false
}

// Next is the first window that begins after t; none is a calendar whose next
// years are blacked out.
func (c *Calendar) Next(t time.Time) (Window, bool) {
	// Most windows come soon: a short look first spares the long one.
	for _, span := range []time.Duration{8 * 24 * time.Hour, 200 * 24 * time.Hour, horizon} {
		for _, w := range c.Windows(t, t.Add(span)) {
			if w.Start.After(t) {
				return w, true
			}
		}
	}
	return Window{}, false
}

// BlackedOut are the windows between from and to of which the configuration's
// own dates left nothing.
func (c *Calendar) BlackedOut(from, to time.Time) []Span {
	var gone []Span
	for _, whole := range c.recurs.between(from, to) {
		if len(cut(whole, c.blackouts)) == 0 {
			gone = append(gone, whole)
		}
	}
	return gone
}

// cut is what blackouts leave of a span.
func cut(whole Span, blackouts []Span) []Span {
	var parts []Span
	for _, b := range blackouts {
		if !b.End.After(whole.Start) {
			continue
		}
		if !b.Start.Before(whole.End) {
			break
		}
		if b.Start.After(whole.Start) {
			parts = append(parts, Span{whole.Start, b.Start})
		}
		whole.Start = b.End
		if !whole.Start.Before(whole.End) {
			return parts
		}
	}
	return append(parts, whole)
}

// New checks a configuration and makes its calendar. Its error joins every
// problem; targets are the paths of Azure's bodies.
func New(c Config) (*Calendar, error) {
	k := &checker{}
	calendar := k.config(c)
	if err := fault.Join(k.problems...); err != nil {
		return nil, err
	}
	return calendar, nil
}

// Daytime is the calendar of a configuration that nobody made: duration hours
// from a time of day in UTC, every day, or one day of every week.
func Daytime(minute, duration int, weekday time.Weekday, weekly bool) *Calendar {
	step, anchor := 1, epoch().Add(time.Duration(minute)*time.Minute)
	if weekly {
		step = 7
		anchor = anchor.AddDate(0, 0, daysUntil(anchor.Weekday(), weekday))
	}
	return &Calendar{recurs: steps{first: anchor, days: step, length: time.Duration(duration) * time.Hour}}
}

// epoch is a Monday.
func epoch() time.Time { return time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC) }

// daysUntil counts from one day of the week to the next of another.
func daysUntil(from, to time.Weekday) int { return (int(to) - int(from) + 7) % 7 }
