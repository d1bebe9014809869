// SPDX-License-Identifier: Apache-2.0

package reboots

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func anySelector(text string) error {
	if strings.Contains(text, "((") {
		return errors.New("no")
	}
	return nil
}

func TestSettingsOfKured(t *testing.T) {
	s, problems := Parse(map[string]string{"concurrency": "2", "reboot-days": "mon, Tu,3", "start-time": "9pm", "end-time": "5:30", "time-zone": "America/New_York",
		"blocking-pod-selector": "app=db\nrole in (a,b)\n", "prometheus-url": "http://prometheus.monitoring.svc.cluster.local:9090/prom/", "alert-filter-regexp": "^Watchdog$",
		"alert-firing-only": "true", "drain-timeout": "10m", "drain-grace-period": "30", "lock-ttl": "1h", "period": "5s"}, anySelector)
	if len(problems) != 0 {
		t.Fatal(problems)
	}
	if s.Concurrency != 2 || s.Window != (Window{Days: 0b1110, Start: 21 * 3600, End: 5*3600 + 1800, Zone: "America/New_York"}) || len(s.Pods) != 2 ||
		*s.Prometheus != (Service{"http", "monitoring", "prometheus", "9090", "/prom"}) || s.DrainTimeout != 10*time.Minute || s.LockTTL != time.Hour {
		t.Errorf("%+v", s)
	}
}

func TestAllThatIsWrongIsSaid(t *testing.T) {
	for name, value := range map[string]string{"concurrency": "0", "reboot-days": "someday", "start-time": "25:00", "end-time": "soon", "time-zone": "../../etc/passwd",
		"blocking-pod-selector": "((", "alert-filter-regexp": "(", "alert-firing-only": "maybe", "drain-timeout": "-1s", "drain-grace-period": "-2", "period": "1ns",
		"lock-ttl": "9000h", "notify-url": "slack://x", "surprise": "1",
		"prometheus-url": "http://169.254.169.254/metadata"} {
		_, problems := Parse(map[string]string{name: value, "drain-delay": "x"}, anySelector)
		if len(problems) != 2 || !strings.Contains(strings.Join(problems, "\n"), name+": ") {
			t.Errorf("%s=%s: %q", name, value, problems)
		}
	}
	if _, problems := Parse(map[string]string{"start-time": "8:00", "end-time": "8:00"}, anySelector); len(problems) != 1 {
		t.Errorf("an empty window: %q", problems)
	}
}

func TestAlertsComeFromServicesOnly(t *testing.T) {
	for _, address := range []string{"http://127.0.0.1:10257", "https://etcd:2379", "http://evil.example.com/", "file:///etc/passwd", "http://a.b.svc:80/../../secrets",
		"http://a.b.svc/%2e%2e/x", "http://u:p@a.b.svc", "http://a.b.svc/?x=1", "http://[::1]:80", "http://10.0", "gopher://a.b.svc"} {
		if s, err := parseService(address); err == nil {
			t.Errorf("%s is %+v", address, s)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("start-time", "9pm")
	f.Add("prometheus-url", "http://a.b:1")
	f.Fuzz(func(t *testing.T, name, value string) {
		s, problems := Parse(map[string]string{name: value}, anySelector)
		if len(problems) == 0 && (s.Concurrency < 1 || s.Window.Days == 0 || s.Period < minPeriod) {
			t.Errorf("%q=%q: %+v", name, value, s)
		}
	})
}

func TestWindows(t *testing.T) {
	night := Window{Days: 1<<time.Friday | 1<<time.Saturday, Start: 22 * 3600, End: 2*3600 - 1, Zone: "Europe/Paris"}
	for text, want := range map[string]string{
		"2026-03-05 12:00": "2026-03-05 23:00", // Thursday; Friday begins in Paris, and the window with it
		"2026-03-06 00:59": "2026-03-06 00:59",
		"2026-03-06 01:00": "2026-03-06 21:00",
		"2026-03-07 23:30": "2026-03-12 23:00", // Sunday in Paris
	} {
		next, ok := night.Next(at(text))
		if !ok || !next.Equal(at(want)) {
			t.Errorf("from %s: %v, not %s", text, next, want)
		}
	}
	// The hour from 2 to 3 of 29 March 2026 isn't in Paris.
	early := Window{Days: everyDay, Start: 2*3600 + 1800, End: 4 * 3600, Zone: "Europe/Paris"}
	if next, _ := early.Next(at("2026-03-28 12:00")); !next.Equal(at("2026-03-29 01:00")) {
		t.Errorf("on the day of 23 hours: %v", next.In(early.location()))
	}
	gap := Window{Days: everyDay, Start: 2*3600 + 1800, End: 2*3600 + 2700, Zone: "Europe/Paris"}
	if next, _ := gap.Next(at("2026-03-28 12:00")); !next.Equal(at("2026-03-30 00:30")) {
		t.Errorf("a window that isn't on that day: %v", next.In(early.location()))
	}
}

func TestTheLockIsKureds(t *testing.T) {
	now := at("2026-03-02 12:00")
	yes := func(string) bool { return true }
	s := Default()
	text, locked := Lock("", []string{"n1"}, yes, s, now)
	if text != `{"nodeID":"n1","metadata":{"unschedulable":false,"by":"bastide"},"created":"2026-03-02T12:00:00Z","TTL":0}` || len(locked.Granted) != 1 {
		t.Errorf("%s %+v", text, locked)
	}
	if again, _ := Lock(text, []string{"n1"}, yes, s, now.Add(time.Hour)); again != text {
		t.Errorf("written again: %s", again)
	}
	if text, locked = Lock(text, nil, yes, s, now); text != "" || len(locked.Granted) != 0 {
		t.Errorf("given back: %q", text)
	}
	if text, locked = Lock("", []string{"n1"}, func(string) bool { return false }, s, now); text != "" || len(locked.Granted) != 0 {
		t.Errorf("not allowed: %q", text)
	}
	for _, other := range []string{`{"nodeID":"manual"}`, `{"maxOwners":2,"locks":[{"nodeID":"manual","created":"2026-03-02T11:00:00Z","TTL":7200000000000}]}`, `{`, `[]`, `7`} {
		s.Concurrency = 3
		text, locked = Lock(other, []string{"n1"}, yes, s, now)
		if text != other || locked.Other == "" || len(locked.Granted) != 0 {
			t.Errorf("%s: %s %+v", other, text, locked)
		}
	}
	old := `{"nodeID":"manual","created":"2026-03-02T09:00:00Z","TTL":3600000000000}`
	if text, locked = Lock(old, []string{"n2", "n1"}, yes, s, now); len(locked.Granted) != 2 || !strings.HasPrefix(text, `{"maxOwners":3,"locks":[{"nodeID":"n2"`) {
		t.Errorf("an old one: %s %+v", text, locked)
	}
}

func FuzzLock(f *testing.F) {
	f.Add(`{"nodeID":"manual"}`)
	f.Add(`{"maxOwners":2,"locks":[{"nodeID":"a","metadata":{"by":"bastide"}}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		_, locked := Lock(text, []string{"n1", "n2"}, func(string) bool { return true }, Default(), at("2026-03-02 12:00"))
		if locked.Other != "" && len(locked.Granted) > 0 && text == "" {
			t.Error("granted beside another's")
		}
	})
}
