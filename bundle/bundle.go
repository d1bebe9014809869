// SPDX-License-Identifier: Apache-2.0

// Package bundle keeps the upstream parts that Bastide runs: named, versioned
// directories with a manifest of every file's digest, verified before use.
// A bundle's root is laid out as a file system, so that a machine can have it
// as an overlay layer and a control plane can run it in place: one copy of the
// code in the page cache for all.
//
// Bundles are built from the nested modules of the checkout (Build) or made of
// official release binaries (Import). What a bundle's inputs digest names never
// changes: building something else makes a new directory and moves a symbolic
// link, so that what runs from the old one goes on.
//
// It is mechanism: it knows no ARM, no store and no provider. The front end's
// commands, the control plane, the machines and the node image import it.
package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"bastide.dev/fault"
)

// DefaultCache is where bundles and images are kept, shared by all instances.
const DefaultCache = "/var/cache/bastide"

// Manifest says what a bundle holds and what it was made of.
type Manifest struct {
	Name       string      `json:"name"`
	Version    string      `json:"version"`
	Inputs     string      `json:"inputs"` // digest of all that went into it
	Components []Component `json:"components"`
	Files      []File      `json:"files"` // sorted by path; directories are implied
}

// Component is one program of a bundle.
type Component struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Path    string `json:"path"` // relative to the root
}

// File is one file or symbolic link below the root.
type File struct {
	Path   string      `json:"path"`
	Mode   fs.FileMode `json:"mode"` // permission bits
	SHA256 string      `json:"sha256,omitempty"`
	Size   int64       `json:"size,omitempty"`
	Link   string      `json:"link,omitempty"` // target, relative, never out of the root
}

// ID is "name@version".
func (m *Manifest) ID() string { return m.Name + "@" + m.Version }

// Imported tells whether the bundle was made of binaries built elsewhere.
func (m *Manifest) Imported() bool { return strings.HasPrefix(m.Inputs, importPrefix) }

// Bundle is a verified bundle.
type Bundle struct {
	Manifest
	dir string
}

// Root is the directory laid out as a file system (usr/local/bin/kubelet, …). It
// stays valid while other versions of the bundle are built.
func (b *Bundle) Root() string { return filepath.Join(b.dir, rootDir) }

// Path is the absolute path of a component, "" when the bundle has none of that name.
func (b *Bundle) Path(component string) string {
	for _, c := range b.Components {
		if c.Name == component {
			return filepath.Join(b.Root(), c.Path)
		}
	}
	return ""
}

const (
	rootDir      = "root"
	manifestFile = "manifest.json"
)

var (
	namePattern    = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)
	versionPattern = regexp.MustCompile(`^[0-9][0-9A-Za-z.+-]{0,62}$`)
)

// Open finds a bundle and verifies every file of it: the digests once, and after
// that only of files whose size, times or inode are not what they were then.
func Open(cacheDir, name, version string) (*Bundle, error) {
	if !namePattern.MatchString(name) || !versionPattern.MatchString(version) {
		return nil, fault.New(fault.Invalid, "InvalidBundle", "%q is not the name and version of a bundle.", name+"@"+version)
	}
	link := linkPath(cacheDir, name, version)
	dir, err := filepath.EvalSymlinks(link)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "BundleNotFound",
			"Bundle %s@%s is not on this machine; `bastide bundle build %[1]s@%[2]s` makes it.", name, version)
	}
	if err != nil {
		return nil, fmt.Errorf("find bundle %s@%s: %w", name, version, err)
	}
	b, err := openDir(dir)
	if err != nil {
		return nil, err
	}
	if b.Name != name || b.Version != version {
		return nil, damaged(name+"@"+version, fmt.Errorf("its manifest is of %s", b.ID()))
	}
	return b, nil
}

// List gives the manifests of all bundles, sorted by name and version. It
// verifies nothing. Beside its error it gives those that could be read.
func List(cacheDir string) ([]Manifest, error) {
	links, err := filepath.Glob(filepath.Join(cacheDir, "bundles", "*@*"))
	if err != nil {
		return nil, fmt.Errorf("list bundles: %w", err)
	}
	slices.Sort(links)
	list := make([]Manifest, 0, len(links))
	var damages []error
	for _, link := range links {
		m, err := readManifest(link)
		if err != nil {
			damages = append(damages, err)
			continue
		}
		list = append(list, *m)
	}
	return list, errors.Join(damages...)
}

func openDir(dir string) (*Bundle, error) {
	m, err := readManifest(dir)
	if err != nil {
		return nil, err
	}
	if err := verify(dir, m); err != nil {
		return nil, damaged(m.ID(), err)
	}
	return &Bundle{Manifest: *m, dir: dir}, nil
}

func readManifest(dir string) (*Manifest, error) {
	data, err := os.ReadFile(filepath.Join(dir, manifestFile))
	if err != nil {
		return nil, fmt.Errorf("read bundle's manifest: %w", err)
	}
	var m Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, damaged(filepath.Base(dir), fmt.Errorf("parse manifest: %w", err))
	}
	return &m, nil
}

func damaged(id string, cause error) error {
	return fault.New(fault.Internal, "BundleDamaged",
		"Bundle %s is not what its manifest says and is not used; `bastide bundle build` makes it again.", id).Because(cause)
}

func linkPath(cacheDir, name, version string) string {
	return filepath.Join(cacheDir, "bundles", name+"@"+version)
}
