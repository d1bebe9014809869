// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"bastide.dev/cgroup"
)

// start forks the process from a thread that was made into what the process
// should be (namespaces, groups, no way to new privileges) and is thrown away
// afterwards: so no instruction of the program runs outside its confinement,
// and no helper binary is needed.
func start(p *Process) (*os.Process, error) {
	if err := prepare(p); err != nil {
		return nil, err
	}
	var started *os.Process
	err := onThread(func() error {
		var err error
		started, err = forkHere(p)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", p.Name, err)
	}
	return started, nil
}

// prepare makes the process's group, with nothing in it: a process that an
// earlier supervisor started but didn't live to record ends here. The group is
// made anew then, since Linux 6.14 to at least 6.18 kill what is cloned into a
// group that was ever killed.
func prepare(p *Process) error {
	if p.Cgroup == "" {
		return nil
	}
	pids, err := cgroup.Procs(p.Cgroup)
	if err != nil {
		return err
	}
	if len(pids) > 0 {
		if err := cgroup.Delete(p.Cgroup); err != nil {
			return err
		}
	}
	return cgroup.Create(p.Cgroup, cgroup.Limits{})
}

// onThread runs f on a thread of its own, which ends with it. The process's
// main thread can't end and stands for the whole process in /proc, so it is
// never the one.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			err := onThread(f) // elsewhere, since this thread is taken
			runtime.UnlockOSThread()
			done <- err
			return
		}
		done <- f() // the thread stays locked, and so ends with the goroutine
	}()
	return <-done
}

func forkHere(p *Process) (_ *os.Process, err error) {
	logFile, err := openLog(p.LogFile)
	if err != nil {
		return nil, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, errors.Join(err, logFile.Close())
	}
	defer func() { err = errors.Join(err, logFile.Close(), null.Close()) }()
	attr := &os.ProcAttr{Dir: p.Dir, Env: p.Env, Files: []*os.File{null, logFile, logFile},
		Sys: &syscall.SysProcAttr{Setsid: true, Credential: &syscall.Credential{Uid: uint32(p.UID), Gid: uint32(p.GID)}}}
	if attr.Dir == "" {
		attr.Dir = "/"
	}
	if attr.Env == nil {
		attr.Env = []string{} // nil would hand on the supervisor's
	}
	leave, err := join(p.Cgroup, attr.Sys)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, leave()) }()
	if err := confine(p); err != nil {
		return nil, err
	}
	return os.StartProcess(p.Path, append([]string{filepath.Base(p.Path)}, p.Args...), attr)
}

// join has the child born in the group: on v2 by clone's own argument, on v1 by
// moving this thread there. It returns how the thread gets out again, since for
// v1 a group holds the processes of all its threads, and killing it would kill
// the supervisor.
func join(group string, attr *syscall.SysProcAttr) (leave func() error, err error) {
	if group == "" {
		return func() error { return nil }, nil
	}
	hierarchies, err := cgroup.Hierarchies()
	if err != nil {
		return nil, err
	}
	var undo []func() error
	leave = func() error {
		var errs []error
		for _, f := range undo {
			errs = append(errs, f())
		}
		return errors.Join(errs...)
	}
	before, err := currentGroups()
	if err != nil {
		return nil, err
	}
	for _, h := range hierarchies {
		if h.V2 {
			dir, err := os.Open(filepath.Join(h.Mount, group))
			if err != nil {
				return nil, errors.Join(err, leave())
			}
			undo = append(undo, dir.Close)
			attr.UseCgroupFD, attr.CgroupFD = true, int(dir.Fd())
			continue
		}
		// Opened now: from within a view the file can't be found any more.
		was, err := os.OpenFile(filepath.Join(h.Mount, before[strings.Join(h.Options, ",")], "tasks"), os.O_WRONLY, 0)
		if err != nil {
			return nil, errors.Join(err, leave())
		}
		undo = append(undo, func() error { return moveThread(was) })
		there, err := os.OpenFile(filepath.Join(h.Mount, group, "tasks"), os.O_WRONLY, 0)
		if err == nil {
			err = moveThread(there)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("join cgroup: %w", err), leave())
		}
	}
	return leave, nil
}

// moveThread writes this thread into an open tasks file, and closes it.
func moveThread(tasks *os.File) error {
	_, err := tasks.WriteString("0")
	return errors.Join(err, tasks.Close())
}

// currentGroups maps a v1 hierarchy's controllers to this thread's group in it.
func currentGroups() (map[string]string, error) {
	data, err := os.ReadFile("/proc/thread-self/cgroup")
	if err != nil {
		return nil, err
	}
	groups := map[string]string{}
	for line := range strings.Lines(string(data)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) == 3 {
			groups[fields[1]] = fields[2]
		}
	}
	return groups, nil
}

// confine gives this thread what the child inherits.
func confine(p *Process) error {
	flags := unix.CLONE_FS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	if p.Keep {
		flags = unix.CLONE_FS
	}
	if p.View != nil {
		flags |= unix.CLONE_NEWNS
	}
	if err := unix.Unshare(flags); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if p.Netns != "" {
		if err := enterNetns(p.Netns); err != nil {
			return err
		}
	}
	if p.View != nil {
		unix.Umask(0) // the view's directories are for the process's uid to pass
		if err := enterView(p.View); err != nil {
			return fmt.Errorf("make view: %w", err)
		}
	}
	if p.Keep {
		return nil
	}
	unix.Umask(0o077)
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	return dropBounding()
}

// InNetns calls f on a thread in the network namespace at path: the sockets that
// f makes itself, not in goroutines of its own, belong there for good.
func InNetns(path string, f func() error) error {
	return onThread(func() error {
		if err := enterNetns(path); err != nil {
			return err
		}
		return f()
	})
}

// inNetns tells whether a process is in the network namespace at path.
func inNetns(pid int, path string) bool {
	var have, want unix.Stat_t
	return unix.Stat("/proc/"+strconv.Itoa(pid)+"/ns/net", &have) == nil && unix.Stat(path, &want) == nil &&
		have.Ino == want.Ino && have.Dev == want.Dev
}

func enterNetns(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", path, err)
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", path, err)
	}
	return nil
}

// dropBounding empties the set of capabilities that an exec could ever bring.
// What this thread itself has goes with the change of uid.
func dropBounding() error {
	for c := uintptr(0); c < 64; c++ {
		has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0)
		if err != nil {
			return nil // beyond the last one
		}
		if has == 1 {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
				return fmt.Errorf("drop capability %d: %w", c, err)
			}
		}
	}
	return nil
}
