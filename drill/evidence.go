// SPDX-License-Identifier: Apache-2.0

package drill

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"bastide.dev/client"
)

// counters reads what the kernel counted for each rule of security groups. A
// group that can't be read leaves a note: evidence that is missing is said.
func (s *Stage) counters(ctx context.Context, groups []string) map[string]uint64 {
	found := map[string]uint64{}
	for _, group := range groups {
		answer, err := client.Post[struct {
			Value []struct {
				Name    string `json:"name"`
				Packets uint64 `json:"packets"`
			} `json:"value"`
		}](ctx, s.Client, group+"/counters", networkVersion, nil)
		if err != nil {
			s.note("The counters of " + short(group) + " couldn't be read: " + err.Error())
			continue
		}
		for _, c := range answer.Value {
			found[group+"\n"+c.Name] = c.Packets
		}
	}
	return found
}

// compare records the counters that went on between two readings.
func (s *Stage) compare(before, after map[string]uint64) {
	for _, key := range slices.Sorted(maps.Keys(after)) {
		if after[key] == before[key] {
			continue
		}
		group, name, _ := strings.Cut(key, "\n")
		s.Record.Counters = append(s.Record.Counters, Counter{Group: group, Rule: name, Before: before[key], After: after[key]})
	}
}

// explain asks `bastide why` for the rule that decides. A verdict that
// contradicts what the packets did is a failure.
func (s *Stage) explain(ctx context.Context, scene *Scene) error {
	if scene.Question == nil {
		return nil
	}
	q := scene.Question()
	id := "/subscriptions/" + s.Instance.SubscriptionID + "/providers/Bastide.Network/diagnostics/default/why"
	v, err := client.Post[Verdict](ctx, s.Client, id, ownVersion, object{"from": q.From, "to": q.To})
	if err != nil {
		s.note("`bastide why` couldn't say: " + err.Error())
		return nil
	}
	s.Verdict = &v
	if v.Reachable == "yes" {
		return fmt.Errorf("packets are stopped, but `bastide why` says that %s reaches %s: %s", v.From, v.To, v.By)
	}
	return nil
}
