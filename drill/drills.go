// SPDX-License-Identifier: Apache-2.0

package drill

import (
	"slices"
	"strings"

	"bastide.dev/fault"
)

// All are the drills, in the order in which they are listed.
func All() []Drill {
	all := slices.Concat(serverDrills(), groupDrills(), balancerDrills(), egressDrills(), isolationDrills(), policyDrills(), identityDrills(), identityClusterDrills(), lifecycleDrills())
	return append(all, workshop(all))
}

// Select returns the drills of some IDs, in the order of All; none is all.
func Select(ids []string) ([]Drill, error) {
	all := All()
	if len(ids) == 0 {
		return all, nil
	}
	var names []string
	var chosen []Drill
	for _, d := range all {
		names = append(names, d.ID)
		if slices.Contains(ids, d.ID) {
			chosen = append(chosen, d)
		}
	}
	for _, id := range ids {
		if !slices.Contains(names, id) {
			return nil, fault.New(fault.NotFound, "DrillNotFound", "There is no drill %q: `bastide drill list` lists them.", id)
		}
	}
	return chosen, nil
}

// workshop plays the drills that make AKS's networking workshop, one after the other.
func workshop(all []Drill) Drill {
	steps := strings.Fields("lb-source-ranges lb-internal nsg-source-range api-server-authorized-ranges api-server-private-cluster policy-zero-trust")
	w := Drill{ID: "workshop", Title: "The whole workshop, step by step", Control: "all of the below, in one flow", Alone: true,
		Explains: "A terminal stands outside, a machine inside. A web app is published by a public load balancer and then by an internal one, SSH is " +
			"narrowed to a source range, the API server to authorised ranges, then it becomes private, and at last pods stop trusting each other. " +
			"Each step is attacked before, with, and after its control."}
	for _, id := range steps {
		i := slices.IndexFunc(all, func(d Drill) bool { return d.ID == id })
		w.Parts = append(w.Parts, all[i])
	}
	return w
}
