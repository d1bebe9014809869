// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bastide.dev/arm"
	"bastide.dev/fault"
)

// Treatment is what becomes of a property in a request.
type Treatment = arm.Treatment

// The treatments, as arm has them.
const (
	Effective = arm.Effective
	Plain     = arm.Plain
	ReadOnly  = arm.ReadOnly
	Fixed     = arm.Fixed
	Refused   = arm.Refused
)

// Judge returns the problems that body has with the properties of its type.
func Judge(body map[string]any, properties []Property) []*fault.Error {
	rows := make([]arm.Property, len(properties))
	for i, p := range properties {
		rows[i] = arm.Property(p)
	}
	return arm.Judge(body, rows)
}

// empty values say nothing: the default holds.
func empty(value any) bool { return value == nil || value == "" }
