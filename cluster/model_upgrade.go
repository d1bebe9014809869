// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Defaults and bounds of AKS's upgradeSettings.
const (
	defaultSurge       = "10%"
	defaultUnavailable = "0"
	defaultDrain       = 30 * time.Minute
	minDrain           = 5 * time.Minute
	maxDrain           = 24 * time.Hour
	maxSoak            = 30 * time.Minute
)

// Upgrade is how a pool's nodes are brought to another version or image. What is
// zero is AKS's default, so that two that mean the same are equal.
type Upgrade struct {
	// Surge and Unavailable are counts ("2") or shares of the pool ("33%").
	Surge       string `json:"surge,omitempty"`
	Unavailable string `json:"unavailable,omitempty"`
	// Drain is how long evictions are tried.
	Drain time.Duration `json:"drain,omitempty"`
	// Soak is how long an upgraded node is watched before the next one.
	Soak time.Duration `json:"soak,omitempty"`
	// Cordon leaves nodes that couldn't be drained cordoned, and goes on with
	// others in their place; without it (Schedule) they are scheduled to again and the upgrade fails.
	Cordon bool `json:"cordon,omitempty"`
}

// Override lets an upgrade begin, until it ends, that would be refused for the
// use of APIs that the next release hasn't.
type Override struct {
	Force bool      `json:"force,omitempty"`
	Until time.Time `json:"until,omitzero"`
}

// forces tells whether it lets an upgrade begin now.
func (o Override) forces(now time.Time) bool { return o.Force && now.Before(o.Until) }

// MaxSurge is how many nodes a pool may have too many while it is upgraded.
func (u Upgrade) MaxSurge(nodes int) int { return amount(or(u.Surge, defaultSurge), nodes) }

// MaxUnavailable is how many of a pool's nodes may be missing while it is upgraded.
func (u Upgrade) MaxUnavailable(nodes int) int {
	return amount(or(u.Unavailable, defaultUnavailable), nodes)
}

// DrainTimeout is how long evictions are tried.
func (u Upgrade) DrainTimeout() time.Duration {
	if u.Drain == 0 {
		return defaultDrain
	}
	return u.Drain
}

// amount is a count or share of nodes, fractions rounded up. What can't be read
// was refused at the edge, and counts as none.
func amount(text string, nodes int) int {
	n, percent, err := parseAmount(text)
	switch {
	case err != nil:
		return 0
	case percent:
		return (nodes*n + 99) / 100
	}
	return n
}

// parseAmount reads "5" or "33%".
func parseAmount(text string) (n int, percent bool, err error) {
	digits, percent := strings.CutSuffix(text, "%")
	n, err = strconv.Atoi(digits)
	if err != nil || n < 0 || strconv.Itoa(n) != digits {
		return 0, percent, fmt.Errorf("cluster: %q isn't a count or a percentage", text)
	}
	return n, percent, nil
}
