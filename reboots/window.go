// SPDX-License-Identifier: Apache-2.0

package reboots

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // machines without it have time zones all the same
)

// Window is when reboots may begin: on these days, between these times of the
// day. As with kured one that ends before it starts goes over midnight, and the
// day that counts is the one that it is then.
type Window struct {
	Days  Days   `json:"days"`
	Start int    `json:"start"` // seconds after midnight
	End   int    `json:"end"`   // the second is in it
	Zone  string `json:"zone"`
}

// Days has bit n set for weekday n, Sunday being 0.
type Days uint8

const (
	everyDay  Days = 1<<7 - 1
	daySecond      = 24 * 60 * 60
)

func always() Window { return Window{Days: everyDay, End: daySecond - 1, Zone: "UTC"} }

func (w Window) check() error {
	length := w.End - w.Start
	if length < 0 {
		length += daySecond
	}
	if length < 60 {
		return errors.New("must be at least a minute after start-time")
	}
	return nil
}

func (w Window) location() *time.Location {
	zone, err := time.LoadLocation(w.Zone)
	if err != nil {
		return time.UTC // Parse has seen that it is one
	}
	return zone
}

// Contains tells whether a reboot may begin at t.
func (w Window) Contains(t time.Time) bool { return w.contains(t.In(w.location())) }

func (w Window) contains(local time.Time) bool {
	if w.Days&(1<<local.Weekday()) == 0 {
		return false
	}
	second := local.Hour()*3600 + local.Minute()*60 + local.Second()
	if w.Start <= w.End {
		return second >= w.Start && second <= w.End
	}
	return second >= w.Start || second <= w.End
}

// Next is the first time from t on at which a reboot may begin; false when there
// is none within two weeks. It walks by minutes, since days have 23 to 25 hours
// and a window's start may be in the hour that is left out.
func (w Window) Next(t time.Time) (time.Time, bool) {
	zone := w.location()
	if w.contains(t.In(zone)) {
		return t, true
	}
	begin := t.Truncate(time.Minute)
	for i := range 14 * 24 * 60 {
		minute := begin.Add(time.Duration(i+1) * time.Minute)
		if !w.contains(minute.In(zone)) {
			continue
		}
		for second := minute.Add(-time.Minute + time.Second); second.Before(minute); second = second.Add(time.Second) {
			if second.After(t) && w.contains(second.In(zone)) {
				return second, true
			}
		}
		return minute, true
	}
	return time.Time{}, false
}

func parseDays(value string) (Days, error) {
	var days Days
	for _, name := range strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' }) {
		day, ok := parseDay(strings.ToLower(name))
		if !ok {
			return everyDay, fmt.Errorf("%q is no day of the week", name)
		}
		days |= 1 << day
	}
	if days == 0 {
		return everyDay, errors.New("names no day")
	}
	return days, nil
}

func parseDay(name string) (time.Weekday, bool) {
	if n, err := strconv.Atoi(name); err == nil {
		return time.Weekday(n), n >= 0 && n < 7
	}
	for day := time.Sunday; day <= time.Saturday; day++ {
		full := strings.ToLower(day.String())
		if name == full || name == full[:3] || name == full[:2] {
			return day, true
		}
	}
	return 0, false
}

// parseTime reads a time of the day in any of kured's forms.
func parseTime(value string) (int, error) {
	for _, layout := range []string{"15:04", "15:04:05", "03:04pm", "3:04pm", "15", "03pm", "3pm"} {
		if t, err := time.Parse(layout, strings.ToLower(value)); err == nil {
			return t.Hour()*3600 + t.Minute()*60 + t.Second(), nil
		}
	}
	return 0, fmt.Errorf("%q is no time of the day, such as 22:30 or 10pm", value)
}

func parseZone(value string) (string, error) {
	if value == "" || value == "Local" || len(value) > 64 {
		return "UTC", errors.New("must be the name of a time zone, such as Europe/Paris")
	}
	if _, err := time.LoadLocation(value); err != nil {
		return "UTC", fmt.Errorf("%q is no time zone", value)
	}
	return value, nil
}
