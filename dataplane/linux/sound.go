// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"errors"
	"slices"

	"bastide.dev/dataplane"
)

// sound is as much of a configuration as is in order: a VNet that isn't, or that
// takes what another one has, is as it was in last, if it was in it, and else
// left out. What is wrong with the edge is wrong with the whole.
func sound(c, last *dataplane.Config) (dataplane.Config, *dataplane.Trouble) {
	trouble := &dataplane.Trouble{VNets: map[string]error{}}
	if check(c) == nil {
		return *c, trouble
	}
	good := dataplane.Config{Edge: c.Edge}
	if trouble.Whole = check(&good); trouble.Whole != nil {
		return good, trouble
	}
	for _, v := range c.VNets {
		err := add(&good, v)
		if err == nil {
			continue
		}
		trouble.VNets[v.ID] = err
		if last == nil {
			continue
		}
		if i := slices.IndexFunc(last.VNets, func(was dataplane.VNet) bool { return was.ID == v.ID }); i >= 0 {
			_ = add(&good, last.VNets[i]) // it may be in another's way now: then it is left out
		}
	}
	return good, trouble
}

// add adds a VNet if the configuration stays in order.
func add(c *dataplane.Config, v dataplane.VNet) error {
	next := dataplane.Config{Edge: c.Edge, VNets: append(slices.Clone(c.VNets), v)}
	if err := check(&next); err != nil {
		return err
	}
	*c = next
	return nil
}

func check(c *dataplane.Config) error { return errors.Join(c.Validate(), supported(c)) }
