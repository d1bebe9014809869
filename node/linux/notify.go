// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// notified tells over its channel, which holds one word, that one of the paths
// may have changed; it begins at once, so that what is read after isn't missed.
// All paths are in one directory. It ends with ctx.
func notified(ctx context.Context, log *slog.Logger, paths ...string) <-chan struct{} {
	changed := make(chan struct{}, 1)
	ready := make(chan struct{})
	go func() {
		begun := false
		for ctx.Err() == nil {
			err := follow(ctx, filepath.Dir(paths[0]), func(name string) {
				if name == "" || slices.ContainsFunc(paths, func(p string) bool { return filepath.Base(p) == name }) {
					select {
					case changed <- struct{}{}:
					default:
					}
				}
				if !begun {
					begun = true
					close(ready)
				}
			})
			if ctx.Err() == nil {
				log.Warn("watching files", "directory", filepath.Dir(paths[0]), "error", err)
				sleep(ctx, time.Second)
			}
		}
		if !begun {
			close(ready)
		}
	}()
	<-ready
	return changed
}

// follow calls changed with "" when it begins, and with the name of each entry
// of dir that comes, goes or was written.
func follow(ctx context.Context, dir string, changed func(name string)) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("inotify: %w", err)
	}
	events := os.NewFile(uintptr(fd), "inotify")
	defer events.Close()
	const mask = unix.IN_CLOSE_WRITE | unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR
	if _, err := unix.InotifyAddWatch(fd, dir, mask); err != nil {
		return fmt.Errorf("inotify: %w", err)
	}
	defer context.AfterFunc(ctx, func() { events.Close() })()
	changed("")
	buf := make([]byte, 4096)
	for {
		n, err := events.Read(buf)
		if err != nil {
			return err
		}
		for rest := buf[:n]; len(rest) >= unix.SizeofInotifyEvent; {
			kind := binary.NativeEndian.Uint32(rest[4:])
			size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(rest[12:]))
			if kind&(unix.IN_IGNORED|unix.IN_DELETE_SELF|unix.IN_MOVE_SELF) != 0 || size > len(rest) {
				return fmt.Errorf("%s is gone", dir)
			}
			name, _, _ := bytes.Cut(rest[unix.SizeofInotifyEvent:size], []byte{0})
			if kind&unix.IN_Q_OVERFLOW != 0 {
				name = nil
			}
			changed(string(name))
			rest = rest[size:]
		}
	}
}
