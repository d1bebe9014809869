// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"bastide.dev/instance"
)

// The suffixes make of this program's path those of the agent for machines and
// of the nodes' policy agent: they are built together and stay beside each other.
const (
	agentSuffix  = "-node"
	policySuffix = "-netpolicy"
)

// ownBinary copies the running binary, and the agents beside it, to a place named
// by their content: a build that replaces the originals disturbs nothing that
// runs, and a daemon of another build knows that it is another.
func ownBinary(in *instance.Instance) (path, digest string, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", "", fmt.Errorf("own binary: %w", err)
	}
	sum := sha256.New()
	if err := addFile(sum, "/proc/self/exe"); err != nil { // what runs, even when its file was replaced
		return "", "", fmt.Errorf("own binary: %w", err)
	}
	for _, suffix := range []string{agentSuffix, policySuffix} {
		if err := addFile(sum, self+suffix); err != nil {
			return "", "", fmt.Errorf("the agents for machines, which `make build` puts beside bastide: %w", err)
		}
	}
	digest = hex.EncodeToString(sum.Sum(nil))[:16]
	dir := in.Dir("agent")
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return "", "", fmt.Errorf("own binary: %w", err)
	}
	path = filepath.Join(dir, "bastide-"+digest)
	// The agents first: where this program's copy is, all is there.
	for _, file := range []struct{ from, to string }{
		{self + agentSuffix, path + agentSuffix}, {self + policySuffix, path + policySuffix}, {"/proc/self/exe", path},
	} {
		if _, err := os.Stat(path); err == nil {
			break
		}
		if err := copyExecutable(file.from, file.to); err != nil {
			return "", "", err
		}
	}
	return path, digest, nil
}

func addFile(sum hash.Hash, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(sum, f)
	return err
}

func copyExecutable(from, path string) error {
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copy binary: %w", err)
	}
	defer in.Close()
	temp, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return fmt.Errorf("copy binary: %w", err)
	}
	defer os.Remove(temp.Name()) // of a copy that failed: renamed away otherwise
	_, err = io.Copy(temp, in)
	if err := errors.Join(err, temp.Chmod(0o755), temp.Close()); err != nil {
		return fmt.Errorf("copy binary: %w", err)
	}
	return os.Rename(temp.Name(), path)
}
