// SPDX-License-Identifier: Apache-2.0

package stream_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"bastide.dev/stream"
)

// A server that is away for a second fails the requests of that second, and a
// slow one delays nobody else.
func TestStreamCountsEachRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		s := stream.Begin(t.Context(), 100, func(ctx context.Context) error {
			switch at := time.Since(begin); {
			case at > time.Second && at <= 2*time.Second:
				return errors.New("connection refused")
			case at == 3*time.Second:
				time.Sleep(500 * time.Millisecond)
			case at == 4*time.Second:
				<-ctx.Done() // never answered
				return ctx.Err()
			}
			time.Sleep(time.Millisecond)
			return nil
		})
		time.Sleep(5*time.Second + time.Millisecond)
		tally := s.End()
		if tally.Sent != 500 || tally.Failed != 101 {
			t.Errorf("%d sent, %d failed", tally.Sent, tally.Failed)
		}
		if tally.Longest != 501*time.Millisecond {
			t.Errorf("longest %v", tally.Longest)
		}
		if tally.Gap != 1010*time.Millisecond {
			t.Errorf("gap %v", tally.Gap)
		}
		if len(tally.Failures) != 5 {
			t.Errorf("%d failures in words: %q", len(tally.Failures), tally.Failures)
		}
	})
}
