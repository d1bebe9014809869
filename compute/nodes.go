// SPDX-License-Identifier: Apache-2.0

package compute

import (
	"context"
	"strings"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// Nodes is what manages the machines of scale sets: the clusters whose nodes they are.
type Nodes interface {
	// PlanAction plans an action (restart, reimage, redeploy) on machines of a
	// scale set, by their numbers; none: on all. The changes belong into the
	// transaction that gives the document its operation, which the cluster ends
	// when the machines are back.
	PlanAction(ctx context.Context, set resource.ID, action string, instances []string) ([]store.Change, error)
}

// mostInstances bounds the list of a request: a pool's most nodes.
const mostInstances = 1000

// actOnNodes is an action on a scale set, or on one machine of it.
func (p *Provider) actOnNodes(action string) arm.Hook {
	return func(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
		if p.Nodes == nil {
			return nil, managed(action)
		}
		if r.Old == nil {
			return nil, fault.New(fault.NotFound, "ResourceNotFound", "The Resource '%s' was not found.", r.ID)
		}
		set := r.ID
		var instances []string
		if strings.EqualFold(r.ID.Type(), Namespace+"/virtualMachineScaleSets/virtualMachines") {
			set, instances = r.ID.Parent(), []string{r.ID.Name()}
		} else if named, err := instanceIDs(r.Body); err != nil {
			return nil, err
		} else {
			instances = named
		}
		changes, err := p.Nodes.PlanAction(ctx, set, action, instances)
		if err != nil {
			return nil, err
		}
		d := *r.Old
		return &arm.Plan{Document: &d, Async: true, State: resource.Updating, Changes: changes}, nil
	}
}

// instanceIDs reads which machines of a set are meant; none, or "*": all.
func instanceIDs(body object) ([]string, error) {
	list, _ := at(body, "instanceIds").([]any)
	if len(list) > mostInstances {
		return nil, fault.New(fault.Invalid, "InvalidParameter", "The list instanceIds has more than %d elements.", mostInstances).At("instanceIds")
	}
	seen := map[string]bool{}
	var ids []string
	for _, element := range list {
		id, ok := element.(string)
		if !ok || id == "" {
			return nil, fault.New(fault.Invalid, "InvalidParameter", "The list instanceIds holds something that isn't an id.").At("instanceIds")
		}
		if id == "*" {
			return nil, nil
		}
		if !seen[id] {
			seen[id], ids = true, append(ids, id)
		}
	}
	return ids, nil
}
