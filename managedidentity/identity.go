// SPDX-License-Identifier: Apache-2.0

package managedidentity

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/msi/armmsi"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// clusters is who makes the identities of node pools.
const clusters = "Microsoft.ContainerService"

// identityName is Azure's form of an identity's name.
var identityName = regexp.MustCompile(`^[a-zA-Z0-9][-_a-zA-Z0-9]{2,127}$`)

func identityModel() any { return &armmsi.Identity{} }

func identityProperties() []arm.Property {
	rows := arm.Rows(arm.ReadOnly, "id", "name", "type", "systemData", "properties.principalId", "properties.clientId",
		"properties.tenantId", "properties.provisioningState")
	rows = append(rows, arm.Rows(arm.Effective, "location")...)
	rows = append(rows, arm.Rows(arm.Plain, "tags")...)
	// There is one location: no resource of another could have the identity.
	return append(rows, arm.Property{Path: "properties.isolationScope", Treatment: arm.Fixed, Values: []any{"None", "Regional"}})
}

// identityBody is what is kept of an identity, for others to read, too.
type identityBody struct {
	Properties struct {
		TenantID       string `json:"tenantId"`
		PrincipalID    string `json:"principalId"`
		ClientID       string `json:"clientId"`
		IsolationScope string `json:"isolationScope,omitempty"`
	} `json:"properties"`
}

func bodyOf(d *arm.Document) (identityBody, error) {
	var body identityBody
	if err := json.Unmarshal(d.Body, &body); err != nil {
		return body, fmt.Errorf("identity %s: body: %w", d.ID, err)
	}
	return body, nil
}

// putIdentity makes an identity, or gives one other tags: who it is never changes.
func (p *Provider) putIdentity(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	problems := arm.Judge(r.Body, identityProperties())
	if r.Old == nil && !identityName.MatchString(r.ID.Name()) {
		problems = append(problems, fault.New(fault.Invalid, "InvalidParameter",
			"The name %q isn't one of an identity: 3 to 128 letters, digits, hyphens and underscores, the first a letter or digit.", r.ID.Name()).At("resourceName"))
	}
	if location, _ := r.Body["location"].(string); r.Old == nil && location != p.Location {
		problems = append(problems, fault.New(fault.Invalid, "LocationNotAvailableForResourceType",
			"The provided location '%s' is not available for resource type '%s'. The location that is available: %s.", location, Type, p.Location).At("location"))
	}
	if err := fault.Join(problems...); err != nil {
		return nil, err
	}
	d, err := r.New()
	if err != nil {
		return nil, fmt.Errorf("identity %s: %w", r.ID, err)
	}
	d.Type = Type
	var body identityBody
	var changes []store.Change
	if r.Old != nil {
		body, err = bodyOf(r.Old)
	} else {
		var principal Principal
		principal, changes, err = p.Directory.PlanIdentity(ctx, r.ID.Name(), r.ID.String())
		body.Properties.TenantID, body.Properties.PrincipalID, body.Properties.ClientID = p.Tenant, principal.ID, principal.ClientID
	}
	if err != nil {
		return nil, err
	}
	if sent, _ := r.Body["properties"].(map[string]any); sent != nil {
		body.Properties.IsolationScope, _ = sent["isolationScope"].(string)
	}
	if d.Body, err = json.Marshal(body); err != nil {
		return nil, fmt.Errorf("identity %s: %w", r.ID, err)
	}
	return &arm.Plan{Document: d, Changes: changes}, nil
}

// deleteIdentity ends the principal with the resource: its tokens, too. What a
// cluster made for its nodes goes with the cluster.
func (p *Provider) deleteIdentity(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	if strings.EqualFold(r.Old.SystemData.CreatedBy, clusters) {
		return nil, fault.New(fault.Conflict, "OperationNotAllowed",
			"The identity '%s' is its cluster's: it goes with the cluster, or when the cluster gets a kubelet identity of yours.", r.ID.Name())
	}
	body, err := bodyOf(r.Old)
	if err != nil {
		return nil, err
	}
	changes, err := p.Directory.PlanDeletion(ctx, body.Properties.PrincipalID)
	return &arm.Plan{Changes: changes}, err
}

// systemAssigned shows the identity that a resource has of its own.
func (p *Provider) systemAssigned(ctx context.Context, r *arm.Request) (any, error) {
	scope := r.ID.Parent()
	missing := fault.New(fault.NotFound, "ResourceNotFound", "The resource '%s' has no system-assigned identity.", scope)
	if !strings.EqualFold(r.ID.Name(), "default") || scope.IsType(Type) {
		return nil, missing
	}
	principal, err := p.Directory.Identity(ctx, scope.String())
	if fault.Is(err, fault.NotFound) {
		return nil, missing
	}
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"id": r.ID.String(), "name": "default", "type": Namespace + "/Identities", "location": resource.NormalizeLocation(p.Location),
		"properties": map[string]any{"tenantId": p.Tenant, "principalId": principal.ID, "clientId": principal.ClientID},
	}, nil
}
