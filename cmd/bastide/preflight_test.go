// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOpenToAll(t *testing.T) {
	dir := t.TempDir()
	below := filepath.Join(dir, "cache")
	for mode, closed := range map[os.FileMode]bool{0o755: false, 0o711: false, 0o700: true} {
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		err := openToAll(below)
		if (err != nil && strings.Contains(err.Error(), "chmod o+x "+dir)) != closed {
			t.Errorf("%o: %v", mode, err)
		}
	}
}

func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=10m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	below := filepath.Join(dir, "bastide", "default") // not there yet
	if got := fullDisk(below); got != "" {
		t.Errorf("an empty disk: %s", got)
	}
	if err := os.WriteFile(filepath.Join(dir, "ballast"), make([]byte, 9<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := fullDisk(below); !strings.Contains(got, "Only 10 % of the disk of "+dir+" is free") {
		t.Errorf("a full disk: %q", got)
	}
}
