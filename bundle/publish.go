// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"bastide.dev/fault"
)

// storeDir holds bundles under the digest of their inputs; bundles/<name>@<version>
// links to the current one.
func storeDir(cacheDir string) string { return filepath.Join(cacheDir, "bundles", ".store") }

func storePath(cacheDir string, m *Manifest) string {
	_, digest := cutDigest(m.Inputs)
	return filepath.Join(storeDir(cacheDir), m.ID()+"-"+digest[:16])
}

// publish makes a bundle of what fill puts into a fresh root, and makes it the
// current one of its name and version. The caller holds the bundle's lock.
func publish(cacheDir string, m Manifest, fill func(root string) error) (*Bundle, error) {
	tmp, err := os.MkdirTemp(storeDir(cacheDir), ".tmp-")
	if err != nil {
		return nil, fmt.Errorf("make room for %s: %w", m.ID(), err)
	}
	defer os.RemoveAll(tmp)
	root := filepath.Join(tmp, rootDir)
	if err := os.Mkdir(root, 0o755); err != nil {
		return nil, err
	}
	if err := fill(root); err != nil {
		return nil, err
	}
	if err := openUp(tmp); err != nil {
		return nil, err
	}
	if m.Files, err = describe(root); err != nil {
		return nil, err
	}
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(tmp, manifestFile), append(data, '\n'), 0o644); err != nil {
		return nil, err
	}
	dir := storePath(cacheDir, &m)
	// What stands there is damaged, or it would have been taken as it is.
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return nil, fmt.Errorf("publish %s: %w", m.ID(), err)
	}
	if err := point(cacheDir, &m); err != nil {
		return nil, err
	}
	return openDir(dir)
}

// point makes bundles/<name>@<version> lead to the bundle in the store.
func point(cacheDir string, m *Manifest) error {
	link := linkPath(cacheDir, m.Name, m.Version)
	target := filepath.Join(".store", filepath.Base(storePath(cacheDir, m)))
	if now, err := os.Readlink(link); err == nil && now == target {
		return nil
	}
	tmp := link + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("point %s: %w", m.ID(), err)
	}
	if err := os.Symlink(target, tmp); err != nil {
		return fmt.Errorf("point %s: %w", m.ID(), err)
	}
	if err := os.Rename(tmp, link); err != nil {
		return fmt.Errorf("point %s: %w", m.ID(), err)
	}
	return nil
}

// openUp makes everything readable and runnable by the foreign uids of control
// planes and machines, and writable by none of them.
func openUp(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink != 0 {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if d.IsDir() || info.Mode().Perm()&0o111 != 0 {
			mode = 0o755
		}
		return os.Chmod(path, mode)
	})
}

// lockRetry is how often a builder looks whether the other one is done; the
// kernel's blocking lock can't be left when the context ends.
const lockRetry = 100 * time.Millisecond

// lock keeps other builders of the same bundle away until unlock is called.
func lock(ctx context.Context, cacheDir, id string) (unlock func(), err error) {
	if err := os.MkdirAll(storeDir(cacheDir), 0o755); err != nil {
		return nil, fmt.Errorf("prepare bundle cache: %w", err)
	}
	// Whatever the umask: other uids run what is in there.
	for _, dir := range []string{cacheDir, filepath.Dir(storeDir(cacheDir)), storeDir(cacheDir)} {
		if err := os.Chmod(dir, 0o755); err != nil {
			return nil, fmt.Errorf("prepare bundle cache: %w", err)
		}
	}
	f, err := os.OpenFile(filepath.Join(storeDir(cacheDir), "."+id+".lock"), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock bundle %s: %w", id, err)
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock bundle %s: %w", id, err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("wait for the other builder of %s: %w", id, ctx.Err()), f.Close())
		case <-time.After(lockRetry):
		}
	}
}

// Remove forgets a bundle: an imported one gives way to the built one again. Its
// files stay for what runs from them, until Prune.
func Remove(cacheDir, name, version string) error {
	if !namePattern.MatchString(name) || !versionPattern.MatchString(version) {
		return fault.New(fault.Invalid, "InvalidBundle", "%q is not the name and version of a bundle.", name+"@"+version)
	}
	err := os.Remove(linkPath(cacheDir, name, version))
	if errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.NotFound, "BundleNotFound", "Bundle %s@%s is not on this machine.", name, version)
	}
	return err
}

// Prune deletes the files of bundles that were built anew or removed. It is to be
// called when no instance on this machine runs: it can't see who uses them.
func Prune(cacheDir string) error {
	links, err := filepath.Glob(filepath.Join(cacheDir, "bundles", "*@*"))
	if err != nil {
		return err
	}
	current := map[string]bool{}
	for _, link := range links {
		if dir, err := os.Readlink(link); err == nil {
			current[filepath.Base(dir)] = true
		}
	}
	stored, err := filepath.Glob(filepath.Join(storeDir(cacheDir), "*@*-*"))
	if err != nil {
		return err
	}
	for _, dir := range stored {
		if !current[filepath.Base(dir)] {
			if err := os.RemoveAll(dir); err != nil {
				return fmt.Errorf("prune bundles: %w", err)
			}
		}
	}
	return nil
}
