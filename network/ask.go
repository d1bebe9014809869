// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	sdk "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/host"
	"bastide.dev/resource"
	"bastide.dev/ruleset"
	"bastide.dev/store"
)

const (
	// askLimit is how long a question may wait for its answer.
	askLimit = 15 * time.Second
	// askGrace is how long after that a question is surely nobody's.
	askGrace = 5 * time.Second
	// forgetLimit is how long removing a question may take once its asker has gone.
	forgetLimit = 5 * time.Second
)

// Ask puts a question to the host and waits for the answer, for as long as ctx
// lasts, but at most 15 seconds. Nothing of it stays in the store.
func (p *Provider) Ask(ctx context.Context, q host.Query) (json.RawMessage, error) {
	value, err := json.Marshal(q)
	if err != nil {
		return nil, fmt.Errorf("question: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	name := strconv.FormatInt(p.Now().Add(askLimit).UnixMilli(), 10) + "-" + strings.ToLower(rand.Text()[:10])
	revision, err := p.Store.Put(ctx, host.UnitKey(p.Host, host.QueryUnit, name), value, store.Absent)
	if err != nil {
		return nil, fmt.Errorf("ask host %s: %w", p.Host, err)
	}
	report, err := p.awaitReport(ctx, name, revision)
	forgetting, done := context.WithTimeout(context.WithoutCancel(ctx), forgetLimit)
	defer done()
	if gone := p.forgetQuery(forgetting, name); gone != nil && err == nil {
		err = gone
	}
	if err != nil {
		return nil, err
	}
	if report.Error != "" {
		return nil, fault.New(fault.Conflict, "HostQueryFailed", "The host couldn't answer: %s", report.Error)
	}
	return report.Answer, nil
}

// awaitReport waits for the report on a question asked at revision.
func (p *Provider) awaitReport(ctx context.Context, name string, revision int64) (host.Report, error) {
	key := host.ReportKey(p.Host, host.QueryUnit, name)
	for ctx.Err() == nil {
		for event := range p.Store.Watch(ctx, key, revision) {
			var report host.Report
			if event.Deleted || event.Key != key {
				continue
			}
			if err := json.Unmarshal(event.Value, &report); err != nil {
				return report, fmt.Errorf("report %s: %w", key, err)
			}
			if report.Applied || report.Error != "" {
				return report, nil
			}
		}
	}
	return host.Report{}, fault.New(fault.Unavailable, "HostUnavailable", "Host %s didn't answer in time: is it running?", p.Host).Because(ctx.Err())
}

// askedUntil reads from a question's name until when its asker waits for sure.
func askedUntil(name string) (time.Time, bool) {
	stamp, _, _ := strings.Cut(name, "-")
	millis, err := strconv.ParseInt(stamp, 10, 64)
	return time.UnixMilli(millis).Add(askGrace), err == nil
}

// RuleCounter is what the kernel counted for one rule of a security group.
type RuleCounter struct {
	Name    string `json:"name"`
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// nsgCounters answers POST …/networkSecurityGroups/{name}/counters: what each
// rule decided, over all virtual networks that the group is used in.
func (p *Provider) nsgCounters(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	now, err := p.compiledNow(ctx)
	if err != nil {
		return nil, err
	}
	prefix := "nsg/" + shown(r.Old.ID) + "/"
	list, at := []RuleCounter{}, map[string]int{}
	for _, name := range ruleNames(p.settings(), now.inv, r.ID) {
		at[name] = len(list)
		list = append(list, RuleCounter{Name: name})
	}
	for vnet := range now.ties[r.ID.Key()] {
		raw, err := p.Ask(ctx, host.Query{Counters: &host.CountersQuery{VNet: vnet}})
		if err != nil {
			return nil, err
		}
		var counters []ruleset.Counter
		if err := json.Unmarshal(raw, &counters); err != nil {
			return nil, fmt.Errorf("counters of %s: %w", vnet, err)
		}
		for _, c := range counters {
			name, ours := strings.CutPrefix(c.Origin, prefix)
			if i, known := at[name]; ours && known {
				list[i].Packets += c.Packets
				list[i].Bytes += c.Bytes
			}
		}
	}
	return &arm.Plan{Answer: map[string]any{"value": list}}, nil
}

// ruleNames are a security group's rules as they are asked: the user's by
// direction and priority, and the default ones.
func ruleNames(s settings, inv *inventory, id resource.ID) []string {
	i, model := lookup[sdk.SecurityGroup](inv, id.String())
	if model == nil {
		return nil
	}
	none := &resolver{c: &compiler{inv: inv, tags: instanceTags(s, inv), ties: ties{}}, v: &vnet{}}
	var names []string
	for _, rule := range none.group(i, model).Rules {
		names = append(names, rule.Name)
	}
	return names
}
