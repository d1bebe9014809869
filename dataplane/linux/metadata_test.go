// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"bastide.dev/dataplane"
)

const metadataAt = "169.254.169.254:80"

// whois answers every connection with whose it is.
type whois struct{}

func (whois) Serve(l net.Listener, senders dataplane.Senders) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		from, _ := netip.ParseAddrPort(conn.RemoteAddr().String())
		s, known := senders.Sender(from.Addr())
		if !known {
			s.Machine = "nobody"
		}
		mac := "without MAC"
		if _, err := net.ParseMAC(senders.MAC(s)); err == nil {
			mac = "with MAC"
		}
		_, _ = fmt.Fprintf(conn, "%s %s %s\n", s.Machine, s.Address, mac)
		_ = conn.Close()
	}
}

func newMetadataWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	must(t, w.plane.Close())
	w.config.Metadata = whois{}
	w.open()
	return w
}

// metadata is what a namespace is told; "" when nobody answers.
func (w *world) metadata(path, from string, wait time.Duration) string {
	w.t.Helper()
	return ask(w.t, path, "tcp4", from, metadataAt, wait)
}

// addAddress gives a namespace's loopback an address to send from.
func addAddress(t *testing.T, path, address string) {
	t.Helper()
	visit(t, path, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.AddrAdd(lo, &netlink.Addr{IPNet: &net.IPNet{IP: addr(address).AsSlice(), Mask: net.CIDRMask(32, 32)}})
	})
}

func TestMetadataKnowsMachines(t *testing.T) {
	w := newMetadataWorld(t)
	for _, id := range []string{"a-n0", "a-n1", "b-n0"} {
		w.boot(id)
	}
	a, b := network("a", "198.19.99.242", "198.19.99.243", 2), network("b", "198.19.99.244", "198.19.99.245", 1)
	closed := dataplane.NSG{ID: "g/closed", Rules: []dataplane.NSGRule{
		{Name: "no", Priority: 100}, {Name: "nothing in", Priority: 100, Inbound: true}}}
	a.NSGs = []dataplane.NSG{closed}
	a.NICs[1].NSG = closed.ID
	w.apply(configOf(a, b))
	for path, want := range map[string]string{"a-n0": "a-n0 10.224.0.4 with MAC", "a-n1": "a-n1 10.224.0.5 with MAC", "b-n0": "b-n0 10.224.0.4 with MAC"} {
		if got := w.metadata(w.node(path), "", patience); got != want {
			t.Errorf("%s is known as %q", path, got)
		}
	}
	addAddress(t, w.node("a-n0"), "10.244.0.9") // a pod's, of its own range
	addAddress(t, w.node("a-n0"), "10.244.1.9") // of its neighbour's pods
	addAddress(t, w.node("a-n0"), "10.224.0.5") // its neighbour's own
	if got := w.metadata(w.node("a-n0"), "10.244.0.9", patience); !strings.HasPrefix(got, "a-n0 ") {
		t.Errorf("a node's pod with an address of its own: %q", got)
	}
	for _, spoofed := range []string{"10.244.1.9", "10.224.0.5"} {
		if got := w.metadata(w.node("a-n0"), spoofed, nothing); got != "" {
			t.Errorf("from the address %s, which isn't its own, it is told %q", spoofed, got)
		}
	}
	if got := w.metadata(w.api("a"), "", patience); !strings.HasPrefix(got, "nobody ") {
		t.Errorf("an API server is no machine: %q", got)
	}
	for what, path := range map[string]string{"the machine below": rootNS, "the edge": w.plane.routerPath(edgeName)} {
		if got := w.metadata(path, "", nothing); got != "" {
			t.Errorf("%s gets %q", what, got)
		}
	}
	for _, port := range []string{"22", "443", "8080"} {
		if got := ask(t, w.node("a-n0"), "tcp4", "", "169.254.169.254:"+port, nothing); got != "" {
			t.Errorf("port %s answers", port)
		}
	}
	w.restart()
	w.apply(configOf(a, b))
	if got := w.metadata(w.node("a-n1"), "", patience); got != "a-n1 10.224.0.5 with MAC" {
		t.Errorf("after a restart of the host: %q", got)
	}
}

// podOf makes a namespace behind a machine, routed by it, as a CNI plugin does.
func (w *world) podOf(machine, address string) string {
	w.t.Helper()
	path := filepath.Join(filepath.Dir(w.config.RunDir), "pod-"+machine)
	must(w.t, createNetns(path))
	w.machines["pod-of-"+machine] = path // removed at the end as one
	node, err := openSpace(w.node(machine))
	must(w.t, err)
	pod, err := openSpace(path)
	must(w.t, err)
	defer func() { must(w.t, errors.Join(node.close(), pod.close())) }()
	must(w.t, addPair(node.nl, "pod0", 1500, "eth0", pod))
	must(w.t, within(node.ns, func() error { return apply(append(nicLinkSettings("pod0"), setting{forwarding, "1"})) }))
	near, err := mustLink(node.nl, "pod0")
	must(w.t, err)
	must(w.t, syncRoutes(node.nl, []route{{dst: single(addr(address)), link: near.Attrs().Index}}, near.Attrs().Index))
	must(w.t, loopbackUp(pod.nl, nil))
	far, err := mustLink(pod.nl, "eth0")
	must(w.t, err)
	must(w.t, syncAddresses(pod.nl, far, []netip.Prefix{single(addr(address))}))
	must(w.t, ready(pod.nl, far, 1500))
	must(w.t, syncRoutes(pod.nl, []route{{dst: anywhere(), link: far.Attrs().Index}}, far.Attrs().Index))
	return path
}

// The switch closes the address to pods and to nobody else, on a machine that
// runs, and back; it stands after a restart, and before a new boot's first pod.
func TestNoMetadataForPods(t *testing.T) {
	w := newMetadataWorld(t)
	w.boot("a-n0")
	v := network("a", "198.19.99.242", "198.19.99.243", 1)
	set := func(closed bool) {
		t.Helper()
		v.NICs[1].NoMetadata = closed
		w.apply(configOf(v))
	}
	set(false)
	pod := w.podOf("a-n0", "10.244.0.7")
	check := func(what string, open bool) {
		t.Helper()
		wait := nothing
		if open {
			wait = patience
		}
		if got := w.metadata(pod, "", wait); (got != "") != open {
			t.Errorf("%s: the pod gets %q", what, got)
		}
		if got := w.metadata(w.node("a-n0"), "", patience); got == "" {
			t.Errorf("%s: the node itself gets nothing", what)
		}
		if m := resolve(t, pod, "tcp", "inside.a.test", 1); len(m.Answer) != 1 {
			t.Errorf("%s: the pod's other ways: %v", what, m)
		}
	}
	check("at first", true)
	set(true)
	check("closed", false)
	addAddress(t, pod, "10.224.0.4") // the node's own
	if got := w.metadata(pod, "10.224.0.4", nothing); got != "" {
		t.Errorf("a pod with its node's address gets %q", got)
	}
	w.restart()
	set(true)
	check("closed, after a restart", false)
	set(false)
	check("open again", true)
	w.restart()
	set(true)
	check("closed by a new host", false)
	w.halt("a-n0")
	w.halt("pod-of-a-n0")
	w.boot("a-n0")
	set(true)
	pod = w.podOf("a-n0", "10.244.0.7")
	check("closed, after a boot", false)
}
