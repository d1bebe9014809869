// SPDX-License-Identifier: Apache-2.0

package linux

import "context"

// lock is a mutex that one may stop waiting for.
type lock chan struct{}

func newLock() lock { return make(lock, 1) }

func (l lock) Lock() { l <- struct{}{} }

func (l lock) Unlock() { <-l }

func (l lock) lockContext(ctx context.Context) error {
	if err := ctx.Err(); err != nil { // else it is left to chance
		return err
	}
	select {
	case l <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
