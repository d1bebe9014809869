// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"bastide.dev/controlplane"
	"bastide.dev/fault"
)

// recently is how long a use of an API that goes away stands against an upgrade.
const recently = 12 * time.Hour

// usesNamed bounds how many uses a refusal names.
const usesNamed = 20

// checkDeprecated refuses another minor version of the control plane while APIs
// are used that it hasn't, unless that is overridden.
func (p *Provider) checkDeprecated(ctx context.Context, w *whole, d *Desired) error {
	from := w.state.running()
	if d.Version.Compare(from) <= 0 || d.Version.Minor == from.Minor || d.Override.forces(p.Now()) {
		return nil
	}
	h, err := p.hosted(ctx, &w.state)
	if err != nil {
		return err
	}
	status := w.planeStatus(h)
	if status == nil {
		return nil
	}
	uses := standing(status.Deprecated, d.Version, p.Now())
	if len(uses) == 0 {
		return nil
	}
	return fault.New(fault.Invalid, "UpgradeBlockedOnDeprecatedAPIUsage",
		"The upgrade of the control plane to %s is blocked: Kubernetes APIs that it doesn't have were used within the last %.0f hours. "+
			"Migrate what uses them (https://kubernetes.io/docs/reference/using-api/deprecation-guide). To upgrade all the same, after which such requests fail, "+
			"set properties.upgradeSettings.overrideSettings.forceUpgrade, and until to a time to come. Usage: %s.",
		d.Version, recently.Hours(), strings.Join(uses, "; ")).At("properties.kubernetesVersion")
}

// standing describes the recent uses of APIs that a version hasn't any more.
func standing(uses []controlplane.DeprecatedUse, to Version, now time.Time) []string {
	var all []string
	for _, use := range uses {
		if !goneBy(use.Removed, to) || now.Sub(use.Last) > recently {
			continue
		}
		name := use.Resource + "." + use.Version
		if use.Group != "" {
			name = use.Group + "." + name
		}
		text := fmt.Sprintf("%s, last at %s, removed in %s", cut(name), use.Last.UTC().Format(time.RFC3339), use.Removed)
		if len(use.Agents) > 0 {
			text += fmt.Sprintf(", by %q", cut(use.Agents[0]))
		}
		all = append(all, text)
	}
	slices.Sort(all)
	if n := len(all); n > usesNamed {
		all = append(all[:usesNamed], fmt.Sprintf("and %d more", n-usesNamed))
	}
	return all
}

// goneBy tells whether what is removed in a release such as "1.32" isn't in a version.
func goneBy(removed string, version Version) bool {
	first, second, _ := strings.Cut(removed, ".")
	major, err := strconv.Atoi(first)
	if err != nil {
		return false
	}
	minor, err := strconv.Atoi(second)
	return err == nil && (major < version.Major || major == version.Major && minor <= version.Minor)
}
