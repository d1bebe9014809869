// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"fmt"
	"hash/crc32"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
)

// watcherTypes are flow logs, the watchers that they belong to, and service tags.
func (p *Provider) watcherTypes() []arm.Type {
	return []arm.Type{
		coreType("networkWatchers", func() any { return &armnetwork.Watcher{} }, watcherRows(), arm.Type{Put: p.putWatcher, View: viewPlain}),
		coreType("networkWatchers/flowLogs", func() any { return &armnetwork.FlowLog{} }, flowLogRows(),
			arm.Type{Put: p.putFlowLog, Delete: p.deleteFlowLog, View: p.viewFlowLog}),
		{Name: "locations/serviceTags", Scope: arm.InSubscription, Versions: edgeVersions(), List: p.listTags},
	}
}

func watcherRows() []arm.Property { return slices.Concat(effective("location"), plain("tags")) }

// flowLogRows decide every property of a flow log: it is a file on the host.
func flowLogRows() []arm.Property {
	return slices.Concat(
		effective("location", "properties.targetResourceId", "properties.enabled"), plain("tags"),
		ours("properties.targetResourceGuid"),
		refused("properties.storageId", "the log is a file on the host; leave it empty"),
		refused("properties.flowAnalyticsConfiguration", ""),
		refused("properties.enabledFilteringCriteria", ""),
		refused("properties.retentionPolicy", "the file is the operator's to rotate"),
		fixed("properties.format.type", "", "JSON"),
		fixed("properties.format.version", "", 2),
		refused("identity", ""))
}

func (p *Provider) putWatcher(_ context.Context, r *arm.Request) (*arm.Plan, error) {
	f, _, err := readRequest[armnetwork.Watcher](p, r, watcherRows())
	if err != nil {
		return nil, err
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	plan, err := planned(r, &armnetwork.Watcher{Properties: &armnetwork.WatcherPropertiesFormat{}})
	return notAsync(plan), err
}

// putFlowLog switches the log of a security group's decisions on or off.
func (p *Provider) putFlowLog(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	f, model, err := readRequest[armnetwork.FlowLog](p, r, flowLogRows())
	if err != nil {
		return nil, err
	}
	in := orEmpty(model.Properties)
	const target = "properties.targetResourceId"
	c := &interfaceCheck{p: p, f: &f, id: r.ID}
	if err := c.names(ctx, target, value(in.TargetResourceID), "", typeNSG, ""); err != nil {
		return nil, err
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	changes, err := holds(c.held...)
	if err != nil {
		return nil, err
	}
	next := &armnetwork.FlowLog{Properties: &armnetwork.FlowLogPropertiesFormat{TargetResourceID: in.TargetResourceID, Enabled: orDefault(in.Enabled, true),
		StorageID: ptr(""), Format: &armnetwork.FlowLogFormatParameters{Type: ptr(armnetwork.FlowLogFormatTypeJSON), Version: ptr[int32](2)}}}
	return planned(r, next, changes...)
}

func (p *Provider) deleteFlowLog(context.Context, *arm.Request) (*arm.Plan, error) {
	return &arm.Plan{Async: true}, nil
}

func (p *Provider) viewFlowLog(ctx context.Context, d *arm.Document, _ resource.APIVersion) (any, error) {
	view, properties, err := edgeView(d)
	if err != nil {
		return nil, err
	}
	target, _ := properties["targetResourceId"].(string)
	group, err := arm.GetDocument(ctx, p.Store, parsedID(target))
	if fault.Is(err, fault.NotFound) {
		return view, nil
	}
	if err != nil {
		return nil, err
	}
	properties["targetResourceGuid"] = guidOf(group)
	return view, nil
}

// listTags shows the service tags that are the same in every network, built in and the operator's.
func (p *Provider) listTags(ctx context.Context, r *arm.Request) (any, error) {
	inv, err := p.inventory(ctx)
	if err != nil {
		return nil, err
	}
	found := instanceTags(p.settings(), inv)
	named := found.shown()
	change := crc32.NewIEEE()
	values := []any{}
	for _, name := range slices.Sorted(maps.Keys(named)) {
		prefixes := texts(named[name])
		fmt.Fprint(change, name, prefixes)
		service, region := name, ""
		if found.own[strings.ToLower(name)] == nil {
			service, region, _ = strings.Cut(name, ".")
		}
		values = append(values, map[string]any{"name": name, "id": name, "properties": map[string]any{
			"region": region, "systemService": service, "addressPrefixes": prefixes}})
	}
	number := strconv.FormatUint(uint64(change.Sum32()), 10)
	return map[string]any{"id": r.ID.String() + "/serviceTags/public", "name": "public", "type": Namespace + "/serviceTags",
		"cloud": "Public", "changeNumber": number, "values": values}, nil
}

func texts(prefixes []netip.Prefix) []string {
	all := make([]string, len(prefixes))
	for i, p := range prefixes {
		all[i] = p.String()
	}
	return all
}
