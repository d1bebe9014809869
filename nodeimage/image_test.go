// SPDX-License-Identifier: Apache-2.0

package nodeimage

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"bastide.dev/bundle"
	"bastide.dev/fault"
)

// publishSample puts an image with a small root file system into cache.
func publishSample(t *testing.T, cache, version string) *Image {
	t.Helper()
	must(t, os.MkdirAll(imagesDir(cache), 0o755))
	b := &builder{Config: Config{Cache: cache}}
	tmp, err := b.scratch()
	must(t, err)
	writeTree(t, filepath.Join(tmp, rootfsDir), map[string]string{"etc/os-release": "ID=debian\n", "usr/bin/tool": "program"})
	m := Manifest{Version: version}
	m.RootFS, err = treeDigest(filepath.Join(tmp, rootfsDir))
	must(t, err)
	image, err := b.publish(m, tmp)
	must(t, err)
	return image
}

func writeTree(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(root, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(content), 0o644))
	}
}

func TestOpenAndList(t *testing.T) {
	cache := t.TempDir()
	if _, err := Open(cache, Latest); !fault.Is(err, fault.NotFound) {
		t.Errorf("latest of none: %v", err)
	}
	// Numbers count as numbers, and a date counts before a number.
	versions := []string{"bastide-debian12-202611.21.9", "bastide-debian12-202611.21.10", "bastide-debian12-202612.01.0", "bastide-debian12-202510.30.77"}
	for _, v := range versions {
		publishSample(t, cache, v)
	}
	must(t, os.Mkdir(filepath.Join(imagesDir(cache), ".tmp-half"), 0o755))
	list, err := List(cache)
	must(t, err)
	var got []string
	for _, m := range list {
		got = append(got, m.Version)
	}
	want := []string{versions[2], versions[1], versions[0], versions[3]}
	if !slices.Equal(got, want) {
		t.Errorf("List gives %q instead of %q", got, want)
	}
	latest, err := Open(cache, Latest)
	must(t, err)
	if latest.Version != want[0] {
		t.Errorf("latest is %s", latest.Version)
	}
	for _, bad := range []string{"", "../x", "bastide-debian12-1", "bastide-debian12-202611.21.0/.."} {
		if _, err := Open(cache, bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("Open(%q): %v", bad, err)
		}
	}
	if _, err := Open(cache, "bastide-debian12-202611.21.8"); !fault.Is(err, fault.NotFound) {
		t.Errorf("an image that isn't there: %v", err)
	}
	if v := nextVersion(list, "", "202611.21"); v != "bastide-debian12-202611.21.11" {
		t.Errorf("the next version is %s", v)
	}
	if v := nextVersion(list, "", "202701.01"); v != "bastide-debian12-202701.01.0" {
		t.Errorf("a new date's first version is %s", v)
	}
}

func TestVerifyFindsChanges(t *testing.T) {
	changes := map[string]func(root string) error{
		"content": func(root string) error {
			return os.WriteFile(filepath.Join(root, "usr/bin/tool"), []byte("PROGRAM"), 0o644)
		},
		"mode": func(root string) error { return os.Chmod(filepath.Join(root, "usr/bin/tool"), 0o755|os.ModeSetuid) },
		"new":  func(root string) error { return os.Mkdir(filepath.Join(root, "opt"), 0o755) },
		"gone": func(root string) error { return os.Remove(filepath.Join(root, "etc/os-release")) },
		"link": func(root string) error {
			return os.Symlink("tool", filepath.Join(root, "usr/bin/alias"))
		},
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			image := publishSample(t, t.TempDir(), "bastide-debian12-202611.21.0")
			if err := image.Verify(); err != nil {
				t.Fatalf("before: %v", err)
			}
			must(t, change(image.RootFS()))
			if err := image.Verify(); fault.From(err) == nil || fault.From(err).Code != "NodeImageDamaged" {
				t.Errorf("not found: %v", err)
			}
		})
	}
}

func TestLinkTreeSharesFilesAndKeepsTheDigest(t *testing.T) {
	image := publishSample(t, t.TempDir(), "bastide-debian12-202611.21.0")
	must(t, os.Symlink("tool", filepath.Join(image.RootFS(), "usr/bin/alias")))
	must(t, os.Chmod(filepath.Join(image.RootFS(), "etc"), 0o711))
	before, err := treeDigest(image.RootFS())
	must(t, err)
	copied := filepath.Join(t.TempDir(), "copy")
	must(t, linkTree(image.RootFS(), copied))
	after, err := treeDigest(copied)
	must(t, err)
	if before != after {
		t.Error("the copy is another tree")
	}
	a, errA := os.Stat(filepath.Join(copied, "usr/bin/tool"))
	b, errB := os.Stat(filepath.Join(image.RootFS(), "usr/bin/tool"))
	if errA != nil || errB != nil || !os.SameFile(a, b) {
		t.Errorf("the copy shares nothing: %v %v", errA, errB)
	}
}

// Two builds that differ in what each build differs in are the same afterwards.
func TestTidyMakesBuildsAlike(t *testing.T) {
	const epoch = 1_700_000_000
	digest := func(build map[string]string) string {
		root := t.TempDir()
		writeTree(t, root, map[string]string{"etc/passwd": "root", "usr/bin/tool": "program"})
		writeTree(t, root, build)
		must(t, tidy(root, epoch))
		info, err := os.Stat(filepath.Join(root, "usr/bin/tool"))
		must(t, err)
		if !info.ModTime().Equal(time.Unix(epoch, 0)) {
			t.Errorf("a time is %v", info.ModTime())
		}
		d, err := treeDigest(root)
		must(t, err)
		return d
	}
	dirs := map[string]string{"var/log/apt/x": "", "etc/ssh/ssh_host_rsa_key": "", "run/x": "", "dev/x": "", "tmp/x": "", "var/lib/apt/lists/x": ""}
	one := maps.Clone(dirs)
	one["etc/machine-id"], one["var/log/dpkg.log"], one["etc/passwd-"], one["etc/ssh/ssh_host_rsa_key"] = "a", "a", "a", "secret"
	if digest(one) != digest(dirs) {
		t.Error("builds differ after tidy")
	}
	other := maps.Clone(dirs)
	other["usr/bin/tool"] = "another"
	if digest(one) == digest(other) {
		t.Error("another program makes no difference")
	}
}

const status = `Package: tool
Status: install ok installed
Architecture: amd64
Version: 1:2.0-1
Description: a tool
 with a second line: that is none of the fields
Conffiles:
 /etc/tool abc

Package: removed
Status: deinstall ok config-files
Architecture: all
Version: 1
`

func TestReadPackages(t *testing.T) {
	root := t.TempDir()
	index := "Package: tool\nArchitecture: amd64\nVersion: 1:2.0-1\nSHA256: feed\n\nPackage: tool\nArchitecture: amd64\nVersion: 1:1.0-1\nSHA256: dead\n"
	writeTree(t, root, map[string]string{"var/lib/dpkg/status": status, "var/lib/apt/lists/x_Packages": index})
	got, err := readPackages(root)
	must(t, err)
	want := []Package{{Name: "tool", Version: "1:2.0-1", Architecture: "amd64", SHA256: "feed"}}
	if !slices.Equal(got, want) {
		t.Errorf("%v instead of %v", got, want)
	}
	must(t, os.Remove(filepath.Join(root, "var/lib/apt/lists/x_Packages")))
	if _, err := readPackages(root); err == nil {
		t.Error("a package of unknown origin was taken")
	}
}

func TestDifferences(t *testing.T) {
	a := []Package{{Name: "same"}, {Name: "old", Version: "1"}, {Name: "gone", Version: "3"}}
	b := []Package{{Name: "same"}, {Name: "old", Version: "2"}}
	if got := differences(a, b); !slices.Equal(got, []string{"old 2", "old 1", "gone 3"}) {
		t.Errorf("%q", got)
	}
	if got := differences(a, a); got != nil {
		t.Errorf("differences of the same: %q", got)
	}
}

func TestPodImageOfBundle(t *testing.T) {
	tests := podImages()
	var names []string
	for _, p := range tests {
		names = append(names, p.reference)
		if !strings.HasSuffix(p.reference, "/"+p.component+":"+p.version) {
			t.Errorf("%s holds %s %s", p.reference, p.component, p.version)
		}
	}
	if !slices.Equal(names, []string{PauseImage, CoreDNSImage, MetricsServerImage, WebImage}) {
		t.Errorf("images %q", names)
	}
}

func TestArchiveIsTheSameEachTime(t *testing.T) {
	entries := []entry{{"tmp/", 0o1777, nil}, {"tool", 0o555, []byte("program")}}
	one, err := archive(entries)
	must(t, err)
	time.Sleep(10 * time.Millisecond)
	two, err := archive(entries)
	must(t, err)
	if !slices.Equal(one, two) {
		t.Error("two archives of the same differ")
	}
}

func TestLayoutNamesItsImage(t *testing.T) {
	data, err := archive([]entry{{"tool", 0o555, []byte("program")}})
	must(t, err)
	image, err := mutate.AppendLayers(empty.Image, static.NewLayer(data, types.OCIUncompressedLayer))
	must(t, err)
	dir := filepath.Join(t.TempDir(), "oci", "tool")
	must(t, writeLayout(dir, "bastide.local/tool:1", image))
	must(t, writeLayout(dir, "bastide.local/tool:1", image)) // there already
	index, err := layout.ImageIndexFromPath(dir)
	must(t, err)
	m, err := index.IndexManifest()
	must(t, err)
	if len(m.Manifests) != 1 || m.Manifests[0].Annotations["io.containerd.image.name"] != "bastide.local/tool:1" {
		t.Errorf("index %+v", m.Manifests)
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(dir), ".tmp-*")); err != nil || len(left) > 0 {
		t.Errorf("left %q, %v", left, err)
	}
}

func TestBuildNeedsItsRuntime(t *testing.T) {
	_, err := Build(t.Context(), Config{Cache: t.TempDir()})
	if f := fault.From(err); f == nil || !strings.Contains(f.Message, "runtime@"+bundle.RuntimeVersion) {
		t.Errorf("the missing bundle isn't named: %v", err)
	}
}

func TestManifestRoundTrip(t *testing.T) {
	m := Manifest{Version: "bastide-debian12-202611.21.0", Packages: []Package{{Name: "a"}}, Images: []PodImage{{Reference: PauseImage}}}
	data, err := json.Marshal(m)
	must(t, err)
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, manifestFile), data, 0o644))
	got, err := readManifest(dir)
	must(t, err)
	if got.Version != m.Version || !slices.Equal(got.Packages, m.Packages) || !slices.Equal(got.Images, m.Images) {
		t.Errorf("%+v instead of %+v", got, m)
	}
	must(t, os.WriteFile(filepath.Join(dir, manifestFile), data[:len(data)/2], 0o644))
	if _, err := readManifest(dir); err == nil {
		t.Error("half a manifest was read")
	}
}

func FuzzStanzas(f *testing.F) {
	f.Add(status)
	f.Add("\n\n:\n x\nA:\n")
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "status")
		must(t, os.WriteFile(path, []byte(text), 0o644))
		err := readStanzas(path, func(s stanza) {
			for field, value := range s {
				if strings.ContainsAny(field+value, "\n") || strings.HasPrefix(field, " ") {
					t.Errorf("field %q is %q", field, value)
				}
			}
		})
		if err != nil && len(text) < 1<<20 {
			t.Error(err)
		}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestAVariantIsNeverLatest: an image that lacks patches on purpose is found by
// its name alone.
func TestAVariantIsNeverLatest(t *testing.T) {
	cache := t.TempDir()
	unpatched := nextVersion(nil, Unpatched, "202712.31")
	for _, version := range []string{"bastide-debian12-202611.21.0", unpatched} {
		dir := filepath.Join(imagesDir(cache), version)
		must(t, os.MkdirAll(dir, 0o755))
		data, err := json.Marshal(Manifest{Version: version})
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, manifestFile), data, 0o644))
	}
	latest, err := Open(cache, Latest)
	must(t, err)
	list, err := List(cache)
	must(t, err)
	variants, err := ListVariant(cache, Unpatched)
	must(t, err)
	if latest.Version != "bastide-debian12-202611.21.0" || len(list) != 1 || len(variants) != 1 || variants[0].Version != unpatched {
		t.Errorf("%s, %v, %v", latest.Version, list, variants)
	}
	image, err := Open(cache, unpatched)
	must(t, err)
	if image.Variant() != Unpatched || latest.Variant() != "" {
		t.Errorf("%q %q", image.Variant(), latest.Variant())
	}
	ordinary, err := debianInputs(DefaultMirror, "")
	must(t, err)
	other, err := debianInputs(DefaultMirror, Unpatched)
	must(t, err)
	if ordinary == other {
		t.Error("a variant has the ordinary image's inputs")
	}
	if _, err := Build(t.Context(), Config{Cache: cache, Variant: "sid"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("an unknown variant: %v", err)
	}
}
