// SPDX-License-Identifier: Apache-2.0

package netpolicy

import (
	"encoding/json"
	"errors"
	"slices"
	"strconv"
)

// Matches tells whether labels meet the selector. An empty one matches all; an
// operator that isn't known matches nothing.
func (s *Selector) Matches(labels map[string]string) bool {
	for key, want := range s.MatchLabels {
		if have, ok := labels[key]; !ok || have != want {
			return false
		}
	}
	for i := range s.MatchExpressions {
		if !s.MatchExpressions[i].matches(labels) {
			return false
		}
	}
	return true
}

func (r *Requirement) matches(labels map[string]string) bool {
	have, ok := labels[r.Key]
	switch r.Operator {
	case "In":
		return ok && slices.Contains(r.Values, have)
	case "NotIn":
		return !ok || !slices.Contains(r.Values, have)
	case "Exists":
		return ok
	case "DoesNotExist":
		return !ok
	}
	return false
}

// PortOrName is a port's number, or its name when Name isn't "".
type PortOrName struct {
	Number int32
	Name   string
}

// UnmarshalJSON reads a number or a string.
func (p *PortOrName) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '"' {
		*p = PortOrName{}
		return json.Unmarshal(data, &p.Name)
	}
	n, err := strconv.ParseInt(string(data), 10, 32)
	if err != nil {
		return errors.New("a port is neither a number nor a name")
	}
	*p = PortOrName{Number: int32(n)}
	return nil
}

// MarshalJSON writes what UnmarshalJSON reads.
func (p PortOrName) MarshalJSON() ([]byte, error) {
	if p.Name != "" {
		return json.Marshal(p.Name)
	}
	return json.Marshal(p.Number)
}
