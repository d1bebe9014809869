// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"fmt"
	"slices"
	"strings"

	"bastide.dev/fault"
	"bastide.dev/resource"
)

// row is a Type with its place in the table.
type row struct {
	Type
	namespace string
	full      string // "Microsoft.ContainerService/managedClusters"
	core      bool   // ARM's own: versions aren't a provider's
	parent    *row   // of an embedded type
	embedded  []*row // the types whose resources are in this one's body
}

// stored tells whether resources of the type are documents.
func (r *row) stored() bool { return r.Put != nil }

func (r *row) child() bool { return strings.Contains(r.Name, "/") }

// tracked types have a location and tags, and are in lists of resources.
func (r *row) tracked() bool {
	return r.stored() && !r.child() && !r.Untracked && r.Scope != OnAny
}

// table finds rows by type, case forgiven.
type table struct {
	providers []Provider // in the order given
	rows      map[string]*row
}

func newTable(providers []Provider) (*table, error) {
	t := &table{rows: map[string]*row{}}
	for _, p := range providers {
		i := slices.IndexFunc(t.providers, func(q Provider) bool { return strings.EqualFold(p.Namespace, q.Namespace) })
		if i < 0 {
			t.providers = append(t.providers, p)
		} else {
			t.providers[i].Types = slices.Concat(t.providers[i].Types, p.Types)
		}
		for _, typ := range p.Types {
			r := &row{Type: typ, namespace: p.Namespace, full: p.Namespace + "/" + typ.Name, core: p.Namespace == "Microsoft.Resources"}
			key := strings.ToLower(r.full)
			if len(typ.Versions) == 0 || t.rows[key] != nil {
				return nil, fmt.Errorf("arm: type %s has no API versions or stands twice in the table", r.full)
			}
			t.rows[key] = r
		}
	}
	return t, t.embed()
}

// embed ties embedded types to those whose bodies they are in.
func (t *table) embed() error {
	for _, p := range t.providers {
		for _, typ := range p.Types {
			if typ.Embedded == "" {
				continue
			}
			r := t.rows[strings.ToLower(p.Namespace+"/"+typ.Name)]
			r.parent = t.rows[strings.ToLower(r.full[:strings.LastIndex(r.full, "/")])]
			if r.parent == nil || !r.parent.stored() || r.stored() {
				return fmt.Errorf("arm: type %s is embedded in none that has documents, or has documents itself", r.full)
			}
			r.parent.embedded = append(r.parent.embedded, r)
		}
	}
	return nil
}

// provider finds a namespace.
func (t *table) provider(namespace string) (Provider, error) {
	for _, p := range t.providers {
		if strings.EqualFold(p.Namespace, namespace) {
			return p, nil
		}
	}
	return Provider{}, fault.New(fault.NotFound, "InvalidResourceNamespace", "The resource namespace '%s' is invalid.", namespace)
}

// find returns the row of a full type for an API version.
func (t *table) find(typ string, version resource.APIVersion) (*row, error) {
	r, err := t.row(typ, version)
	if err != nil {
		return nil, err
	}
	if slices.Contains(r.Versions, version) {
		return r, nil
	}
	if r.core {
		return nil, fault.New(fault.Invalid, "InvalidApiVersionParameter",
			"The api-version '%s' is invalid. The supported versions are '%s'.", version, joinVersions(r.Versions))
	}
	return nil, fault.New(fault.Invalid, "NoRegisteredProviderFound",
		"No registered resource provider found for API version '%s' for type '%s'. The supported api-versions are '%s'.",
		version, r.Name, joinVersions(r.Versions))
}

// row returns the row of a full type.
func (t *table) row(typ string, version resource.APIVersion) (*row, error) {
	if r := t.rows[strings.ToLower(typ)]; r != nil {
		return r, nil
	}
	namespace, name, _ := strings.Cut(typ, "/")
	p, err := t.provider(namespace)
	if err != nil {
		return nil, err
	}
	return nil, fault.New(fault.NotFound, "InvalidResourceType",
		"The resource type '%s' could not be found in the namespace '%s' for api version '%s'.", name, p.Namespace, version)
}

// canonical gives an id the types' own case and what the stored parent's id says.
func (r *row) canonical(id resource.ID, parent resource.ID) resource.ID {
	if id.IsType(resource.TypeGroup) {
		return id
	}
	last := r.Name[strings.LastIndex(r.Name, "/")+1:]
	if r.child() {
		return parent.Child(last, id.Name())
	}
	return parent.Resource(r.namespace, last, id.Name())
}

func joinVersions(versions []resource.APIVersion) string {
	texts := make([]string, len(versions))
	for i, v := range versions {
		texts[i] = string(v)
	}
	return strings.Join(texts, ", ")
}
