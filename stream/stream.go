// SPDX-License-Identifier: Apache-2.0

// Package stream sends requests at a steady rate and keeps account of each:
// what drills, tests and benchmarks hold against operations that nobody is to
// notice. The rate doesn't wait for answers, so that a stall costs requests
// their patience and isn't hidden by asking less.
package stream

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Patience is how long a request may take; longer is a failure.
const Patience = 10 * time.Second

// kept is how many failures are remembered in words.
const kept = 5

// Tally is what became of a stream's requests.
type Tally struct {
	Sent    int
	Failed  int
	Longest time.Duration // of those that were answered
	// Gap is the longest time without any answer.
	Gap      time.Duration
	Failures []string // the first few
}

// String is one line for people.
func (t Tally) String() string {
	text := fmt.Sprintf("%d requests, %d failed, the slowest took %.0f ms", t.Sent, t.Failed, float64(t.Longest.Microseconds())/1000)
	if len(t.Failures) > 0 {
		text += ": " + t.Failures[0]
	}
	return text
}

// Stream is requests under way.
type Stream struct {
	stop   context.CancelFunc
	ended  chan struct{}
	begun  time.Time
	flying sync.WaitGroup

	mu    sync.Mutex // guards what follows
	tally Tally
	last  time.Time // of the last answer
}

// Begin sends rate requests a second until End. Each has Patience; request must
// heed its context.
func Begin(ctx context.Context, rate int, request func(ctx context.Context) error) *Stream {
	sending, stop := context.WithCancel(ctx)
	now := time.Now()
	s := &Stream{stop: stop, ended: make(chan struct{}), begun: now, last: now}
	go func() {
		defer close(s.ended)
		s.send(sending, context.WithoutCancel(ctx), time.Second/time.Duration(rate), request)
	}()
	return s
}

func (s *Stream) send(sending, ctx context.Context, every time.Duration, request func(ctx context.Context) error) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-sending.Done():
			s.flying.Wait()
			return
		case <-tick.C:
		}
		s.flying.Go(func() { s.one(ctx, request) })
	}
}

func (s *Stream) one(ctx context.Context, request func(ctx context.Context) error) {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	begin := time.Now()
	err := request(ctx)
	end := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tally.Sent++
	if err != nil {
		s.tally.Failed++
		if len(s.tally.Failures) < kept {
			s.tally.Failures = append(s.tally.Failures, fmt.Sprintf("%.1f s after the beginning: %v", begin.Sub(s.begun).Seconds(), err))
		}
		return
	}
	s.tally.Longest = max(s.tally.Longest, end.Sub(begin))
	s.tally.Gap = max(s.tally.Gap, end.Sub(s.last))
	s.last = end
}

// End stops sending, waits for the answers that are due, and tells.
func (s *Stream) End() Tally {
	s.stop()
	<-s.ended
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tally
}

// Now is the tally so far.
func (s *Stream) Now() Tally {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tally
}
