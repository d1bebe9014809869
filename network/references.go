// SPDX-License-Identifier: Apache-2.0

package network

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"bastide.dev/arm"
	"bastide.dev/resource"
)

// references are the resources whose documents name id, or anything beneath it
// (a subnet of a virtual network, a pool of a load balancer): of Microsoft.Network,
// Microsoft.Compute and Microsoft.ContainerService, whose private state is looked
// at, too; and the clusters whose API server stands there. The resource itself and
// its children aren't among them. What refuses to delete what is in use asks here,
// on both sides of the package: the core's types and the edge's.
//
// A hook that adds a reference writes what it names again as it is (hold), so
// that it and a deletion that saw no reference can't both succeed.
func (p *Provider) references(ctx context.Context, id resource.ID) ([]resource.ID, error) {
	records, _, err := p.Store.List(ctx, arm.DocumentPrefix)
	if err != nil {
		return nil, fmt.Errorf("references to %s: %w", id, err)
	}
	own := arm.DocumentKey(id)
	name := []byte(`"/` + id.Key())
	var found []resource.ID
	for _, r := range records {
		if r.Key == own || strings.HasPrefix(r.Key, own+"/") || !mayRefer(r.Key) || !names(r.Value, name) {
			continue
		}
		d, err := arm.DecodeDocument(r)
		if err != nil {
			return nil, err
		}
		if names(d.Body, name) || names(d.State, name) { // not its own id, which may be longer than this one
			found = append(found, d.ID)
		}
	}
	servers, err := p.servers(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range servers {
		if s.Subnet.Under(id) {
			found = append(found, s.Cluster)
		}
	}
	return found, nil
}

// mayRefer tells whether documents of a key's type name networks at all.
func mayRefer(key string) bool {
	for _, namespace := range []string{"microsoft.network", "microsoft.compute", "microsoft.containerservice"} {
		if strings.Contains(key, "/providers/"+namespace+"/") {
			return true
		}
	}
	return false
}

// names tells whether a JSON text has a string that is the id, quote in front, or goes on beneath it.
func names(text, id []byte) bool {
	lower := bytes.ToLower(text)
	for {
		at := bytes.Index(lower, id)
		if at < 0 {
			return false
		}
		lower = lower[at+len(id):]
		if len(lower) > 0 && (lower[0] == '"' || lower[0] == '/') {
			return true
		}
	}
}
