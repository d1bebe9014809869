// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"slices"
	"strings"
	"time"

	aks "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"
)

// The values of undrainableNodeBehavior.
const (
	scheduleUndrainable = string(aks.UndrainableNodeBehaviorSchedule)
	cordonUndrainable   = string(aks.UndrainableNodeBehaviorCordon)
)

// upgradeSettings reads a pool's; what they leave out stays. Defaults become zero.
func (p *parser) upgradeSettings(s *aks.AgentPoolUpgradeSettings, was Upgrade, target string) Upgrade {
	u := was
	if s == nil {
		return u
	}
	target += "upgradeSettings."
	if text := value(s.MaxSurge); text != "" {
		u.Surge = p.amount(text, defaultSurge, target+"maxSurge")
	}
	if text := value(s.MaxUnavailable); text != "" {
		u.Unavailable = p.amount(text, defaultUnavailable, target+"maxUnavailable")
	}
	if s.DrainTimeoutInMinutes != nil {
		u.Drain = p.minutes(*s.DrainTimeoutInMinutes, minDrain, maxDrain, target+"drainTimeoutInMinutes")
		if u.Drain == defaultDrain {
			u.Drain = 0
		}
	}
	if s.NodeSoakDurationInMinutes != nil {
		u.Soak = p.minutes(*s.NodeSoakDurationInMinutes, 0, maxSoak, target+"nodeSoakDurationInMinutes")
	}
	switch behavior := string(value(s.UndrainableNodeBehavior)); {
	case strings.EqualFold(behavior, cordonUndrainable):
		u.Cordon = true
	case strings.EqualFold(behavior, scheduleUndrainable):
		u.Cordon = false
	case behavior != "":
		p.bad("InvalidParameter", target+"undrainableNodeBehavior", "The undrainable node behavior %q isn't one of %s or %s.", behavior, scheduleUndrainable, cordonUndrainable)
	}
	if amount(or(u.Surge, defaultSurge), maxPerPool) == 0 && amount(or(u.Unavailable, defaultUnavailable), maxPerPool) == 0 {
		p.bad("InvalidParameter", target+"maxSurge", "maxSurge and maxUnavailable can't both be 0: no node could ever be upgraded.")
	}
	return u
}

// amount reads a count or a share of a pool.
func (p *parser) amount(text, without, target string) string {
	n, percent, err := parseAmount(text)
	limit := maxPerPool
	if percent {
		limit = 100
	}
	switch {
	case err != nil || n > limit:
		p.bad("InvalidParameter", target, "The value %q is invalid: it must be a count of up to %d nodes, such as \"5\", or a percentage of the pool's from 0%% to 100%%, such as \"33%%\".", cut(text), maxPerPool)
		return ""
	case text == without || n == 0 && without == "0":
		return ""
	}
	return text
}

// minutes reads a duration; 0 is the default.
func (p *parser) minutes(n int32, least, most time.Duration, target string) time.Duration {
	d := time.Duration(n) * time.Minute
	if d != 0 && (d < least || d > most) {
		p.bad("InvalidParameter", target, "The value %d is invalid: it must be from %.0f to %.0f minutes.", n, least.Minutes(), most.Minutes())
		return 0
	}
	return d
}

// cut bounds what a message repeats of a request.
func cut(text string) string {
	const most = 64
	if len(text) > most {
		return strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// override reads what lets an upgrade begin that would be refused.
func (p *parser) override(d *Desired, s *aks.ClusterUpgradeSettings, old *Desired) {
	if old != nil {
		d.Override = old.Override
	}
	if s == nil || s.OverrideSettings == nil {
		return
	}
	o := s.OverrideSettings
	d.Override = Override{Force: value(o.ForceUpgrade)}
	if o.Until != nil {
		d.Override.Until = o.Until.UTC().Truncate(time.Second)
	}
}

// fillUpgrade completes a pool's body with how it is upgraded.
func fillUpgrade(properties object, u Upgrade) {
	behavior := scheduleUndrainable
	if u.Cordon {
		behavior = cordonUndrainable
	}
	set(properties, "upgradeSettings", object{
		"maxSurge": or(u.Surge, defaultSurge), "maxUnavailable": or(u.Unavailable, defaultUnavailable),
		"drainTimeoutInMinutes":     int(u.DrainTimeout().Minutes()),
		"nodeSoakDurationInMinutes": int(u.Soak.Minutes()),
		"undrainableNodeBehavior":   behavior,
	})
}

// fillOverride completes a cluster's body with what lets upgrades begin.
func fillOverride(body object, d *Desired) {
	if d.Override == (Override{}) {
		return
	}
	settings := object{"forceUpgrade": d.Override.Force}
	if !d.Override.Until.IsZero() {
		settings["until"] = d.Override.Until.Format(time.RFC3339)
	}
	set(body, "properties.upgradeSettings", object{"overrideSettings": settings})
}

// validateVersion refuses a new cluster, or pools to come, of a release out of support.
func (p *parser) validateVersion(d, old *Desired) {
	const target = "properties.kubernetesVersion"
	if old == nil && d.Version != (Version{}) && !p.versions.supports(d.Version) {
		p.problems = append(p.problems, p.versions.unknown(d.Version.String(), p.location, target))
	}
}

// upgradable refuses what isn't the version that runs, or one next to it.
func (p *parser) upgradable(to Version, old *Desired, target string) {
	from := old.Version
	switch {
	case to == from || to == (Version{}):
	case to.Compare(from) < 0:
		p.bad("OperationNotAllowed", target, "Downgrading Kubernetes version %s to %s is not allowed.", from, to)
	case !slices.Contains(p.versions.upgrades(from), to):
		p.bad("OperationNotAllowed", target, "Upgrading Kubernetes version %s to %s is not allowed. Available upgrades: %s. Minor versions can't be skipped.",
			from, to, listed(p.versions.upgrades(from)))
	}
}

// poolSupported refuses a version out of support for a pool that is new or that
// changes to it.
func (p *parser) poolSupported(v, server Version, target string) {
	if v.Compare(server) <= 0 && slices.Contains(p.versions, v) && !slices.Contains(p.versions.newPool(server), v) {
		f := p.versions.unknown(v.String(), p.location, target)
		f.Code = "AgentPoolK8sVersionNotSupported"
		p.problems = append(p.problems, f)
	}
}

// poolUpgradable refuses that a pool goes back; how far it may go, its control plane says.
func (p *parser) poolUpgradable(to, from Version, target string) {
	if to.Compare(from) < 0 {
		p.bad("OperationNotAllowed", target, "Downgrading Kubernetes version %s to %s is not allowed.", from, to)
	}
}

// listed names versions as AKS's messages do.
func listed(versions []Version) string { return fmt.Sprint(versions) }
