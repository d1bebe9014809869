// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLimitsAreRaisedAndNeverLowered(t *testing.T) {
	dir := t.TempDir()
	for name, value := range map[string]string{"fs/inotify/max_user_instances": "128\n", "kernel/pid_max": "9000000\n"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := raiseLimits(dir); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"fs/inotify/max_user_instances": "65536", "kernel/pid_max": "9000000"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || strings.TrimSpace(string(data)) != want {
			t.Errorf("%s is %q, want %s (%v)", name, data, want, err)
		}
	}
}
