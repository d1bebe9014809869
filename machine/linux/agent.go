// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
)

// keepAgent copies the agent under its digest, so that a rebuilt binary
// disturbs no machine that runs, and returns the copy's path. Older copies go:
// machines that run hold theirs open.
func keepAgent(agent, dir string) (string, error) {
	in, err := os.Open(agent)
	if err != nil {
		return "", err
	}
	defer in.Close()
	digest := sha256.New()
	if _, err := io.Copy(digest, in); err != nil {
		return "", err
	}
	name := hex.EncodeToString(digest.Sum(nil))
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		if err := errors.Join(removeIfThere(path+".new"), copyFile(agent, path+".new")); err != nil {
			return "", err
		}
		if err := os.Chmod(path+".new", 0o555); err != nil {
			return "", err
		}
		if err := os.Rename(path+".new", path); err != nil {
			return "", err
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	for _, entry := range entries {
		if entry.Name() != name {
			if err := os.Remove(filepath.Join(dir, entry.Name())); err != nil {
				return "", err
			}
		}
	}
	return path, nil
}
