// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"bastide.dev/machine"
)

// NodeCommand is what the agent is called with once the machine stands.
const NodeCommand = "node"

const (
	socketFD = 3
	agentFD  = 4
)

// Init is stage 1: the first process in a machine's namespaces. It waits for
// the host's order, mounts the machine's file systems, makes them its root and
// becomes PID 1's real program. It returns only when that fails or when the
// host went away before the boot.
func Init() error {
	// Namespaces and capabilities belong to a thread; the one that goes through
	// all of it is the one that stays after exec.
	runtime.LockOSThread()
	unix.CloseOnExec(socketFD)
	unix.CloseOnExec(agentFD)
	socket := os.NewFile(socketFD, "host")
	fds, err := receive(socketFD)
	if err != nil {
		return fmt.Errorf("machine init: %w", err)
	}
	lines := bufio.NewReader(socket)
	data, err := lines.ReadBytes('\n')
	if errors.Is(err, io.EOF) {
		return errors.New("machine init: the host went away before the boot")
	}
	if err != nil {
		return fmt.Errorf("machine init: read order: %w", err)
	}
	var o order
	if err := json.Unmarshal(data, &o); err != nil {
		return fmt.Errorf("machine init: %w", err)
	}
	if err := build(o, fds); err != nil {
		_, told := socket.WriteString(errorMark + err.Error())
		return errors.Join(err, told)
	}
	if _, err := socket.WriteString(readyMark); err != nil {
		return fmt.Errorf("machine init: %w", err)
	}
	if mark, err := lines.ReadByte(); err != nil || string(mark) != goMark {
		return errors.Join(errors.New("machine init: the host went away before the boot"), err)
	}
	err = become()
	_, told := socket.WriteString(err.Error())
	return errors.Join(err, told)
}

// receive waits for the descriptors; the host closing its end ends the wait.
func receive(socket int) ([]int, error) {
	buf, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(4*253))
	for {
		n, oobn, _, _, err := unix.Recvmsg(socket, buf, oob, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return nil, errors.New("the host went away before the boot")
		}
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil || len(messages) != 1 {
			return nil, errors.Join(errors.New("no descriptors"), err)
		}
		return unix.ParseUnixRights(&messages[0])
	}
}

func build(o order, fds []int) error {
	if len(fds) != o.Layers+2+len(o.Programs) {
		return fmt.Errorf("%d descriptors for %d layers and %d programs", len(fds), o.Layers, len(o.Programs))
	}
	// The process is in its control group by now: that becomes the root it sees.
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("unshare cgroup namespace: %w", err)
	}
	if err := unix.Sethostname([]byte(o.Hostname)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	unix.Umask(0o022)
	if err := mountAll(o, fds); err != nil {
		return err
	}
	return writeFiles(o.Files)
}

// writeFiles runs inside the machine's root and with its rights: whatever links
// lie there, they lead to nothing outside.
func writeFiles(files []machine.File) error {
	for _, f := range files {
		if err := os.MkdirAll(filepath.Dir(f.Path), 0o755); err != nil {
			return err
		}
		tmp := f.Path + ".new"
		if err := os.WriteFile(tmp, f.Data, 0o600); err != nil {
			return err
		}
		if err := unix.Chmod(tmp, f.Mode&0o7777); err != nil {
			return err
		}
		if err := os.Rename(tmp, f.Path); err != nil {
			return err
		}
	}
	return nil
}

// neverNeeded are capabilities that nothing in a machine has a use for; most
// have no power in a user namespace anyway.
func neverNeeded() []uintptr {
	return []uintptr{unix.CAP_SYS_MODULE, unix.CAP_SYS_RAWIO, unix.CAP_SYS_TIME, unix.CAP_MAC_ADMIN,
		unix.CAP_MAC_OVERRIDE, unix.CAP_SYSLOG, unix.CAP_WAKE_ALARM, unix.CAP_BLOCK_SUSPEND}
}

// become replaces stage 1 by the machine's own program.
func become() error {
	for _, capability := range neverNeeded() {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0); err != nil {
			return fmt.Errorf("drop capability %d: %w", capability, err)
		}
	}
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return err
	}
	files.Cur = files.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return err
	}
	err := syscall.Exec(agentPath, []string{"bastide", NodeCommand}, []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "container=bastide",
	})
	return fmt.Errorf("exec %s: %w", agentPath, err)
}
