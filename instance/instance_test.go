// SPDX-License-Identifier: Apache-2.0

package instance

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"bastide.dev/fault"
)

func TestInstancesNeverMeet(t *testing.T) {
	dir := t.TempDir()
	var all []*Instance
	for n := range 5 {
		in, err := place(dir, Settings{Name: fmt.Sprintf("i%d", n)})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, in)
	}
	for a, one := range all {
		for _, other := range all[a+1:] {
			if one.PublicPool.Overlaps(other.PublicPool) || one.Loopback() == other.Loopback() || one.StateDir == other.StateDir || one.Domain == other.Domain {
				t.Errorf("%+v and %+v meet", one, other)
			}
			if one.MachineUIDs()+3000*uidsPerMachine > other.ServeUID() {
				t.Errorf("uids of slots %d and %d meet", one.Slot, other.Slot)
			}
		}
	}
	if _, err := place(dir, Settings{Name: "sixth"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("no default pool is left, but: %v", err)
	}
	if _, err := place(dir, Settings{Name: "sixth", PublicPool: netip.MustParsePrefix("192.88.99.0/26")}); !fault.Is(err, fault.Invalid) {
		t.Errorf("another's pool: %v", err)
	}
}

func TestPlaceIsKeptAndGivenBack(t *testing.T) {
	dir := t.TempDir()
	first, err := place(dir, Settings{Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	again, err := place(dir, Settings{Name: "a"})
	if err != nil || again.Slot != first.Slot {
		t.Errorf("%v %v", again, err)
	}
	if err := leave(dir, "a"); err != nil {
		t.Fatal(err)
	}
	other, err := place(dir, Settings{Name: "b"})
	if err != nil || other.Slot != first.Slot {
		t.Errorf("the slot wasn't given back: %v %v", other, err)
	}
}

func TestPlaceAtOnce(t *testing.T) {
	dir := t.TempDir()
	var placing sync.WaitGroup
	slots := make([]int, 4)
	for n := range slots {
		placing.Go(func() {
			in, err := place(dir, Settings{Name: fmt.Sprintf("i%d", n)})
			if err != nil {
				t.Error(err)
				return
			}
			slots[n] = in.Slot
		})
	}
	placing.Wait()
	seen := map[int]bool{}
	for _, s := range slots {
		if seen[s] {
			t.Errorf("two instances in slot %d", s)
		}
		seen[s] = true
	}
}

func TestValidateTellsAll(t *testing.T) {
	bad := Settings{Name: "Not a name", Domain: "one", StateDir: "relative", PublicPool: netip.MustParsePrefix("192.88.99.1/30")}.Complete(0)
	f := fault.From(bad.Validate())
	if len(f.Details) != 4 {
		t.Errorf("%d problems: %v", len(f.Details), f)
	}
}

func TestSaveAndLoad(t *testing.T) {
	in := &Instance{Settings: Settings{Name: "a", StateDir: t.TempDir()}.Complete(3), Slot: 3, Tenant: "t"}
	if err := in.Save(); err != nil {
		t.Fatal(err)
	}
	got, err := Load("a", in.StateDir)
	if err != nil || *got != *in {
		t.Errorf("%+v %v", got, err)
	}
	if _, err := Load("a", t.TempDir()); !fault.Is(err, fault.NotFound) {
		t.Errorf("none: %v", err)
	}
}
