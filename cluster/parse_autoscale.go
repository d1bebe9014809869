// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	aks "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"

	"bastide.dev/arm"
	"bastide.dev/autoscale"
)

const profileObject = "properties.autoScalerProfile."

// scaling reads whether a pool scales by itself, and within which bounds. As
// long as it does its count is what the autoscaler made it.
func (p *parser) scaling(pool *Pool, f poolFields, was Pool, exists bool, target string) {
	pool.AutoScale, pool.Min, pool.Max = was.AutoScale, was.Min, was.Max
	if f.auto != nil {
		pool.AutoScale = *f.auto
	}
	if !pool.AutoScale {
		pool.Min, pool.Max = 0, 0
		for name, bound := range map[string]*int32{"minCount": f.min, "maxCount": f.max} {
			if value(bound) != 0 {
				p.bad("InvalidParameter", target+name, "The value of parameter agentPoolProfile.%s is invalid: it has a meaning only with enableAutoScaling.", name)
			}
		}
		return
	}
	if f.min != nil {
		pool.Min = int(*f.min)
	}
	if f.max != nil {
		pool.Max = int(*f.max)
	}
	switch {
	case f.count == nil && !exists:
		pool.Count = pool.Min
	case exists && pool.Count == was.Count:
		pool.Count = max(pool.Count, pool.Min) // more are taken away when they aren't needed
	case exists && was.AutoScale:
		p.bad("OperationNotAllowed", target+"count", "The agent pool %s scales by itself and has %d nodes now: set minCount and maxCount, or switch enableAutoScaling off to set count.", pool.Name, was.Count)
	case pool.Count < pool.Min || pool.Count > pool.Max:
		p.bad("InvalidParameter", target+"count", "The value of parameter agentPoolProfile.count is invalid: %d isn't between minCount %d and maxCount %d.", pool.Count, pool.Min, pool.Max)
	}
}

// validateScaling checks a pool's bounds; least is what its mode asks for.
func (p *parser) validateScaling(pool Pool, least int, target string) {
	if !pool.AutoScale {
		return
	}
	if pool.Min < least || pool.Min > maxPerPool {
		p.bad("InvalidParameter", target+"minCount", "The value of parameter agentPoolProfile.minCount is invalid: a pool of mode %s scales between %d and %d nodes, not from %d.", pool.Mode, least, maxPerPool, pool.Min)
	}
	if pool.Max < max(pool.Min, 1) || pool.Max > maxPerPool {
		p.bad("InvalidParameter", target+"maxCount", "The value of parameter agentPoolProfile.maxCount is invalid: it is %d, and has to be at least minCount, at least 1 and at most %d.", pool.Max, maxPerPool)
	}
}

// most is how many nodes a pool may have.
func (pool *Pool) most() int { return max(pool.Count, pool.Max) }

// setting is one of the profile's that AKS has as a text.
type setting struct {
	name string
	at   func(*aks.ManagedClusterPropertiesAutoScalerProfile) *string
	// read puts a text into a profile, or says what is wrong with it; text is the
	// other way.
	read func(*autoscale.Profile, string) string
	text func(*autoscale.Profile) string
}

// settings are all of them. The bounds are this project's where AKS names none.
func settings() []setting {
	type model = aks.ManagedClusterPropertiesAutoScalerProfile
	return []setting{
		yesOrNo("balance-similar-node-groups", func(m *model) *string { return m.BalanceSimilarNodeGroups }, func(p *autoscale.Profile) *bool { return &p.Balance }),
		wholeNumber("max-empty-bulk-delete", 1, 1000, func(m *model) *string { return m.MaxEmptyBulkDelete }, func(p *autoscale.Profile) *int { return &p.EmptyBulk }),
		graceSeconds(),
		timeSpan("max-node-provision-time", time.Minute, func(m *model) *string { return m.MaxNodeProvisionTime }, func(p *autoscale.Profile) *time.Duration { return &p.Provision }),
		wholeNumber("max-total-unready-percentage", 0, 100, func(m *model) *string { return m.MaxTotalUnreadyPercentage }, func(p *autoscale.Profile) *int { return &p.UnreadyShare }),
		timeSpan("new-pod-scale-up-delay", 0, func(m *model) *string { return m.NewPodScaleUpDelay }, func(p *autoscale.Profile) *time.Duration { return &p.PodDelay }),
		wholeNumber("ok-total-unready-count", 0, maxNodes, func(m *model) *string { return m.OkTotalUnreadyCount }, func(p *autoscale.Profile) *int { return &p.UnreadyCount }),
		timeSpan("scale-down-delay-after-add", 0, func(m *model) *string { return m.ScaleDownDelayAfterAdd }, func(p *autoscale.Profile) *time.Duration { return &p.AfterAdd }),
		timeSpan("scale-down-delay-after-delete", 0, func(m *model) *string { return m.ScaleDownDelayAfterDelete }, func(p *autoscale.Profile) *time.Duration { return &p.AfterDelete }),
		timeSpan("scale-down-delay-after-failure", 0, func(m *model) *string { return m.ScaleDownDelayAfterFailure }, func(p *autoscale.Profile) *time.Duration { return &p.AfterFailure }),
		timeSpan("scale-down-unneeded-time", 0, func(m *model) *string { return m.ScaleDownUnneededTime }, func(p *autoscale.Profile) *time.Duration { return &p.Unneeded }),
		timeSpan("scale-down-unready-time", 0, func(m *model) *string { return m.ScaleDownUnreadyTime }, func(p *autoscale.Profile) *time.Duration { return &p.Unready }),
		thresholdShare(),
		timeSpan("scan-interval", time.Second, func(m *model) *string { return m.ScanInterval }, func(p *autoscale.Profile) *time.Duration { return &p.Scan }),
		yesOrNo("skip-nodes-with-local-storage", func(m *model) *string { return m.SkipNodesWithLocalStorage }, func(p *autoscale.Profile) *bool { return &p.SkipLocal }),
		yesOrNo("skip-nodes-with-system-pods", func(m *model) *string { return m.SkipNodesWithSystemPods }, func(p *autoscale.Profile) *bool { return &p.SkipSystem }),
	}
}

func yesOrNo(name string, at func(*aks.ManagedClusterPropertiesAutoScalerProfile) *string, field func(*autoscale.Profile) *bool) setting {
	return setting{name, at, func(p *autoscale.Profile, text string) string {
		if text != "true" && text != "false" {
			return `it has to be "true" or "false"`
		}
		*field(p) = text == "true"
		return ""
	}, func(p *autoscale.Profile) string { return strconv.FormatBool(*field(p)) }}
}

func wholeNumber(name string, least, most int, at func(*aks.ManagedClusterPropertiesAutoScalerProfile) *string, field func(*autoscale.Profile) *int) setting {
	return setting{name, at, func(p *autoscale.Profile, text string) string {
		n, err := strconv.Atoi(text)
		if err != nil || n < least || n > most {
			return fmt.Sprintf("it has to be a whole number from %d to %d", least, most)
		}
		*field(p) = n
		return ""
	}, func(p *autoscale.Profile) string { return strconv.Itoa(*field(p)) }}
}

// spanForm are AKS's times: whole numbers of one unit.
var spanForm = regexp.MustCompile(`^[0-9]{1,6}[smh]$`)

// longest bounds every time of a profile.
const longest = 7 * 24 * time.Hour

func timeSpan(name string, least time.Duration, at func(*aks.ManagedClusterPropertiesAutoScalerProfile) *string, field func(*autoscale.Profile) *time.Duration) setting {
	return setting{name, at, func(p *autoscale.Profile, text string) string {
		d, err := time.ParseDuration(text)
		if err != nil || !spanForm.MatchString(text) || d < least || d > longest {
			return fmt.Sprintf(`it has to be a whole number of "s", "m" or "h", such as "10m", from %s to %s`, spanText(least), spanText(longest))
		}
		*field(p) = d
		return ""
	}, func(p *autoscale.Profile) string { return spanText(*field(p)) }}
}

// spanText is a time as AKS writes it: "10m", "90s".
func spanText(d time.Duration) string {
	if d >= time.Minute && d%time.Minute == 0 {
		return strconv.Itoa(int(d/time.Minute)) + "m"
	}
	return strconv.Itoa(int(d/time.Second)) + "s"
}

func graceSeconds() setting {
	return setting{"max-graceful-termination-sec", func(m *aks.ManagedClusterPropertiesAutoScalerProfile) *string { return m.MaxGracefulTerminationSec },
		func(p *autoscale.Profile, text string) string {
			n, err := strconv.Atoi(text)
			if err != nil || n < 1 || n > int(24*time.Hour/time.Second) {
				return "it has to be a number of seconds from 1 to 86400"
			}
			p.Grace = time.Duration(n) * time.Second
			return ""
		}, func(p *autoscale.Profile) string { return strconv.Itoa(int(p.Grace / time.Second)) }}
}

func thresholdShare() setting {
	return setting{"scale-down-utilization-threshold", func(m *aks.ManagedClusterPropertiesAutoScalerProfile) *string { return m.ScaleDownUtilizationThreshold },
		func(p *autoscale.Profile, text string) string {
			share, err := strconv.ParseFloat(text, 64)
			if err != nil || !(share >= 0 && share <= 1) {
				return "it has to be a number from 0 to 1"
			}
			p.Threshold = share
			return ""
		}, func(p *autoscale.Profile) string { return strconv.FormatFloat(p.Threshold, 'g', -1, 64) }}
}

func expanders() []string {
	return []string{autoscale.LeastWaste, autoscale.MostPods, autoscale.ByPriority, autoscale.Random}
}

// autoScaler reads the cluster's profile; what isn't said stays, and is AKS's
// default at first.
func (p *parser) autoScaler(d *Desired, profile *aks.ManagedClusterPropertiesAutoScalerProfile, old *Desired) {
	if old != nil {
		d.AutoScaler = old.AutoScaler
	}
	if profile == nil {
		return
	}
	next := d.scaler()
	for _, s := range settings() {
		if text := s.at(profile); text != nil {
			if problem := s.read(&next, *text); problem != "" {
				p.bad("InvalidParameter", profileObject+s.name, "The value %q of autoScalerProfile.%s is invalid: %s.", *text, s.name, problem)
			}
		}
	}
	if e := string(value(profile.Expander)); e != "" {
		if next.Expander = e; !slices.Contains(expanders(), e) {
			p.bad("InvalidParameter", profileObject+"expander", "The value %q of autoScalerProfile.expander is invalid: it is one of %s.", e, strings.Join(expanders(), ", "))
		}
	}
	if profile.IgnoreDaemonsetsUtilization != nil {
		next.IgnoreDaemons = *profile.IgnoreDaemonsetsUtilization
	}
	if d.AutoScaler = next; next == autoscale.DefaultProfile() {
		d.AutoScaler = autoscale.Profile{}
	}
}

// scaler is the profile that holds.
func (d *Desired) scaler() autoscale.Profile {
	if d.AutoScaler == (autoscale.Profile{}) {
		return autoscale.DefaultProfile()
	}
	return d.AutoScaler
}

// autoScalerProperties are the rows of the profile.
func autoScalerProperties() []Property {
	var rows []Property
	for _, s := range settings() {
		rows = append(rows, Property{profileObject + s.name, Effective, nil, ""})
	}
	return append(rows, Property{profileObject + "expander", Effective, nil, ""}, Property{profileObject + "ignore-daemonsets-utilization", Effective, nil, ""})
}

// fillScaling completes a pool's properties with how it scales.
func fillScaling(properties object, pool Pool) {
	set(properties, "enableAutoScaling", pool.AutoScale)
	arm.Drop(properties, "minCount")
	arm.Drop(properties, "maxCount")
	if pool.AutoScale {
		set(properties, "minCount", pool.Min)
		set(properties, "maxCount", pool.Max)
	}
}

// viewAutoScaler shows the whole profile when any pool scales by itself, or it was set.
func (w *whole) viewAutoScaler(body object) {
	d := &w.state.Desired
	arm.Drop(body, "properties.autoScalerProfile")
	if d.AutoScaler == (autoscale.Profile{}) && !slices.ContainsFunc(w.pools, func(pool *poolDoc) bool { return pool.Pool.AutoScale }) {
		return
	}
	profile := d.scaler()
	view := object{"expander": profile.Expander, "ignore-daemonsets-utilization": profile.IgnoreDaemons,
		"daemonset-eviction-for-empty-nodes": false, "daemonset-eviction-for-occupied-nodes": false}
	for _, s := range settings() {
		view[s.name] = s.text(&profile)
	}
	set(body, "properties.autoScalerProfile", view)
}
