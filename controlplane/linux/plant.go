// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"bastide.dev/bundle"
	"bastide.dev/controlplane"
	"bastide.dev/fault"
)

// TakeSnapshot copies the etcd of a control plane that another process keeps;
// netns is where its network namespace is.
func TakeSnapshot(ctx context.Context, netns func(name string) string, spec controlplane.Spec, to io.Writer) (Snapshot, error) {
	return (&Plane{Config: Config{Netns: netns}}).snapshot(ctx, spec, to)
}

// Plant gives a control plane that was never started here the data of a
// snapshot, for its first start to find. It may be repeated after a kill.
func (p *Plane) Plant(ctx context.Context, id, etcd string, snapshot io.Reader) error {
	if !idForm(id) {
		return fault.New(fault.Invalid, "", "%q is not the ID of a control plane.", id)
	}
	uid, err := p.ensureDirs(id)
	if err != nil {
		return err
	}
	if _, err := os.Stat(p.dir(id, etcdDir, "member")); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(fault.New(fault.Conflict, "", "Control plane %s has data already.", id), err)
	}
	made := p.dir(id, etcdDir, ".planted")
	if err := os.RemoveAll(made); err != nil { // of a killed one
		return fmt.Errorf("plant %s: %w", id, err)
	}
	file := p.dir(id, etcdDir, ".snapshot")
	if err := copyOwned(file, snapshot, uid); err != nil {
		return fmt.Errorf("plant %s: %w", id, err)
	}
	if err := RestoreAs(ctx, p.CacheDir, etcd, uid, controlplane.RestoreArgs(file, made)); err != nil {
		return fmt.Errorf("plant %s: %w", id, err)
	}
	err = errors.Join(os.Rename(filepath.Join(made, "member"), p.dir(id, etcdDir, "member")), os.RemoveAll(made), os.Remove(file))
	if err != nil {
		return fmt.Errorf("plant %s: %w", id, err)
	}
	return nil
}

func idForm(id string) bool { return id != "" && id != "." && id != ".." && filepath.Base(id) == id }

// copyOwned writes a file that belongs to an ordinary user.
func copyOwned(path string, from io.Reader, uid int) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Chown(uid, uid), f.Close())
}

// RestoreAs runs etcdutl of an etcd bundle as an ordinary user: what it reads
// comes from outside.
func RestoreAs(ctx context.Context, cache, etcd string, uid int, args []string) error {
	parts, err := bundle.Open(cache, "etcd", etcd)
	if err != nil {
		return err
	}
	program := parts.Path("etcdutl")
	if program == "" {
		return fault.New(fault.NotFound, "BundleIncomplete", "Bundle %s has no etcdutl: build it anew with `bastide bundle build etcd`.", parts.ID())
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = "/", []string{"HOME=/nonexistent"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil {
		text := strings.TrimSpace(output.String())
		return fmt.Errorf("etcdutl: %w: %s", err, text[max(0, len(text)-400):])
	}
	return nil
}

// PlantFiles is Plant for a copy of the data directory of an etcd that was
// stopped.
func (p *Plane) PlantFiles(id, dir string) error {
	if !idForm(id) {
		return fault.New(fault.Invalid, "", "%q is not the ID of a control plane.", id)
	}
	uid, err := p.ensureDirs(id)
	if err != nil {
		return err
	}
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("plant %s: %w", id, err)
		}
		below, err := filepath.Rel(dir, path)
		if err != nil || below == "." {
			return err
		}
		target := p.dir(id, etcdDir, below)
		if entry.IsDir() {
			return errors.Join(os.MkdirAll(target, 0o700), os.Lchown(target, uid, uid))
		}
		from, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("plant %s: %w", id, err)
		}
		return errors.Join(copyOwned(target, from, uid), from.Close())
	})
}
