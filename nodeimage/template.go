// SPDX-License-Identifier: Apache-2.0

package nodeimage

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"bastide.dev/bundle"
)

// containerdConfig runs no more than an import needs.
const containerdConfig = `version = 3
root = %q
state = %q
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
  "io.containerd.podsandbox.controller.v1.podsandbox", "io.containerd.nri.v1.nri",
  "io.containerd.monitor.container.v1.restart", "io.containerd.snapshotter.v1.native"
]
[grpc]
  address = %q
[ttrpc]
  address = %q
`

// fillContainerd makes dir a containerd root with the images imported and
// unpacked, as kubelet's namespace sees them. It runs the node's own containerd
// on a private state directory for that.
func fillContainerd(ctx context.Context, cacheDir, dir string, runtime *bundle.Bundle, images []PodImage) (err error) {
	state, err := os.MkdirTemp("", "bastide-nodeimage-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(state)) }()
	socket := filepath.Join(state, "c.sock")
	config := filepath.Join(state, "config.toml")
	text := fmt.Sprintf(containerdConfig, dir, filepath.Join(state, "run"), socket, filepath.Join(state, "t.sock"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return err
	}
	err = whileRunning(ctx, exec.Command(runtime.Path("containerd"), "--config", config, "--log-level", "warn"), socket, func(ctx context.Context) error {
		for _, image := range images {
			if err := importImage(ctx, runtime.Path("ctr"), socket, LayoutDir(cacheDir, image), image.Reference); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("fill containerd's store: %w", err)
	}
	return settle(dir)
}

// whileRunning starts a daemon, calls do when its socket answers, then ends it
// and waits until it is gone.
func whileRunning(ctx context.Context, daemon *exec.Cmd, socket string, do func(context.Context) error) error {
	var log bytes.Buffer
	daemon.Stdout, daemon.Stderr = &log, &log
	daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := daemon.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	exited := make(chan error, 1)
	go func() {
		err := daemon.Wait()
		cancel(fmt.Errorf("containerd ended: %w: %s", err, log.String()))
		exited <- err
	}()
	err := waitSocket(ctx, socket)
	if err == nil {
		err = do(ctx)
	}
	if ctx.Err() != nil {
		err = errors.Join(err, context.Cause(ctx))
	}
	if stop := daemon.Process.Signal(syscall.SIGTERM); stop != nil && !errors.Is(stop, os.ErrProcessDone) {
		err = errors.Join(err, stop)
	}
	return errors.Join(err, <-exited)
}

func waitSocket(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", socket, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// importImage hands an OCI layout to containerd as the archive that ctr reads.
// The labels are those that the CRI plugin gives what it pulled; the pause image
// is pinned, so that kubelet's clean-up leaves it.
func importImage(ctx context.Context, ctr, socket, layoutDir, reference string) error {
	archive, writer := io.Pipe()
	cmd := ctrCommand(ctx, ctr, socket, "images", "import", "--snapshotter", "overlayfs", "-")
	cmd.Stdin = archive
	go func() {
		w := tar.NewWriter(writer)
		err := w.AddFS(os.DirFS(layoutDir))
		writer.CloseWithError(errors.Join(err, w.Close()))
	}()
	// Closing our end lets the writer above finish, whatever ctr did.
	err := errors.Join(run(cmd), archive.Close())
	if err != nil {
		return fmt.Errorf("import %s: %w", reference, err)
	}
	labels := []string{"io.cri-containerd.image=managed"}
	if reference == PauseImage {
		labels = append(labels, "io.cri-containerd.pinned=pinned")
	}
	return run(ctrCommand(ctx, ctr, socket, append([]string{"images", "label", reference}, labels...)...))
}

func ctrCommand(ctx context.Context, ctr, socket string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, ctr, append([]string{"--address", socket, "--namespace", "k8s.io"}, args...)...)
}

func run(cmd *exec.Cmd) error {
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, output.String())
	}
	return nil
}

// settle leaves of a stopped containerd's root what a new one starts from. Blobs
// and unpacked files become read-only for all: machines share them by hard link
// and own none of them.
func settle(dir string) error {
	// The introspection service would give all machines the same identity.
	for _, leftover := range []string{"tmpmounts", "io.containerd.content.v1.content/ingest", "io.containerd.grpc.v1.introspection"} {
		if err := os.RemoveAll(filepath.Join(dir, leftover)); err != nil {
			return err
		}
	}
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || filepath.Ext(path) == ".db" {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o444)
		if info.Mode()&0o111 != 0 {
			mode = 0o555
		}
		return os.Chmod(path, mode)
	})
}
