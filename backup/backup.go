// SPDX-License-Identifier: Apache-2.0

// Package backup writes and reads archives of an instance: everything that
// can't be made again, encrypted for whoever is to restore it.
//
// An archive is an age file (age-encryption.org/v1) that holds a tar: the
// manifest first, then the files, then an end mark. age authenticates every
// part of it and that it is whole; who can't decrypt it learns its length and
// nothing else. Only cmd imports it.
package backup

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"

	"bastide.dev/fault"
)

// Format is the archive's; another one isn't read.
const Format = 1

const (
	manifestName = "manifest.json"
	endName      = "end"
	// manifestBytes bounds what is read before anything is known of an archive.
	manifestBytes = 1 << 20
)

// Manifest says what an archive is of.
type Manifest struct {
	Format   int       `json:"format"`
	Instance string    `json:"instance"`
	Domain   string    `json:"domain"`
	Made     time.Time `json:"made"`
	Program  string    `json:"program"`            // the version that made it
	Clusters []string  `json:"clusters,omitempty"` // ids of control planes whose etcd is in it
}

// Writer writes one archive. Close ends it; without that it is no archive.
type Writer struct {
	sealed io.WriteCloser
	tar    *tar.Writer
}

// NewWriter begins an archive on w.
func NewWriter(w io.Writer, m Manifest, recipients ...age.Recipient) (*Writer, error) {
	sealed, err := age.Encrypt(w, recipients...)
	if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	b := &Writer{sealed, tar.NewWriter(sealed)}
	m.Format = Format
	text, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("backup: manifest: %w", err)
	}
	return b, b.Add(manifestName, int64(len(text)), strings.NewReader(string(text)))
}

// Add adds a file of size bytes under a slash-separated name.
func (b *Writer) Add(name string, size int64, from io.Reader) error {
	if err := b.tar.WriteHeader(&tar.Header{Name: name, Size: size, Mode: 0o600, Format: tar.FormatPAX}); err != nil {
		return fmt.Errorf("backup: %s: %w", name, err)
	}
	if _, err := io.Copy(b.tar, from); err != nil {
		return fmt.Errorf("backup: %s: %w", name, err)
	}
	return nil
}

// AddFile adds a file of the disk.
func (b *Writer) AddFile(name, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	// A file that grows meanwhile is taken as long as it was.
	return b.Add(name, info.Size(), io.LimitReader(f, info.Size()))
}

// AddTree adds the regular files below dir, and nothing that links lead to.
func (b *Writer) AddTree(name, dir string) error {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	defer func() { _ = root.Close() }() // of a directory: nothing is written by it
	return fs.WalkDir(root.FS(), ".", func(file string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		return b.AddFile(path.Join(name, file), filepath.Join(dir, file))
	})
}

// Close writes the end mark.
func (b *Writer) Close() error {
	err := b.Add(endName, 0, strings.NewReader(""))
	if err := errors.Join(err, b.tar.Close(), b.sealed.Close()); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	return nil
}

// Unpack reads a whole archive into dir, which must be empty or not there yet.
// Its files are root's alone. What it returns without an error is complete and
// as it was written.
func Unpack(from io.Reader, dir string, identities ...age.Identity) (Manifest, error) {
	var m Manifest
	opened, err := age.Decrypt(from, identities...)
	if err != nil {
		return m, fault.New(fault.Invalid, "BackupUnreadable", "The backup can't be opened with this key, or is none.").Because(err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return m, fmt.Errorf("restore: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return m, fmt.Errorf("restore: %w", err)
	}
	defer func() { _ = root.Close() }() // of a directory: nothing is written by it
	reader := tar.NewReader(opened)
	if m, err = readManifest(reader); err != nil {
		return m, err
	}
	for {
		header, err := reader.Next()
		switch {
		case errors.Is(err, io.EOF):
			return m, damaged(errors.New("no end mark"))
		case err != nil:
			return m, damaged(err)
		case header.Name == endName:
			// The rest is read, too: only then age has seen that it is whole.
			if _, err := io.Copy(io.Discard, opened); err != nil {
				return m, damaged(err)
			}
			return m, nil
		}
		if err := unpackOne(root, header, reader); err != nil {
			return m, err
		}
	}
}

func damaged(cause error) error {
	return fault.New(fault.Invalid, "BackupDamaged", "The backup is damaged or cut short.").Because(cause)
}

func readManifest(reader *tar.Reader) (Manifest, error) {
	var m Manifest
	header, err := reader.Next()
	if err != nil {
		return m, damaged(err)
	}
	if header.Name != manifestName || header.Size > manifestBytes {
		return m, damaged(fmt.Errorf("it begins with %q", header.Name))
	}
	text, err := io.ReadAll(reader)
	if err != nil {
		return m, damaged(err)
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, damaged(err)
	}
	if m.Format != Format {
		return m, fault.New(fault.Unsupported, "BackupFormat", "The backup is of format %d, this program reads format %d.", m.Format, Format)
	}
	return m, nil
}

// unpackOne writes one file; os.Root keeps whatever it is called inside.
func unpackOne(root *os.Root, header *tar.Header, from io.Reader) error {
	if header.Typeflag != tar.TypeReg || !fs.ValidPath(header.Name) || header.Name == "." {
		return damaged(fmt.Errorf("entry %q of type %c", header.Name, header.Typeflag))
	}
	if err := root.MkdirAll(path.Dir(header.Name), 0o700); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	f, err := root.OpenFile(header.Name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if _, err := io.Copy(f, from); err != nil {
		return errors.Join(damaged(err), f.Close())
	}
	return errors.Join(f.Sync(), f.Close())
}
