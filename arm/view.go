// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"context"
	"encoding/json"
	"fmt"

	"bastide.dev/resource"
)

// ViewBase is what every answer about a document holds: its body with the
// envelope's fields laid over. The result's "properties" is a map[string]any;
// a type's View adds to it what it computes.
func ViewBase(d *Document) (map[string]any, error) {
	body := map[string]any{}
	if len(d.Body) > 0 {
		if err := json.Unmarshal(d.Body, &body); err != nil {
			return nil, fmt.Errorf("arm: body of %s: %w", d.ID, err)
		}
	}
	properties, _ := body["properties"].(map[string]any)
	if properties == nil {
		properties = map[string]any{}
		body["properties"] = properties
	}
	properties["provisioningState"] = d.ProvisioningState
	body["id"], body["name"], body["type"] = d.ID.String(), d.Name, d.Type
	if d.Location != "" {
		body["location"] = d.Location
	}
	if len(d.Tags) > 0 {
		body["tags"] = d.Tags
	}
	if d.Etag != "" {
		body["eTag"] = d.Etag
	}
	if d.SystemData.CreatedBy != "" {
		body["systemData"] = d.SystemData
	}
	return body, nil
}

// view is the answer's body for a document of type t.
func (t *Type) view(ctx context.Context, d *Document, version resource.APIVersion) (any, error) {
	if t.View != nil {
		return t.View(ctx, d, version)
	}
	return ViewBase(d)
}
