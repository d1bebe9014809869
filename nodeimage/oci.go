// SPDX-License-Identifier: Apache-2.0

package nodeimage

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"bastide.dev/bundle"
)

// podImage says how an image is made of a bundle's program: that program alone,
// run as a user without rights.
type podImage struct {
	reference    string
	component    string // also the bundle's name
	version      string
	args         []string
	ports        []string
	certificates bool // trusts the public authorities
}

const nobody = "65532:65532"

func podImages() []podImage {
	return []podImage{
		{reference: PauseImage, component: "pause", version: bundle.PauseVersion},
		{reference: CoreDNSImage, component: "coredns", version: bundle.CoreDNSVersion, ports: []string{"53/udp", "53/tcp"}, certificates: true},
		{reference: MetricsServerImage, component: "metrics-server", version: bundle.MetricsServerVersion, ports: []string{"10250/tcp"}},
		{reference: WebImage, component: "web", version: bundle.WebVersion, ports: []string{"8080/tcp"}},
	}
}

// LayoutDir is where the OCI layout of an image that every node has is kept.
func LayoutDir(cacheDir string, image PodImage) string {
	_, name, _ := strings.Cut(image.Reference, "/")
	digest := strings.TrimPrefix(image.Digest, "sha256:")
	return filepath.Join(cacheDir, "oci", strings.ReplaceAll(name, ":", "@")+"-"+digest[:16])
}

// makePodImages writes the layouts that aren't there yet.
func makePodImages(cacheDir string) ([]PodImage, error) {
	var made []PodImage
	for _, p := range podImages() {
		image, err := p.build(cacheDir)
		if err != nil {
			return nil, fmt.Errorf("make image %s: %w", p.reference, err)
		}
		digest, err := image.Digest()
		if err != nil {
			return nil, err
		}
		done := PodImage{Reference: p.reference, Digest: digest.String()}
		if err := writeLayout(LayoutDir(cacheDir, done), p.reference, image); err != nil {
			return nil, fmt.Errorf("write image %s: %w", p.reference, err)
		}
		made = append(made, done)
	}
	return made, nil
}

func (p podImage) build(cacheDir string) (v1.Image, error) {
	b, err := bundle.Open(cacheDir, p.component, p.version)
	if err != nil {
		return nil, err
	}
	layer, err := p.layer(b)
	if err != nil {
		return nil, err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	if image, err = mutate.AppendLayers(image, layer); err != nil {
		return nil, err
	}
	config := v1.Config{
		Entrypoint: append([]string{"/" + p.component}, p.args...), User: nobody, WorkingDir: "/",
		Env:          []string{"PATH=/"},
		ExposedPorts: map[string]struct{}{},
		Labels: map[string]string{
			"org.opencontainers.image.title": p.component, "org.opencontainers.image.version": p.version,
			"dev.bastide.inputs": b.Inputs,
		},
	}
	for _, port := range p.ports {
		config.ExposedPorts[port] = struct{}{}
	}
	return mutate.ConfigFile(image, &v1.ConfigFile{
		Architecture: runtime.GOARCH, OS: "linux", Config: config,
		RootFS: v1.RootFS{Type: "layers", DiffIDs: diffIDs(layer)},
	})
}

func diffIDs(layer v1.Layer) []v1.Hash {
	id, err := layer.Digest() // of an uncompressed layer both are the same
	if err != nil {
		return nil
	}
	return []v1.Hash{id}
}

const caCertificates = "etc/ssl/certs/ca-certificates.crt"

// layer is not compressed: it never leaves the machine, and the runtime's store
// keeps it as it is.
func (p podImage) layer(b *bundle.Bundle) (v1.Layer, error) {
	program, err := os.ReadFile(b.Path(p.component))
	if err != nil {
		return nil, err
	}
	entries := []entry{
		{"etc/", 0o755, nil}, {"etc/passwd", 0o644, []byte("root:x:0:0:root:/:/\nnonroot:x:65532:65532:nonroot:/:/\n")},
		{"etc/group", 0o644, []byte("root:x:0:\nnonroot:x:65532:\n")},
		{"tmp/", 0o1777, nil}, {p.component, 0o555, program},
	}
	if p.certificates {
		roots, err := os.ReadFile("/" + caCertificates)
		if err != nil {
			return nil, fmt.Errorf("public authorities: %w", err)
		}
		entries = append(entries, entry{"etc/ssl/", 0o755, nil}, entry{"etc/ssl/certs/", 0o755, nil}, entry{caCertificates, 0o444, roots})
	}
	data, err := archive(entries)
	if err != nil {
		return nil, err
	}
	return static.NewLayer(data, types.OCIUncompressedLayer), nil
}

type entry struct {
	name string
	mode int64
	data []byte
}

func archive(entries []entry) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: e.mode, Size: int64(len(e.data)), Typeflag: tar.TypeReg, Format: tar.FormatPAX}
		if strings.HasSuffix(e.name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(e.data); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return out.Bytes(), err
}

// writeLayout writes an OCI layout of one image, whole or not at all.
func writeLayout(dir, reference string, image v1.Image) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".tmp-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp) // gone after the rename
	path, err := layout.Write(tmp, empty.Index)
	if err != nil {
		return err
	}
	_, tag, _ := strings.Cut(reference, ":")
	// The first annotation is containerd's name for the image, the second OCI's.
	if err := path.AppendImage(image, layout.WithAnnotations(map[string]string{
		"io.containerd.image.name": reference, "org.opencontainers.image.ref.name": tag,
	})); err != nil {
		return err
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	return os.Rename(tmp, dir)
}

// imagesDigest names a set of images and the runtime that unpacks them.
func imagesDigest(runtimeInputs string, images []PodImage) (string, error) {
	data, err := json.Marshal(map[string]any{"format": 2, "runtime": runtimeInputs, "images": images})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}
