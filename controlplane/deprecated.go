// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"cmp"
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// What is told of deprecated APIs comes from clients, so all of it is bounded.
const (
	deprecatedUses   = 100
	deprecatedAgents = 10
	agentLength      = 100
	deprecatedLife   = 30 * 24 * time.Hour
)

var (
	releaseForm = regexp.MustCompile(`^1\.[0-9]{1,3}$`)
	labelForm   = regexp.MustCompile(`([a-z_]+)="((?:[^"\\]|\\.)*)"`)
)

// ReadDeprecated finds in a line of an API server's audit log the use of an API
// that a later release removes.
func ReadDeprecated(line []byte) (DeprecatedUse, bool) {
	var e struct {
		UserAgent string `json:"userAgent"`
		ObjectRef struct {
			Resource   string `json:"resource"`
			APIGroup   string `json:"apiGroup"`
			APIVersion string `json:"apiVersion"`
		} `json:"objectRef"`
		Received    time.Time         `json:"requestReceivedTimestamp"`
		Annotations map[string]string `json:"annotations"`
	}
	if json.Unmarshal(line, &e) != nil || e.Annotations["k8s.io/deprecated"] != "true" {
		return DeprecatedUse{}, false
	}
	u := DeprecatedUse{Group: e.ObjectRef.APIGroup, Version: e.ObjectRef.APIVersion, Resource: e.ObjectRef.Resource,
		Removed: e.Annotations["k8s.io/removed-release"], Last: e.Received.UTC()}
	if agent := printable(e.UserAgent); agent != "" {
		u.Agents = []string{agent}
	}
	return u, u.valid()
}

func (u *DeprecatedUse) valid() bool {
	return releaseForm.MatchString(u.Removed) && u.Resource != "" && u.Version != "" && len(u.Group)+len(u.Version)+len(u.Resource) < 300
}

// printable is a user agent as it may be shown.
func printable(agent string) string {
	agent = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, agent)
	runes := []rune(agent)
	return string(runes[:min(len(runes), agentLength)])
}

// DeprecatedCount is how often an API that a later release removes was asked
// since an API server started.
type DeprecatedCount struct {
	DeprecatedUse
	Requests float64
}

// DeprecatedCounts reads an API server's metrics, a line at a time.
type DeprecatedCounts struct {
	gone map[[3]string]string // the release that removes it, by group, version and resource
	sums map[[3]string]float64
}

// Line reads one line; others than those it is about cost next to nothing.
func (c *DeprecatedCounts) Line(line string) {
	uses := strings.HasPrefix(line, "apiserver_requested_deprecated_apis{")
	if !uses && !strings.HasPrefix(line, "apiserver_request_total{") {
		return
	}
	end := strings.LastIndexByte(line, '}')
	if end < 0 {
		return
	}
	labels := map[string]string{}
	for _, m := range labelForm.FindAllStringSubmatch(line[:end], -1) {
		labels[m[1]] = m[2]
	}
	value, err := strconv.ParseFloat(strings.TrimSpace(line[end+1:]), 64)
	key := [3]string{labels["group"], labels["version"], labels["resource"]}
	if err != nil || value <= 0 {
		return
	}
	if c.gone == nil {
		c.gone, c.sums = map[[3]string]string{}, map[[3]string]float64{}
	}
	if !uses {
		c.sums[key] += value
	} else if labels["removed_release"] != "" {
		c.gone[key] = labels["removed_release"]
	}
}

// All are the APIs that a later release removes.
func (c *DeprecatedCounts) All() []DeprecatedCount {
	var all []DeprecatedCount
	for key, release := range c.gone {
		u := DeprecatedUse{Group: key[0], Version: key[1], Resource: key[2], Removed: release}
		if u.valid() {
			all = append(all, DeprecatedCount{u, c.sums[key]})
		}
	}
	slices.SortFunc(all, func(a, b DeprecatedCount) int { return a.order(b.DeprecatedUse) })
	return all
}

func (u *DeprecatedUse) order(other DeprecatedUse) int {
	return cmp.Or(cmp.Compare(u.Group, other.Group), cmp.Compare(u.Version, other.Version), cmp.Compare(u.Resource, other.Resource), cmp.Compare(u.Removed, other.Removed))
}

// AddDeprecated notes a use among others, and forgets those that were long ago.
func AddDeprecated(uses []DeprecatedUse, one DeprecatedUse, now time.Time) []DeprecatedUse {
	if one.Last.After(now) { // a clock went back; the future is no use
		one.Last = now
	}
	kept := make([]DeprecatedUse, 0, len(uses)+1)
	for _, u := range uses {
		if u.order(one) == 0 {
			if one.Last.Before(u.Last) {
				one.Last = u.Last
			}
			one.Agents = slices.Concat(one.Agents, u.Agents)
		} else if now.Sub(u.Last) < deprecatedLife {
			kept = append(kept, u)
		}
	}
	slices.Sort(one.Agents)
	one.Agents = slices.Compact(one.Agents)
	one.Agents = one.Agents[:min(len(one.Agents), deprecatedAgents)]
	kept = append(kept, one)
	if len(kept) > deprecatedUses { // the oldest goes
		oldest := slices.MinFunc(kept, func(a, b DeprecatedUse) int { return a.Last.Compare(b.Last) })
		kept = slices.DeleteFunc(kept, func(u DeprecatedUse) bool { return u.order(oldest) == 0 })
	}
	slices.SortFunc(kept, func(a, b DeprecatedUse) int { return a.order(b) })
	return kept
}
