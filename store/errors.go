// SPDX-License-Identifier: Apache-2.0

package store

import "bastide.dev/fault"

// NotFound is what Get returns when no document is there; for implementations.
func NotFound(key string) error {
	return fault.New(fault.NotFound, "", "There is no document %q.", key)
}

// Mismatch is what a write returns when a revision doesn't match; for implementations.
func Mismatch(key string) error {
	return fault.New(fault.Precondition, "", "The document %q was changed in between.", key)
}

// CheckChanges refuses a Txn that names a key twice or none: etcd would, so all do.
func CheckChanges(changes []Change) error {
	seen := make(map[string]bool, len(changes))
	for _, c := range changes {
		if c.Key == "" || seen[c.Key] {
			return fault.New(fault.Internal, "", "A transaction names the key %q twice, or not at all.", c.Key)
		}
		seen[c.Key] = true
	}
	return nil
}
