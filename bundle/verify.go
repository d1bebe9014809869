// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// verify compares a bundle's directory with its manifest and gives every
// difference found.
func verify(dir string, m *Manifest) error {
	known := readStamp(dir)
	seen := make(stamp, len(m.Files))
	want := make(map[string]bool, len(m.Files))
	var problems []error
	for _, f := range m.Files {
		want[f.Path] = true
		id, err := verifyFile(filepath.Join(dir, rootDir), f, known)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		seen[f.Path] = id
	}
	problems = append(problems, strangers(filepath.Join(dir, rootDir), want)...)
	if len(problems) > 0 {
		return errors.Join(problems...)
	}
	if !maps.Equal(known, seen) {
		writeStamp(dir, seen)
	}
	return nil
}

// verifyFile checks one file. Its content is read unless it is the very file,
// unchanged, whose digest was right before.
func verifyFile(root string, f File, known stamp) (identity, error) {
	if !filepath.IsLocal(f.Path) {
		return identity{}, fmt.Errorf("%s: leads out of the bundle", f.Path)
	}
	path := filepath.Join(root, f.Path)
	info, err := os.Lstat(path)
	if err != nil {
		return identity{}, fmt.Errorf("%s: %w", f.Path, err)
	}
	if f.Link != "" {
		return identity{}, verifyLink(path, f)
	}
	if info.Mode() != f.Mode.Perm() { // a regular file, and no setuid
		return identity{}, fmt.Errorf("%s: mode %v instead of %v", f.Path, info.Mode(), f.Mode)
	}
	id, err := identify(path)
	if err != nil {
		return identity{}, err
	}
	id.SHA256 = f.SHA256
	if known[f.Path] == id {
		return id, nil
	}
	digest, err := fileDigest(path)
	if err != nil {
		return identity{}, err
	}
	if digest != f.SHA256 || info.Size() != f.Size {
		return identity{}, fmt.Errorf("%s: digest %s instead of %s", f.Path, digest, f.SHA256)
	}
	return id, nil
}

func verifyLink(path string, f File) error {
	if filepath.IsAbs(f.Link) || !filepath.IsLocal(filepath.Join(filepath.Dir(f.Path), f.Link)) {
		return fmt.Errorf("%s: links out of the bundle, to %s", f.Path, f.Link)
	}
	target, err := os.Readlink(path)
	if err != nil {
		return fmt.Errorf("%s: %w", f.Path, err)
	}
	if target != f.Link {
		return fmt.Errorf("%s: links to %s instead of %s", f.Path, target, f.Link)
	}
	return nil
}

// strangers are files below root that the manifest doesn't know.
func strangers(root string, want map[string]bool) []error {
	var problems []error
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return nil
		}
		rel, err := filepath.Rel(root, path)
		if err == nil && !want[rel] {
			problems = append(problems, fmt.Errorf("%s: not in the manifest", rel))
		}
		return err
	})
	if err != nil {
		problems = append(problems, err)
	}
	return problems
}

// stamp remembers which files had the right digest. The kernel changes ctime
// with every write, rename or change of mode, and no one can set it back.
type stamp map[string]identity

type identity struct {
	SHA256        string
	Device, Inode uint64
	Size          int64
	MTime, CTime  int64 // nanoseconds
	UID           uint32
}

const stampFile = "stamp.json"

func identify(path string) (identity, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return identity{}, fmt.Errorf("stat %s: %w", path, err)
	}
	return identity{Device: st.Dev, Inode: st.Ino, Size: st.Size, UID: st.Uid,
		MTime: unix.TimespecToNsec(st.Mtim), CTime: unix.TimespecToNsec(st.Ctim)}, nil
}

// readStamp returns nothing when the stamp isn't ours alone: then all is read again.
func readStamp(dir string) stamp {
	path := filepath.Join(dir, stampFile)
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil || int(st.Uid) != os.Geteuid() || st.Mode != unix.S_IFREG|0o600 {
		return nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	var s stamp
	if json.Unmarshal(data, &s) != nil {
		return nil
	}
	return s
}

// writeStamp may fail, for whoever can only read the cache: then the next one
// verifies all again.
func writeStamp(dir string, s stamp) {
	data, err := json.Marshal(s)
	if err == nil {
		_ = writeFile(filepath.Join(dir, stampFile), data, 0o600)
	}
}

// writeFile replaces a file atomically.
func writeFile(path string, data []byte, mode fs.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".tmp-")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // fails after the rename, as it should
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Close())
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// describe lists the files below root for a manifest, with their digests.
func describe(root string) ([]File, error) {
	var files []File
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := describeFile(root, path)
		files = append(files, f)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("describe files: %w", err)
	}
	slices.SortFunc(files, func(a, b File) int {
		if a.Path < b.Path {
			return -1
		}
		return 1
	})
	return files, nil
}

func describeFile(root, path string) (File, error) {
	rel, err := filepath.Rel(root, path)
	if err != nil {
		return File{}, err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return File{}, err
	}
	f := File{Path: rel, Mode: info.Mode().Perm()}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		f.Link, err = os.Readlink(path)
	case info.Mode().IsRegular():
		f.Size = info.Size()
		f.SHA256, err = fileDigest(path)
	default:
		err = fmt.Errorf("%s: a bundle holds files and links only", rel)
	}
	return f, err
}

func fileDigest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("digest: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("digest %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
