// SPDX-License-Identifier: Apache-2.0

// Package nodeimage makes and keeps node images: versioned Debian root file
// systems for machines, each with the images that every node needs already in
// its container runtime's store, so that a node's first pods start without a pull.
//
// An image is a directory that never changes once it has its name:
//
//	images/<version>/manifest.json
//	images/<version>/rootfs/       the lowest layer of a machine's file system
//	images/<version>/containerd/   what a new machine's /var/lib/containerd starts as
//
// It holds no upstream binaries: those are layers (package bundle) above it. The
// front end's commands and the wiring import it; machines only use the directories.
package nodeimage

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"

	"bastide.dev/bundle"
	"bastide.dev/fault"
)

// Latest stands for the newest image's version.
const Latest = "latest"

// Manifest says what an image holds and what it was made of. From the same
// inputs, epoch and packages comes the same root file system.
type Manifest struct {
	Version  string    `json:"version"` // bastide-debian12-202611.21.0
	Built    time.Time `json:"built"`
	Inputs   string    `json:"inputs"` // digest of what was asked for: packages, sources, options
	Epoch    int64     `json:"sourceDateEpoch"`
	Sources  []string  `json:"sources"` // of apt, also in the image itself
	Packages []Package `json:"packages"`
	RootFS   string    `json:"rootfs"` // digest of the tree: names, modes, owners, contents

	Runtime  string     `json:"runtime"` // version of the runtime bundle that filled containerd/
	Images   []PodImage `json:"images"`
	Template string     `json:"template"` // digest of what filled containerd/
}

// Package is one installed Debian package.
type Package struct {
	Name         string `json:"name"`
	Version      string `json:"version"`
	Architecture string `json:"architecture"`
	SHA256       string `json:"sha256"` // of its archive, from the signed index
}

// PodImage is a container image that the node image brings along.
type PodImage struct {
	Reference string `json:"reference"`
	Digest    string `json:"digest"` // of its manifest
}

// Image is a node image on this machine.
type Image struct {
	Manifest
	dir string
}

// RootFS is the directory of the root file system, read-only for all.
func (i *Image) RootFS() string { return filepath.Join(i.dir, rootfsDir) }

// Containerd is the directory that a new machine's containerd root is a copy of.
func (i *Image) Containerd() string { return filepath.Join(i.dir, containerdDir) }

const (
	rootfsDir     = "rootfs"
	containerdDir = "containerd"
	manifestFile  = "manifest.json"
)

var versionPattern = regexp.MustCompile(`^bastide-debian12(main)?-([0-9]{6}\.[0-9]{2})\.([0-9]+)$`)

// References of the images that every node has, named without a registry that
// could be asked for them: imagePullPolicy IfNotPresent finds them.
const (
	PauseImage         = "bastide.local/pause:" + bundle.PauseVersion
	CoreDNSImage       = "bastide.local/coredns:" + bundle.CoreDNSVersion
	MetricsServerImage = "bastide.local/metrics-server:" + bundle.MetricsServerVersion
	WebImage           = "bastide.local/web:" + bundle.WebVersion
)

// Open finds an image by version or Latest. Verify checks its content.
func Open(cacheDir, version string) (*Image, error) {
	if version == Latest {
		all, err := List(cacheDir)
		if err != nil {
			return nil, err
		}
		if len(all) == 0 {
			return nil, fault.New(fault.NotFound, "NodeImageNotFound", "There is no node image on this machine; `bastide image build` makes one.")
		}
		version = all[0].Version
	}
	if !versionPattern.MatchString(version) {
		return nil, fault.New(fault.Invalid, "InvalidNodeImage", "%q is not the version of a node image.", version)
	}
	dir := filepath.Join(imagesDir(cacheDir), version)
	m, err := readManifest(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "NodeImageNotFound", "Node image %s is not on this machine.", version)
	}
	if err != nil {
		return nil, err
	}
	if m.Version != version {
		return nil, fmt.Errorf("node image %s: its manifest is of %s", version, m.Version)
	}
	return &Image{Manifest: *m, dir: dir}, nil
}

// List gives the manifests of all images but variants, the newest version first.
func List(cacheDir string) ([]Manifest, error) { return ListVariant(cacheDir, "") }

// ListVariant is List for the images of one variant.
func ListVariant(cacheDir, variant string) ([]Manifest, error) {
	paths, err := filepath.Glob(filepath.Join(imagesDir(cacheDir), "bastide-*", manifestFile))
	if err != nil {
		return nil, fmt.Errorf("list node images: %w", err)
	}
	list := make([]Manifest, 0, len(paths))
	for _, path := range paths {
		m, err := readManifest(filepath.Dir(path))
		if err != nil {
			return nil, err
		}
		if m.Variant() == variant {
			list = append(list, *m)
		}
	}
	slices.SortFunc(list, func(a, b Manifest) int { return compareVersions(b.Version, a.Version) })
	return list, nil
}

// Verify reads the whole root file system and compares it with the manifest.
func (i *Image) Verify() error {
	digest, err := treeDigest(i.RootFS())
	if err != nil {
		return fmt.Errorf("verify node image %s: %w", i.Version, err)
	}
	if digest != i.Manifest.RootFS {
		return fault.New(fault.Internal, "NodeImageDamaged", "Node image %s is not what its manifest says.", i.Version).
			Because(fmt.Errorf("root file system's digest is %s instead of %s", digest, i.Manifest.RootFS))
	}
	return nil
}

func imagesDir(cacheDir string) string { return filepath.Join(cacheDir, "images") }

func readManifest(dir string) (*Manifest, error) {
	data, err := os.ReadFile(filepath.Join(dir, manifestFile))
	if err != nil {
		return nil, fmt.Errorf("read node image's manifest: %w", err)
	}
	var m Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("parse manifest of node image %s: %w", filepath.Base(dir), err)
	}
	return &m, nil
}

// compareVersions orders by date, then by number.
func compareVersions(a, b string) int {
	dateA, numberA := cutVersion(a)
	dateB, numberB := cutVersion(b)
	if dateA != dateB {
		if dateA < dateB {
			return -1
		}
		return 1
	}
	return numberA - numberB
}

func cutVersion(version string) (date string, number int) {
	m := versionPattern.FindStringSubmatch(version)
	if m == nil {
		return "", 0
	}
	number, err := strconv.Atoi(m[3])
	if err != nil {
		return "", 0
	}
	return m[2], number
}

// Variant is "", or Unpatched for an image that is made for showing patches.
func (m Manifest) Variant() string {
	found := versionPattern.FindStringSubmatch(m.Version)
	if found == nil {
		return ""
	}
	return found[1]
}

// nextVersion is the first free one of a date ("202611.21").
func nextVersion(have []Manifest, variant, date string) string {
	next := 0
	for _, m := range have {
		if d, n := cutVersion(m.Version); d == date && n >= next {
			next = n + 1
		}
	}
	return fmt.Sprintf("bastide-debian12%s-%s.%d", variant, date, next)
}
