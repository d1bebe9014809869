// SPDX-License-Identifier: Apache-2.0

package drill

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"bastide.dev/fault"
)

// tools are what an attacker in a pod has.
const tools = "sh ls cat wget nc nslookup sleep date ip arping hostname id timeout printf echo"

// Toolbox pushes the attackers' image to the instance's registry and returns its name.
func (l *Lab) Toolbox(ctx context.Context) (string, error) {
	return l.image.get(func() (string, error) {
		image, err := toolbox(l.Busybox)
		if err != nil {
			return "", err
		}
		ref, err := name.NewTag(strings.TrimPrefix(l.Instance.Registry(), "https://") + "/bastide/drill:1")
		if err != nil {
			return "", fmt.Errorf("toolbox: %w", err)
		}
		transport, err := l.Instance.Transport()
		if err != nil {
			return "", fmt.Errorf("toolbox: %w", err)
		}
		defer transport.CloseIdleConnections()
		err = remote.Write(ref, image, remote.WithContext(ctx), remote.WithTransport(transport),
			remote.WithAuth(&authn.Basic{Username: l.Instance.ClientID, Password: l.Secrets.ClientSecret}))
		if err != nil {
			return "", fmt.Errorf("toolbox: %w", err)
		}
		return ref.Name(), nil
	})
}

// toolbox is an image of a static busybox.
func toolbox(path string) (v1.Image, error) {
	binary, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.New(fault.Precondition, "BusyboxMissing", "Pods that attack are made of a static busybox, and %s can't be read: install Debian's package busybox-static.", path).Because(err)
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	headers := []*tar.Header{
		{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777},
		{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(binary))},
	}
	for _, tool := range strings.Fields(tools) {
		headers = append(headers, &tar.Header{Name: "bin/" + tool, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777})
	}
	for _, h := range headers {
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("toolbox: %w", err)
		}
		if h.Size > 0 {
			if _, err := w.Write(binary); err != nil {
				return nil, fmt.Errorf("toolbox: %w", err)
			}
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("toolbox: %w", err)
	}
	opened, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil })
	if err != nil {
		return nil, fmt.Errorf("toolbox: %w", err)
	}
	image, err := mutate.AppendLayers(empty.Image, opened)
	if err != nil {
		return nil, fmt.Errorf("toolbox: %w", err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("toolbox: %w", err)
	}
	image, err = mutate.ConfigFile(image, &v1.ConfigFile{Architecture: runtime.GOARCH, OS: "linux", RootFS: config.RootFS,
		Config: v1.Config{Env: []string{"PATH=/bin"}, Cmd: []string{"sleep", "100000"}}})
	if err != nil {
		return nil, fmt.Errorf("toolbox: %w", err)
	}
	return image, nil
}
