// SPDX-License-Identifier: Apache-2.0

package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"
)

// Reconciler makes what key names as it should be. It is called for one key by
// one worker at a time, for different keys concurrently, and may be called when
// nothing changed. Again above zero asks to be called after that time; an error
// leads to a call after the queue's back-off.
type Reconciler interface {
	Reconcile(ctx context.Context, key string) (again time.Duration, err error)
}

// Func is a function as a Reconciler.
type Func func(ctx context.Context, key string) (time.Duration, error)

// Reconcile calls f.
func (f Func) Reconcile(ctx context.Context, key string) (time.Duration, error) { return f(ctx, key) }

// Loop works on a queue's keys.
type Loop struct {
	Name       string // in logs
	Queue      *Queue
	Reconciler Reconciler
	Workers    int // 0 is 1
	Logger     *slog.Logger
}

// Run works until ctx ends, then waits for the work at hand, which sees ctx end
// too, and returns nil.
func (l Loop) Run(ctx context.Context) error {
	var workers sync.WaitGroup
	for range max(l.Workers, 1) {
		workers.Go(func() { l.work(ctx) })
	}
	workers.Wait()
	l.Queue.stop()
	return nil
}

func (l Loop) work(ctx context.Context) {
	for {
		key, ok := l.Queue.get(ctx)
		if !ok {
			return
		}
		again, err := l.reconcile(ctx, key)
		wait := l.Queue.done(key, again, err != nil)
		if err != nil && ctx.Err() == nil {
			l.logger().ErrorContext(ctx, "reconcile failed", "loop", l.Name, "key", key, "again", wait, "error", err)
		}
	}
}

// reconcile turns a panic into an error: one broken document must not stop the
// work on all others.
func (l Loop) reconcile(ctx context.Context, key string) (again time.Duration, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return l.Reconciler.Reconcile(ctx, key)
}

func (l Loop) logger() *slog.Logger {
	if l.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l.Logger
}

// Group is components that live and end together. The zero value is ready.
type Group struct {
	members []member
}

type member struct {
	name string
	run  func(ctx context.Context) error
}

// Add has a component run with the group. Not to be called after Run.
func (g *Group) Add(name string, run func(ctx context.Context) error) {
	g.members = append(g.members, member{name, run})
}

// Run starts all components. When one returns, for whatever reason, or ctx
// ends, the contexts of all end; Run returns when all have returned, with every
// error but those that only say that the context was cancelled, each with its
// component's name.
func (g *Group) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(g.members))
	var wait sync.WaitGroup
	for i, m := range g.members {
		wait.Go(func() {
			defer cancel()
			if err := m.run(ctx); err != nil && !(ctx.Err() != nil && errors.Is(err, context.Canceled)) {
				errs[i] = fmt.Errorf("%s: %w", m.name, err)
			}
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}
