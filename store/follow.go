// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"log/slog"
	"time"
)

// Follow calls see for every record under prefix, and then for each change of
// one, until ctx ends. When a watch breaks off it lists anew: a record may be
// seen again, none is missed, but deletions meanwhile are.
func Follow(ctx context.Context, s Store, prefix string, log *slog.Logger, see func(r Record, deleted bool)) error {
	listed := func(records []Record) {
		for _, record := range records {
			see(record, false)
		}
	}
	return FollowFrom(ctx, s, prefix, log, listed, func(event Event) { see(event.Record, event.Deleted) })
}

// FollowFrom calls listed with all records under prefix, and changed for each
// change from there on, until ctx ends. When a watch breaks off it begins anew.
func FollowFrom(ctx context.Context, s Store, prefix string, log *slog.Logger, listed func([]Record), changed func(Event)) error {
	for ctx.Err() == nil {
		records, revision, err := s.List(ctx, prefix)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			log.ErrorContext(ctx, "listing failed", "prefix", prefix, "error", err)
			pause(ctx, time.Second)
			continue
		}
		listed(records)
		for event := range s.Watch(ctx, prefix, revision) {
			changed(event)
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
