// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bastide.dev/cgroup"
	"bastide.dev/machine"
)

// The test binary is the agent of its machines, and all there is in their image.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case InitCommand:
			fmt.Fprintln(os.Stderr, Init())
			os.Exit(1)
		case NodeCommand:
			guest()
		case "enter":
			enter(os.Args[2:])
		case "probe":
			os.Exit(probe(os.Args[2:]))
		}
	}
	os.Exit(m.Run())
}

// guest is a machine's PID 1: it reaps, stops when asked, and reboots on SIGHUP.
func guest() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGTERM, unix.SIGCHLD, unix.SIGHUP)
	if err := os.WriteFile("/run/ready", nil, 0o600); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for sig := range signals {
		switch sig {
		case unix.SIGTERM:
			os.Exit(0)
		case unix.SIGHUP:
			fmt.Fprintln(os.Stderr, unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART))
		case unix.SIGCHLD:
			for pid := 1; pid > 0; {
				pid, _ = unix.Wait4(-1, nil, unix.WNOHANG, nil)
			}
		}
	}
}

// world is a provider over directories of the test's own.
type world struct {
	*Provider
	t   *testing.T
	cfg Config
}

func newWorld(t *testing.T) *world {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("machines need root")
	}
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	name := strings.ToLower(strings.Map(func(r rune) rune {
		if r == '/' || r == '_' {
			return -1
		}
		return r
	}, t.Name()))
	w := &world{t: t, cfg: Config{
		Instance: "machinetest-" + name + strconv.Itoa(os.Getpid()), StateDir: dir + "/state", RunDir: dir + "/run",
		CacheDir: dir + "/cache", UIDBase: 3_000_000_000, Agent: self,
	}}
	for path, content := range map[string]string{
		"images/1/rootfs/etc/secret":           "of the image",
		"images/1/containerd/blobs/big":        strings.Repeat("b", linkFrom),
		"images/1/containerd/meta.db":          "db",
		"bundles/kit@1/root/usr/local/bin/kit": "kit 1",
		"images/2/rootfs/etc/secret":           "of image 2",
		"bundles/kit@2/root/usr/local/bin/kit": "kit 2",
	} {
		path = filepath.Join(w.cfg.CacheDir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(w.cfg.CacheDir, "images/1/rootfs/etc/secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.giveLibraries(self)
	w.open()
	t.Cleanup(w.cleanup)
	return w
}

// giveLibraries puts into the image what the test binary is linked against:
// nothing, unless it is built with cgo, as the race detector wants it.
func (w *world) giveLibraries(self string) {
	w.t.Helper()
	binary, err := elf.Open(self)
	if err != nil {
		w.t.Fatal(err)
	}
	defer binary.Close()
	section := binary.Section(".interp")
	if section == nil {
		return
	}
	interpreter, err := section.Data()
	if err != nil {
		w.t.Fatal(err)
	}
	loader := strings.TrimRight(string(interpreter), "\x00")
	target, err := filepath.EvalSymlinks(loader)
	if err != nil {
		w.t.Fatal(err)
	}
	libraries, err := binary.ImportedLibraries()
	if err != nil {
		w.t.Fatal(err)
	}
	files := map[string]string{loader: target}
	for _, name := range libraries {
		files["/lib/"+name] = filepath.Join(filepath.Dir(target), name)
	}
	for inside, outside := range files {
		inside = filepath.Join(w.cfg.CacheDir, "bundles/kit@1/root", inside)
		if err := os.MkdirAll(filepath.Dir(inside), 0o755); err != nil {
			w.t.Fatal(err)
		}
		if outside, err = filepath.EvalSymlinks(outside); err != nil {
			w.t.Fatal(err)
		}
		again := strings.Replace(inside, "kit@1", "kit@2", 1)
		if err := errors.Join(copyFile(outside, inside), os.Chmod(inside, 0o755), os.MkdirAll(filepath.Dir(again), 0o755), os.Link(inside, again)); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) open() {
	w.t.Helper()
	p, err := New(w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Provider = p
}

// restart is what the host's restart is: another provider over the same directories.
func (w *world) restart() {
	w.t.Helper()
	if err := w.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.open()
}

func (w *world) cleanup() {
	all, err := w.Status(w.t.Context())
	if err != nil {
		w.t.Error(err)
	}
	for _, s := range all {
		if err := w.Delete(w.t.Context(), s.ID); err != nil {
			w.t.Error(err)
		}
	}
	if err := w.Close(); err != nil {
		w.t.Error(err)
	}
	if err := cgroup.Delete("bastide-" + w.cfg.Instance); err != nil {
		w.t.Error(err)
	}
}

func spec(id string) machine.Spec {
	return machine.Spec{ID: id, Hostname: id + "-host", Image: "1", Layers: []string{"kit@1"}, CPUs: 1, Memory: 256 << 20,
		Files: []machine.File{{Path: "/etc/bastide/node.json", Mode: 0o600, Data: []byte("{}")}}}
}

// up creates and boots, and waits until PID 1 listens.
func (w *world) up(s machine.Spec) machine.Status {
	w.t.Helper()
	if err := w.Create(w.t.Context(), s); err != nil {
		w.t.Fatal(err)
	}
	if err := w.Boot(w.t.Context(), s); err != nil {
		console, _ := os.ReadFile(filepath.Join(w.machineDir(s.ID), "console.log"))
		w.t.Fatalf("%v\nconsole: %s", err, console)
	}
	status := w.status(s.ID)
	w.eventually("PID 1 listens", func() bool {
		_, err := os.Stat(fmt.Sprintf("/proc/%d/root/run/ready", status.PID))
		return err == nil
	})
	return status
}

func (w *world) status(id string) machine.Status {
	w.t.Helper()
	all, err := w.Status(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, s := range all {
		if s.ID == id {
			return s
		}
	}
	return machine.Status{}
}

func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !ok(); runtime.Gosched() {
		if time.Now().After(deadline) {
			w.t.Fatalf("never: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// in runs a probe in the machine as its root and returns what it printed; a
// probe that fails prints its error.
func (w *world) in(id string, args ...string) (string, bool) {
	w.t.Helper()
	cmd, err := w.Command(w.t.Context(), id, append([]string{agentPath, "probe"}, args...)...)
	if err != nil {
		w.t.Fatal(err)
	}
	// By way of enter, which waits until it is in the machine's control group.
	cmd.Args = append([]string{w.cfg.Agent, "enter", cmd.Path}, cmd.Args...)
	cmd.Path = w.cfg.Agent
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	stdin, err := cmd.StdinPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	if err := cgroup.Add(w.group(id)+"/root", cmd.Process.Pid); err != nil {
		w.t.Fatal(err)
	}
	if err := stdin.Close(); err != nil {
		w.t.Fatal(err)
	}
	err = cmd.Wait()
	return strings.TrimSpace(out.String()), err == nil
}

func enter(args []string) {
	_, _ = io.ReadAll(os.Stdin)
	fmt.Fprintln(os.Stderr, syscall.Exec(args[0], args[1:], os.Environ()))
	os.Exit(1)
}

func (w *world) must(id string, args ...string) string {
	w.t.Helper()
	out, ok := w.in(id, args...)
	if !ok {
		w.t.Fatalf("%v in %s: %s", args, id, out)
	}
	return out
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }
