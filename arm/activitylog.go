// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"bastide.dev/resource"
	"bastide.dev/store"
)

// maxActivity bounds how many records of the activity log are kept, and shown.
const maxActivity = 20_000

// listActivity is the activity log, newest first.
func (h *Handler) listActivity(ctx context.Context, r *Request) (any, error) {
	filter, err := parseFilter(queryOf(r, "$filter"))
	if err != nil {
		return nil, err
	}
	records, _, err := h.store.List(ctx, ActivityPrefix+strings.ToLower(r.ID.Subscription())+"/")
	if err != nil {
		return nil, err
	}
	values := []any{}
	for _, record := range slices.Backward(records) {
		a, err := decodeActivity(record)
		if err != nil {
			return nil, err
		}
		ok, err := filter.matches(a.field)
		if err != nil {
			return nil, err
		}
		if ok && len(values) < maxActivity {
			values = append(values, a.show())
		}
	}
	return map[string]any{"value": values}, nil
}

func queryOf(r *Request, name string) string { return (&call{query: r.Query}).param(name) }

func decodeActivity(r store.Record) (*Activity, error) {
	a := &Activity{}
	if err := json.Unmarshal(r.Value, a); err != nil {
		return nil, fmt.Errorf("arm: activity record %s: %w", r.Key, err)
	}
	return a, nil
}

// stamp is a time's text form whose order is the times'.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.0000000Z") }

// field is what a $filter can ask of a record. Times compare as text, whatever their precision.
func (a *Activity) field(name string) ([]string, bool) {
	one := func(s string) ([]string, bool) { return []string{s}, true }
	switch strings.ToLower(name) {
	case "eventtimestamp":
		return one(stamp(a.Time))
	case "resourcegroupname":
		return one(a.Resource.Group())
	case "resourceuri", "resourceid":
		return one(a.Resource.String())
	case "resourceprovider":
		return one(a.Resource.Namespace())
	case "resourcetype":
		return one(a.Resource.Type())
	case "correlationid":
		return one(a.Correlation)
	case "caller":
		return one(a.Caller.label())
	case "status":
		return one(a.Status)
	case "operationname", "operations":
		return one(a.Action)
	case "levels":
		return one(a.level())
	case "eventchannels":
		return []string{"Admin", "Operation"}, true
	}
	return nil, false
}

func (a *Activity) level() string {
	if a.Status == "Failed" {
		return "Error"
	}
	return "Informational"
}

// show is the record in the form of Microsoft.Insights.
func (a *Activity) show() map[string]any {
	text := func(s string) map[string]string { return map[string]string{"value": s, "localizedValue": s} }
	typ := a.Resource.Type()
	if a.Resource.IsType(resource.TypeGroup) {
		typ = "Microsoft.Resources/subscriptions/resourceGroups"
	}
	operation := a.Operation
	if operation == "" {
		operation = a.Correlation
	}
	properties := map[string]string{}
	if a.Code != "" {
		properties["statusCode"], properties["statusMessage"] = a.Code, a.Message
	}
	for name, raw := range map[string]json.RawMessage{"before": a.Before, "after": a.After} {
		if len(raw) > 0 {
			properties[name] = string(raw) // properties are text, on Azure too
		}
	}
	return map[string]any{
		"id":             a.Resource.String() + "/events/" + a.ID,
		"eventDataId":    a.ID,
		"eventTimestamp": stamp(a.Time), "submissionTimestamp": stamp(a.Time),
		"eventName": text("EndRequest"), "category": text("Administrative"), "channels": "Operation", "level": a.level(),
		"resourceId": a.Resource, "resourceGroupName": a.Resource.Group(), "resourceType": text(typ),
		"resourceProviderName": text(a.Resource.Namespace()), "subscriptionId": a.Resource.Subscription(),
		"operationName": text(a.Action), "operationId": operation, "correlationId": a.Correlation,
		"status": text(a.Status), "subStatus": text(a.SubStatus), "caller": a.Caller.label(), "tenantId": a.Caller.Tenant,
		"authorization": map[string]string{"action": a.Action, "scope": a.Resource.String()},
		"claims":        map[string]string{"oid": a.Caller.ID, "appid": a.Caller.AppID, "name": a.Caller.Name},
		"httpRequest":   map[string]string{"clientIpAddress": a.Address, "method": a.Method, "clientRequestId": a.Correlation},
		"properties":    properties,
	}
}
