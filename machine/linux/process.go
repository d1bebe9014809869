// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"bastide.dev/cgroup"
	"bastide.dev/machine"
)

// run is the record of what runs, kept in RunDir for whoever starts next.
type run struct {
	PID    int    `json:"pid"`
	Start  string `json:"start"` // tells the process from a later one of the same number
	Booted bool   `json:"booted"`
	Boots  int64  `json:"boots"`
	Files  string `json:"files,omitempty"` // digest of those that it was given
}

// process is a machine's PID 1, a child of ours or adopted: the pidfd serves both.
type process struct {
	pid   int
	pidfd int
	wake  int // an eventfd that ends the watch
	done  chan struct{}
	once  sync.Once
}

func newProcess(pid, pidfd int) (*process, error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return &process{pid: pid, pidfd: pidfd, wake: wake, done: make(chan struct{})}, nil
}

func (p *process) unwatch() {
	p.once.Do(func() { _, _ = unix.Write(p.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) })
}

func (p *process) signal(sig unix.Signal) error {
	err := unix.PidfdSendSignal(p.pidfd, sig, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// wait blocks until the process has ended (true) or unwatch is called.
func (p *process) wait() bool {
	fds := []unix.PollFd{{Fd: int32(p.pidfd), Events: unix.POLLIN}, {Fd: int32(p.wake), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return false
		}
		if fds[0].Revents != 0 {
			return true
		}
		if fds[1].Revents != 0 {
			return false
		}
	}
}

// start clones the machine's namespaces around stage 1, which waits for boot.
func (p *Provider) start(b *box, spec machine.Spec) error {
	root := p.group(b.id) + "/root"
	// What an earlier boot left there may forbid processes in it: with
	// controllers on for groups below, a group of v2 takes none itself.
	if err := cgroup.Delete(root); err != nil {
		return err
	}
	if err := cgroup.Create(root, cgroup.Limits{}); err != nil {
		return err
	}
	base := p.base(b.disk.Slot)
	if err := cgroup.Own(root, base, base); err != nil {
		return err
	}
	ours, theirs, err := socketpair()
	if err != nil {
		return err
	}
	defer theirs.Close()
	proc, err := p.clone(b.id, base, theirs)
	if err != nil {
		return errors.Join(err, ours.Close())
	}
	record := run{PID: proc.pid, Boots: spec.Boots}
	if record.Start, err = startTime(proc.pid); err == nil {
		if err = cgroup.Add(root, proc.pid); err == nil {
			err = writeJSON(p.runFile(b.id), record)
		}
	}
	p.set(func() {
		b.proc, b.run, b.stage1, b.failure, b.stopping, b.guest = proc, record, ours, "", false, words{}
	})
	p.watch(b, proc)
	if err != nil {
		p.end(b, 0)
	}
	return err
}

// clone starts stage 1 from a descriptor: the machine's ids can't reach its path.
func (p *Provider) clone(id string, base int, socket *os.File) (*process, error) {
	agent, err := os.Open(p.agent)
	if err != nil {
		return nil, err
	}
	defer agent.Close()
	console, err := os.OpenFile(filepath.Join(p.machineDir(id), "console.log"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer console.Close()
	pidfd := -1
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: base, Size: Range}}
	cmd := &exec.Cmd{
		Path: "/proc/self/fd/4", Args: []string{"bastide", InitCommand}, Dir: "/", Env: []string{},
		ExtraFiles: []*os.File{socket, agent}, Stdout: console, Stderr: console,
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
			// Later than the others, when the ids are mapped: only then are files like
			// /proc/net/nf_conntrack made for the machine's root.
			Unshareflags: unix.CLONE_NEWNET,
			UidMappings:  ids, GidMappings: ids, GidMappingsEnableSetgroups: true,
			Credential: &syscall.Credential{}, Setsid: true, PidFD: &pidfd,
		},
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	pid := cmd.Process.Pid
	if err := cmd.Process.Release(); err != nil {
		return nil, err
	}
	if pidfd < 0 {
		if pidfd, err = unix.PidfdOpen(pid, 0); err != nil {
			return nil, err
		}
	}
	return newProcess(pid, pidfd)
}

// watch notices the end of a machine's PID 1, whoever brought it about.
func (p *Provider) watch(b *box, proc *process) {
	p.watches.Go(func() {
		ended := proc.wait()
		var why string
		if ended {
			why = reap(proc.pid)
		}
		p.mu.Lock()
		if ended && b.proc == proc {
			b.proc, b.run.Booted = nil, false
			if !b.stopping {
				b.failure = why
			}
		}
		unix.Close(proc.pidfd)
		unix.Close(proc.wake)
		p.mu.Unlock()
		close(proc.done)
		if ended {
			p.cfg.Logger.Info("machine ended", "machine", b.id, "pid", proc.pid, "reason", why)
			p.changes.add(b.id)
		}
	})
}

// reap tells how PID 1 ended: "" when the guest asked for it.
func reap(pid int) string {
	var status unix.WaitStatus
	got, err := unix.Wait4(pid, &status, 0, nil)
	switch {
	case err != nil || got != pid:
		return "PID 1 ended" // adopted: its status went to another parent
	case status.Signaled() && (status.Signal() == unix.SIGHUP || status.Signal() == unix.SIGINT):
		return "" // reboot(2) inside a pid namespace ends it so
	case status.Signaled():
		return "PID 1 ended by signal: " + status.Signal().String()
	}
	return "PID 1 exited with status " + strconv.Itoa(status.ExitStatus())
}

// end makes sure that nothing of the machine runs. With a grace PID 1 is asked first.
func (p *Provider) end(b *box, grace time.Duration) {
	proc := p.running(b)
	if proc == nil {
		return
	}
	p.set(func() { b.stopping = true })
	if b.stage1 != nil {
		_ = b.stage1.Close()
		b.stage1 = nil
	}
	if grace > 0 && b.run.Booted {
		// Failing to ask it only means to kill it sooner.
		if err := p.send(b, unix.SIGTERM); err == nil {
			select {
			case <-proc.done:
				return
			case <-time.After(grace):
				p.cfg.Logger.Warn("machine didn't stop in time", "machine", b.id, "grace", grace)
			}
		}
	}
	if err := p.send(b, unix.SIGKILL); err != nil {
		p.cfg.Logger.Error("kill machine", "machine", b.id, "error", err)
	}
	<-proc.done
}

// send signals PID 1 while its descriptor can't be closed by the watch.
func (p *Provider) send(b *box, sig unix.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if b.proc == nil {
		return nil
	}
	return b.proc.signal(sig)
}

func (p *Provider) running(b *box) *process {
	p.mu.Lock()
	defer p.mu.Unlock()
	return b.proc
}

// adoptAll makes a box of each machine on disk, with the process that runs it.
func (p *Provider) adoptAll() error {
	disks, err := p.readDisks()
	if err != nil {
		return err
	}
	for id, d := range disks {
		b := &box{id: id, disk: d}
		p.boxes[id] = b
		if err := p.adopt(b); err != nil {
			return fmt.Errorf("adopt machine %s: %w", id, err)
		}
	}
	entries, err := os.ReadDir(p.runDir())
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if _, ok := disks[strings.TrimSuffix(entry.Name(), ".json")]; !ok {
			if err := os.Remove(filepath.Join(p.runDir(), entry.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *Provider) adopt(b *box) error {
	var r run
	if err := readJSON(p.runFile(b.id), &r); err != nil {
		return ignoreMissing(err)
	}
	b.run = run{Boots: r.Boots}
	pidfd, err := unix.PidfdOpen(r.PID, 0)
	if err != nil {
		return nil // it ended meanwhile
	}
	// The descriptor holds the process, so that the comparison stays true.
	if start, err := startTime(r.PID); err != nil || start != r.Start {
		return unix.Close(pidfd)
	}
	proc, err := newProcess(r.PID, pidfd)
	if err != nil {
		return errors.Join(err, unix.Close(pidfd))
	}
	b.proc, b.run = proc, r
	p.watch(b, proc)
	if !r.Booted {
		p.end(b, 0) // its socket is lost, it can't be booted any more
	}
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// startTime is the process's start in clock ticks, with the boot they count from.
func startTime(pid int) (string, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	// The command's name may hold anything, parentheses too.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 || string(fields[0]) == "Z" {
		return "", fmt.Errorf("process %d: no start time", pid)
	}
	return string(bytes.TrimSpace(boot)) + "/" + string(fields[19]), nil
}

func socketpair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	if err := unix.SetNonblock(fds[0], true); err != nil { // for deadlines
		return nil, nil, errors.Join(err, unix.Close(fds[0]), unix.Close(fds[1]))
	}
	return os.NewFile(uintptr(fds[0]), "stage 1"), os.NewFile(uintptr(fds[1]), "host"), nil
}
