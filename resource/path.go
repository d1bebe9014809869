// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"fmt"
	"strings"
)

// Path is a request's path: the longest id in it, and what follows without a
// name of its own: a collection ("agentPools"), an action ("stop"), or after a
// scope a provider and perhaps its type ("Microsoft.ContainerService", "managedClusters").
type Path struct {
	ID       ID
	Rest     []string // none, one, or two with Provider set
	Provider bool     // Rest[0] is a provider's namespace
}

// maxSegments bounds a path's depth, so that parsing stays cheap.
const maxSegments = 64

// ParsePath takes a path apart. Double and trailing slashes are forgiven, case is kept.
func ParsePath(s string) (Path, error) {
	if len(s) > MaxIDLength {
		return Path{}, fmt.Errorf("resource: path of %d characters is too long", len(s))
	}
	segments := strings.FieldsFunc(s, func(r rune) bool { return r == '/' })
	if len(segments) > maxSegments {
		return Path{}, fmt.Errorf("resource: path of %d segments is too deep", len(segments))
	}
	for _, segment := range segments {
		if err := checkSegment(segment); err != nil {
			return Path{}, fmt.Errorf("resource: path %q: %w", s, err)
		}
	}
	id, rest := parseScope(segments)
	for len(rest) > 1 && strings.EqualFold(rest[0], "providers") {
		ns := rest[1]
		if len(rest) < 4 {
			return Path{ID: id, Rest: rest[1:], Provider: true}, nil
		}
		id, rest = id.Resource(ns, rest[2], rest[3]), rest[4:]
		for len(rest) > 1 && !strings.EqualFold(rest[0], "providers") {
			id, rest = id.Child(rest[0], rest[1]), rest[2:]
		}
	}
	if len(rest) > 1 {
		return Path{}, fmt.Errorf("resource: path %q: %q isn't understood", s, strings.Join(rest, "/"))
	}
	return Path{ID: id, Rest: rest}, nil
}

// parseScope takes the leading subscription and resource group.
func parseScope(segments []string) (ID, []string) {
	if len(segments) < 2 || !strings.EqualFold(segments[0], "subscriptions") {
		return ID{}, segments
	}
	id, rest := SubscriptionID(segments[1]), segments[2:]
	if len(rest) < 2 || !strings.EqualFold(rest[0], "resourceGroups") {
		return id, rest
	}
	return GroupID(id.subscription, rest[1]), rest[2:]
}

// checkSegment refuses what can't be in any ARM name and would be unsafe in a key or a log.
func checkSegment(segment string) error {
	if segment == "." || segment == ".." {
		return fmt.Errorf("segment %q isn't allowed", segment)
	}
	for _, r := range segment {
		if r < 0x20 || r == 0x7f || strings.ContainsRune(`<>%&\?#"`, r) || r == '�' {
			return fmt.Errorf("segment %q contains a character that isn't allowed", segment)
		}
	}
	return nil
}
