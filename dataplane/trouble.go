// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Trouble is what an Apply couldn't do: with single VNets, while the others
// stand as configured, or with the whole.
type Trouble struct {
	VNets map[string]error // by ID
	Whole error
}

// Error names everything.
func (t *Trouble) Error() string { return errors.Join(t.Unwrap()...).Error() }

// Unwrap lists everything.
func (t *Trouble) Unwrap() []error {
	var all []error
	if t.Whole != nil {
		all = append(all, t.Whole)
	}
	for _, id := range slices.Sorted(maps.Keys(t.VNets)) {
		all = append(all, fmt.Errorf("vnet %s: %w", id, t.VNets[id]))
	}
	return all
}

// Err is the trouble as an error; nil when there is none.
func (t *Trouble) Err() error {
	if t.Whole == nil && len(t.VNets) == 0 {
		return nil
	}
	return t
}
