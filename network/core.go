// SPDX-License-Identifier: Apache-2.0

package network

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

const typeASG = "microsoft.network/applicationsecuritygroups"

// coreTypes are virtual networks and what filters and routes in them.
func (p *Provider) coreTypes() []arm.Type {
	return slices.Concat(p.vnetTypes(), p.groupTypes(), p.routeTypes(), p.interfaceTypes(), p.watcherTypes())
}

// coreType is a row with documents: its model, its decisions, and that writes wait their turn.
func coreType(name string, model func() any, rows []arm.Property, t arm.Type) arm.Type {
	t.Name, t.Versions, t.Model, t.ReadOnly, t.Queue = name, edgeVersions(), model, arm.ReadOnlyPaths(rows), true
	return t
}

// partType is a row of resources in their parent's body; rows are the decisions on one element.
func partType(name, list string, model func() any, rows []arm.Property) arm.Type {
	return arm.Type{Name: name, Embedded: list, Versions: edgeVersions(), Model: model, ReadOnly: arm.ReadOnlyPaths(rows)}
}

// linked are the decisions on a property that names another resource: clients
// send back the whole of what they read, of which the id alone counts.
func linked(paths ...string) []arm.Property {
	var rows []arm.Property
	for _, path := range paths {
		rows = append(rows, arm.Rows(arm.Effective, path+".id")...)
		rows = append(rows, arm.Within(path+".", arm.Rows(arm.ReadOnly, "name", "type", "etag", "location", "tags", "properties", "sku", "resourceGroup"))...)
	}
	return rows
}

// fixedTo is the decision that a property says only what is so anyway.
func fixedTo(path, note string, values ...any) arm.Property {
	return arm.Property{Path: path, Treatment: arm.Fixed, Values: values, Note: note}
}

// refusedFor refuses a property by name and says why.
func refusedFor(path, note string) arm.Property {
	return arm.Property{Path: path, Treatment: arm.Refused, Note: note}
}

// partRows are what all embedded resources have.
func partRows() []arm.Property {
	return slices.Concat(arm.Rows(arm.Effective, "name"), arm.Rows(arm.ReadOnly, "id", "type", "etag", "properties.provisioningState"))
}

// link keeps of a reference what counts.
func link(id *string) *armnetwork.SubResource {
	if value(id) == "" {
		return nil
	}
	return &armnetwork.SubResource{ID: id}
}

// cidrAt reads an IPv4 range as Azure wants it written; a finding and false when it isn't one.
func cidrAt(f *findings, target, text string, of resource.ID) (netip.Prefix, bool) {
	prefix, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		f.bad("InvalidAddressPrefixFormat", target,
			"Address prefix %s of resource %s is not formatted correctly. It should follow CIDR notation, for example 10.0.0.0/24.", text, of)
	case !prefix.Addr().Is4():
		*f = append(*f, ipv6(target, text))
	case prefix != prefix.Masked():
		f.bad("InvalidCIDRNotation", target, "The address prefix %s in resource %s has an invalid CIDR notation. For the given prefix length, the address prefix should be %s.",
			text, of, prefix.Masked())
	default:
		return prefix, true
	}
	return netip.Prefix{}, false
}

func ipv6(target, text string) *fault.Error {
	return fault.New(fault.Unsupported, "PropertyNotSupported", "%s can't be %s here: networks have IPv4 addresses only.", target, text).At(target)
}

// holds are the changes that make the transaction hang on documents as they were read.
func holds(documents ...*arm.Document) ([]store.Change, error) {
	var changes []store.Change
	for _, d := range documents {
		change, err := arm.PutDocument(d)
		if err != nil {
			return nil, err
		}
		changes = append(changes, change)
	}
	return OneEach(changes), nil
}

// nameList is ids as a message shows them.
func nameList(ids []resource.ID) string {
	texts := make([]string, 0, len(ids))
	for _, id := range ids[:min(len(ids), 5)] {
		texts = append(texts, id.String())
	}
	if len(ids) > 5 {
		texts = append(texts, fmt.Sprintf("and %d more", len(ids)-5))
	}
	return strings.Join(texts, ", ")
}
