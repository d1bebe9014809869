// SPDX-License-Identifier: Apache-2.0

//go:build bench

package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"bastide.dev/bundle"
	"bastide.dev/instance"
	"bastide.dev/pki"
)

// floor is the same upstream programs with nothing of ours around them: what no
// service made of them can beat without other programs.
type floor struct {
	t      *testing.T
	dir    string
	server netip.AddrPort // where the API server listens: an end of the node's wire
	client *http.Client
	cmds   []*exec.Cmd
}

// floorWire are the two ends of the bare node's link, out of the network that
// RFC 2544 sets aside for benchmarks.
var floorWire = [2]string{"198.18.127.1", "198.18.127.2"}

// measureFloor runs a bare control plane and a bare node once and returns the
// seconds that each took.
func measureFloor(t *testing.T) (controlPlane, node float64) {
	f := newFloor(t)
	defer f.stop()
	took, err := f.startControlPlane()
	if err != nil {
		t.Fatalf("bare control plane: %v\n%s", err, f.logs())
	}
	controlPlane = took.Seconds()
	if took, err = f.startNode(); err != nil {
		t.Fatalf("bare node: %v\n%s", err, f.logs())
	}
	return controlPlane, took.Seconds()
}

// newFloor prepares what isn't measured: certificates, files, the wire.
func newFloor(t *testing.T) *floor {
	t.Helper()
	dir, err := os.MkdirTemp("", "bastide-bench-floor-")
	if err != nil {
		t.Fatal(err)
	}
	f := &floor{t: t, dir: dir, server: netip.AddrPortFrom(netip.MustParseAddr(floorWire[0]), 6443)}
	pair, err := pki.NewCA("floor", time.Hour)
	f.check(err)
	ca, err := pki.OpenCA(pair)
	f.check(err)
	f.file("ca.crt", pair.Certificate)
	serving, err := ca.Issue(pki.Request{CommonName: "apiserver", IPs: []netip.Addr{f.server.Addr(), netip.MustParseAddr("127.0.0.1")}, Server: true, Lifetime: time.Hour})
	f.check(err)
	f.pair("apiserver", serving)
	admin, err := ca.Issue(pki.Request{CommonName: "admin", Organizations: []string{"system:masters"}, Client: true, Lifetime: time.Hour})
	f.check(err)
	f.pair("admin", admin)
	key, err := pki.NewSigningKey()
	f.check(err)
	f.file("sa.key", key)
	certificate, err := admin.TLS()
	f.check(err)
	f.client = &http.Client{Transport: &http.Transport{TLSClientConfig: tlsConfig(ca.Pool(), certificate)}}
	f.writeNodeFiles()
	f.wire()
	return f
}

func (f *floor) check(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *floor) file(name string, data []byte) string {
	f.t.Helper()
	path := filepath.Join(f.dir, name)
	f.check(os.WriteFile(path, data, 0o600))
	return path
}

func (f *floor) pair(name string, pair pki.Pair) {
	f.file(name+".crt", pair.Certificate)
	f.file(name+".key", pair.Key)
}

func (f *floor) path(name string) string { return filepath.Join(f.dir, name) }

// wire is a veth pair whose one end gets the API server's address; the node's
// end is moved when the node is there.
func (f *floor) wire() {
	_ = exec.Command("ip", "link", "delete", "bsdbenchfl0").Run() // what a killed run left
	f.ip("link", "add", "bsdbenchfl0", "type", "veth", "peer", "name", "bsdbenchfl1")
	f.ip("addr", "add", floorWire[0]+"/30", "dev", "bsdbenchfl0")
	f.ip("link", "set", "bsdbenchfl0", "up")
}

func (f *floor) ip(args ...string) {
	f.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		f.t.Fatalf("ip %v: %v %s", args, err, out)
	}
}

func (f *floor) start(name string, cmd *exec.Cmd) error {
	log, err := os.Create(f.path(name + ".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	f.cmds = append(f.cmds, cmd)
	return nil
}

// startControlPlane measures from the start of etcd to the API server's readiness.
// Both start at once: that is quicker than one after another.
func (f *floor) startControlPlane() (time.Duration, error) {
	etcd := f.open("etcd", bundle.EtcdVersion).Path("etcd")
	apiserver := f.open("kubernetes", kubernetesVersion).Path("kube-apiserver")
	client, peer := "http://127.0.0.1:12379", "http://127.0.0.1:12380"
	begin := time.Now()
	err := f.start("etcd", exec.Command(etcd, "--data-dir="+f.path("etcd"), "--listen-client-urls="+client, "--advertise-client-urls="+client,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer))
	if err != nil {
		return 0, err
	}
	for { // an API server that finds no etcd waits a second before it looks again
		conn, err := net.Dial("tcp", "127.0.0.1:12379")
		if err == nil {
			_ = conn.Close()
			break
		}
		if time.Since(begin) > time.Minute {
			return 0, err
		}
		time.Sleep(2 * time.Millisecond)
	}
	err = f.start("kube-apiserver", exec.Command(apiserver, "--etcd-servers="+client, "--bind-address="+f.server.Addr().String(), "--secure-port=6443",
		"--tls-cert-file="+f.path("apiserver.crt"), "--tls-private-key-file="+f.path("apiserver.key"), "--client-ca-file="+f.path("ca.crt"),
		"--authorization-mode=Node,RBAC", "--service-cluster-ip-range=10.0.0.0/16", "--service-account-issuer=https://floor",
		"--service-account-key-file="+f.path("sa.key"), "--service-account-signing-key-file="+f.path("sa.key")))
	if err != nil {
		return 0, err
	}
	for time.Since(begin) < time.Minute {
		if f.get("/readyz", nil) == nil {
			return time.Since(begin), nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return 0, errors.New("not ready within a minute")
}

func (f *floor) open(name, version string) *bundle.Bundle {
	f.t.Helper()
	b, err := bundle.Open(instance.DefaultCache, name, version)
	f.check(err)
	return b
}

func (f *floor) get(path string, into any) error {
	ctx, cancel := context.WithTimeout(f.t.Context(), 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+f.server.String()+path, nil)
	if err != nil {
		return err
	}
	resp, err := f.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, resp.Status)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(data, into)
}

// startNode measures from the start of the node's first process to Ready.
func (f *floor) startNode() (time.Duration, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(self, floorNodeCommand, f.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC}
	release, err := cmd.StdinPipe() // it waits for its network
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	if err := f.start("node", cmd); err != nil {
		return 0, err
	}
	f.ip("link", "set", "bsdbenchfl1", "netns", fmt.Sprint(cmd.Process.Pid))
	if err := release.Close(); err != nil {
		return 0, err
	}
	for time.Since(begin) < time.Minute {
		if f.nodeReady() {
			return time.Since(begin), nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return 0, errors.New("not Ready within a minute")
}

func (f *floor) nodeReady() bool {
	var node struct {
		Status struct {
			Conditions []struct{ Type, Status string }
		}
	}
	if f.get("/api/v1/nodes/"+floorNode, &node) != nil {
		return false
	}
	for _, c := range node.Status.Conditions {
		if c.Type == "Ready" && c.Status == "True" {
			return true
		}
	}
	return false
}

func (f *floor) stop() {
	for _, cmd := range f.cmds {
		_ = cmd.Process.Kill() // it may have ended by itself
		_ = cmd.Wait()
	}
	f.client.CloseIdleConnections()
	_ = exec.Command("ip", "link", "delete", "bsdbenchfl0").Run() // gone with the node's namespace, else now
	if err := removeFloorGroups(); err != nil {
		f.t.Error(err)
	}
	if err := os.RemoveAll(f.dir); err != nil {
		f.t.Error(err)
	}
}

func (f *floor) logs() string {
	var all string
	for _, name := range []string{"etcd", "kube-apiserver", "node"} {
		data := text(f.path(name + ".log"))
		all += "--- " + name + "\n" + data[max(0, len(data)-3000):] + "\n"
	}
	return all
}
