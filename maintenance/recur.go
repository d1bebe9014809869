// SPDX-License-Identifier: Apache-2.0

package maintenance

import (
	"slices"
	"time"
)

const day = 24 * time.Hour

// steps recurs every so many days.
type steps struct {
	first  time.Time
	days   int
	length time.Duration
}

func (s steps) between(from, to time.Time) []Span {
	step := time.Duration(s.days) * day
	k := 0
	if early := from.Sub(s.first) - s.length; early > 0 {
		k = int(early / step)
	}
	var all []Span
	for ; ; k++ {
		// Days, not a duration: k times a step may be more than a duration holds.
		start := s.first.AddDate(0, 0, k*s.days)
		if !start.Before(to) {
			return all
		}
		if end := start.Add(s.length); end.After(from) {
			all = append(all, Span{start, end})
		}
	}
}

// months recurs every so many months, on the day that pick chooses.
type months struct {
	first  time.Time // in the first month, and with it
	step   int
	length time.Duration
	clock  time.Duration // since midnight
	pick   func(year int, month time.Month) int
}

func (m months) between(from, to time.Time) []Span {
	begin := from.In(m.first.Location())
	k := 0
	if passed := (begin.Year()-m.first.Year())*12 + int(begin.Month()-m.first.Month()); passed > 0 {
		k = max(0, passed/m.step-1)
	}
	var all []Span
	for ; ; k++ {
		start := m.at(k * m.step)
		if !start.Before(to) {
			return all
		}
		if end := start.Add(m.length); end.After(from) {
			all = append(all, Span{start, end})
		}
	}
}

// at is the window's begin so many months after the first.
func (m months) at(offset int) time.Time {
	month := time.Date(m.first.Year(), m.first.Month()+time.Month(offset), 1, 0, 0, 0, 0, m.first.Location())
	return month.AddDate(0, 0, m.pick(month.Year(), month.Month())-1).Add(m.clock)
}

// onDay picks a day of the month, or the last of a month that is too short for it.
func onDay(number int) func(int, time.Month) int {
	return func(year int, month time.Month) int { return min(number, lastDay(year, month)) }
}

// onWeekday picks the index-th such day of the month, from 1; 5 is the last.
func onWeekday(index int, weekday time.Weekday) func(int, time.Month) int {
	return func(year int, month time.Month) int {
		first := 1 + daysUntil(time.Date(year, month, 1, 0, 0, 0, 0, time.UTC).Weekday(), weekday)
		if index < last {
			return first + 7*(index-1)
		}
		return first + 7*((lastDay(year, month)-first)/7)
	}
}

// last is the index of a month's last such day.
const last = 5

func lastDay(year int, month time.Month) int {
	return time.Date(year, month+1, 0, 0, 0, 0, 0, time.UTC).Day()
}

// week recurs in the same hours of each week, from Monday 00:00 UTC.
type week struct{ runs []run }

// run is hours of the week that follow each other; it may go on into the next.
type run struct{ start, hours int }

const weekHours = 7 * 24

// weekOf finds the runs of the hours that are set. One longer than a day counts
// as several, so that what is allowed always still ends.
func weekOf(set [weekHours]bool) week {
	var w week
	add := func(start, hours int) {
		for ; hours > 0; start, hours = start+24, hours-24 {
			w.runs = append(w.runs, run{start % weekHours, min(hours, 24)})
		}
	}
	for start := range weekHours {
		if !set[start] || set[(start+weekHours-1)%weekHours] {
			continue
		}
		hours := 1
		for set[(start+hours)%weekHours] {
			hours++
		}
		add(start, hours)
	}
	if len(w.runs) == 0 && set[0] {
		add(0, weekHours)
	}
	slices.SortFunc(w.runs, func(a, b run) int { return a.start - b.start })
	return w
}

func (w week) between(from, to time.Time) []Span {
	// A week back: a run may go on into the next week.
	monday := from.UTC().Truncate(day).AddDate(0, 0, -daysUntil(time.Monday, from.UTC().Weekday())-7)
	var all []Span
	for ; monday.Before(to); monday = monday.AddDate(0, 0, 7) {
		for _, r := range w.runs {
			start := monday.Add(time.Duration(r.start) * time.Hour)
			end := start.Add(time.Duration(r.hours) * time.Hour)
			if end.After(from) && start.Before(to) {
				all = append(all, Span{start, end})
			}
		}
	}
	return all
}
