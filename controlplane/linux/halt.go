// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"bastide.dev/cgroup"
	"bastide.dev/controlplane"
)

// Halt ends the processes of every control plane on this machine, also those
// that an earlier Plane started, and keeps their data. It needs no Run.
func (p *Plane) Halt(ctx context.Context) error {
	ids := p.IDs()
	failed := make([]error, len(ids))
	var halting sync.WaitGroup
	for i, id := range ids {
		halting.Go(func() { failed[i] = p.halt(ctx, id) })
	}
	halting.Wait()
	return errors.Join(failed...)
}

func (p *Plane) halt(ctx context.Context, id string) error {
	in := p.instance(id)
	in.apply.Lock()
	defer in.apply.Unlock()
	release, err := in.rest(ctx)
	if err != nil {
		return err
	}
	defer release()
	err = p.end(ctx, id, p.supervisor.Stop, clients()...)
	if err = errors.Join(err, p.end(ctx, id, p.supervisor.Stop, controlplane.Etcd)); err != nil {
		return fmt.Errorf("halt control plane %s: %w", id, err)
	}
	return errors.Join(p.ended(id), cgroup.Delete(p.group(id)))
}
