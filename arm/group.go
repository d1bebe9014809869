// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"context"
	"regexp"
	"strings"

	"bastide.dev/fault"
	"bastide.dev/resource"
)

// builtin are ARM's own rows.
func (h *Handler) builtin() []Provider {
	group := Type{Name: "resourceGroups", Scope: InSubscription, Versions: coreVersions(), Untracked: true,
		Put: putGroup, Delete: deleteGroup, View: viewGroup}
	return []Provider{
		{Namespace: "Microsoft.Resources", Types: []Type{group}},
		{Namespace: "Microsoft.Insights", Types: []Type{{Name: "eventtypes/values", Scope: InSubscription,
			Versions: []resource.APIVersion{"2015-04-01", "2014-04-01", "2017-03-01-preview"}, List: h.listActivity}}},
		{Namespace: "Microsoft.Features", Types: []Type{{Name: "providers/features", Scope: InSubscription,
			Versions: []resource.APIVersion{"2021-07-01", "2015-12-01"}, Get: getFeature, List: listFeatures}}},
	}
}

var groupName = regexp.MustCompile(`^[\pL\pN._()-]{1,90}$`)

func putGroup(_ context.Context, r *Request) (*Plan, error) {
	var problems []*fault.Error
	if name := r.ID.Name(); !groupName.MatchString(name) || strings.HasSuffix(name, ".") {
		problems = append(problems, fault.New(fault.Invalid, "InvalidResourceGroup",
			"The provided resource group name '%s' has these invalid characters or ends with a period: letters, digits, '.', '_', '(', ')' and '-' are allowed, at most 90.", name).At("resourceGroupName"))
	}
	for name, value := range r.Body {
		properties, _ := value.(map[string]any)
		switch strings.ToLower(name) {
		case "location", "tags", "managedby":
		case "properties":
			for property := range properties {
				problems = append(problems, unknownProperty("properties."+property))
			}
		default:
			problems = append(problems, unknownProperty(name))
		}
	}
	if err := fault.Join(problems...); err != nil {
		return nil, err
	}
	d, err := r.New()
	return &Plan{Document: d}, err
}

// deleteGroup starts what deleteGroups carries out.
func deleteGroup(context.Context, *Request) (*Plan, error) { return &Plan{Async: true}, nil }

func viewGroup(_ context.Context, d *Document, _ resource.APIVersion) (any, error) {
	body, err := ViewBase(d)
	if err != nil {
		return nil, err
	}
	delete(body, "eTag")
	delete(body, "systemData")
	return body, nil
}

// listFeatures: there are no previews to opt into.
func listFeatures(context.Context, *Request) (any, error) {
	return map[string]any{"value": []any{}}, nil
}

func getFeature(_ context.Context, r *Request) (any, error) {
	return nil, fault.New(fault.NotFound, "FeatureNotFound", "The feature '%s' could not be found: this instance has no preview features.", r.ID.Name())
}
