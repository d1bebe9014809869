// SPDX-License-Identifier: Apache-2.0

package testcloud_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bastide.dev/testcloud"
)

// TestBackupOfAClusterAndRestore brings a namespace back that was deleted, and
// then has a second cluster take over what the first one had.
func TestBackupOfAClusterAndRestore(t *testing.T) {
	c := testcloud.Start(t, "backups")
	s := newStubborn(t, c)
	for _, name := range []string{"c", "d"} {
		if err := s.create(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	kubectl := s.kubectl(t, "c")
	must(kubectl("create", "namespace", "shop"))
	must(kubectl("create", "secret", "generic", "kept", "-n", "shop", "--from-literal=word=treasure"))
	must(kubectl("create", "deployment", "web", "-n", "shop", "--image="+image))
	must(kubectl("rollout", "status", "deployment/web", "-n", "shop", "--timeout=60s"))
	node := must(kubectl("get", "nodes", "-o", "jsonpath={.items[*].metadata.uid}"))

	c.Must(t, "backups", "policy", "rg/c", "--every", "24", "--keep", "3")
	var made struct {
		Properties struct {
			Available bool
			Objects   int
			SHA256    string `json:"sha256"`
		}
	}
	if err := json.Unmarshal([]byte(c.Must(t, "backups", "create", "rg/c", "good", "-o", "json")), &made); err != nil || !made.Properties.Available || made.Properties.Objects < 100 || len(made.Properties.SHA256) != 64 {
		t.Fatalf("the backup is %+v, %v", made, err)
	}
	retry(t, func() error {
		if list := c.Must(t, "backups", "list", "rg/c"); strings.Count(list, "available") != 2 || !strings.Contains(list, "scheduled-") {
			return fmt.Errorf("backups:\n%s", list)
		}
		return nil
	})
	if files := must(filepath.Glob(filepath.Join(c.StateDir, "host/controlplanes/*/backups/kept/*.age"))); len(files) != 2 {
		t.Errorf("the host keeps %q", files)
	}

	must(kubectl("delete", "namespace", "shop", "--timeout=60s"))
	must(kubectl("create", "namespace", "later"))
	if out, err := c.Bastide(t.Context(), "backups", "restore", "rg/c", "--from", "good"); err == nil || !strings.Contains(out, "--yes") {
		t.Errorf("a restore that nobody confirmed: %v\n%s", err, out)
	}
	begin := time.Now()
	t.Log(c.Must(t, "backups", "restore", "rg/c", "--from", "good", "--yes"), time.Since(begin))
	comeback(t, kubectl)
	if _, err := kubectl("get", "namespace", "later"); err == nil {
		t.Error("what was made since the backup is there")
	}
	if uid := must(kubectl("get", "nodes", "-o", "jsonpath={.items[*].metadata.uid}")); uid != node {
		t.Errorf("the node is another: %s, not %s", uid, node)
	}
	s.whole(t, "c", 1)

	if out, err := c.Bastide(t.Context(), "backups", "restore", "rg/d", "--from", "rg/c/none", "--yes"); err == nil || !strings.Contains(out, "There is no backup") {
		t.Errorf("a backup that isn't there: %v\n%s", err, out)
	}
	begin = time.Now()
	t.Log(c.Must(t, "backups", "restore", "rg/d", "--from", "rg/c/good", "--yes"), time.Since(begin))
	comeback(t, s.kubectl(t, "d"))
	s.whole(t, "d", 1)
	s.whole(t, "c", 1)
	// The first cluster's going takes its backups along, and nothing of the second.
	if err := s.remove(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	if files := must(filepath.Glob(filepath.Join(c.StateDir, "host/controlplanes/*/backups/kept/*.age"))); len(files) != 0 {
		t.Errorf("backups of a cluster that is gone: %q", files)
	}
	s.whole(t, "d", 1)
}

// comeback waits for what was backed up: the secret's word, and a pod that runs.
func comeback(t *testing.T, kubectl func(args ...string) (string, error)) {
	t.Helper()
	if word := must(kubectl("get", "secret", "kept", "-n", "shop", "-o", "jsonpath={.data.word}")); word != "dHJlYXN1cmU=" {
		t.Errorf("the secret says %q", word)
	}
	// The Deployment says for a moment what it said then: its controllers look anew.
	retry(t, func() error {
		if _, err := kubectl("rollout", "status", "deployment/web", "-n", "shop", "--timeout=30s"); err != nil {
			return err
		}
		_, err := kubectl("wait", "--for=condition=Ready", "pod", "-n", "shop", "-l", "app=web", "--timeout=30s")
		return err
	})
}
