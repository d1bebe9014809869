// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// imageFile is a file's images; close removes what was unpacked for them.
type imageFile struct {
	images []fileImage
	close  func()
}

// fileImage is one image, or an index of images for several platforms.
type fileImage struct {
	names []string
	image v1.Image
	index v1.ImageIndex
}

// write pushes it and returns its digest.
func (i fileImage) write(ref name.Tag, options []remote.Option) (string, error) {
	if i.index != nil {
		if err := remote.WriteIndex(ref, i.index, options...); err != nil {
			return "", err
		}
		digest, err := i.index.Digest()
		return digest.String(), err
	}
	if err := remote.Write(ref, i.image, options...); err != nil {
		return "", err
	}
	digest, err := i.image.Digest()
	return digest.String(), err
}

// layoutForm are the names in an OCI layout; nothing else is unpacked.
var layoutForm = regexp.MustCompile(`^(?:oci-layout|index\.json|blobs/sha256/[a-f0-9]{64})$`)

// openFile finds out what a file is and reads its images' names.
func openFile(file string) (*imageFile, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, badFile(file, "")
	}
	if info.IsDir() {
		images, err := readLayout(file, file)
		return &imageFile{images: images, close: func() {}}, err
	}
	dir, err := os.MkdirTemp("", "bastide-image-")
	if err != nil {
		return nil, fmt.Errorf("unpack image: %w", err)
	}
	remove := func() { _ = os.RemoveAll(dir) } // what is left is in the system's temporary folder
	images, err := readTar(file, dir)
	if err != nil {
		remove()
		return nil, err
	}
	return &imageFile{images: images, close: remove}, nil
}

func readTar(file, dir string) ([]fileImage, error) {
	plain, err := gunzip(file, dir)
	if err != nil {
		return nil, err
	}
	kinds, err := tarNames(file, plain)
	if err != nil {
		return nil, err
	}
	switch {
	case kinds["manifest.json"]: // newer docker archives are layouts as well
		return readDocker(file, plain)
	case kinds["oci-layout"] && kinds["index.json"]:
		layoutDir := filepath.Join(dir, "layout")
		if err := untar(file, plain, layoutDir); err != nil {
			return nil, err
		}
		return readLayout(file, layoutDir)
	}
	return nil, badFile(file, "it is neither a docker archive (`docker save`) nor an OCI layout")
}

// gunzip returns a path to the file's content without its compression: archives are read out of order.
func gunzip(file, dir string) (plain string, err error) {
	f, err := os.Open(file)
	if err != nil {
		return "", badFile(file, "")
	}
	defer func() { _ = f.Close() }() // only read
	head := bufio.NewReader(f)
	if magic, err := head.Peek(2); err != nil || magic[0] != 0x1f || magic[1] != 0x8b {
		return file, nil
	}
	unzipped, err := gzip.NewReader(head)
	if err != nil {
		return "", badFile(file, "its compression is damaged")
	}
	plain = filepath.Join(dir, "plain.tar")
	return plain, write(plain, unzipped, func(err error) error { return badFile(file, "it can't be unpacked: %v", err) })
}

func write(to string, from io.Reader, problem func(error) error) error {
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("unpack image: %w", err)
	}
	_, err = io.Copy(out, from)
	if err = errors.Join(err, out.Close()); err != nil {
		return problem(err)
	}
	return nil
}

// eachEntry calls visit for each regular file of a tar.
func eachEntry(file, plain string, visit func(name string, content io.Reader) error) error {
	f, err := os.Open(plain)
	if err != nil {
		return badFile(file, "")
	}
	defer func() { _ = f.Close() }() // only read
	for entries := tar.NewReader(f); ; {
		header, err := entries.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return badFile(file, "it is no tar archive, or a damaged one")
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		if err := visit(path.Clean(header.Name), entries); err != nil {
			return err
		}
	}
}

func tarNames(file, plain string) (map[string]bool, error) {
	names := map[string]bool{}
	return names, eachEntry(file, plain, func(name string, _ io.Reader) error {
		names[name] = true
		return nil
	})
}

func untar(file, plain, dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, "blobs/sha256"), 0o700); err != nil {
		return fmt.Errorf("unpack image: %w", err)
	}
	return eachEntry(file, plain, func(name string, content io.Reader) error {
		if !layoutForm.MatchString(name) {
			return nil
		}
		return write(filepath.Join(dir, name), content, func(err error) error { return badFile(file, "%s can't be unpacked: %v", name, err) })
	})
}

func readDocker(file, plain string) ([]fileImage, error) {
	open := func() (io.ReadCloser, error) { return os.Open(plain) }
	manifest, err := tarball.LoadManifest(open)
	if err != nil || len(manifest) == 0 {
		return nil, badFile(file, "its manifest.json is damaged or empty")
	}
	var images []fileImage
	for _, descriptor := range manifest {
		var tag *name.Tag // which image of the archive, told by its first tag
		if len(descriptor.RepoTags) > 0 {
			parsed, err := name.NewTag(descriptor.RepoTags[0])
			if err != nil {
				return nil, badFile(file, "it names an image %q", descriptor.RepoTags[0])
			}
			tag = &parsed
		} else if len(manifest) > 1 {
			return nil, badFile(file, "one of its images has no name")
		}
		image, err := tarball.Image(open, tag)
		if err != nil {
			return nil, badFile(file, "an image in it is damaged: %v", err)
		}
		images = append(images, fileImage{names: descriptor.RepoTags, image: image})
	}
	return images, nil
}

// readLayout reads the images that an OCI layout's index names.
func readLayout(file, dir string) ([]fileImage, error) {
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, badFile(file, "it is no OCI layout: %v", err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, badFile(file, "its index is damaged: %v", err)
	}
	var images []fileImage
	for _, descriptor := range manifest.Manifests {
		image := fileImage{}
		for _, key := range []string{"io.containerd.image.name", "org.opencontainers.image.ref.name"} {
			if n := descriptor.Annotations[key]; n != "" {
				image.names = []string{n}
				break
			}
		}
		switch {
		case descriptor.MediaType.IsIndex():
			image.index, err = index.ImageIndex(descriptor.Digest)
		case descriptor.MediaType.IsImage():
			image.image, err = index.Image(descriptor.Digest)
		default:
			continue // an attestation, or another artefact beside its image
		}
		if err != nil {
			return nil, badFile(file, "an image in it is damaged: %v", err)
		}
		images = append(images, image)
	}
	if len(images) == 0 {
		return nil, badFile(file, "it holds no image")
	}
	return images, nil
}
