// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// scratch is an empty directory that every machine has, to mount a new root on;
// only the process's own mount namespace sees it.
const scratch = "/mnt"

// enterView gives this thread, which has a mount namespace of its own, a new
// root with only the binds, a few devices, and /proc with its own uid's
// processes. It also keeps the namespace from holding on to the machine's other
// mounts, such as network namespaces that are to be deleted.
func enterView(binds []Bind) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", scratch, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755,size=1m"); err != nil {
		return fmt.Errorf("mount root: %w", err)
	}
	for _, d := range []string{"null", "zero", "full", "random", "urandom"} {
		if err := bind(Bind{Source: "/dev/" + d, Writable: true}, unix.MS_NOSUID|unix.MS_NOEXEC); err != nil {
			return err
		}
	}
	if err := mountProc(); err != nil {
		return err
	}
	tmp := filepath.Join(scratch, "tmp")
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", tmp, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=1777,size=64m"); err != nil {
		return fmt.Errorf("mount /tmp: %w", err)
	}
	for _, b := range binds { // after /tmp, so that they may lie below it
		if err := bind(b, unix.MS_NOSUID|unix.MS_NODEV); err != nil {
			return err
		}
	}
	if err := unix.Mount("", scratch, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("make root read-only: %w", err)
	}
	return changeRoot(scratch)
}

func mountProc() error {
	dir := filepath.Join(scratch, "proc")
	if err := os.Mkdir(dir, 0o555); err != nil {
		return err
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("proc", dir, "proc", flags, "hidepid=invisible,subset=pid"); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return nil
}

func bind(b Bind, flags uintptr) error {
	target := b.Target
	if target == "" {
		target = b.Source
	}
	target = filepath.Join(scratch, target)
	info, err := os.Stat(b.Source)
	if err != nil {
		return err
	}
	if info.IsDir() {
		err = os.MkdirAll(target, 0o755)
	} else if err = os.MkdirAll(filepath.Dir(target), 0o755); err == nil {
		err = touch(target)
	}
	if err != nil {
		return err
	}
	if err := unix.Mount(b.Source, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s: %w", b.Source, err)
	}
	if !b.Writable {
		flags |= unix.MS_RDONLY
	}
	if err := unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND|flags, ""); err != nil {
		return fmt.Errorf("restrict %s: %w", b.Source, err)
	}
	return nil
}

func touch(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

func changeRoot(root string) error {
	if err := unix.Chdir(root); err != nil {
		return err
	}
	// With both arguments the same, the old root lies over the new and is taken off.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("change root: %w", err)
	}
	return errors.Join(unix.Unmount(".", unix.MNT_DETACH), unix.Chdir("/"))
}
