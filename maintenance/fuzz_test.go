// SPDX-License-Identifier: Apache-2.0

package maintenance_test

import (
	"testing"
	"time"

	"bastide.dev/maintenance"
)

// FuzzRecurring: whatever a client writes is refused, or is a calendar whose
// windows are in order, apart, and no longer than they may be.
func FuzzRecurring(f *testing.F) {
	f.Add(0, 1, 4, "01:00", "+05:30", "Monday", "First", int64(1_700_000_000), int64(0), int64(0))
	f.Add(1, 4, 24, "23:59", "-12:00", "sunday", "Last", int64(4_000_000_000), int64(1_700_000_000), int64(1_800_000_000))
	f.Add(2, 31, 8, "00:00", "", "", "", int64(-62_135_596_800), int64(-1), int64(1))
	f.Add(3, 6, 4, "12:00", "+14:00", "Friday", "Fourth", int64(951_782_400), int64(0), int64(253_402_300_799))
	f.Fuzz(func(t *testing.T, kind, interval, hours int, start, offset, day, index string, from, black, white int64) {
		r := maintenance.Recurring{DurationHours: hours, StartTime: start, UTCOffset: offset, StartDate: time.Unix(from, 0).UTC(),
			Blackouts: []maintenance.Dates{{Start: time.Unix(black, 0).UTC(), End: time.Unix(white, 0).UTC()}}}
		switch kind % 4 {
		case 0:
			r.Daily = &maintenance.Daily{Days: interval}
		case 1:
			r.Weekly = &maintenance.Weekly{Weeks: interval, Day: day}
		case 2:
			r.AbsoluteMonthly = &maintenance.AbsoluteMonthly{Months: 1, Day: interval}
		default:
			r.RelativeMonthly = &maintenance.RelativeMonthly{Months: interval, Index: index, Day: day}
		}
		k, err := maintenance.New(maintenance.Config{Name: maintenance.NodeOS, Window: &r})
		if err != nil {
			return
		}
		now := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
		var last time.Time
		for _, w := range k.Windows(now, now.AddDate(1, 0, 0)) {
			if !w.Start.Before(w.End) || w.End.Sub(w.Occurrence) > 24*time.Hour || w.Start.Before(last) || w.Start.Before(w.Occurrence) {
				t.Fatalf("%+v after %v", w, last)
			}
			last = w.End
		}
		if next, ok := k.Next(now); ok && !next.Start.After(now) {
			t.Fatalf("next is %+v", next)
		}
	})
}
