// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bastide.dev/controlplane"
)

const auditedUse = `{"userAgent":"old","objectRef":{"resource":"things","apiGroup":"g","apiVersion":"v1beta1"},"requestReceivedTimestamp":"2026-11-21T10:00:00Z",` +
	`"annotations":{"k8s.io/deprecated":"true","k8s.io/removed-release":"1.37"}}` + "\n"

func TestReadAudit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	var s survey
	uses := 0
	read := func() {
		t.Helper()
		if err := readAudit(path, &s, func(controlplane.DeprecatedUse) { uses++ }); err != nil {
			t.Fatal(err)
		}
	}
	write := func(text string) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(want int, when string) {
		t.Helper()
		if read(); uses != want {
			t.Errorf("%s: %d uses, want %d", when, uses, want)
		}
	}
	expect(0, "no log")
	write(auditedUse + `{"other":"line"}` + "\n" + auditedUse[:50])
	expect(1, "a whole line")
	expect(1, "nothing new")
	write(auditedUse[50:])
	expect(2, "the rest of a line")
	write(`{"long":"` + strings.Repeat("x", 2*auditLine) + `"}` + "\n" + auditedUse)
	expect(3, "behind a line that is too long")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	write(auditedUse)
	expect(4, "a new file")

	// The control plane's own user can put anything there.
	for name, plant := range map[string]func() error{
		"a link": func() error { return os.Symlink(path+".1", path) },
		"a pipe": func() error { return unix.Mkfifo(path, 0o600) },
		"a door": func() error { return os.Mkdir(path, 0o700) },
	} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := plant(); err != nil {
			t.Fatal(err)
		}
		if err := readAudit(path, &s, func(controlplane.DeprecatedUse) { uses++ }); err == nil || uses != 4 {
			t.Errorf("%s is read: %v, %d uses", name, err, uses)
		}
	}
}

func TestGrown(t *testing.T) {
	now := time.Now().UTC()
	count := func(n float64) []controlplane.DeprecatedCount {
		return []controlplane.DeprecatedCount{{DeprecatedUse: controlplane.DeprecatedUse{Version: "v1", Resource: "r", Removed: "1.37"}, Requests: n}}
	}
	in := &instance{}
	uses := in.grown(nil, count(1), now)
	if len(uses) != 1 || !uses[0].Last.Equal(now) {
		t.Fatalf("%+v", uses)
	}
	later := now.Add(time.Hour)
	if uses = in.grown(uses, count(1), later); !uses[0].Last.Equal(now) {
		t.Error("nobody asked, and it is a use")
	}
	if uses = in.grown(uses, count(2), later); !uses[0].Last.Equal(later) {
		t.Error("a use isn't seen")
	}
	another := later.Add(time.Hour)
	if uses = (&instance{}).grown(uses, count(2), another); !uses[0].Last.Equal(later) {
		t.Error("a use of before the host began is one of now")
	}
	if uses = in.grown(uses, count(1), another); !uses[0].Last.Equal(another) { // another API server counts from nothing
		t.Error("a use of a new API server isn't seen")
	}
}

// TestSurvey reads a real API server's audit log and metrics. None of today's
// releases serves by default an API that a later one removes, so the use is put
// into the log of a real one.
func TestSurvey(t *testing.T) {
	r := newRig(t)
	spec := r.spec("a-survey")
	r.apply(spec)
	r.until(spec.ID, "ready", ready)
	r.admin(spec).must("GET", "/api/v1/componentstatuses", nil) // deprecated, but not removed by any release
	in := r.instance(spec.ID)
	if err := r.survey(t.Context(), in, spec, true); err != nil {
		t.Fatal(err)
	}
	if uses := r.Status(spec.ID).Deprecated; len(uses) != 0 {
		t.Errorf("%+v", uses)
	}
	f, err := os.OpenFile(r.Plane.dir(spec.ID, auditDir, "audit.log"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(auditedUse); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.survey(t.Context(), in, spec, false); err != nil {
		t.Fatal(err)
	}
	r.stop()
	r.begin()
	r.apply(spec)
	status := r.until(spec.ID, "ready", ready)
	if len(status.Deprecated) != 1 || status.Deprecated[0].Resource != "things" || status.Deprecated[0].Agents[0] != "old" {
		t.Errorf("%+v", status.Deprecated)
	}
	if info, err := os.Stat(r.Plane.dir(spec.ID, deprecatedFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}
