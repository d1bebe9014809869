// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bastide.dev/cgroup"
)

// rig is a supervisor that a test can end and begin anew.
type rig struct {
	*Supervisor
	t    *testing.T
	dir  string
	stop func()
}

func newRig(t *testing.T) *rig {
	if os.Geteuid() != 0 {
		t.Fatal("needs root: it starts processes under other uids and in namespaces")
	}
	r := &rig{t: t, dir: t.TempDir()}
	r.begin()
	t.Cleanup(func() {
		names, err := r.Recorded()
		if err != nil {
			t.Error(err)
		}
		for _, name := range names {
			if err := r.Kill(context.Background(), name); err != nil {
				t.Error(err)
			}
		}
		r.stop()
	})
	return r
}

func (r *rig) begin() {
	s, err := New(Config{RunDir: filepath.Join(r.dir, "run"), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	r.Supervisor = s
	r.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			r.t.Error(err)
		}
	}
}

func (r *rig) shell(name, script string) Process {
	return Process{Name: name, Path: "/bin/sh", Args: []string{"-c", script}, Env: []string{"PATH=/usr/bin:/bin"}, UID: 65000, GID: 65000,
		LogFile: filepath.Join(r.dir, name+".log"), Cgroup: fmt.Sprintf("supervise-test-%d-%s", os.Getpid(), name), StopTimeout: 2 * time.Second}
}

func (r *rig) set(p Process) {
	r.t.Helper()
	if err := r.Set(p); err != nil {
		r.t.Fatal(err)
	}
}

// until waits for a status.
func (r *rig) until(name string, what string, ok func(Status) bool) Status {
	r.t.Helper()
	deadline := time.After(2 * time.Minute)
	for {
		s, _ := r.Status(name)
		if ok(s) {
			return s
		}
		select {
		case <-r.Changed():
		case <-deadline:
			r.t.Fatalf("%s: not %s: %+v", name, what, s)
		}
	}
}

func running(s Status) bool { return s.PID > 0 }

func status(t *testing.T, pid int) map[string]string {
	t.Helper()
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]string{}
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(line, ":")
		fields[name] = strings.Join(strings.Fields(value), " ")
	}
	return fields
}

func TestConfinement(t *testing.T) {
	r := newRig(t)
	p := r.shell("c", "echo hi; exec sleep 1000")
	r.set(p)
	pid := r.until("c", "running", running).PID
	got := status(t, pid)
	for field, want := range map[string]string{"Uid": "65000 65000 65000 65000", "Gid": "65000 65000 65000 65000", "Groups": "", "NoNewPrivs": "1",
		"CapInh": "0000000000000000", "CapPrm": "0000000000000000", "CapEff": "0000000000000000", "CapBnd": "0000000000000000", "CapAmb": "0000000000000000", "Umask": "0077"} {
		if got[field] != want {
			t.Errorf("%s is %q, want %q", field, got[field], want)
		}
	}
	for _, ns := range []string{"ipc", "uts"} {
		ours, _ := os.Readlink("/proc/self/ns/" + ns)
		its, _ := os.Readlink("/proc/" + strconv.Itoa(pid) + "/ns/" + ns)
		if ours == its {
			t.Errorf("it shares our %s namespace", ns)
		}
	}
	pids, err := cgroup.Procs(p.Cgroup)
	if err != nil || len(pids) != 1 || pids[0] != pid {
		t.Errorf("group holds %v, want %d: %v", pids, pid, err)
	}
	info, err := os.Stat(p.LogFile)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("log %v, %v", info, err)
	}
}

func TestView(t *testing.T) {
	r := newRig(t)
	own := filepath.Join(r.dir, "own")
	if err := os.Mkdir(own, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(own, 65000, 65000); err != nil {
		t.Fatal(err)
	}
	p := r.shell("v", "echo mine > "+own+"/file; ls / /proc; test -e "+r.dir+"/run && echo SEES; touch /bin/x && echo WRITES; exec sleep 1000")
	p.View = []Bind{{Source: own, Writable: true}}
	for _, dir := range []string{"/bin", "/usr", "/lib", "/lib64"} {
		p.View = append(p.View, Bind{Source: dir})
	}
	r.set(p)
	pid := r.until("v", "running", running).PID
	deadline := time.Now().Add(2 * time.Minute)
	for { // until the shell has become sleep
		if name, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm"); err == nil && string(name) == "sleep\n" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("it never came to sleep: %s", tail(p.LogFile))
		}
		time.Sleep(5 * time.Millisecond)
	}
	out, err := os.ReadFile(p.LogFile)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Fields(string(out))
	for _, line := range lines {
		if line == "SEES" || line == "WRITES" || line == "home" || line == "root" || line == "1" || line == "sys" {
			t.Errorf("it sees %s:\n%s", line, out)
		}
	}
	if data, err := os.ReadFile(own + "/file"); err != nil || string(data) != "mine\n" {
		t.Errorf("%q, %v", data, err)
	}
}

func TestRestartsAndSaysWhy(t *testing.T) {
	r := newRig(t)
	r.set(r.shell("x", "echo the reason; exit 3"))
	s := r.until("x", "restarted", func(s Status) bool { return s.Restarts >= 2 })
	if s.Exit != "exit status 3" || !strings.Contains(s.Log, "the reason") {
		t.Errorf("%+v", s)
	}
}

func TestKilledIsBackAtOnce(t *testing.T) {
	r := newRig(t)
	r.set(r.shell("k", "exec sleep 1000"))
	pid := r.until("k", "running", running).PID
	begin := time.Now()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.until("k", "restarted", func(s Status) bool { return s.PID > 0 && s.PID != pid })
	if d := time.Since(begin); d > 300*time.Millisecond {
		t.Errorf("back after %v", d)
	}
}

func TestAdoptsReplacesAndStops(t *testing.T) {
	r := newRig(t)
	p := r.shell("a", "trap 'echo asked; exit 0' TERM; echo listening; while :; do sleep 0.01; done") // a shell's wait may miss a signal
	r.set(p)
	pid := r.until("a", "running", running).PID
	r.stop()
	r.begin()
	r.set(p)
	if s := r.until("a", "adopted", running); s.PID != pid || !s.Adopted {
		t.Fatalf("%+v, want pid %d adopted", s, pid)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil { // an adopted one's end is seen too
		t.Fatal(err)
	}
	second := r.until("a", "restarted", func(s Status) bool { return s.PID > 0 && s.PID != pid })
	if second.Restarts != 1 {
		t.Errorf("%d restarts", second.Restarts)
	}
	r.stop()
	r.begin()
	p.Env = append(p.Env, "A=b")
	r.set(p)
	third := r.until("a", "replaced", running)
	if third.PID == second.PID {
		t.Fatal("a process of another definition was adopted")
	}
	// What isn't listening yet may end unheard: each is waited for by its own line.
	if err := os.Truncate(p.LogFile, 0); err != nil {
		t.Fatal(err)
	}
	p.Inputs = "other"
	r.set(p)
	r.until("a", "replaced again", func(s Status) bool { return s.PID > 0 && s.PID != third.PID })
	for end := time.Now().Add(5 * time.Second); !strings.HasSuffix(tail(p.LogFile), "listening"); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it never listens: %q", tail(p.LogFile))
		}
	}
	if err := r.Stop(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if log := tail(p.LogFile); !strings.Contains(log, "asked") {
		t.Errorf("it was not asked to stop: %q", log)
	}
	assertNothing(t, r, p)
}

func TestStopKillsAll(t *testing.T) {
	r := newRig(t)
	p := r.shell("s", "trap '' TERM; setsid sleep 1000 & sleep 1000; sleep 1000")
	p.StopTimeout = 100 * time.Millisecond
	r.set(p)
	r.until("s", "running", running)
	time.Sleep(50 * time.Millisecond) // for the shell to have its trap
	if err := r.Stop(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	assertNothing(t, r, p)
}

func TestStopWithoutDefinition(t *testing.T) {
	r := newRig(t)
	p := r.shell("o", "exec sleep 1000")
	r.set(p)
	r.until("o", "running", running)
	r.stop()
	r.begin()
	if err := r.Kill(t.Context(), "o"); err != nil {
		t.Fatal(err)
	}
	assertNothing(t, r, p)
}

func assertNothing(t *testing.T, r *rig, p Process) {
	t.Helper()
	if pids, err := cgroup.Procs(p.Cgroup); err != nil || len(pids) > 0 {
		t.Errorf("left: %v, %v", pids, err)
	}
	hierarchies, err := cgroup.Hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range hierarchies {
		if _, err := os.Stat(filepath.Join(h.Mount, p.Cgroup)); err == nil {
			t.Errorf("group left in %s", h.Mount)
		}
	}
	if names, err := r.Recorded(); err != nil || len(names) > 0 {
		t.Errorf("records left: %v, %v", names, err)
	}
	if _, ok := r.Status(p.Name); ok {
		t.Error("status left")
	}
}

func TestStartFailureIsToldAndRetried(t *testing.T) {
	r := newRig(t)
	path := filepath.Join(r.dir, "late")
	if err := os.Chmod(r.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(r.dir), 0o755); err != nil {
		t.Fatal(err)
	}
	p := r.shell("f", "")
	p.Path, p.Args = path, []string{"1000"}
	r.set(p)
	r.until("f", "failed", func(s Status) bool { return strings.Contains(s.Error, "no such file") })
	sleep, err := os.ReadFile("/bin/sleep")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, sleep, 0o755); err != nil {
		t.Fatal(err)
	}
	r.until("f", "running", func(s Status) bool { return s.PID > 0 && s.Error == "" })
}

func TestReady(t *testing.T) {
	r := newRig(t)
	flag := filepath.Join(r.dir, "flag")
	p := r.shell("r", "exec sleep 1000")
	p.Ready = func(context.Context) error { _, err := os.Stat(flag); return err }
	r.set(p)
	if s := r.until("r", "running", running); s.Ready {
		t.Fatal("ready too early")
	}
	if err := os.WriteFile(flag, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r.until("r", "ready", func(s Status) bool { return s.Ready })
}

func TestRotate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	f, err := openLog(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, line := range []string{"one\n", "two\n"} {
		if _, err := f.WriteString(line); err != nil {
			t.Fatal(err)
		}
		if err := rotate(path, 4); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.WriteString("three\n"); err != nil {
		t.Fatal(err)
	}
	if now, old := tail(path), tail(path+".1"); now != "three" || old != "two" {
		t.Errorf("%q and %q", now, old)
	}
}
