// SPDX-License-Identifier: Apache-2.0

package network

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"
	"github.com/google/uuid"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// edgeTypes are what connects networks with the outside and with services.
func (p *Provider) edgeTypes() []arm.Type {
	return slices.Concat(
		[]arm.Type{p.publicIPType(), p.publicPrefixType(), p.natGatewayType(), p.privateEndpointType(), p.zoneGroupType(), p.linkServiceType()},
		p.balancerTypes(), p.zoneTypes(), p.edgeQueries())
}

// edgeVersions are the API versions of Microsoft.Network that clients in use
// speak, of azure-cli's hybrid profile and cloud-provider-azure's on other
// clouds (2018-11-01) up to the newest of the SDKs.
func edgeVersions() []resource.APIVersion {
	return []resource.APIVersion{
		"2025-05-01", "2025-03-01", "2025-01-01", "2024-10-01", "2024-07-01", "2024-05-01", "2024-03-01", "2024-01-01",
		"2023-11-01", "2023-09-01", "2023-06-01", "2023-05-01", "2023-04-01", "2023-02-01",
		"2022-11-01", "2022-09-01", "2022-07-01", "2022-05-01", "2022-01-01",
		"2021-12-01", "2021-08-01", "2021-05-01", "2021-03-01", "2021-02-01",
		"2020-11-01", "2020-08-01", "2020-07-01", "2020-06-01", "2020-05-01", "2020-04-01", "2020-03-01",
		"2019-12-01", "2019-11-01", "2019-09-01", "2019-08-01", "2019-07-01", "2019-06-01", "2019-04-01", "2019-03-01", "2019-02-01",
		"2018-12-01", "2018-11-01", "2018-10-01", "2018-08-01", "2018-07-01", "2018-04-01", "2018-02-01", "2018-01-01", "2017-10-01",
	}
}

// findings collects the problems of one request.
type findings []*fault.Error

func (f *findings) bad(code, target, format string, args ...any) {
	*f = append(*f, fault.New(fault.Invalid, code, format, args...).At(target))
}

// add takes an error of a part over; a fault's details become findings of their own.
func (f *findings) add(err error) error {
	found := fault.From(err)
	switch {
	case found == nil:
		return nil
	case found.Kind == fault.Internal || found.Kind == fault.Unavailable:
		return err
	case len(found.Details) > 0:
		*f = append(*f, found.Details...)
	default:
		*f = append(*f, found)
	}
	return nil
}

func (f findings) err() error { return fault.Join(f...) }

// region refuses a location that isn't the instance's: what is elsewhere couldn't be reached.
func (p *Provider) region(f *findings, r *arm.Request) {
	location, _ := r.Body["location"].(string)
	if location = resource.NormalizeLocation(location); location != "" && location != p.Location {
		f.bad("LocationNotAvailableForResourceType", "location",
			"The provided location '%s' is not available for resource type '%s'. The location that is available: %s.", location, r.ID.Type(), p.Location)
	}
}

// readRequest judges and decodes the body of a top-level resource; what is found so far comes with it.
func readRequest[M any](p *Provider, r *arm.Request, rows []arm.Property) (findings, *M, error) {
	f, model := p.judged(r, rows), new(M)
	if err := decode(r.Body, model); err != nil {
		// What couldn't even be read has no further problems.
		return nil, nil, firstOf(f.add(err), f.err())
	}
	return f, model, nil
}

// judged is what is found in every request, whatever its type.
func (p *Provider) judged(r *arm.Request, rows []arm.Property) findings {
	f := findings(arm.Judge(r.Body, rows))
	if problem := arm.CheckName(r.ID.Name(), "name"); problem != nil && r.Old == nil {
		f = append(f, problem)
	}
	p.region(&f, r)
	return f
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func subID(s *armnetwork.SubResource) string {
	if s == nil {
		return ""
	}
	return value(s.ID)
}

// between holds a number against its range; nil is the default, and fine.
func between(f *findings, code, target string, n *int32, low, high int32) {
	if n != nil && (*n < low || *n > high) {
		f.bad(code, target, "The value %d of %s isn't in the range from %d to %d.", *n, target, low, high)
	}
}

// oneOf spells a value as the service does, and refuses any other.
func oneOf[S ~string](f *findings, target string, v *S, fallback S, all ...S) *S {
	if v == nil || *v == "" {
		return &fallback
	}
	for i := range all {
		if strings.EqualFold(string(*v), string(all[i])) {
			return &all[i]
		}
	}
	names := make([]string, len(all))
	for i := range all {
		names[i] = string(all[i])
	}
	f.bad("InvalidRequestFormat", target, "%q isn't a value of %s: it is one of %s.", *v, target, strings.Join(names, ", "))
	return v
}

// reference parses the id that a property names.
func reference(f *findings, target string, id *string, typ string) (resource.ID, bool) {
	if id == nil || *id == "" {
		f.bad("InvalidRequestFormat", target, "%s must have an id.", target)
		return resource.ID{}, false
	}
	parsed, err := resource.ParseID(*id)
	if err != nil || !parsed.IsType(typ) {
		f.bad("LinkedInvalidPropertyId", target, "Property id '%s' at path '%s' is invalid. Expect fully qualified resource Id of type %s.", *id, target, typ)
		return resource.ID{}, false
	}
	return parsed, true
}

// referenced reads the resource that a property names; nil with a finding when there is none.
func (p *Provider) referenced(ctx context.Context, f *findings, by resource.ID, target string, id resource.ID) (*arm.Document, error) {
	d, err := arm.GetDocument(ctx, p.Store, id)
	if fault.Is(err, fault.NotFound) {
		missingReference(f, by, target, id)
		return nil, nil
	}
	return d, err
}

func missingReference(f *findings, by resource.ID, target string, id resource.ID) {
	f.bad("InvalidResourceReference", target,
		"Resource %s referenced by resource %s was not found. Please make sure that the referenced resource exists, and that both resources are in the same region.", id, by)
}

// named makes a transaction hang on what it names, by writing that again as it
// is: of two requests that don't know of each other, one that names a thing and
// one that names or deletes it, the later has to look again. To be asked before
// anything else is read. What isn't there is left to the checks.
func (p *Provider) named(ctx context.Context, ids ...resource.ID) ([]store.Change, error) {
	changes := make([]store.Change, 0, len(ids))
	for _, id := range ids {
		d, err := arm.GetDocument(ctx, p.Store, id)
		if fault.Is(err, fault.NotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", id, err)
		}
		change, err := arm.PutDocument(d)
		if err != nil {
			return nil, err
		}
		changes = append(changes, change)
	}
	return OneEach(changes), nil
}

// decode reads a body into a wire model.
func decode(body map[string]any, model any) error {
	raw, err := json.Marshal(body)
	if err == nil {
		err = json.Unmarshal(raw, model)
	}
	if err != nil {
		return fault.New(fault.Invalid, "InvalidRequestFormat", "Cannot parse the request: a property has a value of the wrong type.").Because(err)
	}
	return nil
}

// planned is the plan that writes model as r's new body. It is an operation
// when the body differs from what was, or what was didn't succeed.
func planned(r *arm.Request, model any, changes ...store.Change) (*arm.Plan, error) {
	body, err := objectOf(model)
	if err != nil {
		return nil, err
	}
	return plannedBody(r, body, changes...)
}

// plannedBody is planned for a body in its normal form.
func plannedBody(r *arm.Request, body map[string]any, changes ...store.Change) (*arm.Plan, error) {
	d, err := r.New()
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"id", "name", "type", "etag"} {
		delete(body, name)
	}
	if err := d.SetBody(body); err != nil {
		return nil, err
	}
	changed := r.Old == nil || r.Old.ProvisioningState != resource.Succeeded || !bytes.Equal(r.Old.Body, d.Body)
	return &arm.Plan{Document: d, Changes: changes, Async: changed}, nil
}

// objectOf is the JSON object of a wire model.
func objectOf(model any) (map[string]any, error) {
	raw, err := json.Marshal(model)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", model, err)
	}
	var body map[string]any
	return body, decodeNumbers(raw, &body)
}

// decodeNumbers reads a JSON text; numbers stay as they are written.
func decodeNumbers(raw []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	if err := decoder.Decode(into); err != nil {
		return fmt.Errorf("read body: %w", err)
	}
	return nil
}

// readBody reads a stored body into a wire model.
func readBody[M any](d *arm.Document) (*M, error) {
	model := new(M)
	if len(d.Body) == 0 {
		return model, nil
	}
	if err := json.Unmarshal(d.Body, model); err != nil {
		return nil, fmt.Errorf("body of %s: %w", d.ID, err)
	}
	return model, nil
}

// edgeView is what every answer of the edge's types begins with.
func edgeView(d *arm.Document) (body, properties map[string]any, err error) {
	body, err = arm.ViewBase(d)
	if err != nil {
		return nil, nil, err
	}
	delete(body, "eTag")
	body["etag"] = arm.WeakEtag(d)
	delete(body, "systemData") // Microsoft.Network shows none
	properties, _ = body["properties"].(map[string]any)
	properties["resourceGuid"] = guidOf(d)
	return body, properties, nil
}

// subResources are ids as the wire has them.
func subResources(ids ...resource.ID) []any {
	list := make([]any, len(ids))
	for i, id := range ids {
		list[i] = map[string]any{"id": id.String()}
	}
	return list
}

// guidOf is a resource's GUID: of this one, not of another that bears its name later.
func guidOf(d *arm.Document) string {
	return uuid.NewSHA1(uuid.NameSpaceURL, []byte(d.ID.Key()+d.SystemData.CreatedAt.String())).String()
}

func ptr[T any](v T) *T { return &v }
