// SPDX-License-Identifier: Apache-2.0

package nodeimage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"bastide.dev/bundle"
	"bastide.dev/fault"
)

// Config says what an image is built from. The bundles runtime, pause, coredns,
// metrics-server and web must be there.
type Config struct {
	Cache  string // default bundle.DefaultCache
	Mirror string // default DefaultMirror
	// Fresh takes Debian's packages of today even if the newest image was made of
	// the same list: that is how patches come in.
	Fresh bool
	// Variant is "" or Unpatched. A variant's images are never the latest.
	Variant  string
	Progress func(bundle.Event) // may be nil
}

// Build gives the newest image when it was made of what is asked for, or else
// makes a new one; of an image whose packages need no change it shares the files.
func Build(ctx context.Context, cfg Config) (*Image, error) {
	b, err := newBuilder(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer b.unlock()
	want, err := b.wanted()
	if err != nil {
		return nil, err
	}
	have, err := ListVariant(b.Cache, b.Variant)
	if err != nil {
		return nil, err
	}
	var base *Image
	if len(have) > 0 && have[0].Inputs == want.Inputs && !b.Fresh {
		if base, err = Open(b.Cache, have[0].Version); err != nil {
			return nil, err
		}
		if base.Template == want.Template {
			return base, nil
		}
		want.Epoch = base.Epoch
	}
	want.Version = nextVersion(have, b.Variant, time.Unix(want.Epoch, 0).UTC().Format("200601.02"))
	return b.build(ctx, want, base)
}

// Reproduce builds the root file system of m again, in a scratch directory, and
// compares it. That works as long as the mirror serves the same packages;
// a mirror of Debian's snapshots always does.
func Reproduce(ctx context.Context, cfg Config, m Manifest) error {
	b, err := newBuilder(ctx, cfg)
	if err != nil {
		return err
	}
	defer b.unlock()
	inputs, err := debianInputs(b.Mirror, m.Variant())
	if err != nil {
		return err
	}
	if inputs != m.Inputs {
		return fault.New(fault.Precondition, "NodeImageInputsDiffer", "Node image %s was made from another list of packages or sources.", m.Version)
	}
	tmp, err := b.scratch()
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	rootfs := filepath.Join(tmp, rootfsDir)
	defer b.step(m.Version, "debian")()
	packages, err := makeRootFS(ctx, rootfs, b.Mirror, m.Variant(), m.Epoch)
	if err != nil {
		return err
	}
	if changed := differences(m.Packages, packages); len(changed) > 0 {
		return fault.New(fault.Precondition, "NodeImagePackagesDiffer", "The mirror has other packages now than node image %s has: %v.", m.Version, changed)
	}
	return (&Image{Manifest: m, dir: tmp}).Verify()
}

// differences are the packages that aren't the same in both.
func differences(a, b []Package) []string {
	in := map[Package]bool{}
	for _, p := range a {
		in[p] = true
	}
	var changed []string
	for _, p := range b {
		if !in[p] {
			changed = append(changed, p.Name+" "+p.Version)
		}
		delete(in, p)
	}
	for _, p := range a {
		if in[p] {
			changed = append(changed, p.Name+" "+p.Version)
		}
	}
	return changed
}

type builder struct {
	Config
	runtime *bundle.Bundle
	unlock  func()
}

func newBuilder(ctx context.Context, cfg Config) (*builder, error) {
	if cfg.Cache == "" {
		cfg.Cache = bundle.DefaultCache
	}
	if cfg.Mirror == "" {
		cfg.Mirror = DefaultMirror
	}
	if cfg.Variant != "" && cfg.Variant != Unpatched {
		return nil, fault.New(fault.Invalid, "InvalidSuites", "A node image is made of all suites, or of %q alone, not of %q.", Unpatched, cfg.Variant)
	}
	if os.Geteuid() != 0 {
		return nil, fault.New(fault.Forbidden, "NotRoot", "A node image can only be built by root: its files belong to Debian's users.")
	}
	runtime, err := bundle.Open(cfg.Cache, "runtime", bundle.RuntimeVersion)
	if err != nil {
		return nil, err
	}
	b := &builder{Config: cfg, runtime: runtime}
	defer b.step("node image", "wait")()
	b.unlock, err = lock(ctx, imagesDir(cfg.Cache))
	return b, err
}

// wanted is the manifest of what is asked for, as far as it is known beforehand.
func (b *builder) wanted() (Manifest, error) {
	defer b.step("node image", "pod images")()
	images, err := makePodImages(b.Cache)
	if err != nil {
		return Manifest{}, err
	}
	m := Manifest{Images: images, Runtime: b.runtime.Version, Sources: sources(b.Mirror, b.Variant)}
	if m.Template, err = imagesDigest(b.runtime.Inputs, images); err != nil {
		return Manifest{}, err
	}
	m.Epoch = time.Now().UTC().Truncate(24 * time.Hour).Unix()
	m.Inputs, err = debianInputs(b.Mirror, b.Variant)
	return m, err
}

func (b *builder) build(ctx context.Context, m Manifest, base *Image) (*Image, error) {
	tmp, err := b.scratch()
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp) // gone after the rename
	rootfs := filepath.Join(tmp, rootfsDir)
	end := b.step(m.Version, "debian")
	if base != nil {
		m.Packages, m.RootFS = base.Packages, base.Manifest.RootFS
		err = linkTree(base.RootFS(), rootfs)
	} else {
		if m.Packages, err = makeRootFS(ctx, rootfs, b.Mirror, b.Variant, m.Epoch); err == nil {
			m.RootFS, err = treeDigest(rootfs)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("build node image %s: %w", m.Version, err)
	}
	end()
	end = b.step(m.Version, "containerd")
	if err := fillContainerd(ctx, b.Cache, filepath.Join(tmp, containerdDir), b.runtime, m.Images); err != nil {
		return nil, fmt.Errorf("build node image %s: %w", m.Version, err)
	}
	end()
	return b.publish(m, tmp)
}

func (b *builder) publish(m Manifest, tmp string) (*Image, error) {
	m.Built = time.Now().UTC().Truncate(time.Second)
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(tmp, manifestFile), append(data, '\n'), 0o644); err != nil {
		return nil, err
	}
	if err := errors.Join(os.Chmod(tmp, 0o755), os.Chmod(filepath.Join(tmp, manifestFile), 0o644)); err != nil { // whatever the umask
		return nil, err
	}
	if err := os.Rename(tmp, filepath.Join(imagesDir(b.Cache), m.Version)); err != nil {
		return nil, fmt.Errorf("publish node image %s: %w", m.Version, err)
	}
	return Open(b.Cache, m.Version)
}

func (b *builder) scratch() (string, error) {
	tmp, err := os.MkdirTemp(imagesDir(b.Cache), ".tmp-")
	if err != nil {
		return "", fmt.Errorf("make room for a node image: %w", err)
	}
	return tmp, nil
}

func (b *builder) step(subject, name string) (end func()) {
	if b.Progress == nil {
		return func() {}
	}
	start := time.Now()
	b.Progress(bundle.Event{Bundle: subject, Step: name})
	return func() { b.Progress(bundle.Event{Bundle: subject, Step: name, Elapsed: time.Since(start), Done: true}) }
}

// lock keeps other builders of images away until unlock is called.
func lock(ctx context.Context, dir string) (unlock func(), err error) {
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.Chmod(dir, 0o755)); err != nil { // whatever the umask
		return nil, fmt.Errorf("prepare image cache: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock image cache: %w", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock image cache: %w", err), f.Close())
		}
		// The kernel's blocking lock couldn't be left when the context ends.
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("wait for another build of an image: %w", ctx.Err()), f.Close())
		case <-time.After(100 * time.Millisecond):
		}
	}
}
