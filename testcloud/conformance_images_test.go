// SPDX-License-Identifier: Apache-2.0

//go:build conformance

package testcloud_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"bastide.dev/bundle"
)

// The tests' pods are of images that can't be fetched everywhere. Made here are those of the
// network's tests: upstream's programs where they are upstream's, Debian's where they are Alpine's.

// debianPackages are what the tests run in their pods, by exec and by shell.
func debianPackages() string {
	return "bind9-dnsutils,busybox,conntrack,curl,iperf,iproute2,iptables,netcat-openbsd,nginx-light,wget"
}

// loadImages makes the images, with the tags that the tests ask for, and puts them into the registry.
func (k *conformance) loadImages(t *testing.T) {
	t.Helper()
	registry := k.Env["BASTIDE_REGISTRY"]
	list := fmt.Sprintf("promoterE2eRegistry: %[1]s/e2e-test-images\nbuildImageRegistry: %[1]s/build-image\ngcRegistry: %[1]s\n", registry)
	if err := os.WriteFile(k.repositories, []byte(list), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), k.e2e.Path("e2e.test"), "--list-images")
	cmd.Env = k.environment()
	wanted, err := cmd.Output()
	if err != nil {
		t.Fatalf("which images do the tests want? %v", err)
	}
	made := k.makeImages(t)
	archive := map[name.Tag]v1.Image{}
	found := map[string]bool{}
	for reference := range strings.FieldsSeq(string(wanted)) {
		tag, err := name.NewTag(reference)
		if err != nil || tag.RegistryStr() != registry {
			continue // made for tests of other things
		}
		if image, ok := made[tag.RepositoryStr()]; ok {
			archive[tag], found[tag.RepositoryStr()] = image, true
		}
	}
	for repository := range made {
		if !found[repository] {
			t.Errorf("no test wants an image %s any more", repository)
		}
	}
	path := filepath.Join(t.TempDir(), "images.tar")
	if err := tarball.MultiWriteToFile(path, archive); err != nil {
		t.Fatal(err)
	}
	t.Log(k.Must(t, "image", "load", path))
}

// makeImages makes them by repository.
func (k *conformance) makeImages(t *testing.T) map[string]v1.Image {
	t.Helper()
	debian := debianLayer(t)
	porter := filepath.Join(source(t), "test/images/agnhost/porter")
	agnhost := imageOf(t, v1.Config{Entrypoint: []string{"/agnhost"}, Cmd: []string{"pause"}}, debian, files(t,
		folder("uploads/"), file(t, "agnhost", k.e2e.Path("agnhost")), link("agnhost-2", "agnhost"),
		file(t, "coredns", ours(t, "coredns", bundle.CoreDNSVersion)),
		file(t, "localhost.crt", filepath.Join(porter, "localhost.crt")), file(t, "localhost.key", filepath.Join(porter, "localhost.key")),
		// Alpine's wget tries once, GNU's twenty times. (The -T of Debian's busybox crashes.)
		content("etc/wgetrc", "tries = 1\n")))
	const tests = "e2e-test-images/"
	return map[string]v1.Image{
		tests + "agnhost":         agnhost,
		tests + "busybox":         imageOf(t, v1.Config{Cmd: []string{"sh"}}, busybox(t)),
		tests + "jessie-dnsutils": imageOf(t, v1.Config{Cmd: []string{"bash"}}, debian),
		tests + "nginx":           imageOf(t, v1.Config{Cmd: []string{"nginx", "-g", "daemon off;"}}, debian),
		tests + "regression-issue-74839": imageOf(t, v1.Config{Entrypoint: []string{"/regression-issue-74839"}},
			files(t, file(t, "regression-issue-74839", k.e2e.Path("regression-issue-74839")))),
		"build-image/distroless-iptables": imageOf(t, v1.Config{}, debian),
		"pause":                           imageOf(t, v1.Config{Entrypoint: []string{"/pause"}}, files(t, file(t, "pause", ours(t, "pause", bundle.PauseVersion)))),
	}
}

// source is the folder of the release's module.
func source(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-C", "../kube/e2e", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes").Output()
	if err != nil {
		t.Fatalf("where is Kubernetes' module? %v", err)
	}
	return strings.TrimSpace(string(out))
}

// ours is the program of a bundle that has one.
func ours(t *testing.T, name, version string) string {
	t.Helper()
	b, err := bundle.Open(bundle.DefaultCache, name, version)
	if err != nil {
		t.Fatal(err)
	}
	return b.Path(name)
}

func imageOf(t *testing.T, config v1.Config, layers ...v1.Layer) v1.Image {
	t.Helper()
	image, err := mutate.AppendLayers(empty.Image, layers...)
	if err != nil {
		t.Fatal(err)
	}
	config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	image, err = mutate.ConfigFile(image, &v1.ConfigFile{Architecture: "amd64", OS: "linux", RootFS: must(image.ConfigFile()).RootFS, Config: config})
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// debianLayer is a small Debian.
func debianLayer(t *testing.T) v1.Layer {
	t.Helper()
	path := filepath.Join(t.TempDir(), "debian.tar")
	cmd := exec.CommandContext(t.Context(), "mmdebstrap", "--variant=minbase", "--mode=root", "--format=tar", "--include="+debianPackages(),
		"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*", "bookworm", path)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("mmdebstrap: %v\n%s", err, out)
	}
	return must(tarball.LayerFromFile(path, tarball.WithCompressionLevel(gzip.BestSpeed)))
}

// busybox is Debian's static one, by all its names.
func busybox(t *testing.T) v1.Layer {
	t.Helper()
	names, err := exec.CommandContext(t.Context(), "/bin/busybox", "--list").Output()
	if err != nil {
		t.Fatalf("busybox-static is needed (make deps): %v", err)
	}
	entries := []entry{folder("bin/"), folder("tmp/"), file(t, "bin/busybox", "/bin/busybox")}
	for applet := range strings.FieldsSeq(string(names)) {
		if applet != "busybox" {
			entries = append(entries, link("bin/"+applet, "busybox"))
		}
	}
	return files(t, entries...)
}

// entry is a file of a layer.
type entry struct {
	tar.Header
	data []byte
}

func folder(path string) entry {
	return entry{Header: tar.Header{Name: path, Typeflag: tar.TypeDir, Mode: 0o1777}}
}

func link(path, target string) entry {
	return entry{Header: tar.Header{Name: path, Typeflag: tar.TypeSymlink, Linkname: target, Mode: 0o777}}
}

func file(t *testing.T, path, source string) entry {
	t.Helper()
	data, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	return content(path, string(data))
}

func content(path, text string) entry {
	return entry{tar.Header{Name: path, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(text))}, []byte(text)}
}

func files(t *testing.T, entries ...entry) v1.Layer {
	t.Helper()
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, e := range entries {
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil }
	return must(tarball.LayerFromOpener(open, tarball.WithCompressionLevel(gzip.BestSpeed)))
}
