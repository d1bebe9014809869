// SPDX-License-Identifier: Apache-2.0

package maintenance_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"bastide.dev/fault"
	"bastide.dev/maintenance"
)

func at(text string) time.Time {
	t, err := time.Parse("2006-01-02 15:04", text)
	if err != nil {
		panic(err)
	}
	return t
}

func date(text string) time.Time { return at(text + " 00:00") }

func recurring(r maintenance.Recurring) maintenance.Config {
	return maintenance.Config{Name: maintenance.NodeOS, Window: &r}
}

func calendar(t *testing.T, c maintenance.Config) *maintenance.Calendar {
	t.Helper()
	k, err := maintenance.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// starts is when the windows of a time begin, in UTC.
func starts(k *maintenance.Calendar, from, to string) string {
	var all []string
	for _, w := range k.Windows(at(from), at(to)) {
		all = append(all, w.Start.UTC().Format("2006-01-02 15:04"))
	}
	return strings.Join(all, ", ")
}

func TestSchedules(t *testing.T) {
	for _, c := range []struct {
		name     string
		r        maintenance.Recurring
		from, to string
		want     string
	}{
		{"daily every third day from its start date", maintenance.Recurring{Daily: &maintenance.Daily{Days: 3}, StartTime: "01:00", StartDate: date("2026-02-26")},
			"2026-02-20 00:00", "2026-03-08 00:00", "2026-02-26 01:00, 2026-03-01 01:00, 2026-03-04 01:00, 2026-03-07 01:00"},
		{"weekly from the first such day", maintenance.Recurring{Weekly: &maintenance.Weekly{Weeks: 2, Day: "monday"}, StartTime: "22:30", StartDate: date("2026-11-21")},
			"2026-11-01 00:00", "2026-12-31 00:00", "2026-11-23 22:30, 2026-12-07 22:30, 2026-12-21 22:30"},
		{"the offset moves a window to another day of UTC", maintenance.Recurring{Weekly: &maintenance.Weekly{Weeks: 1, Day: "Sunday"}, StartTime: "02:00", UTCOffset: "+05:30", StartDate: date("2026-03-01")},
			"2026-02-20 00:00", "2026-03-10 00:00", "2026-02-28 20:30, 2026-03-07 20:30"},
		{"no clock is put forward: the last Sunday of March is as any", maintenance.Recurring{Weekly: &maintenance.Weekly{Weeks: 1, Day: "Sunday"}, StartTime: "02:30", UTCOffset: "+01:00", StartDate: date("2026-03-22")},
			"2026-03-20 00:00", "2026-04-06 00:00", "2026-03-22 01:30, 2026-03-29 01:30, 2026-04-05 01:30"},
		{"a day that a month hasn't is its last", maintenance.Recurring{AbsoluteMonthly: &maintenance.AbsoluteMonthly{Months: 1, Day: 31}, StartTime: "00:00", StartDate: date("2027-12-31")},
			"2027-12-01 00:00", "2028-05-01 00:00", "2027-12-31 00:00, 2028-01-31 00:00, 2028-02-29 00:00, 2028-03-31 00:00, 2028-04-30 00:00"},
		{"months count from the first that fits", maintenance.Recurring{AbsoluteMonthly: &maintenance.AbsoluteMonthly{Months: 3, Day: 5}, StartTime: "04:00", StartDate: date("2026-11-21")},
			"2026-01-01 00:00", "2027-07-01 00:00", "2026-12-05 04:00, 2027-03-05 04:00, 2027-06-05 04:00"},
		{"the second Tuesday", maintenance.Recurring{RelativeMonthly: &maintenance.RelativeMonthly{Months: 1, Index: "Second", Day: "Tuesday"}, StartTime: "04:00", StartDate: date("2026-12-01")},
			"2026-01-01 00:00", "2027-03-01 00:00", "2026-12-08 04:00, 2027-01-12 04:00, 2027-02-09 04:00"},
		{"the last Friday, with five and with four of them", maintenance.Recurring{RelativeMonthly: &maintenance.RelativeMonthly{Months: 1, Index: "Last", Day: "Friday"}, StartTime: "04:00", StartDate: date("2027-01-01")},
			"2027-01-01 00:00", "2027-05-01 00:00", "2027-01-29 04:00, 2027-02-26 04:00, 2027-03-26 04:00, 2027-04-30 04:00"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.r.DurationHours = 4
			if got := starts(calendar(t, recurring(c.r)), c.from, c.to); got != c.want {
				t.Errorf("windows begin\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

// TestAgainstEachDay holds calendars against a reading of the rules that
// counts days one by one.
func TestAgainstEachDay(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 1))
	for range 300 {
		r := randomWindow(random)
		k := calendar(t, recurring(r))
		from := date("2026-01-01").AddDate(0, 0, random.IntN(800))
		to := from.AddDate(0, 0, 400)
		got := map[string]bool{}
		for _, w := range k.Windows(from, to) {
			if w.End.Sub(w.Start) != time.Duration(r.DurationHours)*time.Hour {
				t.Fatalf("%+v: a window lasts %v", r, w.End.Sub(w.Start))
			}
			got[w.Start.UTC().String()] = true
		}
		for _, start := range oracle(r, from, to) {
			if !got[start.UTC().String()] {
				t.Fatalf("%s: no window at %s", describe(r), start)
			}
			delete(got, start.UTC().String())
		}
		if len(got) > 0 {
			t.Fatalf("%s: windows at %v that shouldn't be", describe(r), got)
		}
	}
}

func randomWindow(r *rand.Rand) maintenance.Recurring {
	weekday := time.Weekday(r.IntN(7)).String()
	w := maintenance.Recurring{DurationHours: 4 + r.IntN(21), StartTime: fmt.Sprintf("%02d:%02d", r.IntN(24), r.IntN(60)),
		UTCOffset: fmt.Sprintf("%s%02d:%02d", []string{"+", "-"}[r.IntN(2)], r.IntN(14), r.IntN(60)),
		StartDate: date("2025-06-01").AddDate(0, 0, r.IntN(900))}
	switch r.IntN(4) {
	case 0:
		w.Daily = &maintenance.Daily{Days: 1 + r.IntN(7)}
	case 1:
		w.Weekly = &maintenance.Weekly{Weeks: 1 + r.IntN(4), Day: weekday}
	case 2:
		w.AbsoluteMonthly = &maintenance.AbsoluteMonthly{Months: 1 + r.IntN(6), Day: 1 + r.IntN(31)}
	default:
		w.RelativeMonthly = &maintenance.RelativeMonthly{Months: 1 + r.IntN(6), Day: weekday,
			Index: []string{"First", "Second", "Third", "Fourth", "Last"}[r.IntN(5)]}
	}
	return w
}

// oracle walks from the start date day by day.
func oracle(r maintenance.Recurring, from, to time.Time) []time.Time {
	offset, _ := time.Parse("-07:00", r.UTCOffset)
	_, seconds := offset.Zone()
	zone := time.FixedZone("", seconds)
	clock, _ := time.Parse("15:04", r.StartTime)
	var all []time.Time
	fits, months := 0, map[string]bool{}
	for d := r.StartDate; d.Before(to.AddDate(0, 0, 2)); d = d.AddDate(0, 0, 1) {
		if !fitsDay(r, d) {
			continue
		}
		var every, n int
		switch {
		case r.Daily != nil:
			every, n = r.Daily.Days, fits
		case r.Weekly != nil:
			every, n = r.Weekly.Weeks, fits
		case r.AbsoluteMonthly != nil:
			every, n = r.AbsoluteMonthly.Months, len(months)
		default:
			every, n = r.RelativeMonthly.Months, len(months)
		}
		fits++
		months[d.Format("2006-01")] = true
		start := time.Date(d.Year(), d.Month(), d.Day(), clock.Hour(), clock.Minute(), 0, 0, zone)
		if n%every == 0 && start.Before(to) && start.Add(time.Duration(r.DurationHours)*time.Hour).After(from) {
			all = append(all, start)
		}
	}
	return all
}

// fitsDay tells whether a day is of the schedule's kind, intervals aside.
func fitsDay(r maintenance.Recurring, d time.Time) bool {
	tomorrow := d.AddDate(0, 0, 1)
	switch {
	case r.Daily != nil:
		return true
	case r.Weekly != nil:
		return d.Weekday().String() == r.Weekly.Day
	case r.AbsoluteMonthly != nil:
		return d.Day() == r.AbsoluteMonthly.Day || d.Day() < r.AbsoluteMonthly.Day && tomorrow.Day() == 1
	}
	if d.Weekday().String() != r.RelativeMonthly.Day {
		return false
	}
	nth := map[string]int{"First": 1, "Second": 2, "Third": 3, "Fourth": 4}[r.RelativeMonthly.Index]
	if nth == 0 {
		return d.AddDate(0, 0, 7).Month() != d.Month()
	}
	return (d.Day()+6)/7 == nth
}

func describe(r maintenance.Recurring) string {
	return fmt.Sprintf("%+v %+v %+v %+v from %s %s %s", r.Daily, r.Weekly, r.AbsoluteMonthly, r.RelativeMonthly, r.StartDate.Format(time.DateOnly), r.StartTime, r.UTCOffset)
}

func TestNextAndNowAgreeWithWindows(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 2))
	for range 100 {
		r := randomWindow(random)
		for range 3 {
			start := date("2026-01-01").AddDate(0, 0, random.IntN(700))
			r.Blackouts = append(r.Blackouts, maintenance.Dates{Start: start, End: start.AddDate(0, 0, random.IntN(40))})
		}
		k := calendar(t, recurring(r))
		now := date("2026-01-01").Add(time.Duration(random.IntN(700*24*60)) * time.Minute)
		next, ok := k.Next(now)
		if !ok || !next.Start.After(now) {
			t.Fatalf("%s: after %s comes %+v", describe(r), now, next)
		}
		for _, w := range k.Windows(now, next.Start) {
			if w.Start.After(now) {
				t.Fatalf("%s: %+v comes before %+v", describe(r), w, next)
			}
		}
		if w, in := k.Now(next.Start); !in || w != next {
			t.Fatalf("%s: at %s it is %+v, %v", describe(r), next.Start, w, in)
		}
		if w, in := k.Now(next.End); in && w == next {
			t.Fatalf("%s: at its end it is still %+v", describe(r), w)
		}
	}
}

func TestBlackoutsAreCutOut(t *testing.T) {
	r := maintenance.Recurring{Daily: &maintenance.Daily{Days: 1}, DurationHours: 24, StartTime: "12:00", UTCOffset: "+02:00", StartDate: date("2022-12-01"),
		Blackouts: []maintenance.Dates{{Start: date("2022-12-23"), End: date("2023-01-03")}}}
	k := calendar(t, recurring(r))
	// AKS's own example: from 22:00 UTC of the day before to 22:00 of the last day.
	for text, open := range map[string]bool{"2022-12-22 21:59": true, "2022-12-22 22:00": false, "2023-01-03 21:59": false, "2023-01-03 22:00": true} {
		if _, in := k.Now(at(text)); in != open {
			t.Errorf("at %s maintenance is possible: %v", text, in)
		}
	}
	before, _ := k.Now(at("2022-12-22 21:00"))
	if before.End != at("2022-12-22 22:00").In(before.End.Location()) {
		t.Errorf("the window before ends %s", before.End.UTC())
	}
	if n := len(k.BlackedOut(at("2022-12-01 00:00"), at("2023-02-01 00:00"))); n != 11 {
		t.Errorf("%d windows are blacked out, want 11", n)
	}
}

func TestAPieceInTheMiddleIsOneOccurrence(t *testing.T) {
	k := calendar(t, maintenance.Config{Name: maintenance.Default, Hours: []maintenance.Hours{{Day: "Friday", Hours: []int{20, 21, 22, 23}}},
		NotAllowed: []maintenance.Span{{Start: at("2026-11-20 21:00"), End: at("2026-11-20 21:30")}}})
	windows := k.Windows(at("2026-11-20 00:00"), at("2026-11-21 00:00"))
	if len(windows) != 2 || windows[0].Occurrence != windows[1].Occurrence || windows[1].Start != at("2026-11-20 21:30") {
		t.Errorf("windows %+v", windows)
	}
}

func TestHoursOfTheWeek(t *testing.T) {
	k := calendar(t, maintenance.Config{Name: maintenance.Default, Hours: []maintenance.Hours{
		{Day: "Sunday", Hours: []int{23, 22}}, {Day: "Monday", Hours: []int{0}}, {Day: "monday", Hours: []int{1, 5}}}})
	if got, want := starts(k, "2026-11-22 00:00", "2026-11-30 00:00"), "2026-11-22 22:00, 2026-11-23 05:00, 2026-11-29 22:00"; got != want {
		t.Errorf("windows begin %s, want %s", got, want)
	}
	if w, in := k.Now(at("2026-11-23 01:59")); !in || w.End != at("2026-11-23 02:00") {
		t.Errorf("over midnight of Sunday: %+v", w)
	}
	all := maintenance.Config{Name: maintenance.Default}
	hours := make([]int, 24)
	for i := range hours {
		hours[i] = i
	}
	for d := range 7 {
		all.Hours = append(all.Hours, maintenance.Hours{Day: time.Weekday(d).String(), Hours: hours})
	}
	if n := len(calendar(t, all).Windows(at("2026-11-23 00:00"), at("2026-11-30 00:00"))); n != 7 {
		t.Errorf("a week of nothing but maintenance has %d windows, want one a day", n)
	}
}

func TestEveryProblemIsTold(t *testing.T) {
	_, err := maintenance.New(maintenance.Config{Name: maintenance.Cluster, Hours: []maintenance.Hours{{Day: "Monday", Hours: []int{1}}},
		NotAllowed: []maintenance.Span{{}}, Window: &maintenance.Recurring{
			DurationHours: 3, UTCOffset: "5:30", StartTime: "24:00", StartDate: date("1999-01-01"),
			Weekly:    &maintenance.Weekly{Weeks: 5, Day: "Someday"},
			Blackouts: []maintenance.Dates{{Start: date("2026-02-01"), End: date("2026-01-01")}},
		}})
	f := fault.From(err)
	targets := map[string]bool{}
	for _, d := range f.Details {
		targets[strings.TrimPrefix(d.Target, "properties.")] = true
	}
	for _, want := range []string{"timeInWeek", "notAllowedTime", "maintenanceWindow.durationHours", "maintenanceWindow.utcOffset", "maintenanceWindow.startTime",
		"maintenanceWindow.startDate", "maintenanceWindow.schedule.weekly.intervalWeeks", "maintenanceWindow.schedule.weekly.dayOfWeek", "maintenanceWindow.notAllowedDates[0]"} {
		if !targets[want] {
			t.Errorf("nothing is said about %s", want)
		}
	}
	if len(targets) != 9 {
		t.Errorf("problems with %v", targets)
	}
}

func TestBounds(t *testing.T) {
	good := func() maintenance.Recurring {
		return maintenance.Recurring{DurationHours: 4, StartTime: "23:59", StartDate: date("2026-01-01")}
	}
	for name, change := range map[string]func(*maintenance.Recurring){
		"no schedule":  func(*maintenance.Recurring) {},
		"eight days":   func(r *maintenance.Recurring) { r.Daily = &maintenance.Daily{Days: 8} },
		"no days":      func(r *maintenance.Recurring) { r.Daily = &maintenance.Daily{} },
		"seven months": func(r *maintenance.Recurring) { r.AbsoluteMonthly = &maintenance.AbsoluteMonthly{Months: 7, Day: 1} },
		"day 32":       func(r *maintenance.Recurring) { r.AbsoluteMonthly = &maintenance.AbsoluteMonthly{Months: 1, Day: 32} },
		"the fifth": func(r *maintenance.Recurring) {
			r.RelativeMonthly = &maintenance.RelativeMonthly{Months: 1, Index: "Fifth", Day: "Monday"}
		},
		"two schedules": func(r *maintenance.Recurring) {
			r.Daily, r.Weekly = &maintenance.Daily{Days: 1}, &maintenance.Weekly{Weeks: 1, Day: "Monday"}
		},
		"25 hours":          func(r *maintenance.Recurring) { r.Daily = &maintenance.Daily{Days: 1}; r.DurationHours = 25 },
		"an offset of 15 h": func(r *maintenance.Recurring) { r.Daily = &maintenance.Daily{Days: 1}; r.UTCOffset = "+15:00" },
		"many blackouts": func(r *maintenance.Recurring) {
			r.Daily = &maintenance.Daily{Days: 1}
			r.Blackouts = make([]maintenance.Dates, 101)
		},
	} {
		r := good()
		change(&r)
		if _, err := maintenance.New(recurring(r)); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r := good()
	r.Daily = &maintenance.Daily{Days: 7}
	if _, err := maintenance.New(recurring(r)); err != nil {
		t.Errorf("what is right: %v", err)
	}
	if _, err := maintenance.New(maintenance.Config{Name: maintenance.Cluster, Window: &r}); !fault.Is(err, fault.Invalid) {
		t.Errorf("a daily schedule of cluster upgrades: %v", err)
	}
	if _, err := maintenance.New(maintenance.Config{Name: "mine", Window: &r}); !fault.Is(err, fault.Invalid) {
		t.Errorf("another name: %v", err)
	}
}

func TestBlackedOutForYearsHasNoNext(t *testing.T) {
	r := maintenance.Recurring{Daily: &maintenance.Daily{Days: 1}, DurationHours: 4, StartTime: "01:00", StartDate: date("2026-01-01"),
		Blackouts: []maintenance.Dates{{Start: date("2026-01-01"), End: date("2036-01-01")}}}
	if w, ok := calendar(t, recurring(r)).Next(at("2026-11-21 00:00")); ok {
		t.Errorf("next is %+v", w)
	}
}

func TestDaytime(t *testing.T) {
	if got, want := starts(maintenance.Daytime(75, 4, 0, false), "2026-11-21 06:00", "2026-11-23 00:00"), "2026-11-22 01:15"; got != want {
		t.Errorf("nightly begins %s, want %s", got, want)
	}
	if got, want := starts(maintenance.Daytime(75, 4, time.Wednesday, true), "2026-11-21 00:00", "2026-12-05 00:00"), "2026-11-25 01:15, 2026-12-02 01:15"; got != want {
		t.Errorf("weekly begins %s, want %s", got, want)
	}
}
