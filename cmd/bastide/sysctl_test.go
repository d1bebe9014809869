// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestKernelLimitsAreOnlyRaised(t *testing.T) {
	root := t.TempDir()
	file := func(name, value string) string {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(value+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	low, high := file("fs/inotify/max_user_instances", "128"), file("kernel/pid_max", "4194304")
	raiseKernelLimits(root, quiet())
	for path, want := range map[string]string{low: "16384", high: "4194304"} {
		got, err := os.ReadFile(path)
		if err != nil || strings.TrimSpace(string(got)) != want {
			t.Errorf("%s is %s (%v), want %s", path, got, err, want)
		}
	}
}
