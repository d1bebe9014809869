// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"bastide.dev/resource"
	"bastide.dev/store"
)

// poolNodes hands compute what it needs of clusters, which are made after it:
// whose machines those of node pools are.
type poolNodes struct{ s *service }

func (n poolNodes) PlanAction(ctx context.Context, set resource.ID, action string, instances []string) ([]store.Change, error) {
	return n.s.clusters.PlanAction(ctx, set, action, instances)
}
