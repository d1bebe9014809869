// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bastide.dev/cgroup"
	"bastide.dev/fault"
	"bastide.dev/machine"
)

func TestCreateAndBoot(t *testing.T) {
	w := newWorld(t)
	s := spec("one")
	if err := w.Boot(t.Context(), s); !fault.Is(err, fault.Conflict) {
		t.Errorf("boot before create: %v", err)
	}
	if err := w.Create(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if got := w.status("one"); got.Phase != machine.Preparing || w.Netns("one") == "" {
		t.Errorf("created: %+v, netns %q", got, w.Netns("one"))
	}
	begin := time.Now()
	first := w.up(s)
	t.Logf("boot took %v", time.Since(begin))
	if first.Phase != machine.Running {
		t.Errorf("booted: %+v", first)
	}
	if again := w.up(s); again.PID != first.PID {
		t.Errorf("a running machine was restarted: %+v, %+v", first, again)
	}
	for _, probe := range []struct{ args, want string }{
		{"read /etc/secret", "of the image"},
		{"read /usr/local/bin/kit", "kit 1"},
		{"read /etc/bastide/node.json", "{}"},
		{"owner /etc/secret", "0:0"},
		{"owner /var/lib/containerd/meta.db", "0:0"},
		{"owner /var/lib/containerd/blobs/big", "65534:65534"},
		{"hostname", "one-host"},
		{"write /etc/secret mine", ""},
		{"read /etc/secret", "mine"},
		{"write /var/log/x mine", ""},
		{"write /dev/null x", ""},
	} {
		if got := w.must("one", strings.Fields(probe.args)...); got != probe.want {
			t.Errorf("%s = %q, want %q", probe.args, got, probe.want)
		}
	}
	const connections = "/proc/net/nf_conntrack" // which a kernel can be built without
	if _, err := os.Stat(connections); err == nil {
		if got := w.must("one", "owner", connections); got != "0:0" {
			t.Errorf("the machine's connections are for %s to read", got)
		}
	}
	image, err := os.ReadFile(filepath.Join(w.cfg.CacheDir, "images/1/rootfs/etc/secret"))
	if err != nil || string(image) != "of the image" {
		t.Errorf("the image now holds %q, %v", image, err)
	}
}

func TestAdoptAfterRestartOfTheHost(t *testing.T) {
	w := newWorld(t)
	before := w.up(spec("kept"))
	if err := w.Create(t.Context(), spec("halfway")); err != nil {
		t.Fatal(err)
	}
	w.restart()
	if after := w.up(spec("kept")); after.PID != before.PID {
		t.Errorf("not adopted: %+v, then %+v", before, after)
	}
	if got := w.status("halfway"); got.Phase != machine.Stopped {
		t.Errorf("a machine whose boot is lost: %+v", got)
	}
	w.up(spec("halfway"))
	// What was adopted is watched as well.
	if err := unix.Kill(before.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.awaitChange("kept", machine.Failed)
	w.up(spec("kept"))
}

// A guest that keeps its processes in groups of its own leaves them behind,
// with the controllers that it turned on, when its PID 1 is killed.
func TestBootsAgainWhereTheGuestMadeGroups(t *testing.T) {
	w := newWorld(t)
	before := w.up(spec("grouped"))
	if err := cgroup.Create(w.group("grouped")+"/root/pods", cgroup.Limits{}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(before.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.awaitChange("grouped", machine.Failed)
	w.up(spec("grouped"))
}

func (w *world) awaitChange(id string, phase machine.Phase) machine.Status {
	w.t.Helper()
	timeout := time.After(2 * time.Minute)
	for {
		select {
		case changed := <-w.Changed():
			if s := w.status(id); changed == id && s.Phase == phase {
				return s
			}
		case <-timeout:
			w.t.Fatalf("%s never became %s: %+v", id, phase, w.status(id))
		}
	}
}

func TestRebootKeepsAndReimageDrops(t *testing.T) {
	w := newWorld(t)
	s := spec("one")
	first := w.up(s)
	w.must("one", "write", "/etc/kept", "x")
	w.must("one", "write", "/var/lib/kubelet/kept", "x")

	s.Boots++
	second := w.up(s)
	if second.PID == first.PID || second.Boots != 1 {
		t.Errorf("no reboot: %+v, %+v", first, second)
	}
	w.must("one", "read", "/etc/kept")
	w.must("one", "read", "/var/lib/kubelet/kept")

	if err := unix.Kill(second.PID, unix.SIGHUP); err != nil { // the guest calls reboot(2)
		t.Fatal(err)
	}
	if got := w.awaitChange("one", machine.Stopped); got.Error != "" {
		t.Errorf("a reboot from inside counts as a failure: %+v", got)
	}
	w.up(s)
	w.must("one", "read", "/etc/kept")

	s.Images, s.Image, s.Layers = 1, "2", []string{"kit@2"}
	if got := w.up(s); got.Images != 1 {
		t.Errorf("reimaged: %+v", got)
	}
	for _, path := range []string{"/etc/kept", "/var/lib/kubelet/kept"} {
		if out, ok := w.in("one", "read", path); ok {
			t.Errorf("%s survived the reimage: %s", path, out)
		}
	}
	if got := w.must("one", "read", "/usr/local/bin/kit"); got != "kit 2" {
		t.Errorf("layers after the reimage: %q", got)
	}
}

func TestStopKeepsTheDisk(t *testing.T) {
	w := newWorld(t)
	first := w.up(spec("one"))
	w.must("one", "write", "/etc/kept", "x")
	if err := w.Stop(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	if got := w.status("one"); got.Phase != machine.Stopped || got.Error != "" || alive(first.PID) {
		t.Errorf("stopped: %+v", got)
	}
	w.restart()
	w.up(spec("one"))
	w.must("one", "read", "/etc/kept")
}

func TestDeleteLeavesNothing(t *testing.T) {
	w := newWorld(t)
	mounts := mountinfo(t)
	status := w.up(spec("one"))
	w.must("one", "leave") // a process that outlives its parent
	slot := w.boxes["one"].disk.Slot
	begin := time.Now()
	if err := w.Delete(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 300*time.Millisecond {
		t.Errorf("took %v", took)
	}
	if alive(status.PID) || w.Netns("one") != "" || w.status("one").ID != "" {
		t.Error("still there")
	}
	hierarchies, err := cgroup.Hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range hierarchies {
		if _, err := os.Stat(filepath.Join(h.Mount, w.group("one"))); !os.IsNotExist(err) {
			t.Errorf("cgroup left in %s: %v", h.Mount, err)
		}
	}
	if now := mountinfo(t); now != mounts {
		t.Errorf("mounts before:\n%s\nafter:\n%s", mounts, now)
	}
	for _, path := range []string{w.machineDir("one"), w.runFile("one")} {
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("%s: %v", path, err)
		}
	}
	w.eventually("the trash is empty", func() bool {
		left, err := os.ReadDir(w.trashDir())
		return err == nil && len(left) == 0
	})
	if err := w.Delete(t.Context(), "one"); err != nil {
		t.Errorf("again: %v", err)
	}
	w.up(spec("two"))
	if got := w.boxes["two"].disk.Slot; got != slot {
		t.Errorf("the ids weren't freed: slot %d, then %d", slot, got)
	}
}

func mountinfo(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var ours [][]byte
	for line := range bytes.Lines(data) {
		if bytes.Contains(line, []byte("machine")) || bytes.Contains(line, []byte("overlay")) {
			ours = append(ours, line)
		}
	}
	return string(bytes.Join(ours, nil))
}

func TestHalvesOfAKilledCreateGo(t *testing.T) {
	w := newWorld(t)
	if err := os.MkdirAll(filepath.Join(w.machineDir("half"), "data/upper"), 0o700); err != nil {
		t.Fatal(err)
	}
	w.restart()
	if got := w.status("half"); got.ID != "" {
		t.Errorf("%+v", got)
	}
	w.up(spec("half"))
}

func TestLimitsAreReal(t *testing.T) {
	w := newWorld(t)
	w.up(spec("small"))
	if out, ok := w.in("small", "limited", "eat", "600"); ok || !strings.Contains(out, "killed") {
		t.Errorf("600 MiB in a machine of 256: %v %s", ok, out)
	}
	out := w.must("small", "limited", "spin")
	spent, err := time.ParseDuration(out)
	if err != nil {
		t.Fatal(err)
	}
	// Four threads for a second of wall time; one CPU may give little more than one second.
	if spent > 1300*time.Millisecond {
		t.Errorf("one CPU gave %v in a second", spent)
	}
}

func TestRefusals(t *testing.T) {
	w := newWorld(t)
	s := machine.Spec{ID: "../x", Image: "9", CPUs: 0, Files: []machine.File{{Path: "rel"}}}
	err := w.Create(t.Context(), s)
	f := fault.From(err)
	if f == nil || f.Kind != fault.Invalid || len(f.Details) != 4 {
		t.Errorf("%v", err)
	}
}
