// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"bastide.dev/dataplane"
)

// hostsFile keeps one instance's block in the machine's hosts file.
type hostsFile struct {
	path     string
	instance string
	shared   string // where instances lock each other out
}

func (h hostsFile) begin() string { return "# bastide " + h.instance + " begin" }
func (h hostsFile) end() string   { return "# bastide " + h.instance + " end" }

// write makes the block hold the names, or removes it when there are none. The
// file changes at once and only when it has to; the rest of it stays as it is.
func (h hostsFile) write(names []dataplane.Name) error {
	return locked(h.shared, func() error {
		path, err := filepath.EvalSymlinks(h.path)
		if errors.Is(err, fs.ErrNotExist) {
			path = h.path
		} else if err != nil {
			return fmt.Errorf("hosts file: %w", err)
		}
		old, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("hosts file: %w", err)
		}
		changed := h.compose(old, names)
		if bytes.Equal(old, changed) {
			return nil
		}
		if err := replaceFile(path, changed); err != nil {
			return fmt.Errorf("hosts file: %w", err)
		}
		return nil
	})
}

// compose takes our block out of old and puts the new one at its place, or at
// the end. A block whose end is missing is no more than its first line: what
// follows may be anyone's.
func (h hostsFile) compose(old []byte, names []dataplane.Name) []byte {
	lines := bytes.SplitAfter(old, []byte("\n"))
	if last := len(lines) - 1; len(lines[last]) == 0 {
		lines = lines[:last]
	}
	is := func(line []byte, text string) bool { return string(bytes.TrimSpace(line)) == text }
	var kept [][]byte
	at := -1
	for i := 0; i < len(lines); i++ {
		if is(lines[i], h.end()) {
			continue
		}
		if !is(lines[i], h.begin()) {
			kept = append(kept, lines[i])
			continue
		}
		if at < 0 {
			at = len(kept)
		}
		for j := i + 1; j < len(lines) && !is(lines[j], h.begin()); j++ {
			if is(lines[j], h.end()) {
				i = j
				break
			}
		}
	}
	block := h.block(names)
	if at < 0 || block == nil {
		at = len(kept)
	}
	if block != nil && at > 0 && !bytes.HasSuffix(kept[at-1], []byte("\n")) {
		kept[at-1] = append(slices.Clone(kept[at-1]), '\n')
	}
	return bytes.Join(slices.Concat(kept[:at], [][]byte{block}, kept[at:]), nil)
}

// block is our part of the file, nil without names. A hosts file has no wildcards.
func (h hostsFile) block(names []dataplane.Name) []byte {
	var entries []string
	for _, n := range names {
		if strings.HasPrefix(n.Name, "*") {
			continue
		}
		for _, a := range n.Addresses {
			entries = append(entries, a.String()+" "+n.Name+"\n")
		}
	}
	if len(entries) == 0 {
		return nil
	}
	return []byte(h.begin() + "\n" + strings.Join(entries, "") + h.end() + "\n")
}

// replaceFile replaces a file in one step, with its owner and mode. In a
// container the hosts file may be a mount, which can't be replaced, only written.
func replaceFile(path string, data []byte) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return os.WriteFile(path, data, 0o644)
	}
	if err != nil {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(path), ".bastide-*")
	if err != nil {
		return err
	}
	err = fill(temp, info, data)
	if err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		err = errors.Join(err, os.Remove(temp.Name()))
	}
	if errors.Is(err, unix.EBUSY) {
		return os.WriteFile(path, data, info.Mode())
	}
	return err
}

func fill(temp *os.File, like fs.FileInfo, data []byte) error {
	_, err := temp.Write(data)
	if owner, ok := like.Sys().(*syscall.Stat_t); ok && err == nil {
		err = temp.Chown(int(owner.Uid), int(owner.Gid))
	}
	if err == nil {
		err = temp.Chmod(like.Mode().Perm())
	}
	if err == nil {
		err = temp.Sync()
	}
	return errors.Join(err, temp.Close())
}
