// SPDX-License-Identifier: Apache-2.0

package maintenance

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"bastide.dev/fault"
)

// AKS's bounds, and ours of lists.
const (
	minDuration, maxDuration = 4, 24
	maxDays, maxWeeks        = 7, 4
	maxMonths, maxMonthDay   = 6, 31
	maxOffset                = 14 * time.Hour // no place on earth is further from UTC
	maxSpans                 = 100
	firstYear, lastYear      = 2000, 2200 // counting from a start date takes no longer than that
)

const window = "properties.maintenanceWindow"

// checker gathers a configuration's problems.
type checker struct{ problems []*fault.Error }

func (k *checker) bad(target, format string, args ...any) {
	k.problems = append(k.problems, fault.New(fault.Invalid, "InvalidParameter", format, args...).At(target))
}

func (k *checker) config(c Config) *Calendar {
	switch {
	case !slices.Contains(Names(), c.Name):
		k.bad("name", "A maintenance configuration can't be named '%s': the names are %s.", c.Name, strings.Join(Names(), ", "))
		return nil
	case c.Name == Default:
		if c.Window != nil {
			k.bad(window, "The maintenance configuration %s has timeInWeek and notAllowedTime; maintenanceWindow is of %s and %s.", Default, Cluster, NodeOS)
		}
		return k.hours(c)
	}
	if len(c.Hours) > 0 {
		k.bad("properties.timeInWeek", "The maintenance configuration %s has a maintenanceWindow; timeInWeek is of %s.", c.Name, Default)
	}
	if len(c.NotAllowed) > 0 {
		k.bad("properties.notAllowedTime", "The maintenance configuration %s has maintenanceWindow.notAllowedDates; notAllowedTime is of %s.", c.Name, Default)
	}
	if c.Window == nil {
		k.bad(window, "The maintenance configuration %s needs a maintenanceWindow.", c.Name)
		return nil
	}
	return k.recurring(c.Name, c.Window)
}

// hours reads the form of Default.
func (k *checker) hours(c Config) *Calendar {
	if len(c.Hours) == 0 {
		k.bad("properties.timeInWeek", "There has to be a time in the week.")
	}
	k.few("properties.timeInWeek", len(c.Hours))
	var set [weekHours]bool
	for i, h := range c.Hours {
		target := fmt.Sprintf("properties.timeInWeek[%d].", i)
		weekday, ok := k.weekday(target+"day", h.Day)
		if len(h.Hours) == 0 {
			k.bad(target+"hourSlots", "There has to be an hour.")
		}
		for _, hour := range h.Hours {
			if hour < 0 || hour > 23 {
				k.bad(target+"hourSlots", "The hour %d isn't from 0 to 23.", hour)
			} else if ok {
				set[daysUntil(time.Monday, weekday)*24+hour] = true
			}
		}
	}
	k.few("properties.notAllowedTime", len(c.NotAllowed))
	for i, span := range c.NotAllowed {
		if !span.Start.Before(span.End) {
			k.bad(fmt.Sprintf("properties.notAllowedTime[%d]", i), "The end isn't after the start.")
		}
	}
	return &Calendar{recurs: weekOf(set), blackouts: merged(c.NotAllowed)}
}

func (k *checker) few(target string, n int) {
	if n > maxSpans {
		k.bad(target, "There are %d entries; at most %d are possible.", n, maxSpans)
	}
}

// recurring reads the form of the other two.
func (k *checker) recurring(name string, r *Recurring) *Calendar {
	k.within(window+".durationHours", r.DurationHours, minDuration, maxDuration)
	zone, clock := k.offset(r.UTCOffset), k.clock(r.StartTime)
	k.few(window+".notAllowedDates", len(r.Blackouts))
	var blackouts []Span
	for i, b := range r.Blackouts {
		if b.End.Before(b.Start) {
			k.bad(fmt.Sprintf("%s.notAllowedDates[%d]", window, i), "The end %s is before the start %s.", b.End.Format(time.DateOnly), b.Start.Format(time.DateOnly))
			continue
		}
		blackouts = append(blackouts, Span{midnight(b.Start, zone), midnight(b.End, zone).AddDate(0, 0, 1)})
	}
	if y := r.StartDate.Year(); y < firstYear || y > lastYear {
		k.bad(window+".startDate", "The start date's year isn't from %d to %d.", firstYear, lastYear)
	}
	first := midnight(r.StartDate, zone)
	recurs := k.schedule(name, r, first, clock)
	return &Calendar{recurs: recurs, blackouts: merged(blackouts)}
}

// schedule reads the one schedule that is set.
func (k *checker) schedule(name string, r *Recurring, first time.Time, clock time.Duration) recurrence {
	const target = window + ".schedule"
	set := 0
	for _, is := range []bool{r.Daily != nil, r.Weekly != nil, r.AbsoluteMonthly != nil, r.RelativeMonthly != nil} {
		if is {
			set++
		}
	}
	if set != 1 {
		k.bad(target, "There has to be exactly one of daily, weekly, absoluteMonthly and relativeMonthly, not %d.", set)
		return nil
	}
	length := time.Duration(r.DurationHours) * time.Hour
	switch {
	case r.Daily != nil:
		if name != NodeOS {
			k.bad(target+".daily", "A daily schedule is possible for %s only.", NodeOS)
		}
		k.within(target+".daily.intervalDays", r.Daily.Days, 1, maxDays)
		return steps{first: first.Add(clock), days: r.Daily.Days, length: length}
	case r.Weekly != nil:
		k.within(target+".weekly.intervalWeeks", r.Weekly.Weeks, 1, maxWeeks)
		weekday, _ := k.weekday(target+".weekly.dayOfWeek", r.Weekly.Day)
		return steps{first: first.AddDate(0, 0, daysUntil(first.Weekday(), weekday)).Add(clock), days: 7 * r.Weekly.Weeks, length: length}
	case r.AbsoluteMonthly != nil:
		k.within(target+".absoluteMonthly.intervalMonths", r.AbsoluteMonthly.Months, 1, maxMonths)
		k.within(target+".absoluteMonthly.dayOfMonth", r.AbsoluteMonthly.Day, 1, maxMonthDay)
		return monthly(first, clock, length, r.AbsoluteMonthly.Months, onDay(r.AbsoluteMonthly.Day))
	}
	m := r.RelativeMonthly
	k.within(target+".relativeMonthly.intervalMonths", m.Months, 1, maxMonths)
	weekday, _ := k.weekday(target+".relativeMonthly.dayOfWeek", m.Day)
	indexes := []string{"First", "Second", "Third", "Fourth", "Last"}
	index := slices.IndexFunc(indexes, func(s string) bool { return strings.EqualFold(s, m.Index) })
	if index < 0 {
		k.bad(target+".relativeMonthly.weekIndex", "The week index '%s' isn't one of %s.", m.Index, strings.Join(indexes, ", "))
	}
	return monthly(first, clock, length, m.Months, onWeekday(index+1, weekday))
}

// monthly begins in the first month whose day isn't before first.
func monthly(first time.Time, clock, length time.Duration, step int, pick func(int, time.Month) int) recurrence {
	month := time.Date(first.Year(), first.Month(), 1, 0, 0, 0, 0, first.Location())
	if pick(first.Year(), first.Month()) < first.Day() {
		month = month.AddDate(0, 1, 0)
	}
	return months{first: month, step: step, length: length, clock: clock, pick: pick}
}

func (k *checker) within(target string, n, low, high int) {
	if n < low || n > high {
		k.bad(target, "The value %d isn't from %d to %d.", n, low, high)
	}
}

func (k *checker) weekday(target, name string) (time.Weekday, bool) {
	for d := time.Sunday; d <= time.Saturday; d++ {
		if strings.EqualFold(d.String(), name) {
			return d, true
		}
	}
	k.bad(target, "The day '%s' isn't one of Sunday, Monday, Tuesday, Wednesday, Thursday, Friday, Saturday.", name)
	return 0, false
}

var (
	offsetForm = regexp.MustCompile(`^([+-])([0-9]{2}):([0-5][0-9])$`)
	clockForm  = regexp.MustCompile(`^([01][0-9]|2[0-3]):([0-5][0-9])$`)
)

func (k *checker) offset(text string) *time.Location {
	if text == "" {
		return time.UTC
	}
	found := offsetForm.FindStringSubmatch(text)
	if found == nil {
		k.bad(window+".utcOffset", "The offset '%s' isn't of the form +05:30.", text)
		return time.UTC
	}
	offset := clockOf(found[2], found[3])
	if offset > maxOffset {
		k.bad(window+".utcOffset", "The offset '%s' isn't from -14:00 to +14:00.", text)
	}
	if found[1] == "-" {
		offset = -offset
	}
	return time.FixedZone(text, int(offset/time.Second))
}

func (k *checker) clock(text string) time.Duration {
	found := clockForm.FindStringSubmatch(text)
	if found == nil {
		k.bad(window+".startTime", "The start time '%s' isn't from 00:00 to 23:59.", text)
		return 0
	}
	return clockOf(found[1], found[2])
}

func clockOf(hours, minutes string) time.Duration {
	h, _ := strconv.Atoi(hours) // two digits: the forms say so
	m, _ := strconv.Atoi(minutes)
	return time.Duration(h)*time.Hour + time.Duration(m)*time.Minute
}

// midnight is where a date begins in a zone.
func midnight(date time.Time, zone *time.Location) time.Time {
	return time.Date(date.Year(), date.Month(), date.Day(), 0, 0, 0, 0, zone)
}

// merged sorts spans and makes one of those that touch.
func merged(spans []Span) []Span {
	spans = slices.Clone(spans)
	slices.SortFunc(spans, func(a, b Span) int { return a.Start.Compare(b.Start) })
	var apart []Span
	for _, s := range spans {
		if n := len(apart); n > 0 && !s.Start.After(apart[n-1].End) {
			if s.End.After(apart[n-1].End) {
				apart[n-1].End = s.End
			}
			continue
		}
		apart = append(apart, s)
	}
	return apart
}
