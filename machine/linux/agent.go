// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// keepPrograms copies the agent and its like under their digests, so that a
// rebuilt binary disturbs no machine that runs, and returns the copies' paths.
// Older copies go: machines that run hold theirs open.
func keepPrograms(dir string, programs ...string) ([]string, error) {
	var kept, names []string
	for _, program := range programs {
		name, err := keepProgram(program, dir)
		if err != nil {
			return nil, err
		}
		kept, names = append(kept, filepath.Join(dir, name)), append(names, name)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		if !slices.Contains(names, entry.Name()) {
			if err := os.Remove(filepath.Join(dir, entry.Name())); err != nil {
				return nil, err
			}
		}
	}
	return kept, nil
}

// keepProgram returns the name of a program's copy.
func keepProgram(program, dir string) (string, error) {
	in, err := os.Open(program)
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
		if err := errors.Join(removeIfThere(path+".new"), copyFile(program, path+".new")); err != nil {
			return "", err
		}
		if err := os.Chmod(path+".new", 0o555); err != nil {
			return "", err
		}
		if err := os.Rename(path+".new", path); err != nil {
			return "", err
		}
	}
	return name, nil
}
