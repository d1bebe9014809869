// SPDX-License-Identifier: Apache-2.0

package reconcile

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// start runs a loop in the bubble and returns how to end it.
func start(t *testing.T, q *Queue, workers int, f Func) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- Loop{Name: "test", Queue: q, Reconciler: f, Workers: workers}.Run(ctx) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func TestCoalesces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(Backoff{})
		runs := 0
		for range 5 {
			q.Add("a")
		}
		stop := start(t, q, 3, func(context.Context, string) (time.Duration, error) {
			runs++
			time.Sleep(time.Second)
			return 0, nil
		})
		synctest.Wait()
		q.Add("a") // while it runs: once more afterwards
		q.Add("a")
		time.Sleep(10 * time.Second)
		stop()
		if runs != 2 {
			t.Errorf("%d runs, want 2", runs)
		}
	})
}

func TestKeysAreSerialAndWorkersConcurrent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(Backoff{})
		var mu sync.Mutex
		now, most := map[string]int{}, 0
		stop := start(t, q, 2, func(_ context.Context, key string) (time.Duration, error) {
			mu.Lock()
			now[key]++
			if now[key] > 1 {
				t.Errorf("%s is worked on twice at once", key)
			}
			sum := 0
			for _, n := range now {
				sum += n
			}
			most = max(most, sum)
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			now[key]--
			mu.Unlock()
			return 0, nil
		})
		for range 20 {
			for _, key := range []string{"a", "b", "c"} {
				q.Add(key)
			}
			time.Sleep(300 * time.Millisecond)
		}
		time.Sleep(10 * time.Second)
		stop()
		if most != 2 {
			t.Errorf("%d at once, want 2", most)
		}
	})
}

func TestBacksOffAndAddGoesAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(Backoff{Min: time.Second, Max: 4 * time.Second})
		begin := time.Now()
		var at []time.Duration
		fail := true
		stop := start(t, q, 1, func(context.Context, string) (time.Duration, error) {
			at = append(at, time.Since(begin))
			if fail {
				return 0, errors.New("no")
			}
			return 0, nil
		})
		q.Add("a") // runs at 0, 1, 3, 7, 11
		time.Sleep(12 * time.Second)
		fail = false
		q.Add("a") // at once, and the pending back-off run at 15
		time.Sleep(time.Minute)
		fail = true
		q.Add("a") // 72, then the back-off starts anew: 73
		time.Sleep(1500 * time.Millisecond)
		stop()
		want := []time.Duration{0, 1, 3, 7, 11, 12, 15, 72, 73}
		if len(at) != len(want) {
			t.Fatalf("ran at %v", at)
		}
		for i := range want {
			if at[i] != want[i]*time.Second {
				t.Errorf("run %d at %v, want %v s", i, at[i], int(want[i]))
			}
		}
	})
}

func TestAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(Backoff{})
		runs := 0
		stop := start(t, q, 1, func(context.Context, string) (time.Duration, error) {
			runs++
			return time.Minute, nil
		})
		q.AddAfter("a", time.Hour)
		q.AddAfter("a", time.Minute) // the earlier counts
		time.Sleep(150 * time.Second)
		stop()
		if runs != 2 {
			t.Errorf("%d runs, want 2", runs)
		}
	})
}

func TestPanicIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(Backoff{Min: time.Second})
		var runs atomic.Int32
		stop := start(t, q, 1, func(context.Context, string) (time.Duration, error) {
			if runs.Add(1) == 1 {
				panic("broken")
			}
			return 0, nil
		})
		q.Add("a")
		time.Sleep(5 * time.Second)
		stop()
		if runs.Load() != 2 {
			t.Errorf("%d runs, want 2", runs.Load())
		}
	})
}

func TestGroupEndsTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group
		stopped := false
		g.Add("steady", func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(time.Second) // Run waits for it
			stopped = true
			return ctx.Err()
		})
		g.Add("weak", func(context.Context) error {
			time.Sleep(time.Minute)
			return errors.New("fell over")
		})
		err := g.Run(t.Context())
		if err == nil || !strings.Contains(err.Error(), "weak: fell over") || strings.Contains(err.Error(), "steady") {
			t.Errorf("error %v", err)
		}
		if !stopped {
			t.Error("Run did not wait")
		}
	})
}

func TestGroupEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		var g Group
		g.Add("steady", func(ctx context.Context) error { <-ctx.Done(); return nil })
		if err := g.Run(ctx); err != nil {
			t.Error(err)
		}
	})
}
