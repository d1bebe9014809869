// SPDX-License-Identifier: Apache-2.0

package cluster

// Release is a Kubernetes release that an instance has, and how it is supported.
type Release struct {
	Version   string `json:"version"`
	Default   bool   `json:"default"`   // what a new cluster gets that names none
	Supported bool   `json:"supported"` // within the window: new clusters may have it
	// Available is when AKS has it, End when its support ends there, as months;
	// Platform is the minor with which even that of the platform under it ends.
	// Empty where AKS hasn't published them.
	Available string   `json:"available,omitempty"`
	End       string   `json:"endOfLife,omitempty"`
	Platform  string   `json:"platformSupportUntil,omitempty"`
	Upgrades  []string `json:"upgrades"`
}

// calendar are AKS's dates of a minor version.
type calendar struct{ available, end, platform string }

// calendars is AKS's release calendar. It informs: what is supported here
// follows from the releases that there are, as it does there.
func calendars() map[string]calendar {
	return map[string]calendar{
		"1.32": {"2025-04", "2026-03", "1.36"},
		"1.33": {"2025-06", "2026-07", "1.37"},
		"1.34": {"2025-11", "2026-11", "1.38"},
		"1.35": {"2026-03", "2027-03", "1.39"},
		"1.36": {"2026-06", "2027-06", "1.40"},
		"1.37": {"2026-10", "2027-10", "1.41"},
	}
}

// Releases says how each release is supported, the newest first.
func (vs Versions) Releases() []Release {
	def, _ := vs.Default()
	dates := calendars()
	releases := make([]Release, 0, len(vs))
	for i := len(vs) - 1; i >= 0; i-- {
		v := vs[i]
		date := dates[v.MinorString()]
		release := Release{Version: v.String(), Default: v == def, Supported: vs.supports(v),
			Available: date.available, End: date.end, Platform: date.platform, Upgrades: []string{}}
		for _, u := range vs.upgrades(v) {
			release.Upgrades = append(release.Upgrades, u.String())
		}
		releases = append(releases, release)
	}
	return releases
}
