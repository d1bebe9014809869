// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"bastide.dev/fault"
	"bastide.dev/registry"
)

func (w *world) target() registry.Target {
	return registry.Target{Host: w.host, Transport: w.client.Transport, Username: w.first.ClientID, Password: w.first.Secret}
}

func dockerArchive(t *testing.T, tags map[string]v1.Image) string {
	t.Helper()
	images := map[name.Tag]v1.Image{}
	for text, i := range tags {
		tag, err := name.NewTag(text)
		if err != nil {
			t.Fatal(err)
		}
		images[tag] = i
	}
	file := filepath.Join(t.TempDir(), "docker.tar")
	if err := tarball.MultiWriteToFile(file, images); err != nil {
		t.Fatal(err)
	}
	return file
}

func ociLayout(t *testing.T, i v1.Image, annotation string) string {
	t.Helper()
	dir := t.TempDir()
	at, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := at.AppendImage(i, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": annotation})); err != nil {
		t.Fatal(err)
	}
	return dir
}

// pack makes a tar of a folder, gzipped when its name says so.
func pack(t *testing.T, dir, file string) string {
	t.Helper()
	var content bytes.Buffer
	archive := tar.NewWriter(&content)
	if err := archive.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(file, ".gz") {
		var zipped bytes.Buffer
		z := gzip.NewWriter(&zipped)
		if _, err := z.Write(content.Bytes()); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		content = zipped
	}
	file = filepath.Join(t.TempDir(), file)
	if err := os.WriteFile(file, content.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestLoad(t *testing.T) {
	w := start(t)
	i := image(t)
	folder := ociLayout(t, i, "ghcr.io/team/app:9")
	index, err := random.Index(1000, 2, 2)
	if err != nil {
		t.Fatal(err)
	}
	multi := t.TempDir()
	at, err := layout.Write(multi, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := at.AppendIndex(index); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		file, ref string
		want      []string
	}{
		"docker archive":         {dockerArchive(t, map[string]v1.Image{"nginx:1.25": i}), "", []string{"nginx:1.25"}},
		"docker archive renamed": {dockerArchive(t, map[string]v1.Image{"nginx:1.25": i}), "web:2", []string{"web:2"}},
		"two in one":             {dockerArchive(t, map[string]v1.Image{"quay.io/a/b:1": i, "c:2": image(t)}), "", []string{"a/b:1", "c:2"}},
		"layout":                 {folder, "", []string{"team/app:9"}},
		"layout tar":             {pack(t, folder, "layout.tar"), "l:1", []string{"l:1"}},
		"layout tar.gz":          {pack(t, folder, "layout.tar.gz"), "l:2", []string{"l:2"}},
		"several platforms":      {multi, "multi:1", []string{"multi:1"}},
	} {
		t.Run(what, func(t *testing.T) {
			var most int64
			loaded, err := registry.Load(t.Context(), w.target(), registry.LoadOptions{File: c.file, Ref: c.ref, Progress: func(_ string, done, _ int64) { most = max(most, done) }})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, l := range loaded {
				got = append(got, strings.TrimPrefix(l.Ref, w.host+"/"))
				ref, err := name.ParseReference(l.Ref)
				if err != nil {
					t.Fatal(err)
				}
				descriptor, err := remote.Get(ref, w.options(authn.Anonymous)...)
				if err != nil || descriptor.Digest.String() != l.Digest {
					t.Errorf("%s: %v, %v", l.Ref, descriptor, err)
					continue
				}
				if pulled, err := descriptor.Image(); err == nil && c.file != multi {
					if err := validate.Image(pulled); err != nil {
						t.Error(err)
					}
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, c.want) {
				t.Errorf("loaded %v, want %v", got, c.want)
			}
		})
	}
	found, err := registry.List(t.Context(), w.target())
	if err != nil || len(found) != 7 {
		t.Errorf("listed %v, %v", found, err)
	}
}

func TestLoadRefusesBadFiles(t *testing.T) {
	w := start(t)
	file := func(content string) string {
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "readme"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	damaged := ociLayout(t, image(t), "x:1")
	damage(t, damaged)
	good := dockerArchive(t, map[string]v1.Image{"a:1": image(t), "b:1": image(t)})
	for what, c := range map[string]struct{ file, ref, says string }{
		"missing":        {"/nowhere/at/all", "", "can't be read"},
		"text":           {file("hello"), "", "no tar archive"},
		"half a gzip":    {file("\x1f\x8bxx"), "", "compression is damaged"},
		"empty":          {file(""), "", "neither a docker archive"},
		"other tar":      {pack(t, other, "o.tar"), "", "neither a docker archive"},
		"other folder":   {other, "", "no OCI layout"},
		"damaged":        {damaged, "", "damaged"},
		"one name":       {good, "x:1", "holds 2 images"},
		"no name":        {ociLayout(t, image(t), ""), "", "has no name"},
		"bad name":       {ociLayout(t, image(t), "x:1"), "UPPER CASE", "no name of an image"},
		"escaping entry": {escaping(t), "", "neither a docker archive"},
		"escaping name":  {ociLayout(t, image(t), "x:1"), "../../x:1", "no name of an image"},
	} {
		_, err := registry.Load(t.Context(), w.target(), registry.LoadOptions{File: c.file, Ref: c.ref})
		if err == nil || !fault.Is(err, fault.Invalid) || !strings.Contains(fault.From(err).Message, c.says) {
			t.Errorf("%s: %v", what, err)
		}
	}
	target := w.target()
	target.Password = "wrong"
	if _, err := registry.Load(t.Context(), target, registry.LoadOptions{File: good}); !fault.Is(err, fault.Forbidden) {
		t.Errorf("wrong secret: %v", err)
	}
}

// damage changes a byte in the largest blob of a layout.
func damage(t *testing.T, dir string) {
	t.Helper()
	largest, size := "", int64(0)
	err := filepath.WalkDir(filepath.Join(dir, "blobs"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Size() > size {
			largest, size = path, info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(largest)
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)/2] ^= 1
	if err := os.WriteFile(largest, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// escaping is a tar whose entries want to be written elsewhere.
func escaping(t *testing.T) string {
	t.Helper()
	var content bytes.Buffer
	archive := tar.NewWriter(&content)
	for _, n := range []string{"../../evil", "/evil", "blobs/sha256/../../../evil", "oci-layout"} {
		if err := archive.WriteHeader(&tar.Header{Name: n, Mode: 0o644, Size: 1, Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := archive.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "escaping.tar")
	if err := os.WriteFile(path, content.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
