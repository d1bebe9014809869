// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// linkFrom is the size from which a hard link is worth its oddity: a linked
// file belongs to nobody inside the machine.
const linkFrom = 256 << 10

// plant copies the tree at from to to, each owner moved up by base. Big files
// that everyone may read and nobody needs to own are hard-linked: their owner
// has no id inside the machine, so its root can't change them.
func plant(ctx context.Context, from, to string, base int) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return errors.New("no stat of " + path)
		}
		target := filepath.Join(to, rel)
		if linkable(info, st) && unix.Link(path, target) == nil {
			return nil
		}
		return copyNode(path, target, info, st, base)
	})
}

func linkable(info fs.FileInfo, st *syscall.Stat_t) bool {
	return info.Mode().IsRegular() && info.Size() >= linkFrom && st.Uid == 0 && st.Gid == 0 &&
		info.Mode().Perm()&0o444 == 0o444 && info.Mode().Perm()&0o022 == 0 &&
		info.Mode()&(fs.ModeSetuid|fs.ModeSetgid) == 0 &&
		// Written in place by containerd.
		!strings.HasSuffix(info.Name(), ".db")
}

func copyNode(path, target string, info fs.FileInfo, st *syscall.Stat_t, base int) error {
	var err error
	switch info.Mode().Type() {
	case fs.ModeDir:
		if err = os.Mkdir(target, 0o700); errors.Is(err, fs.ErrExist) {
			err = nil
		}
	case fs.ModeSymlink:
		var link string
		if link, err = os.Readlink(path); err == nil {
			err = os.Symlink(link, target)
		}
	case 0:
		err = copyFile(path, target)
	case fs.ModeDevice | fs.ModeCharDevice:
		if st.Rdev != 0 {
			return nil // only an overlay's whiteout may be a device
		}
		err = unix.Mknod(target, unix.S_IFCHR, 0)
	default:
		return nil // sockets and pipes are left over from what ran
	}
	if err != nil {
		return err
	}
	if err := os.Lchown(target, base+int(st.Uid), base+int(st.Gid)); err != nil {
		return err
	}
	if info.Mode().Type() == fs.ModeSymlink {
		return nil
	}
	if err := copyAttributes(path, target); err != nil {
		return err
	}
	// After the change of owner, which takes setuid away.
	return unix.Chmod(target, st.Mode&0o7777)
}

func copyFile(path, target string) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if unix.IoctlFileClone(int(out.Fd()), int(in.Fd())) != nil {
		_, err = io.Copy(out, in)
	}
	return errors.Join(err, out.Close())
}

// copyAttributes turns what a privileged overlay wrote into what one in a user
// namespace reads.
func copyAttributes(path, target string) error {
	names := make([]byte, 4096)
	n, err := unix.Llistxattr(path, names)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return err
	}
	for name := range strings.SplitSeq(string(names[:n]), "\x00") {
		to, ok := name, strings.HasPrefix(name, "user.")
		if rest, is := strings.CutPrefix(name, "trusted.overlay."); is {
			to, ok = "user.overlay."+rest, true
		}
		if !ok {
			continue
		}
		value := make([]byte, 4096)
		size, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return err
		}
		if err := unix.Lsetxattr(target, to, value[:size], 0); err != nil {
			return err
		}
	}
	return nil
}
