// SPDX-License-Identifier: Apache-2.0

// Package reboots decides which node may reboot now, and says of the others why
// not: one at a time, in a window, unless pods, alerts or a person stand against
// it. Its words, options and annotation are kured's, so that what is written
// about that holds here.
//
// It is pure: it reads no clock and talks to nobody. The package cluster decides
// with it, and a control plane's agent reads settings and the lock with it.
package reboots

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The ConfigMap that holds the settings, and the lock in LockAnnotation.
const (
	Namespace = "kube-system"
	ConfigMap = "bastide-reboots"
)

// Bounds of what a ConfigMap may ask for.
const (
	maxConcurrency = 100
	maxSelectors   = 32
	maxText        = 1024
	maxDuration    = 7 * 24 * time.Hour
	minPeriod      = time.Second
)

// Settings are the options, by kured's names.
type Settings struct {
	Concurrency int      `json:"concurrency"`
	Window      Window   `json:"window"`
	Pods        []string `json:"blockingPodSelectors,omitempty"`

	Prometheus           *Service `json:"prometheus,omitempty"`
	AlertFilter          string   `json:"alertFilterRegexp,omitempty"`
	AlertFilterMatchOnly bool     `json:"alertFilterMatchOnly,omitempty"`
	AlertFiringOnly      bool     `json:"alertFiringOnly,omitempty"`

	DrainDelay       time.Duration `json:"drainDelay,omitempty"`
	DrainTimeout     time.Duration `json:"drainTimeout,omitempty"` // 0: the pool's
	DrainGracePeriod int           `json:"drainGracePeriod"`       // seconds; negative: each pod's own
	DrainPodSelector string        `json:"drainPodSelector,omitempty"`
	SkipWait         int           `json:"skipWaitForDeleteTimeout,omitempty"` // seconds
	ForceReboot      bool          `json:"forceReboot,omitempty"`
	RebootDelay      time.Duration `json:"rebootDelay,omitempty"`
	LockTTL          time.Duration `json:"lockTTL,omitempty"` // 0: a lock lasts
	LockReleaseDelay time.Duration `json:"lockReleaseDelay,omitempty"`
	Period           time.Duration `json:"period"` // how often what blocks is looked at
	Annotate         bool          `json:"annotateNodes"`
}

// Service is a service of the cluster that is reached through its API server.
type Service struct {
	Scheme    string `json:"scheme"` // http or https
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Port      string `json:"port"` // number or name
	Path      string `json:"path,omitempty"`
}

// Default are the settings of a cluster that says nothing.
func Default() Settings {
	return Settings{Concurrency: 1, Window: always(), DrainGracePeriod: -1, Period: time.Minute, Annotate: true}
}

// Parse reads a ConfigMap's data, and returns everything that is wrong with it.
// selector tells whether a label selector is one.
func Parse(data map[string]string, selector func(string) error) (Settings, []string) {
	p := parser{settings: Default(), data: data, selector: selector}
	options := p.options()
	for _, name := range slices.Sorted(maps.Keys(data)) {
		value := strings.TrimSpace(data[name])
		read, known := options[name]
		switch {
		case !known && slices.Contains(foreign(), name):
			p.wrong(name, errors.New("isn't supported here"))
		case !known:
			p.wrong(strings.ToValidUTF8(name[:min(len(name), 64)], ""), errors.New("is no option"))
		case len(value) > maxText*4:
			p.wrong(name, errors.New("is too long"))
		default:
			if err := read(value); err != nil {
				p.wrong(name, err)
			}
		}
	}
	if err := p.settings.Window.check(); err != nil {
		p.wrong("end-time", err)
	}
	return p.settings, p.problems
}

// foreign are kured's options that have no meaning here.
func foreign() []string {
	return []string{"ds-name", "ds-namespace", "lock-annotation", "log-format", "message-template-drain", "message-template-reboot", "message-template-uncordon",
		"metrics-host", "metrics-port", "node-id", "notify-url", "post-reboot-node-labels", "pre-reboot-node-labels", "prefer-no-schedule-taint", "reboot-command",
		"reboot-method", "reboot-sentinel", "reboot-sentinel-command", "reboot-signal", "slack-channel", "slack-hook-url", "slack-username"}
}

type parser struct {
	settings Settings
	data     map[string]string
	selector func(string) error
	problems []string
}

func (p *parser) wrong(name string, err error) {
	p.problems = append(p.problems, name+": "+err.Error())
}

func (p *parser) options() map[string]func(string) error {
	s := &p.settings
	return map[string]func(string) error{
		"concurrency":                  number(&s.Concurrency, 1, maxConcurrency),
		"reboot-days":                  reads(&s.Window.Days, parseDays),
		"start-time":                   reads(&s.Window.Start, parseTime),
		"end-time":                     reads(&s.Window.End, parseTime),
		"time-zone":                    reads(&s.Window.Zone, parseZone),
		"blocking-pod-selector":        p.selectors,
		"prometheus-url":               reads(&s.Prometheus, parseService),
		"alert-filter-regexp":          p.filter,
		"alert-filter-match-only":      flag(&s.AlertFilterMatchOnly),
		"alert-firing-only":            flag(&s.AlertFiringOnly),
		"drain-delay":                  duration(&s.DrainDelay, 0),
		"drain-timeout":                duration(&s.DrainTimeout, 0),
		"drain-grace-period":           number(&s.DrainGracePeriod, -1, int(maxDuration/time.Second)),
		"drain-pod-selector":           p.drained,
		"skip-wait-for-delete-timeout": number(&s.SkipWait, 0, int(maxDuration/time.Second)),
		"force-reboot":                 flag(&s.ForceReboot),
		"reboot-delay":                 duration(&s.RebootDelay, 0),
		"lock-ttl":                     duration(&s.LockTTL, 0),
		"lock-release-delay":           duration(&s.LockReleaseDelay, 0),
		"period":                       duration(&s.Period, minPeriod),
		"annotate-nodes":               flag(&s.Annotate),
	}
}

// selectors are one a line: commas belong to them.
func (p *parser) selectors(value string) error {
	for line := range strings.Lines(value) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		if err := p.selector(line); err != nil {
			return fmt.Errorf("%q is no label selector: %w", line, err)
		}
		p.settings.Pods = append(p.settings.Pods, line)
	}
	if len(p.settings.Pods) > maxSelectors {
		p.settings.Pods = nil
		return fmt.Errorf("has more than %d selectors", maxSelectors)
	}
	return nil
}

func (p *parser) drained(value string) error {
	if err := p.selector(value); err != nil {
		return fmt.Errorf("is no label selector: %w", err)
	}
	p.settings.DrainPodSelector = value
	return nil
}

func (p *parser) filter(value string) error {
	if len(value) > maxText {
		return errors.New("is too long")
	}
	if _, err := regexp.Compile(value); err != nil {
		return fmt.Errorf("is no regular expression: %w", err)
	}
	p.settings.AlertFilter = value
	return nil
}

func reads[T any](into *T, parse func(string) (T, error)) func(string) error {
	return func(value string) error {
		read, err := parse(value)
		if err == nil {
			*into = read
		}
		return err
	}
}

func number(into *int, least, most int) func(string) error {
	return func(value string) error {
		n, err := strconv.Atoi(value)
		if err != nil || n < least || n > most {
			return fmt.Errorf("must be a number from %d to %d", least, most)
		}
		*into = n
		return nil
	}
}

func flag(into *bool) func(string) error {
	return func(value string) error {
		is, err := strconv.ParseBool(value)
		if err != nil {
			return errors.New("must be true or false")
		}
		*into = is
		return nil
	}
}

func duration(into *time.Duration, least time.Duration) func(string) error {
	return func(value string) error {
		d, err := time.ParseDuration(value)
		if err != nil || d < least || d > maxDuration {
			return fmt.Errorf("must be a duration such as 30m, from %v to %v", least, maxDuration)
		}
		*into = d
		return nil
	}
}

// parseService reads the URL of a service by its name in the cluster. Any other
// address would have the control plane's host knock wherever a tenant says.
func parseService(value string) (*Service, error) {
	if value == "" {
		return nil, nil
	}
	u, err := url.Parse(value)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("must be a URL such as http://prometheus.monitoring.svc:9090")
	}
	labels := strings.Split(strings.TrimSuffix(u.Hostname(), "."), ".")
	label := regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	if len(labels) < 2 || len(labels) > 2 && labels[2] != "svc" || slices.ContainsFunc(labels, func(l string) bool { return !label.MatchString(l) }) {
		return nil, errors.New("must name a service of the cluster, such as http://prometheus.monitoring.svc:9090")
	}
	if n, err := strconv.Atoi(labels[len(labels)-1]); err == nil {
		return nil, fmt.Errorf("must name a service of the cluster, not an address that ends in %d", n)
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	path := strings.TrimSuffix(u.EscapedPath(), "/")
	if !regexp.MustCompile(`^[-A-Za-z0-9_/]*$`).MatchString(path) {
		return nil, errors.New("must have a path of letters, digits, -, _ and / alone")
	}
	return &Service{Scheme: u.Scheme, Name: labels[0], Namespace: labels[1], Port: port, Path: path}, nil
}
