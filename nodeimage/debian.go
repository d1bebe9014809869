// SPDX-License-Identifier: Apache-2.0

package nodeimage

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
	"slices"
	"strings"
)

const (
	suite = "bookworm"
	// DefaultMirror is where packages come from, "/debian" and "/debian-security" below it.
	DefaultMirror = "http://deb.debian.org"
)

// included are the packages beyond Debian's required ones: what kubelet,
// kube-proxy, the CNI plugins and a person at the node's shell use. No init
// system: PID 1 is `bastide node`.
func included() []string {
	return []string{
		"ca-certificates", "conntrack", "ethtool", "iproute2", "iptables", "kmod", "mount",
		"nftables", "openssh-server", "procps", "socat", "sudo", "util-linux",
	}
}

// dpkgOptions stay in the image, so that later patches leave out the same files.
// Licences are kept.
func dpkgOptions() []string {
	return []string{
		"path-exclude=/usr/share/man/*", "path-exclude=/usr/share/locale/*", "path-exclude=/usr/share/info/*",
		"path-exclude=/usr/share/doc/*", "path-include=/usr/share/doc/*/copyright",
	}
}

// Unpatched is the variant of an image that is made of the release alone, as it
// was on its day: without the security archive there are real patches for it.
const Unpatched = "main"

// sources are apt's, as the image keeps them.
func sources(mirror, variant string) []string {
	list := []string{"deb " + mirror + "/debian " + suite + " main"}
	if variant == Unpatched {
		return list
	}
	return append(list,
		"deb "+mirror+"/debian "+suite+"-updates main",
		"deb "+mirror+"/debian-security "+suite+"-security main")
}

// debianInputs digests what the root file system is asked to be; bump the format
// when tidy changes.
func debianInputs(mirror, variant string) (string, error) {
	data, err := json.Marshal(map[string]any{
		"format": 1, "suite": suite, "sources": sources(mirror, variant), "packages": included(), "dpkg": dpkgOptions(),
	})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

// makeRootFS lets mmdebstrap fill dir, takes away what differs from one build to
// the next, and gives the packages with the digests that the signed index has.
func makeRootFS(ctx context.Context, dir, mirror, variant string, epoch int64) ([]Package, error) {
	args := []string{"--variant=minbase", "--mode=root", "--format=directory", "--skip=cleanup/apt",
		"--include=" + strings.Join(included(), ",")}
	for _, option := range dpkgOptions() {
		args = append(args, "--dpkgopt="+option)
	}
	args = append(append(args, suite, dir), sources(mirror, variant)...)
	cmd := exec.CommandContext(ctx, "mmdebstrap", args...)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "LC_") || strings.HasPrefix(kv, "LANG=") }),
		fmt.Sprintf("SOURCE_DATE_EPOCH=%d", epoch), "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil {
		lines := strings.Split(strings.TrimSpace(output.String()), "\n")
		return nil, fmt.Errorf("mmdebstrap: %w: %s", err, strings.Join(lines[max(0, len(lines)-8):], "\n"))
	}
	packages, err := readPackages(dir)
	if err != nil {
		return nil, err
	}
	return packages, tidy(dir, epoch)
}

// readPackages joins dpkg's list of what is installed with apt's index.
func readPackages(root string) ([]Package, error) {
	digests := map[Package]string{}
	indexes, err := filepath.Glob(filepath.Join(root, "var/lib/apt/lists/*_Packages"))
	if err != nil {
		return nil, err
	}
	for _, index := range indexes {
		err := readStanzas(index, func(s stanza) {
			digests[s.id()] = s["SHA256"]
		})
		if err != nil {
			return nil, err
		}
	}
	var packages []Package
	err = readStanzas(filepath.Join(root, "var/lib/dpkg/status"), func(s stanza) {
		if s["Status"] == "install ok installed" {
			p := s.id()
			p.SHA256 = digests[p]
			packages = append(packages, p)
		}
	})
	if err != nil {
		return nil, err
	}
	for _, p := range packages {
		if p.SHA256 == "" {
			return nil, fmt.Errorf("no index knows the installed package %s %s", p.Name, p.Version)
		}
	}
	slices.SortFunc(packages, func(a, b Package) int { return strings.Compare(a.Name, b.Name) })
	return packages, nil
}
