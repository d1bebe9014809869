// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"bastide.dev/cgroup"
)

const (
	agentPath = "/usr/local/bin/bastide"
	// stage is where things are put together, before the pivot hides it for ever.
	stage = "/tmp"
	root  = stage + "/root"
)

// mountAll builds the machine's root and pivots into it. All mounts are made
// here, in the machine's own namespaces: they belong to it and die with it.
func mountAll(o order, fds []int) error {
	if err := mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := mount("tmpfs", stage, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return err
	}
	if err := mountRoot(fds[:o.Layers], fds[o.Layers]); err != nil {
		return err
	}
	if err := attach(fds[o.Layers+1], root+agentPath, false); err != nil {
		return err
	}
	for i, path := range o.Programs {
		if err := attach(fds[o.Layers+2+i], root+path, false); err != nil {
			return err
		}
	}
	for _, own := range ownDirs {
		if err := bind(stage+"/data/"+own.name, root+own.path); err != nil {
			return err
		}
	}
	if err := mountKernel(); err != nil {
		return err
	}
	if err := mountDev(); err != nil {
		return err
	}
	if err := mountCgroups(o.Hierarchies); err != nil {
		return err
	}
	return pivot()
}

// mountRoot lays the machine's upper directory over its layers.
func mountRoot(layers []int, data int) error {
	var lowers []string
	for i, fd := range layers {
		lower := fmt.Sprintf("%s/%d", stage, i)
		if err := attach(fd, lower, true); err != nil {
			return err
		}
		lowers = append(lowers, lower)
	}
	if err := attach(data, stage+"/data", true); err != nil {
		return err
	}
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	return mount("overlay", root, "overlay", unix.MS_NODEV, fmt.Sprintf("lowerdir=%s,upperdir=%s/data/upper,workdir=%s/data/work,userxattr",
		strings.Join(lowers, ":"), stage, stage))
}

// mountKernel mounts what the kernel shows of itself. Nothing in it is hidden:
// what a machine mustn't touch there belongs to an id that it doesn't have, and
// a covered /proc or read-only /sys would forbid containers to mount their own.
func mountKernel() error {
	for _, m := range []struct {
		path, kind string
		flags      uintptr
		options    string
	}{
		{"/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"/sys", "sysfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755,size=20%"},
		{"/tmp", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777,size=20%"},
	} {
		if err := place(root + m.path); err != nil {
			return err
		}
		if err := mount(m.kind, root+m.path, m.kind, m.flags, m.options); err != nil {
			return err
		}
	}
	return nil
}

// mountDev makes a /dev of the six harmless devices.
func mountDev() error {
	dev := root + "/dev"
	if err := place(dev); err != nil {
		return err
	}
	if err := mount("tmpfs", dev, "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, "mode=0755,size=64k"); err != nil {
		return err
	}
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		if err := os.WriteFile(filepath.Join(dev, name), nil, 0o644); err != nil {
			return err
		}
		if err := mount("/dev/"+name, filepath.Join(dev, name), "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	for _, m := range []struct{ name, kind, options string }{
		{"pts", "devpts", "newinstance,ptmxmode=0666,mode=0620,gid=5"},
		{"shm", "tmpfs", "mode=1777"},
		{"mqueue", "mqueue", ""},
	} {
		path := filepath.Join(dev, m.name)
		if err := os.Mkdir(path, 0o755); err != nil {
			return err
		}
		err := mount(m.kind, path, m.kind, unix.MS_NOSUID|unix.MS_NOEXEC, m.options)
		if err != nil && (m.kind != "mqueue" || !errors.Is(err, unix.ENODEV)) { // not in every kernel
			return err
		}
	}
	for name, target := range map[string]string{
		"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(target, filepath.Join(dev, name)); err != nil {
			return err
		}
	}
	return nil
}

// mountCgroups shows the machine its own part of each hierarchy, where the host has it.
func mountCgroups(hierarchies []cgroup.Hierarchy) error {
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	const base = "/sys/fs/cgroup"
	if len(hierarchies) == 1 && hierarchies[0].V2 && hierarchies[0].Mount == base {
		return mount("cgroup2", root+base, "cgroup2", flags, "")
	}
	if err := mount("tmpfs", root+base, "tmpfs", flags, "mode=0755,size=64k"); err != nil {
		return err
	}
	for _, h := range hierarchies {
		if err := os.MkdirAll(root+h.Mount, 0o755); err != nil {
			return err
		}
		kind := "cgroup"
		if h.V2 {
			kind = "cgroup2"
		}
		options := strings.Join(h.Options, ",")
		if strings.HasPrefix(options, "name=") {
			options = "none," + options
		}
		if err := mount(kind, root+h.Mount, kind, flags, options); err != nil {
			return err
		}
	}
	return nil
}

// pivot makes the new root the only one.
func pivot() error {
	if err := unix.Chdir(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot root: %w", err)
	}
	// The old root now lies over the new one at ".".
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach the host's root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	return mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "")
}

// attach puts a mount that the host made where path is.
func attach(fd int, path string, dir bool) error {
	if dir {
		if err := place(path); err != nil {
			return err
		}
	} else {
		if err := place(filepath.Dir(path)); err != nil {
			return err
		}
		if err := removeIfThere(path); err != nil { // a link, perhaps
			return err
		}
		if err := os.WriteFile(path, nil, 0o755); err != nil {
			return err
		}
	}
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach %s: %w", path, err)
	}
	return nil
}

// place makes the directory path. A machine that ran before may have put links
// on the way; until the pivot they would lead into the host's tree, so they go.
func place(path string) error {
	for i := len(stage) + 1; i <= len(path); i++ {
		if i < len(path) && path[i] != '/' {
			continue
		}
		info, err := os.Lstat(path[:i])
		if err == nil && info.IsDir() {
			continue
		}
		if err == nil {
			err = os.Remove(path[:i])
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := os.Mkdir(path[:i], 0o755); err != nil {
			return err
		}
	}
	return nil
}

func bind(from, to string) error {
	if err := place(to); err != nil {
		return err
	}
	return mount(from, to, "", unix.MS_BIND, "")
}

func mount(source, target, kind string, flags uintptr, options string) error {
	if err := unix.Mount(source, target, kind, flags, options); err != nil {
		return fmt.Errorf("mount %s %s (%s): %w", kind, target, options, err)
	}
	return nil
}
