// SPDX-License-Identifier: Apache-2.0

// Package store keeps versioned documents: Get, List, Put-if-match, Delete,
// Watch. Its implementations (etcd, memory) pass the one suite in storetest;
// sealing is a decorator.
//
// It imports fault and its one library; anything above mechanism may import it.
package store

import "context"

// Any as a Put's or Delete's revision matches whatever is there (also nothing).
const Any int64 = -1

// Absent as a Put's revision matches only when no document is there.
const Absent int64 = 0

// Record is one document as it was stored.
type Record struct {
	Key      string
	Value    []byte
	Revision int64 // of the last change; grows over the whole store
}

// Change is one document of a Txn: a Put when Value isn't nil, else a Delete;
// with Check, neither, only the demand that the document has that revision.
type Change struct {
	Key      string
	Value    []byte
	Revision int64 // Any, Absent or the revision that must be there
	Check    bool
}

// Event is a change seen by a Watch. Value is nil when the document was deleted.
type Event struct {
	Record
	Deleted bool
}

// Store is safe for concurrent use. Errors: fault.NotFound from Get,
// fault.Precondition when a revision doesn't match, fault.Unavailable when the
// backing service can't be reached (the call may be repeated).
// What Put, Delete and Txn acknowledged survives a kill of any process.
type Store interface {
	Get(ctx context.Context, key string) (Record, error)
	// List returns the documents under prefix, in key order, and the store's revision at that moment.
	List(ctx context.Context, prefix string) ([]Record, int64, error)
	Put(ctx context.Context, key string, value []byte, revision int64) (int64, error)
	// Delete of what isn't there is no error when revision is Any.
	Delete(ctx context.Context, key string, revision int64) error
	// Txn applies all changes or, when any revision doesn't match, none.
	Txn(ctx context.Context, changes ...Change) (int64, error)
	// Watch sends each change under prefix with a revision above after, in order.
	// The channel closes when ctx ends or the history is gone (then List and watch again).
	Watch(ctx context.Context, prefix string, after int64) <-chan Event
}
