// SPDX-License-Identifier: Apache-2.0

package pki

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// WriteFile puts data at path so that a reader, or a machine that loses power,
// finds the old content or the new, never a part. The file is 0600 and, unless
// uid is negative, owned by uid and gid from before it has its name.
func WriteFile(path string, data []byte, uid, gid int) error {
	return writeFile(path, data, uid, gid, 0o600)
}

// WritePublic is WriteFile for what everyone may read: whom to trust.
func WritePublic(path string, data []byte) error { return writeFile(path, data, -1, -1, 0o644) }

func writeFile(path string, data []byte, uid, gid int, mode fs.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // 0600 by contract
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(f.Name()))
		}
	}()
	if err := fill(f, data, uid, gid, mode); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	// From here the new file has its name; only the directory may not be on disk yet.
	if err := syncDir(filepath.Dir(path)); err != nil {
		return err
	}
	return nil
}

func fill(f *os.File, data []byte, uid, gid int, mode fs.FileMode) error {
	if uid >= 0 {
		if err := f.Chown(uid, gid); err != nil {
			return err
		}
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	return f.Sync()
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
