// SPDX-License-Identifier: Apache-2.0

package testcloud_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bastide.dev/testcloud"
)

// TestBackupOfTheInstance loses a machine, and brings all back from a file.
func TestBackupOfTheInstance(t *testing.T) {
	c := testcloud.Start(t, "backup")
	s := newStubborn(t, c)
	if err := s.create(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	kubectl := s.kubectl(t, "c")
	must(kubectl("create", "secret", "generic", "kept", "--from-literal=word=treasure"))
	must(kubectl("create", "deployment", "web", "--image="+image))
	must(kubectl("rollout", "status", "deployment/web", "--timeout=60s"))
	dir := t.TempDir()
	file, key := filepath.Join(dir, "b.age"), filepath.Join(dir, "key")
	recipient := strings.TrimSpace(c.Must(t, "backup", "new-key", key))
	c.Must(t, "backup", "--recipient", recipient, file)
	data := must(os.ReadFile(file))
	if info := must(os.Stat(file)); info.Mode().Perm() != 0o600 {
		t.Errorf("the backup's mode is %v", info.Mode())
	}
	if bytes.Contains(data, []byte("treasure")) || bytes.Contains(data, []byte("PRIVATE KEY")) {
		t.Error("the backup can be read without its key")
	}
	refused := func(code string, args ...string) {
		t.Helper()
		out, err := c.Bastide(t.Context(), append([]string{"restore"}, args...)...)
		if err == nil || !strings.Contains(out, code) {
			t.Errorf("restore %q: %v\n%s\nwanted %q", args, err, out, code)
		}
	}
	other := filepath.Join(dir, "other")
	c.Must(t, "backup", "new-key", other)
	cut := filepath.Join(dir, "cut.age")
	if err := os.WriteFile(cut, data[:len(data)-100], 0o600); err != nil {
		t.Fatal(err)
	}
	refused("can't be opened with this key", "--key-file", other, file)
	refused("damaged or cut short", "--key-file", key, cut)
	refused("isn't down", "--key-file", key, "--replace", file)
	authority := must(os.ReadFile(filepath.Join(c.StateDir, "tls", "ca.crt")))
	must(kubectl("delete", "secret", "kept"))
	c.Must(t, "down")
	refused("--replace", "--key-file", key, file)
	c.Must(t, "clean", "--yes")

	c.Must(t, "restore", "--key-file", key, file)
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(c.StateDir), ".restore-*")); len(left) > 0 {
		t.Errorf("the restore left %q", left)
	}
	c.Must(t, "up")
	if !bytes.Equal(authority, must(os.ReadFile(filepath.Join(c.StateDir, "tls", "ca.crt")))) {
		t.Error("the instance has another authority")
	}
	retry(t, func() error {
		word, err := kubectl("get", "secret", "kept", "-o", "jsonpath={.data.word}")
		if err == nil && word != "dHJlYXN1cmU=" {
			err = fmt.Errorf("the secret says %q", word)
		}
		return err
	})
	s.whole(t, "c", 1)
	must(kubectl("rollout", "status", "deployment/web", "--timeout=60s"))
	if out := must(kubectl("get", "--raw", "/api/v1/namespaces/default/pods")); !strings.Contains(out, image) {
		t.Errorf("the app is gone:\n%s", out)
	}
}
