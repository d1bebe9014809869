// SPDX-License-Identifier: Apache-2.0

package testcloud_test

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"bastide.dev/testcloud"
)

// toolbox makes an image of Debian's static busybox, as a docker archive.
func toolbox(t *testing.T) string {
	t.Helper()
	binary, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatalf("busybox-static is needed (make deps): %v", err)
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	add := func(h *tar.Header, data []byte) {
		h.Size = int64(len(data))
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	add(&tar.Header{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	add(&tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}, nil)
	add(&tar.Header{Name: "bin/busybox", Mode: 0o755}, binary)
	for _, tool := range strings.Fields("sh ls cat wget nslookup mknod dd mount insmod ps kill id sleep touch chroot date find sed") {
		add(&tar.Header{Name: "bin/" + tool, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777}, nil)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	opened, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	image, err := mutate.AppendLayers(empty.Image, opened)
	if err != nil {
		t.Fatal(err)
	}
	image, err = mutate.ConfigFile(image, &v1.ConfigFile{Architecture: "amd64", OS: "linux", RootFS: must(image.ConfigFile()).RootFS,
		Config: v1.Config{Env: []string{"PATH=/bin"}, Cmd: []string{"sleep", "100000"}}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "toolbox.tar")
	if err := tarball.WriteToFile(path, name.MustParseReference("toolbox:1"), image); err != nil {
		t.Fatal(err)
	}
	return path
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// ownImage loads an image of the user's own into the instance's registry and
// runs a pod of it.
func ownImage(t *testing.T, c *testcloud.Cloud) {
	c.Must(t, "image", "load", toolbox(t), "toolbox:1")
	c.Run(t, "kubectl", "run", "box", "--image="+c.Env["BASTIDE_REGISTRY"]+"/toolbox:1")
	c.Run(t, "kubectl", "wait", "--for=condition=Ready", "pod/box", "--timeout=60s")
}
