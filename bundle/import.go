// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"

	"bastide.dev/fault"
)

// askTimeout is how long a binary may take to say its version.
const askTimeout = 30 * time.Second

// Import makes a Kubernetes bundle of the release binaries in dir, and makes it
// the one that its version means from now on. Each binary is asked for its
// version, as a user without rights; all must say the same. Every problem of the
// folder is reported at once.
func Import(ctx context.Context, cacheDir, dir string) (*Bundle, error) {
	version, digest, err := inspect(ctx, dir)
	if err != nil {
		return nil, err
	}
	m := Manifest{Name: "kubernetes", Version: version, Inputs: importPrefix + digest}
	for _, name := range kubernetesNames() {
		m.Components = append(m.Components, Component{Name: name, Version: version, Path: bin + name})
	}
	unlock, err := lock(ctx, cacheDir, m.ID())
	if err != nil {
		return nil, err
	}
	defer unlock()
	if have, err := openDir(storePath(cacheDir, &m)); err == nil && have.Inputs == m.Inputs {
		return have, point(cacheDir, &m)
	}
	return publish(cacheDir, m, func(root string) error {
		for _, name := range kubernetesNames() {
			if err := copyProgram(filepath.Join(dir, name), filepath.Join(root, bin, name)); err != nil {
				return fmt.Errorf("import %s: %w", name, err)
			}
		}
		return nil
	})
}

// inspect gives the version that all binaries agree on and one digest of them.
func inspect(ctx context.Context, dir string) (version, digest string, err error) {
	var problems []*fault.Error
	h := sha256.New()
	said := map[string][]string{}
	for _, name := range kubernetesNames() {
		path := filepath.Join(dir, name)
		v, problem := inspectProgram(ctx, path, name)
		if problem != nil {
			problems = append(problems, problem.At(name))
			continue
		}
		said[v] = append(said[v], name)
		version = v
		sum, err := fileDigest(path)
		if err != nil {
			return "", "", err
		}
		fmt.Fprintf(h, "%s %s\n", name, sum)
	}
	if len(said) > 1 {
		problems = append(problems, fault.New(fault.Invalid, "VersionsDiffer", "The binaries are of different releases: %s.", releases(said)))
	}
	return version, hex.EncodeToString(h.Sum(nil)), fault.Join(problems...)
}

// releases lists who said which version, in the components' order.
func releases(said map[string][]string) string {
	var parts []string
	for _, name := range kubernetesNames() {
		for version, names := range said {
			if names[0] == name {
				parts = append(parts, strings.Join(names, ", ")+" of "+version)
			}
		}
	}
	return strings.Join(parts, "; ")
}

func inspectProgram(ctx context.Context, path, name string) (string, *fault.Error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fault.New(fault.Invalid, "BinaryMissing", "%s is not in the folder.", name)
	case err != nil:
		return "", fault.New(fault.Invalid, "BinaryUnreadable", "%s can't be read.", name).Because(err)
	case !info.Mode().IsRegular():
		return "", fault.New(fault.Invalid, "BinaryUnreadable", "%s is not a file.", name)
	}
	machines := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
	f, err := elf.Open(path)
	if err != nil {
		return "", fault.New(fault.Invalid, "NotAProgram", "%s is not a Linux program (ELF).", name).Because(err)
	}
	machine := f.Machine
	if err := f.Close(); err != nil || machine != machines[runtime.GOARCH] {
		return "", fault.New(fault.Invalid, "WrongArchitecture", "%s is a program for %v, not for this machine (%s).", name, machine, runtime.GOARCH)
	}
	version, err := askVersion(ctx, path, name)
	if err != nil {
		return "", fault.New(fault.Invalid, "VersionUnknown", "%s doesn't say which Kubernetes release it is.", name).Because(err)
	}
	return version, nil
}

var releasePattern = regexp.MustCompile(`\bv([0-9]+\.[0-9]+\.[0-9]+(?:-[0-9A-Za-z.-]+)?)\b`)

// askVersion runs a copy of the binary: the folder may be one that only root can
// reach, and the binary is run as nobody.
func askVersion(ctx context.Context, path, name string) (string, error) {
	tmp, err := os.MkdirTemp("", "bastide-import-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return "", err
	}
	program := filepath.Join(tmp, name)
	if err := copyProgram(path, program); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	args := []string{"--version"}
	if name == "kubectl" {
		args = []string{"version", "--client"}
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = "/", []string{"HOME=/", "PATH=/usr/bin:/bin"}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	out, err := cmd.Output()
	if err != nil {
		return "", err
	}
	match := releasePattern.FindSubmatch(out)
	if match == nil {
		return "", fmt.Errorf("no version in %q", string(out))
	}
	return string(match[1]), nil
}

func copyProgram(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Chmod(0o755), out.Close())
}
