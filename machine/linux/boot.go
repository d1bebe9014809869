// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"bastide.dev/cgroup"
	"bastide.dev/machine"
)

// order is what stage 1 is told. Descriptors travel beside it: the layers, the
// topmost first, then the machine's data, then the agent, then Programs.
type order struct {
	Hostname    string             `json:"hostname"`
	Layers      int                `json:"layers"`
	Hierarchies []cgroup.Hierarchy `json:"hierarchies"`
	Files       []machine.File     `json:"files"`
	Programs    []string           `json:"programs,omitempty"` // their paths
}

// The replies of stage 1 and the host's last word.
const (
	readyMark = "R" // all is mounted
	errorMark = "E" // followed by the reason
	goMark    = "G"
)

const bootTimeout = 30 * time.Second

// boot hands the machine its file systems and lets PID 1 run.
func (p *Provider) boot(ctx context.Context, b *box, spec machine.Spec) error {
	proc := p.running(b)
	if proc == nil || b.stage1 == nil {
		return errors.New("stage 1 is gone")
	}
	hierarchies, err := cgroup.Hierarchies()
	if err != nil {
		return err
	}
	layers := p.lowers(b.disk.Image, b.disk.Layers)
	trees, err := p.openTrees(proc.pid, b.id, layers)
	defer closeAll(trees)
	if err != nil {
		return err
	}
	deadline := time.Now().Add(bootTimeout)
	if until, ok := ctx.Deadline(); ok && until.Before(deadline) {
		deadline = until
	}
	if err := b.stage1.SetDeadline(deadline); err != nil {
		return err
	}
	message := order{Hostname: spec.Hostname, Layers: len(layers), Hierarchies: hierarchies, Files: spec.Files}
	for _, program := range p.programs {
		message.Programs = append(message.Programs, program.inside)
	}
	if err := sendOrder(b.stage1, message, trees); err != nil {
		return err
	}
	if err := expectReady(b.stage1); err != nil {
		return err
	}
	// Recorded before it runs: what a killed host leaves behind either runs and
	// is in the record, or ends by itself.
	record := b.run
	record.Booted, record.Boots, record.Files = true, spec.Boots, digestOf(spec.Files)
	if err := writeJSON(p.runFile(b.id), record); err != nil {
		return err
	}
	if _, err := b.stage1.WriteString(goMark); err != nil {
		return fmt.Errorf("stage 1: %w", err)
	}
	reason, err := io.ReadAll(b.stage1) // ends when PID 1 replaces stage 1
	if err != nil || len(reason) > 0 {
		return errors.Join(fmt.Errorf("stage 1: start PID 1: %s", reason), err)
	}
	err = b.stage1.Close()
	b.stage1 = nil
	p.set(func() { b.run = record })
	return err
}

func expectReady(stage1 *os.File) error {
	mark := make([]byte, 1)
	if _, err := io.ReadFull(stage1, mark); err != nil {
		return fmt.Errorf("stage 1 ended, see its console log: %w", err)
	}
	if string(mark) == readyMark {
		return nil
	}
	reason, err := io.ReadAll(stage1)
	return errors.Join(fmt.Errorf("stage 1: %s", reason), err)
}

// openTrees makes detached mounts of what the machine is made of. Image and
// layers are mapped, so that what host root owns belongs to the machine's root.
func (p *Provider) openTrees(pid int, id string, layers []string) ([]int, error) {
	userns, err := unix.Open(fmt.Sprintf("/proc/%d/ns/user", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("user namespace: %w", err)
	}
	defer unix.Close(userns)
	var trees []int
	for _, layer := range layers {
		fd, err := openTree(layer, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP | unix.MOUNT_ATTR_RDONLY, Userns_fd: uint64(userns)})
		if err != nil {
			return trees, err
		}
		trees = append(trees, fd)
	}
	data, err := openTree(filepath.Join(p.machineDir(id), "data"), unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NODEV})
	if err != nil {
		return trees, err
	}
	trees = append(trees, data)
	files := []string{p.agent}
	for _, program := range p.programs {
		files = append(files, program.copy)
	}
	for _, file := range files {
		fd, err := openTree(file, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID})
		if err != nil {
			return trees, err
		}
		trees = append(trees, fd)
	}
	return trees, nil
}

func openTree(path string, attr unix.MountAttr) (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open tree %s: %w", path, err)
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return -1, errors.Join(fmt.Errorf("set mount attributes of %s: %w", path, err), unix.Close(fd))
	}
	return fd, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// sendOrder sends the descriptors with one byte, which never blocks, and then
// the order, which may be long.
func sendOrder(stage1 *os.File, message order, fds []int) error {
	data, err := json.Marshal(message)
	if err != nil {
		return err
	}
	raw, err := stage1.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	if err := raw.Control(func(fd uintptr) {
		sent = unix.Sendmsg(int(fd), []byte{0}, unix.UnixRights(fds...), nil, unix.MSG_NOSIGNAL)
	}); err != nil {
		return err
	}
	if sent != nil {
		return fmt.Errorf("stage 1: send descriptors: %w", sent)
	}
	if _, err := stage1.Write(append(data, '\n')); err != nil {
		return fmt.Errorf("stage 1: send order: %w", err)
	}
	return nil
}
