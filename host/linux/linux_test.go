// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"bastide.dev/host"
	"bastide.dev/ruleset"
	firewall "bastide.dev/ruleset/linux"
)

// world is two namespaces with a link between them. The far one answers on a
// TCP and a UDP port, and filters.
type world struct{ near, far *os.File }

var farAddr = netip.MustParseAddr("10.7.0.2")

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// inside runs do on a thread that is in a namespace, and ends there.
func inside(t testing.TB, ns *os.File, do func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil && ns != nil {
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			err = do()
		}
		done <- err
	}()
	must(t, <-done)
}

func newNamespace(t testing.TB) *os.File {
	t.Helper()
	var f *os.File
	inside(t, nil, func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("these tests need root: %w", err)
		}
		f, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	t.Cleanup(func() { must(t, f.Close()) })
	return f
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{newNamespace(t), newNamespace(t)}
	configure := func(name, address string) error {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr(address)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(link, a); err != nil {
			return err
		}
		return netlink.LinkSetUp(link)
	}
	inside(t, w.near, func() error {
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "near"}, PeerName: "far", PeerNamespace: netlink.NsFd(w.far.Fd())}); err != nil {
			return err
		}
		return configure("near", "10.7.0.1/24")
	})
	inside(t, w.far, func() error {
		if err := configure("far", "10.7.0.2/24"); err != nil {
			return err
		}
		listener, err := net.Listen("tcp", "10.7.0.2:80")
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = listener.Close() })
		echo, err := net.ListenPacket("udp", "10.7.0.2:53")
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = echo.Close() })
		go func() {
			buf := make([]byte, 100)
			for {
				n, from, err := echo.ReadFrom(buf)
				if err != nil {
					return
				}
				_, _ = echo.WriteTo(buf[:n], from)
			}
		}()
		return nil
	})
	inside(t, w.near, func() error { return awaitLink("near") })
	inside(t, w.far, func() error { return awaitLink("far") })
	w.filter(t)
	return w
}

// awaitLink waits until the kernel lets packets through a link whose ends are up.
func awaitLink(name string) error {
	for start := time.Now(); time.Since(start) < 10*time.Second; time.Sleep(time.Millisecond) {
		link, err := netlink.LinkByName(name)
		if err != nil || link.Attrs().OperState == netlink.OperUp {
			return err
		}
	}
	return fmt.Errorf("link %s never came up", name)
}

// filter drops what goes to port 1 and rejects what goes to port 2.
func (w *world) filter(t testing.TB) {
	t.Helper()
	port := func(n uint16, v ruleset.Verb) ruleset.Rule {
		return ruleset.Rule{Matches: []ruleset.Match{{Fields: []ruleset.Field{ruleset.DestinationPort}, Ranges: []ruleset.Range{ruleset.Ports(n, n)}}},
			Actions: []ruleset.Action{{Verb: v}}}
	}
	f, err := firewall.New(w.far, "host-test")
	must(t, err)
	must(t, f.Put(ruleset.Table{Name: "t", Chains: []ruleset.Chain{{Name: "in", Hook: ruleset.Input, Rules: []ruleset.Rule{port(1, ruleset.Drop), port(2, ruleset.Reject)}}}}))
	must(t, f.Close())
}

func TestProbeTellsWhatBecameOfItsPackets(t *testing.T) {
	w := newWorld(t)
	from := host.Place{Netns: fmt.Sprintf("/proc/self/fd/%d", w.near.Fd())}
	for name, c := range map[string]struct {
		protocol uint8
		address  netip.Addr
		port     uint16
		want     string
	}{
		"TCP, listening":    {ruleset.TCP, farAddr, 80, "connected"},
		"TCP, nobody there": {ruleset.TCP, farAddr, 81, "refused"},
		"TCP, dropped":      {ruleset.TCP, farAddr, 1, "timeout"},
		"TCP, reset":        {ruleset.TCP, farAddr, 2, "refused"},
		"TCP, no route":     {ruleset.TCP, netip.MustParseAddr("10.8.0.1"), 80, "unreachable"},
		"UDP, answered":     {ruleset.UDP, farAddr, 53, "connected"},
		"UDP, nobody there": {ruleset.UDP, farAddr, 54, "refused"},
		"UDP, dropped":      {ruleset.UDP, farAddr, 1, "timeout"},
		"UDP, prohibited":   {ruleset.UDP, farAddr, 2, "unreachable"},
		"echo":              {ruleset.ICMP, farAddr, 0, "connected"},
		"echo, no route":    {ruleset.ICMP, netip.MustParseAddr("10.8.0.1"), 0, "unreachable"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := new(Prober).Probe(t.Context(), from, host.ProbeQuery{Protocol: c.protocol, Address: c.address, Port: c.port, Timeout: 200})
			must(t, err)
			if got.Result != c.want || (c.want == "connected" || c.want == "refused") && !strings.HasPrefix(got.Source, "10.7.0.1") || got.Micros <= 0 {
				t.Errorf("%+v, want %s", got, c.want)
			}
		})
	}
}

func TestProbeRefusesWhatItCantSend(t *testing.T) {
	for _, q := range []host.ProbeQuery{{Protocol: ruleset.TCP, Address: farAddr}, {Protocol: 47, Address: farAddr}, {Protocol: ruleset.ICMP, Address: netip.MustParseAddr("::1")}, {Protocol: ruleset.TCP, Port: 1}} {
		if got, err := new(Prober).Probe(t.Context(), host.Place{PID: os.Getpid()}, q); err == nil {
			t.Errorf("%+v: %+v", q, got)
		}
	}
	if _, err := new(Prober).Probe(t.Context(), host.Place{Netns: "/etc/hostname"}, host.ProbeQuery{Protocol: ruleset.TCP, Address: farAddr, Port: 80}); err == nil {
		t.Error("a file was taken for a namespace")
	}
}

func TestProbeEndsWithItsContext(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := new(Prober).Probe(ctx, host.Place{Netns: fmt.Sprintf("/proc/self/fd/%d", w.near.Fd())}, host.ProbeQuery{Protocol: ruleset.TCP, Address: farAddr, Port: 1, Timeout: 9000})
	if err == nil || time.Since(start) > 2*time.Second {
		t.Errorf("%v after %s", err, time.Since(start))
	}
}

// sleeper is a process in a network namespace of its own, in a pod's cgroup.
func sleeper(t *testing.T, group string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "60")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	must(t, cmd.Start())
	for _, hierarchy := range []string{"/sys/fs/cgroup/pids", "/sys/fs/cgroup"} {
		if _, err := os.Stat(filepath.Join(hierarchy, "cgroup.procs")); err != nil {
			continue
		}
		parent := filepath.Join(hierarchy, fmt.Sprintf("host-test-%d", os.Getpid()))
		dir := filepath.Join(parent, group)
		must(t, os.MkdirAll(dir, 0o755))
		must(t, os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, cmd.Process.Pid), 0))
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			must(t, os.Remove(dir))
			_ = os.Remove(parent)
		})
		return cmd
	}
	t.Fatal("no cgroups here")
	return nil
}

func TestPodIsFoundByItsCgroup(t *testing.T) {
	runtime.LockOSThread() // the sleepers live as long as the thread
	const dashes, underscores = "0f0c1a70-9b1e-4b3e-8b7e-000000000001", "0f0c1a70-9b1e-4b3e-8b7e-000000000002"
	pods := map[string]*exec.Cmd{
		dashes:      sleeper(t, "pod"+dashes),
		underscores: sleeper(t, "kubepods-pod"+strings.ReplaceAll(underscores, "-", "_")+".slice"),
	}
	for pod, cmd := range pods {
		ns, err := namespace(host.Place{PID: os.Getpid(), PodUID: pod})
		must(t, err)
		want, err := os.Stat(netns(cmd.Process.Pid))
		must(t, err)
		got, err := ns.Stat()
		must(t, err)
		if !os.SameFile(want, got) {
			t.Errorf("%s: another namespace", pod)
		}
		must(t, ns.Close())
	}
	if _, err := namespace(host.Place{PID: pods[underscores].Process.Pid, PodUID: dashes}); err == nil {
		t.Error("another machine's pod was found")
	}
	for _, bad := range []string{"00000000-0000-0000-0000-00000000000f", "x", "../../../.."} {
		if _, err := namespace(host.Place{PID: os.Getpid(), PodUID: bad}); err == nil {
			t.Errorf("pod %q was found", bad)
		}
	}
}

// agentAt answers on a socket as a policy agent does.
func agentAt(t *testing.T, path string, answer func(w http.ResponseWriter)) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	listener, err := net.Listen("unix", path)
	must(t, err)
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/table" {
			answer(w)
		}
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
}

func openRoot(t *testing.T, dir string) *os.File {
	t.Helper()
	root, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	must(t, err)
	t.Cleanup(func() { must(t, root.Close()) })
	return root
}

func TestPoliciesComeFromTheMachinesOwnSocket(t *testing.T) {
	dir := t.TempDir()
	want := ruleset.Table{Name: "policy", Chains: []ruleset.Chain{{Name: "c"}}}
	give := func(w http.ResponseWriter) { must(t, json.NewEncoder(w).Encode(want)) }
	agentAt(t, filepath.Join(dir, "run/p.sock"), give)
	got, err := fetchTable(t.Context(), openRoot(t, dir), "/run/p.sock")
	if err != nil || got.Digest() != want.Digest() {
		t.Errorf("%+v, %v", got, err)
	}
	self := &Prober{PolicySocket: filepath.Join(dir, "run/p.sock")}
	if got, err := self.Policies(t.Context(), os.Getpid()); err != nil || got.Name != "policy" {
		t.Errorf("through /proc: %+v, %v", got, err)
	}

	// A machine that leads elsewhere leads nowhere.
	outside := filepath.Join(t.TempDir(), "p.sock")
	agentAt(t, outside, give)
	hostile := t.TempDir()
	must(t, os.Symlink(filepath.Dir(outside), filepath.Join(hostile, "run")))
	must(t, os.MkdirAll(filepath.Join(hostile, "etc"), 0o755))
	must(t, os.Symlink(outside, filepath.Join(hostile, "etc/p.sock")))
	for _, path := range []string{"/run/p.sock", "/etc/p.sock", "/../" + outside, "/none"} {
		if got, err := fetchTable(t.Context(), openRoot(t, hostile), path); err == nil {
			t.Errorf("%s: %+v", path, got)
		}
	}
}

func TestAHostileAgentIsBounded(t *testing.T) {
	dir := t.TempDir()
	for name, answer := range map[string]func(w http.ResponseWriter){
		"endless": func(w http.ResponseWriter) {
			for {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					return
				}
			}
		},
		"garbage": func(w http.ResponseWriter) { _, _ = w.Write([]byte("<html>")) },
		"redirect": func(w http.ResponseWriter) {
			w.Header().Set("Location", "http://127.0.0.1/")
			w.WriteHeader(http.StatusFound)
		},
		"silence": func(http.ResponseWriter) { time.Sleep(time.Second) },
	} {
		agentAt(t, filepath.Join(dir, name), answer)
		ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
		if got, err := fetchTable(ctx, openRoot(t, dir), "/"+name); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
		cancel()
	}
}
