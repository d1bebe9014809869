// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	var p pace
	now := time.Unix(1000, 0)
	for i := range 10 { // a change every 250 ms, 50 ms each
		now = now.Add(250 * time.Millisecond)
		if rest := p.spent(50*time.Millisecond, now); rest != 0 {
			t.Fatalf("change %d rests %v", i, rest)
		}
	}
	busy, begin := time.Duration(0), now
	for range 200 { // turmoil
		now = now.Add(50 * time.Millisecond)
		busy += 50 * time.Millisecond
		now = now.Add(p.spent(50*time.Millisecond, now))
	}
	if part := float64(busy-saving) / float64(now.Sub(begin)); part > 0.36 {
		t.Errorf("the work takes %.2f of a processor", part)
	}
	now = now.Add(5 * time.Second)
	if rest := p.spent(50*time.Millisecond, now); rest != 0 {
		t.Errorf("after a calm it rests %v", rest)
	}
}
