// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"bastide.dev/machine"
)

// What lies in a running machine belongs to its tenant, who may put links,
// mounts and devices anywhere, and change them at any moment. So a path in it is
// walked from its root by the kernel itself, and never leaves one mount.
const (
	strictly = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV
	onto     = strictly &^ unix.RESOLVE_NO_XDEV // one step, onto a mount whose kind is asked for then
)

// The kinds of file system that a machine's root and its /run have. Reading
// from others might never end, or be an effect of its own.
const (
	overlayMagic = unix.OVERLAYFS_SUPER_MAGIC
	tmpfsMagic   = unix.TMPFS_MAGIC
)

// root opens the root directory of the machine that the process is PID 1 of.
// The caller holds the provider's lock, which keeps pidfd open.
func (p *process) root() (int, error) {
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/root", p.pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("machine's root: %w", err)
	}
	// Still there: so the number was nobody else's when it was used.
	if err := unix.PidfdSendSignal(p.pidfd, 0, nil, 0); err != nil {
		return -1, errors.Join(fmt.Errorf("machine's root: %w", err), unix.Close(fd))
	}
	return fd, nil
}

func openIn(dir int, name string, flags, resolve uint64) (int, error) {
	return unix.Openat2(dir, name, &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: resolve})
}

// mustBe refuses a directory that is on another kind of file system.
func mustBe(fd int, magic int64) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return err
	}
	if fs.Type != magic {
		return fmt.Errorf("it is on a file system of kind %#x instead of %#x", fs.Type, magic)
	}
	return nil
}

// readIn reads a regular file of at most limit bytes that is below the mount
// point dir, which must be a tmpfs. A file that isn't there is nil.
func readIn(root int, dir, name string, limit int64) ([]byte, error) {
	mounted, err := openIn(root, dir, unix.O_PATH|unix.O_DIRECTORY, onto)
	if err != nil {
		return nil, err
	}
	defer unix.Close(mounted)
	if err := mustBe(mounted, tmpfsMagic); err != nil {
		return nil, err
	}
	// Looked at before it is opened: opening a pipe or a device does something.
	found, err := openIn(mounted, name, unix.O_PATH|unix.O_NOFOLLOW, strictly)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer unix.Close(found)
	var st unix.Stat_t
	if err := unix.Fstat(found, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, errors.New("it isn't a regular file")
	}
	if st.Size > limit {
		return nil, fmt.Errorf("it has %d bytes, more than %d", st.Size, limit)
	}
	file, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", found))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, limit+1)) // it may have grown
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("it has more than %d bytes", limit)
	}
	return data, err
}

// stamp tells whether a file may have changed, without opening it.
type stamp struct {
	inode        uint64
	size         int64
	changed, mod unix.Timespec
}

// stampIn is the stamp of a file as readIn would read it; the zero stamp is of
// one that isn't there or can't be looked at.
func stampIn(root int, dir, name string) stamp {
	mounted, err := openIn(root, dir, unix.O_PATH|unix.O_DIRECTORY, onto)
	if err != nil {
		return stamp{}
	}
	defer unix.Close(mounted)
	found, err := openIn(mounted, name, unix.O_PATH|unix.O_NOFOLLOW, strictly)
	if err != nil {
		return stamp{}
	}
	defer unix.Close(found)
	var st unix.Stat_t
	if err := unix.Fstat(found, &st); err != nil {
		return stamp{}
	}
	return stamp{st.Ino, st.Size, st.Ctim, st.Mtim}
}

// deliver writes files into a running machine, each as a whole, as the
// machine's root and with no more rights than that has to its own files.
func deliver(root, owner int, files []machine.File) error {
	if err := mustBe(root, overlayMagic); err != nil {
		return fmt.Errorf("machine's root: %w", err)
	}
	done := make(chan error, 1)
	go func() {
		// The ids for files belong to the thread, which ends with this goroutine.
		runtime.LockOSThread()
		done <- deliverAs(owner, root, files)
	}()
	return <-done
}

func deliverAs(owner, root int, files []machine.File) error {
	// Neither call fails or tells: a second one gives what the first one set.
	for _, set := range []func(int) (int, error){unix.SetfsgidRetGid, unix.SetfsuidRetUid} {
		if _, err := set(owner); err != nil {
			return err
		}
		if now, err := set(owner); err != nil || now != owner {
			return errors.Join(fmt.Errorf("can't write as the machine's root %d", owner), err)
		}
	}
	var problems []error
	for _, f := range files {
		if err := deliverFile(root, f); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", f.Path, err))
		}
	}
	return errors.Join(problems...)
}

func deliverFile(root int, f machine.File) error {
	dir, err := makeDirs(root, path.Dir(path.Clean(f.Path)))
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	name := path.Base(f.Path)
	temporary := name + ".delivered"
	if err := unix.Unlinkat(dir, temporary, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	fd, err := unix.Openat2(dir, temporary, &unix.OpenHow{
		Flags: unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC, Mode: 0o600, Resolve: strictly,
	})
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), temporary)
	_, err = file.Write(f.Data)
	if err := errors.Join(err, unix.Fchmod(fd, f.Mode&0o7777), file.Close()); err != nil {
		return errors.Join(err, unix.Unlinkat(dir, temporary, 0))
	}
	return unix.Renameat(dir, temporary, dir, name)
}

// makeDirs opens the directory, of which what is missing is made.
func makeDirs(root int, dir string) (int, error) {
	at, err := openIn(root, ".", unix.O_PATH|unix.O_DIRECTORY, strictly)
	if err != nil {
		return -1, err
	}
	for _, name := range strings.FieldsFunc(dir, func(r rune) bool { return r == '/' }) {
		next, err := openIn(at, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, strictly)
		if errors.Is(err, unix.ENOENT) {
			if err := unix.Mkdirat(at, name, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
				return -1, errors.Join(err, unix.Close(at))
			}
			next, err = openIn(at, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, strictly)
		}
		if err := errors.Join(err, unix.Close(at)); err != nil {
			return -1, fmt.Errorf("directory %s: %w", name, err)
		}
		at = next
	}
	return at, nil
}
