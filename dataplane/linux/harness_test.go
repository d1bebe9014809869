// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/miekg/dns"

	"bastide.dev/dataplane"
)

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

const (
	testPool  = "198.19.99.240/28"
	frontDoor = "198.19.99.241"
	patience  = 3 * time.Second
	nothing   = 300 * time.Millisecond // how long a packet that is dropped is waited for
)

// world is a fresh instance of a test, with machines that are bare namespaces.
type world struct {
	t        testing.TB
	plane    *Plane
	config   Config
	machines map[string]string // ID → path of its namespace
}

// instance names: unique, so that nothing of another run or instance is met.
func newWorld(t testing.TB) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("the data plane's tests need root")
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "hosts"), "127.0.0.1 localhost\n")
	write(t, filepath.Join(dir, "resolv.conf"), "")
	w := &world{t: t, machines: map[string]string{}, config: Config{
		Instance: fmt.Sprintf("dptest-%d-%x", os.Getpid(), time.Now().UnixNano()&0xffffff), RunDir: filepath.Join(dir, "run"),
		HostsFile: filepath.Join(dir, "hosts"), ResolvConf: filepath.Join(dir, "resolv.conf"),
	}}
	w.open()
	t.Cleanup(func() {
		must(t, w.plane.Down(context.Background()))
		must(t, w.plane.Close())
		for id := range w.machines {
			must(t, removeNetns(w.machines[id]))
		}
	})
	return w
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, path, text string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(text), 0o644))
}

func (w *world) open() {
	w.t.Helper()
	plane, err := New(w.config)
	must(w.t, err)
	w.plane = plane
}

// restart is what kill -9 of the host and a new one are to the data plane.
func (w *world) restart() {
	w.t.Helper()
	must(w.t, w.plane.Close())
	w.open()
}

func (w *world) boot(id string) {
	w.t.Helper()
	path := filepath.Join(filepath.Dir(w.config.RunDir), "machine-"+id)
	must(w.t, createNetns(path))
	w.machines[id] = path
}

func (w *world) halt(id string) {
	w.t.Helper()
	must(w.t, removeNetns(w.machines[id]))
	delete(w.machines, id)
}

func (w *world) netns(id string) string { return w.machines[id] }

// apply gives the plane a copy: tests go on changing theirs.
func (w *world) apply(c dataplane.Config) map[string]dataplane.VNetStatus {
	w.t.Helper()
	text, err := json.Marshal(c)
	must(w.t, err)
	var copied dataplane.Config
	must(w.t, json.Unmarshal(text, &copied))
	status, err := w.plane.Apply(context.Background(), copied, w.netns)
	must(w.t, err)
	return status
}

// until tries until something is so.
func (w *world) until(what string, so func() bool) {
	w.t.Helper()
	for end := time.Now().Add(2 * patience); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("never came: %s", what)
		}
	}
}

// api is the namespace of a network's API server, node that of a machine.
func (w *world) api(vnet string) string { return w.plane.NetnsPath(vnet) }
func (w *world) node(id string) string  { return w.machines[id] }

const rootNS = "/proc/self/ns/net"

// visit runs do in the namespace kept at path.
func visit(t testing.TB, path string, do func() error) {
	t.Helper()
	ns, err := openNetns(path)
	must(t, err)
	err = within(ns, do)
	must(t, errors.Join(err, ns.Close()))
}

// serve answers every connection to address in a namespace with its name and
// the client's address, over TCP and UDP.
func serve(t testing.TB, path, address, name string) {
	t.Helper()
	visit(t, path, func() error {
		listener, err := net.Listen("tcp4", address)
		if err != nil {
			return err
		}
		packets, err := net.ListenPacket("udp4", address)
		if err != nil {
			return errors.Join(err, listener.Close())
		}
		t.Cleanup(func() { must(t, errors.Join(listener.Close(), packets.Close())) })
		go answerTCP(listener, name) // ends when the listener closes
		go answerUDP(packets, name)
		return nil
	})
}

func host(a net.Addr) string { h, _, _ := net.SplitHostPort(a.String()); return h }

func answerTCP(l net.Listener, name string) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = fmt.Fprintf(conn, "%s sees %s\n", name, host(conn.RemoteAddr()))
		_ = conn.Close()
	}
}

func answerUDP(p net.PacketConn, name string) {
	buffer := make([]byte, 100)
	for {
		_, client, err := p.ReadFrom(buffer)
		if err != nil {
			return
		}
		_, _ = p.WriteTo(fmt.Appendf(nil, "%s sees %s\n", name, host(client)), client)
	}
}

// ask connects from a namespace and returns what the server said; "" when
// nobody answered within the time. from may be empty.
func ask(t testing.TB, path, network, from, to string, wait time.Duration) string {
	t.Helper()
	var line string
	visit(t, path, func() error {
		dialer := net.Dialer{Timeout: wait}
		if from != "" && network == "tcp4" {
			dialer.LocalAddr = &net.TCPAddr{IP: addr(from).AsSlice()}
		} else if from != "" {
			dialer.LocalAddr = &net.UDPAddr{IP: addr(from).AsSlice()}
		}
		conn, err := dialer.Dial(network, to)
		if err != nil {
			return nil // no answer is an answer
		}
		if err := conn.SetDeadline(time.Now().Add(wait)); err != nil {
			return errors.Join(err, conn.Close())
		}
		if network == "udp4" {
			_, err = conn.Write([]byte("?"))
		}
		if err == nil {
			line, err = bufio.NewReader(conn).ReadString('\n')
		}
		if err != nil && !errors.Is(err, io.EOF) {
			line = ""
		}
		return conn.Close()
	})
	return strings.TrimSpace(line)
}

func answers(t testing.TB, path, to, want string) {
	t.Helper()
	for _, network := range []string{"tcp4", "udp4"} {
		if got := ask(t, path, network, "", to, patience); got != want {
			t.Errorf("%s to %s: got %q, want %q", network, to, got, want)
		}
	}
}

func answersTCP(t testing.TB, path, to, want string) {
	t.Helper()
	if got := ask(t, path, "tcp4", "", to, patience); got != want {
		t.Errorf("tcp to %s: got %q, want %q", to, got, want)
	}
}

func silent(t testing.TB, path, to string) {
	t.Helper()
	for _, network := range []string{"tcp4", "udp4"} {
		if got := ask(t, path, network, "", to, nothing); got != "" {
			t.Errorf("%s to %s should go nowhere, got %q", network, to, got)
		}
	}
}

// resolve asks the network's name server from a namespace.
func resolve(t testing.TB, path, network, name string, kind uint16) *dns.Msg {
	t.Helper()
	var answer *dns.Msg
	visit(t, path, func() (err error) {
		client := &dns.Client{Net: network, Timeout: patience}
		answer, _, err = client.Exchange(new(dns.Msg).SetQuestion(name+".", kind), dataplane.WireServer.String()+":53")
		return err
	})
	return answer
}

func addresses(m *dns.Msg) []string {
	found := []string{}
	for _, rr := range m.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			found = append(found, rr.A.String())
		case *dns.AAAA:
			found = append(found, rr.AAAA.String())
		}
	}
	return found
}

// network is a VNet like a cluster's: an API server, and nodes that are
// machines named after it with a /24 of pods each.
func network(id string, egress, public string, nodes int) dataplane.VNet {
	v := dataplane.VNet{
		ID: id, Prefixes: []netip.Prefix{prefix("10.224.0.0/12")},
		Subnets: []dataplane.Subnet{{Name: "nodes", Prefix: prefix("10.224.0.0/16")}, {Name: "api", Prefix: prefix("10.226.0.0/28")}},
		NICs:    []dataplane.NIC{{ID: id + "-api", Namespace: id, Address: addr("10.226.0.4"), Subnet: "api", Platform: true}},
		Public:  []dataplane.Public{{Address: addr(public), Port: 443, Target: addr("10.226.0.4"), TPort: 6443}},
		Names:   []dataplane.Name{{Name: "inside." + id + ".test", Addresses: []netip.Addr{addr("10.226.0.4")}}},
	}
	for i := range nodes {
		v.NICs = append(v.NICs, dataplane.NIC{ID: fmt.Sprintf("%s-n%d", id, i), Machine: fmt.Sprintf("%s-n%d", id, i), Subnet: "nodes",
			Address: netip.AddrFrom4([4]byte{10, 224, byte((i + 4) / 256), byte((i + 4) % 256)}),
			Pods:    []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(i), 0}), 24)}})
	}
	setEgress(&v, egress)
	return v
}

// setEgress makes an address that by which all interfaces leave; "" is none.
func setEgress(v *dataplane.VNet, address string) {
	for i := range v.NICs {
		if v.NICs[i].Egress = nil; address != "" {
			v.NICs[i].Egress = []dataplane.Egress{{Origin: "test", Address: addr(address)}}
		}
	}
}

func configOf(vnets ...dataplane.VNet) dataplane.Config {
	return dataplane.Config{Edge: dataplane.Edge{
		Pools: []netip.Prefix{prefix(testPool)}, FrontDoor: addr(frontDoor),
		Names: []dataplane.Name{
			{Name: "management.test", Addresses: []netip.Addr{addr(frontDoor)}},
			{Name: "*.apps.test", Addresses: []netip.Addr{addr(frontDoor)}},
		},
	}, VNets: vnets}
}

// snapshot is what of the machine's network an instance could leave behind.
func snapshot(t testing.TB) []string {
	t.Helper()
	var all []string
	names, err := net.Interfaces()
	must(t, err)
	for _, i := range names {
		all = append(all, "link "+i.Name)
	}
	routes, err := exec.Command("ip", "route", "show", "table", "all").Output()
	must(t, err)
	for line := range strings.Lines(string(routes)) {
		all = append(all, "route "+strings.TrimSpace(line))
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	for line := range strings.Lines(string(mounts)) {
		all = append(all, "mount "+strings.Fields(line)[4])
	}
	conn, err := nftables.New()
	must(t, err)
	tables, err := conn.ListTables()
	must(t, err)
	for _, table := range tables {
		all = append(all, "table "+table.Name)
	}
	forward, err := readForwarding()
	must(t, err)
	all = append(all, "forwarding "+forward)
	slices.Sort(all)
	return all
}
