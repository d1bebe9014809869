// SPDX-License-Identifier: Apache-2.0

package instance

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"bastide.dev/fault"
)

// slotDir is the same for all instances of a machine, wherever their state is.
func slotDir() string { return filepath.Join(defaultRoot, ".slots") }

// Place gives a new instance its slot on this machine and completes its
// settings by it. An instance that was placed before keeps its slot. Pools of
// two instances can't overlap.
func Place(asked Settings) (*Instance, error) { return place(slotDir(), asked) }

// Leave gives the instance's slot back, once nothing of it is left.
func Leave(name string) error { return leave(slotDir(), name) }

func place(dir string, asked Settings) (*Instance, error) {
	unlock, err := lockSlots(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	name := asked.Complete(0).Name
	slots, err := readSlots(dir)
	if err != nil {
		return nil, err
	}
	slot, err := freeSlot(slots, name)
	if err != nil {
		return nil, err
	}
	in := &Instance{Settings: asked.Complete(slot), Slot: slot}
	if err := in.Validate(); err != nil {
		return nil, err
	}
	for other, holder := range slots {
		if other != slot && holder.pool.Overlaps(in.PublicPool) {
			return nil, fault.New(fault.Invalid, "PoolInUse", "The public pool %s overlaps with %s of the instance %q on this machine.", in.PublicPool, holder.pool, holder.name).At("--public-pool")
		}
	}
	// A link's target is read and written in one piece.
	link := filepath.Join(dir, fmt.Sprintf("%02d", slot))
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("slot: %w", err)
	}
	if err := os.Symlink(in.Name+" "+in.PublicPool.String(), link); err != nil {
		return nil, fmt.Errorf("slot: %w", err)
	}
	return in, nil
}

func leave(dir, name string) error {
	unlock, err := lockSlots(dir)
	if err != nil {
		return err
	}
	defer unlock()
	slots, err := readSlots(dir)
	if err != nil {
		return err
	}
	for slot, holder := range slots {
		if holder.name == name {
			return os.Remove(filepath.Join(dir, fmt.Sprintf("%02d", slot)))
		}
	}
	return nil
}

type holder struct {
	name string
	pool netip.Prefix
}

func lockSlots(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, fmt.Errorf("slot: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("slot: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("slot: %w", err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

func readSlots(dir string) (map[int]holder, error) {
	slots := map[int]holder{}
	for slot := range Slots {
		target, err := os.Readlink(filepath.Join(dir, fmt.Sprintf("%02d", slot)))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("slot: %w", err)
		}
		name, text, _ := strings.Cut(target, " ")
		pool, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("slot %d of %s: %w", slot, name, err)
		}
		slots[slot] = holder{name, pool}
	}
	return slots, nil
}

func freeSlot(slots map[int]holder, name string) (int, error) {
	for slot, holder := range slots {
		if holder.name == name {
			return slot, nil
		}
	}
	var names []string
	for slot := range Slots {
		holder, taken := slots[slot]
		if !taken {
			return slot, nil
		}
		names = append(names, holder.name)
	}
	return 0, fault.New(fault.Exhausted, "TooManyInstances", "This machine has %d instances already (%s): remove one with `bastide clean --instance NAME`.", Slots, strings.Join(names, ", "))
}
