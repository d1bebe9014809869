// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestReplacedFilesAreSeenInMaps(t *testing.T) {
	for maps, want := range map[string]bool{
		"7f00-7f01 r-xp 00000000 00:1f 12 /usr/lib/x86_64-linux-gnu/libssl.so.3 (deleted)\n": true,
		"7f00-7f01 r-xp 00000000 00:1f 12 /usr/lib/x86_64-linux-gnu/libssl.so.3\n":           false,
		"7f00-7f01 r--p 00000000 00:1f 12 /usr/lib/x86_64-linux-gnu/libssl.so.3 (deleted)\n": false,
		"7f00-7f01 r-xp 00000000 00:1f 12 /memfd:runc_cloned:/proc/self/exe (deleted)\n":     false,
		"7f00-7f01 rwxp 00000000 00:01 12 /dev/zero (deleted)\n":                             false,
		"": false,
	} {
		if got := mapsReplaced(maps); got != want {
			t.Errorf("%q: %v", maps, got)
		}
	}
}

// TestAToolThatHangsIsEnded with all that it started.
func TestAToolThatHangsIsEnded(t *testing.T) {
	kids := newReaper(slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	var out []byte
	begin := time.Now()
	err := (&apt{kids: kids, dir: t.TempDir()}).run(ctx, &out, "sh", "-c", "sleep 1000 & echo said; wait")
	if err == nil || !strings.Contains(err.Error(), "took too long") || time.Since(begin) > 9*time.Second {
		t.Errorf("%v after %v", err, time.Since(begin))
	}
	err = (&apt{kids: kids, dir: t.TempDir()}).run(t.Context(), &out, "sh", "-c", "echo said; exit 0")
	if err != nil || string(out) != "said\n" {
		t.Errorf("%q %v", out, err)
	}
	if err := (&apt{kids: kids, dir: t.TempDir()}).run(t.Context(), &out, "sh", "-c", "exit 3"); err == nil || !strings.Contains(err.Error(), "status 3") {
		t.Errorf("%v", err)
	}
}
