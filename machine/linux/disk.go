// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"bastide.dev/fault"
	"bastide.dev/machine"
)

// disk is what a machine has on disk, kept in its directory as machine.json.
type disk struct {
	Slot   uint32   `json:"slot"` // which range of ids is its own
	Image  string   `json:"image"`
	Layers []string `json:"layers,omitempty"`
	Images int64    `json:"images"`
}

// ownDirs are the parts of a machine's data that aren't in the overlay, by
// where they stand inside: an overlay can't hold another one's layers.
var ownDirs = []struct{ name, path string }{
	{"containerd", "/var/lib/containerd"},
	{"kubelet", "/var/lib/kubelet"},
	{"log", "/var/log"},
}

func (p *Provider) base(slot uint32) int { return int(p.cfg.UIDBase + slot*Range) }

// prepareDisk makes the machine's directories, or makes them anew for a reimage.
func (p *Provider) prepareDisk(ctx context.Context, b *box, spec machine.Spec) error {
	if b.disk.Image != "" && spec.Images <= b.disk.Images {
		return nil
	}
	want := disk{Slot: b.disk.Slot, Image: spec.Image, Layers: spec.Layers, Images: spec.Images}
	fresh := b.disk.Image == ""
	if fresh {
		slot, err := p.takeSlot(b)
		if err != nil {
			return err
		}
		want.Slot = slot
	}
	if err := p.trash.take(p.machineDir(spec.ID)); err != nil {
		return err
	}
	if err := p.makeDisk(ctx, want, p.machineDir(spec.ID)); err != nil {
		p.set(func() { b.disk = disk{} })
		return errors.Join(err, p.trash.take(p.machineDir(spec.ID)))
	}
	p.set(func() { b.disk, b.run = want, run{} })
	return nil
}

// takeSlot finds a free range of ids and reserves it for b.
func (p *Provider) takeSlot(b *box) (uint32, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	used := map[uint32]bool{}
	for _, other := range p.boxes {
		if other != b && (other.disk.Image != "" || other.disk.Slot != 0) {
			used[other.disk.Slot] = true
		}
	}
	// Slot 0 stays free: it stands for none.
	for slot := uint32(1); slot < (1<<32-1-p.cfg.UIDBase)/Range; slot++ {
		if !used[slot] {
			b.disk.Slot = slot
			return slot, nil
		}
	}
	return 0, fault.New(fault.Exhausted, "OutOfIDs", "No range of user ids is left for another machine.")
}

// makeDisk ends with the record: a directory without one is a creation that was cut short.
func (p *Provider) makeDisk(ctx context.Context, d disk, dir string) error {
	base := p.base(d.Slot)
	data := filepath.Join(dir, "data")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	dirs := []string{data, filepath.Join(data, "upper"), filepath.Join(data, "work")}
	for _, own := range ownDirs {
		dirs = append(dirs, filepath.Join(data, own.name))
	}
	for _, path := range dirs {
		if err := makeDir(path, base); err != nil {
			return err
		}
	}
	template := filepath.Join(p.imageDir(d.Image), "containerd")
	if _, err := os.Stat(template); err == nil {
		if err := plant(ctx, template, filepath.Join(data, "containerd"), base); err != nil {
			return fmt.Errorf("containerd template: %w", err)
		}
	}
	return writeJSON(filepath.Join(dir, "machine.json"), d)
}

// makeDir makes a directory that everybody in the machine may enter, whatever
// this process's umask is: upper is the machine's "/".
func makeDir(path string, owner int) error {
	if err := os.Mkdir(path, 0o755); err != nil {
		return err
	}
	return errors.Join(os.Chmod(path, 0o755), os.Chown(path, owner, owner))
}

// readDisks finds the machines on disk and throws away halves.
func (p *Provider) readDisks() (map[string]disk, error) {
	entries, err := os.ReadDir(p.machinesDir())
	if err != nil {
		return nil, err
	}
	disks := map[string]disk{}
	for _, entry := range entries {
		var d disk
		err := readJSON(filepath.Join(p.machineDir(entry.Name()), "machine.json"), &d)
		switch {
		case err == nil && d.Image != "" && d.Slot != 0:
			disks[entry.Name()] = d
		case errors.Is(err, fs.ErrNotExist):
			if err := p.trash.take(p.machineDir(entry.Name())); err != nil {
				return nil, err
			}
		default:
			return nil, fmt.Errorf("read the disk of %s: %w", entry.Name(), err)
		}
	}
	return disks, nil
}

// writeJSON replaces the file as a whole.
func writeJSON(path string, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func readJSON(path string, value any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, value)
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
