// SPDX-License-Identifier: Apache-2.0

package nodeimage

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// perBuild are files that differ from one build to the next, that each machine
// must make for itself, or that only the building needed.
func perBuild() []string {
	return []string{
		"dev/*", "run/*", "tmp/*", "etc/hostname", "etc/resolv.conf", "etc/ssh/ssh_host_*", "etc/*-", "etc/.pwd.lock",
		"var/lib/apt/lists/*", "var/cache/apt/*", "var/cache/debconf/*-old", "var/cache/ldconfig/*", "var/lib/dpkg/*-old",
		"var/log/*.log", "var/log/apt/*", "var/lib/systemd/random-seed",
	}
}

// tidy takes away what perBuild names and sets every time newer than the epoch to it.
func tidy(root string, epoch int64) error {
	for _, pattern := range perBuild() {
		paths, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return err
		}
		for _, path := range paths {
			if err := os.RemoveAll(path); err != nil {
				return fmt.Errorf("tidy: %w", err)
			}
		}
	}
	// An empty one is filled at a machine's first boot.
	machineID := filepath.Join(root, "etc/machine-id")
	if err := errors.Join(os.WriteFile(machineID, nil, 0o444), os.Chmod(machineID, 0o444)); err != nil {
		return fmt.Errorf("tidy: %w", err)
	}
	for _, log := range []string{"btmp", "wtmp", "lastlog", "faillog"} {
		err := os.Truncate(filepath.Join(root, "var/log", log), 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // not every release has all of them
			return fmt.Errorf("tidy: %w", err)
		}
	}
	return clampTimes(root, epoch)
}

func clampTimes(root string, epoch int64) error {
	at := unix.Timespec{Sec: epoch}
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil || info.ModTime().Unix() <= epoch {
			return err
		}
		return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW)
	})
}

// treeDigest is one digest of all names, modes, owners, devices, link targets and
// contents below root. Times are left out: a copy may change those of directories.
func treeDigest(root string) (string, error) {
	h := sha256.New()
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return fmt.Errorf("stat %s: %w", path, err)
		}
		fmt.Fprintf(h, "%q %o %d %d %d\n", rel, st.Mode, st.Uid, st.Gid, st.Rdev)
		return digestContent(h, path, st.Mode)
	})
	return hex.EncodeToString(h.Sum(nil)), err
}

func digestContent(h hash.Hash, path string, mode uint32) error {
	switch mode & unix.S_IFMT {
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		fmt.Fprintf(h, "link %q\n", target)
		return err
	case unix.S_IFREG:
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		content := sha256.New()
		if _, err := io.Copy(content, f); err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		fmt.Fprintf(h, "file %x\n", content.Sum(nil))
	}
	return nil
}

// linkTree makes to a copy of from that shares its files: images never change.
func linkTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if !d.IsDir() {
			return unix.Linkat(unix.AT_FDCWD, path, unix.AT_FDCWD, target, 0)
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		if err := os.Mkdir(target, 0o700); err != nil {
			return err
		}
		if err := os.Chown(target, int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
		return unix.Chmod(target, st.Mode&0o7777)
	})
}
