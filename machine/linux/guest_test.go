// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"bastide.dev/machine"
)

func (w *world) create(s machine.Spec) {
	w.t.Helper()
	if err := w.Create(w.t.Context(), s); err != nil {
		w.t.Fatal(err)
	}
}

func TestFilesAreDeliveredLive(t *testing.T) {
	w := newWorld(t)
	s := spec("live")
	before := w.up(s)
	s.Files = []machine.File{
		{Path: "/etc/bastide/node.json", Mode: 0o600, Data: []byte(`{"new":true}`)},
		{Path: "/etc/made/deep/down", Mode: 0o644, Data: []byte("made")},
	}
	w.create(s)
	for _, probe := range []struct{ args, want string }{
		{"read /etc/bastide/node.json", `{"new":true}`},
		{"owner /etc/bastide/node.json", "0:0"},
		{"mode /etc/bastide/node.json", "600"},
		{"read /etc/made/deep/down", "made"},
		{"owner /etc/made/deep", "0:0"},
		{"mode /etc/made/deep/down", "644"},
	} {
		if got := w.must("live", strings.Fields(probe.args)...); got != probe.want {
			t.Errorf("%s = %q, want %q", probe.args, got, probe.want)
		}
	}
	if after := w.status("live"); after.PID != before.PID || after.Phase != machine.Running {
		t.Errorf("the machine was disturbed: %+v, then %+v", before, after)
	}
	// Delivered once, not with each look: what the machine wrote since stays.
	w.must("live", "write", "/etc/made/deep/down", "its own")
	w.create(s)
	w.restart()
	w.create(s)
	if got := w.must("live", "read", "/etc/made/deep/down"); got != "its own" {
		t.Errorf("delivered again: %q", got)
	}
	// A host that was away while the spec changed sees it when it is back.
	s.Files[1].Data = []byte("newer")
	w.restart()
	w.create(s)
	if got := w.must("live", "read", "/etc/made/deep/down"); got != "newer" {
		t.Errorf("not delivered after the host's restart: %q", got)
	}
	if w.status("live").PID != before.PID {
		t.Error("the machine was restarted")
	}
}

// TestDeliveryLeadsNowhere: whatever a machine has put on the way of a file,
// nothing outside of it is written, and the host isn't held up.
func TestDeliveryLeadsNowhere(t *testing.T) {
	w := newWorld(t)
	outside := t.TempDir()
	if err := os.Chmod(outside, 0o777); err != nil {
		t.Fatal(err)
	}
	victim := filepath.Join(outside, "victim")
	if err := os.WriteFile(victim, []byte("the host's"), 0o666); err != nil {
		t.Fatal(err)
	}
	s := spec("bad")
	w.up(s)
	n := 0
	try := func(path string) error {
		n++
		s.Files = []machine.File{{Path: path, Mode: 0o600, Data: fmt.Appendf(nil, "delivery %d", n)}}
		return w.Create(t.Context(), s)
	}
	for name, trap := range map[string][][]string{
		"link for a directory":        {{"symlink", outside, "/etc/d"}},
		"link up and out":             {{"symlink", "../../../.." + outside, "/etc/d"}},
		"link through a process":      {{"symlink", "/proc/1/root" + outside, "/etc/d"}},
		"a mount for a directory":     {{"mkdir", "/etc/d"}, {"bind", "/proc", "/etc/d"}},
		"another mount for it":        {{"mkdir", "/etc/d"}, {"bind", "/sys/fs/cgroup", "/etc/d"}},
		"a pipe for a directory":      {{"mkfifo", "/etc/d"}},
		"a directory for the file":    {{"mkdir", "/etc/d"}, {"mkdir", "/etc/d/victim"}, {"mkdir", "/etc/d/victim/full"}},
		"a directory for a temporary": {{"mkdir", "/etc/d"}, {"mkdir", "/etc/d/victim.delivered"}},
		"an image that isn't its own": {{"symlink", "/var/lib/containerd/blobs", "/etc/d"}},
	} {
		for _, step := range trap {
			w.must("bad", step...)
		}
		if err := try("/etc/d/victim"); err == nil {
			t.Errorf("%s: delivered", name)
		}
		w.must("bad", "clear", "/etc/d")
	}
	for name, trap := range map[string][][]string{
		"link for the file":       {{"mkdir", "/etc/d"}, {"symlink", victim, "/etc/d/victim"}},
		"link for a temporary":    {{"mkdir", "/etc/d"}, {"symlink", victim, "/etc/d/victim.delivered"}},
		"a pipe for the file":     {{"mkdir", "/etc/d"}, {"mkfifo", "/etc/d/victim"}},
		"a pipe for a temporary":  {{"mkdir", "/etc/d"}, {"mkfifo", "/etc/d/victim.delivered"}},
		"a hard link of a secret": {{"mkdir", "/etc/d"}, {"link", "/etc/secret", "/etc/d/victim"}},
	} {
		for _, step := range trap {
			w.must("bad", step...)
		}
		if err := try("/etc/d/victim"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := w.must("bad", "read", "/etc/d/victim"); got != fmt.Sprintf("delivery %d", n) {
			t.Errorf("%s: %q", name, got)
		}
		w.must("bad", "clear", "/etc/d")
	}
	if got := w.must("bad", "read", "/etc/secret"); got != "of the image" {
		t.Errorf("written through a hard link: %q", got)
	}
	entries, err := os.ReadDir(outside)
	if got, readErr := os.ReadFile(victim); err != nil || readErr != nil || string(got) != "the host's" || len(entries) != 1 {
		t.Errorf("outside: %q %v %v %v", got, entries, err, readErr)
	}
	// And a file that can be delivered again is, by itself.
	if err := try("/etc/good"); err != nil || w.must("bad", "read", "/etc/good") != fmt.Sprintf("delivery %d", n) {
		t.Errorf("%v", err)
	}
}

func (w *world) says(id string) string { return string(w.status(id).Guest) }

func (w *world) heard(id, want string) {
	w.t.Helper()
	w.eventually(fmt.Sprintf("%s says %q", id, want), func() bool { return w.says(id) == want })
}

func TestGuestIsHeard(t *testing.T) {
	w := newWorld(t)
	w.up(spec("one"))
	for len(w.Changed()) > 0 {
		<-w.Changed()
	}
	w.must("one", "mkdir", "/run/bastide")
	w.must("one", "write", machine.GuestPath, `{ "a": 1 }`)
	w.heard("one", `{"a":1}`)
	w.restart()
	if got := w.says("one"); got != `{"a":1}` {
		t.Errorf("after a restart, at once: %q", got)
	}
	w.must("one", "write", machine.GuestPath, `{"a":2}`)
	select {
	case id := <-w.Changed():
		if id != "one" || w.says("one") != `{"a":2}` {
			t.Errorf("%s changed, and says %s", id, w.says("one"))
		}
	case <-time.After(2 * time.Minute):
		t.Error("no change was told")
	}
	if err := w.Stop(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	if got := w.says("one"); got != "" {
		t.Errorf("a stopped machine says %q", got)
	}
	w.up(spec("one"))
	if got := w.says("one"); got != "" {
		t.Errorf("a rebooted machine says what the one before said: %q", got)
	}
}

// TestGuestIsHostile: whatever lies at the path, the host reads a small JSON
// object of a regular file there, or nothing, and isn't held up.
func TestGuestIsHostile(t *testing.T) {
	w := newWorld(t)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(`{"secret":"the host's"}`), 0o666); err != nil {
		t.Fatal(err)
	}
	w.up(spec("bad"))
	w.up(spec("good"))
	w.must("good", "mkdir", "/run/bastide")
	w.must("bad", "write", "/run/elsewhere", `{"elsewhere":1}`)
	const path = machine.GuestPath
	for i, trap := range [][][]string{
		{{"symlink", secret, path}},
		{{"symlink", "/run/elsewhere", path}},
		{{"symlink", "/proc/1/root/run/elsewhere", path}},
		{{"symlink", "/proc/self/environ", path}},
		{{"mkfifo", path}},
		{{"mkdir", path}},
		{{"socket", path}},
		{{"write", path, "{"}},
		{{"write", path, "[1]"}},
		{{"write", path, `{"a":1}{"b":2}`}},
		{{"write", path, ""}},
		{{"fill", path, "65537"}},
		{{"fill", path, "20000000"}},
		{{"write", path, "{}"}, {"bind", "/proc/version", path}},
		{{"write", path, "{}"}, {"bind", "/dev/zero", path}},
		{{"mount-tmpfs", "/run/bastide"}, {"write", path, "{}"}},
		{{"clear", "/run/bastide"}, {"mkdir", "/etc/own"}, {"write", "/etc/own/status.json", "{}"}, {"symlink", "/etc/own", "/run/bastide"}},
	} {
		w.must("bad", "clear", "/run/bastide")
		w.must("bad", "mkdir", "/run/bastide")
		for _, step := range trap {
			w.must("bad", step...)
		}
		// The other machine's next word was looked for after the trap was.
		next := fmt.Sprintf(`{"i":%d}`, i)
		w.must("good", "write", path, next)
		w.heard("good", next)
		next = fmt.Sprintf(`{"i":"again %d"}`, i)
		w.must("good", "write", path, next)
		w.refill()
		w.heard("good", next)
		if got := w.says("bad"); got != "" {
			t.Errorf("%v: %q", trap, got)
		}
	}
	w.must("bad", "clear", "/run/bastide")
	w.must("bad", "mkdir", "/run/bastide")
	w.must("bad", "fill", path, "65536")
	w.eventually("as much as may be is heard", func() bool { return len(w.says("bad")) == machine.GuestBytes })
}

// refill lets the machines speak on.
func (w *world) refill() {
	w.set(func() {
		for _, b := range w.boxes {
			b.guest.filled = time.Time{}
		}
	})
}

func TestGuestsBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g words
		count := func() (n int) {
			for g.allow(time.Now()) {
				n++
			}
			return n
		}
		if got := count(); got != guestBurst {
			t.Errorf("%d at once", got)
		}
		time.Sleep(3 * guestPause)
		if got := count(); got != 3 {
			t.Errorf("%d after three pauses", got)
		}
		time.Sleep(24 * time.Hour)
		if got := count(); got != guestBurst {
			t.Errorf("%d after a day", got)
		}
	})
}

// tryFile is what probes do to files beyond reading and writing.
func tryFile(what string, arg func(int) string) (out string, known bool, err error) {
	switch what {
	case "mode":
		info, err := os.Stat(arg(1))
		if err != nil {
			return "", true, err
		}
		return fmt.Sprintf("%o", info.Mode().Perm()), true, nil
	case "symlink":
		return "", true, os.Symlink(arg(1), arg(2))
	case "link":
		return "", true, os.Link(arg(1), arg(2))
	case "mkfifo":
		return "", true, unix.Mkfifo(arg(1), 0o666)
	case "socket":
		return "", true, unix.Mknod(arg(1), unix.S_IFSOCK|0o666, 0)
	case "fill": // with a JSON object of so many bytes
		var size int
		if _, err := fmt.Sscan(arg(2), &size); err != nil {
			return "", true, err
		}
		return "", true, os.WriteFile(arg(1), []byte(`{"a":"`+strings.Repeat("x", size-8)+`"}`), 0o644)
	case "bind":
		return "", true, unix.Mount(arg(1), arg(2), "", unix.MS_BIND, "")
	case "mount-tmpfs":
		return "", true, unix.Mount("tmpfs", arg(1), "tmpfs", 0, "")
	case "clear":
		for _, path := range []string{arg(1), machine.GuestPath} {
			for unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) == nil {
			}
		}
		return "", true, os.RemoveAll(arg(1))
	}
	return "", false, nil
}
