// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bastide.dev/controlplane"
)

// A disk that is full takes no copy of etcd, and without one there is no other
// version: who waits is told, the former serves, and when there is room again it
// comes by itself.
func TestFullDisk(t *testing.T) {
	r := newRig(t)
	spec := r.spec("a-full")
	spec.Version = "1.35.4"
	r.apply(spec)
	r.until(spec.ID, "ready", ready)
	l := newLoad(r, spec)
	dir := r.Plane.dir(spec.ID, backupsDir)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4k,mode=0700"); err != nil {
		t.Fatal(err)
	}
	full := true
	room := func() {
		if full {
			full = false
			if err := unix.Unmount(dir, 0); err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(room)
	r.ReadyWithin = 2 * time.Second
	spec.Version = "1.36.3"
	// Its host applies it again whenever its status changed.
	again := func(ok func(controlplane.Status) bool) func(controlplane.Status) bool {
		return func(s controlplane.Status) bool {
			if ok(s) {
				return true
			}
			r.apply(spec)
			return false
		}
	}
	status := r.until(spec.ID, "told", again(func(s controlplane.Status) bool { return s.Refused != "" }))
	if !strings.Contains(status.Refused, "no space left") || status.Version != "1.35.4" || status.Phase != controlplane.Ready {
		t.Errorf("%+v", status)
	}
	r.ReadyWithin = 0
	room()
	r.until(spec.ID, "upgraded", again(func(s controlplane.Status) bool { return ready(s) && s.Version == "1.36.3" && s.Refused == "" }))
	l.end()
	r.onlyOne(spec.ID, controlplane.SecondSlot)
}
