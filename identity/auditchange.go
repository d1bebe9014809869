// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"bastide.dev/store"
)

// CategoryPolicy is the audit log's category of conditional access.
const CategoryPolicy = "Policy"

// AuditChange is the audit log's record of a change to what isn't the
// directory's own document but belongs to it, such as a policy. Whoever changes
// it writes the record in the same transaction. What before and after (nil: none)
// hold must not be secret.
func AuditChange(ctx context.Context, now time.Time, name, category string, target AuditTarget, before, after any) (store.Change, error) {
	now = now.UTC()
	target.Changed = differences(before, after)
	entry := AuditEntry{ID: uuid.NewString(), Time: now, Activity: name, Category: category, By: AuditActor{Service: true}, Targets: []AuditTarget{target}}
	if who, ok := ctx.Value(actorKey{}).(AuditActor); ok {
		entry.By = who
	}
	data, err := json.Marshal(entry)
	if err != nil {
		return store.Change{}, fmt.Errorf("encode audit entry: %w", err)
	}
	return store.Change{Key: auditPrefix + now.Format(auditForm) + "-" + entry.ID, Value: data, Revision: store.Absent}, nil
}
