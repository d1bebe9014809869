// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const (
	buildPrefix  = "build:sha256:"
	importPrefix = "import:sha256:"
)

// cutDigest splits a manifest's inputs into how it was made and the digest.
func cutDigest(inputs string) (how, digest string) {
	i := strings.LastIndexByte(inputs, ':')
	return inputs[:i], inputs[i+1:]
}

// toolchain is what builds, and its versions, which are inputs too.
type toolchain struct {
	goTool, cc           string
	goVersion, ccVersion string
	libseccompVersion    string
}

// findToolchain asks the tools for their versions. A missing C compiler or
// libseccomp only matters to the bundles that need it, whose build says so.
func findToolchain(ctx context.Context, source string) (toolchain, error) {
	t := toolchain{goTool: "go", cc: "gcc"}
	var err error
	if t.goVersion, err = ask(ctx, source, t.goTool, "env", "GOVERSION"); err != nil {
		return t, fmt.Errorf("find the go tool: %w", err)
	}
	if t.ccVersion, err = ask(ctx, source, t.cc, "-dumpfullversion"); err != nil {
		t.ccVersion = "none"
	}
	if t.libseccompVersion, err = ask(ctx, source, "pkg-config", "--modversion", "libseccomp"); err != nil {
		t.libseccompVersion = "none"
	}
	return t, nil
}

func ask(ctx context.Context, dir, tool string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, tool, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOTOOLCHAIN=local")
	out, err := cmd.Output()
	return string(bytes.TrimSpace(out)), err
}

// inputs digests all that the steps' result depends on.
func inputs(source string, steps []step, tools toolchain) (string, error) {
	h := sha256.New()
	for _, s := range steps {
		data, err := json.Marshal(s)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "step %s\n", data)
		if s.compilesC() {
			fmt.Fprintf(h, "args %q\ncc %s\n", s.ccArgs(""), tools.ccVersion)
		} else {
			fmt.Fprintf(h, "args %q\nenv %q\ngo %s\n", s.goArgs(""), s.environment(nil), tools.goVersion)
		}
		if s.CGO {
			fmt.Fprintf(h, "cc %s\nlibseccomp %s\n", tools.ccVersion, tools.libseccompVersion)
		}
		files, err := s.sources(source)
		if err != nil {
			return "", err
		}
		for _, f := range files {
			digest, err := fileDigest(f)
			if err != nil {
				return "", err
			}
			fmt.Fprintf(h, "file %s %s\n", filepath.Base(f), digest)
		}
	}
	return buildPrefix + hex.EncodeToString(h.Sum(nil)), nil
}

// sources are the files of the checkout that a step reads: the module files, and
// the package's own when it is ours.
func (s step) sources(source string) ([]string, error) {
	dir := filepath.Join(source, s.Dir)
	if s.compilesC() {
		return []string{filepath.Join(dir, s.Package)}, nil
	}
	files := []string{filepath.Join(dir, s.Modfile)}
	sum := filepath.Join(dir, strings.TrimSuffix(s.Modfile, ".mod")+".sum")
	if _, err := os.Stat(sum); err == nil {
		files = append(files, sum)
	}
	if !strings.HasPrefix(s.Package, ".") {
		return files, nil
	}
	own, err := filepath.Glob(filepath.Join(dir, s.Package, "*.go"))
	if err != nil || len(own) == 0 {
		return nil, fmt.Errorf("no source in %s: %w", filepath.Join(dir, s.Package), os.ErrNotExist)
	}
	return append(files, own...), nil
}
