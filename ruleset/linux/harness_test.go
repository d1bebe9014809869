// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"bastide.dev/ruleset"
)

// lab is a router between two wires, in namespaces without names: they go when
// the test's files close. Packets are put on the wires by hand, so that nothing
// but the router's rules decides about them.
type lab struct {
	router      *os.File
	left, right *wire
	firewall    *Firewall
	id          uint16
}

// wire is the outer end of one of the router's links.
type wire struct {
	fd, index int
	router    []byte // the router's hardware address
}

var routerAddress = netip.MustParseAddr("10.1.255.254")

func within(t testing.TB, ns *os.File, do func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		if err == nil {
			do()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func newNamespace(t testing.TB) *os.File {
	t.Helper()
	type made struct {
		file *os.File
		err  error
	}
	done := make(chan made)
	go func() {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- made{nil, err}
			return
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		done <- made{f, err}
	}()
	m := <-done
	if m.err != nil {
		t.Fatalf("these tests need root: %v", m.err)
	}
	t.Cleanup(func() { _ = m.file.Close() })
	return m.file
}

func newLab(t testing.TB) *lab {
	t.Helper()
	l := &lab{router: newNamespace(t), id: 1}
	within(t, l.router, func() {
		must(t, os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0))
		must(t, os.WriteFile("/proc/sys/net/ipv4/conf/all/rp_filter", []byte("0"), 0))
		must(t, os.WriteFile("/proc/sys/net/ipv4/conf/all/send_redirects", []byte("0"), 0))
		must(t, os.WriteFile("/proc/sys/net/ipv4/conf/default/send_redirects", []byte("0"), 0))
		must(t, os.WriteFile("/proc/sys/net/ipv4/icmp_ratelimit", []byte("0"), 0))
		must(t, os.WriteFile("/proc/sys/net/ipv4/icmp_msgs_per_sec", []byte("1000000"), 0))
		must(t, os.WriteFile("/proc/sys/net/ipv4/icmp_msgs_burst", []byte("1000000"), 0))
	})
	l.left = l.wire(t, "left", netip.MustParsePrefix("10.1.0.0/16"), routerAddress)
	l.right = l.wire(t, "right", netip.MustParsePrefix("10.2.0.0/16"), netip.MustParseAddr("10.2.255.254"))
	var err error
	if l.firewall, err = New(l.router, "ruleset-test"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, l.firewall.Close()) })
	return l
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wire adds a link to the router, with a route and an address.
func (l *lab) wire(t testing.TB, name string, prefix netip.Prefix, address netip.Addr) *wire {
	t.Helper()
	outside := newNamespace(t)
	w := &wire{}
	within(t, l.router, func() {
		pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "end", PeerNamespace: netlink.NsFd(outside.Fd())}
		must(t, netlink.LinkAdd(pair))
		link, err := netlink.LinkByName(name)
		must(t, err)
		must(t, netlink.LinkSetARPOff(link))
		must(t, netlink.LinkSetUp(link))
		w.router = link.Attrs().HardwareAddr
		must(t, netlink.AddrAdd(link, &netlink.Addr{IPNet: netlink.NewIPNet(address.AsSlice())}))
		ipnet := netlink.NewIPNet(prefix.Addr().AsSlice())
		ipnet.Mask = []byte{255, 255, 0, 0}
		must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipnet, Scope: netlink.SCOPE_LINK}))
	})
	within(t, outside, func() {
		link, err := netlink.LinkByName("end")
		must(t, err)
		must(t, netlink.LinkSetUp(link))
		w.index = link.Attrs().Index
		w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_IP)))
		must(t, err)
		must(t, unix.SetsockoptInt(w.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20))
		must(t, unix.SetsockoptTimeval(w.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 3}))
		must(t, unix.Bind(w.fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_IP), Ifindex: w.index}))
	})
	t.Cleanup(func() { must(t, unix.Close(w.fd)) })
	within(t, outside, func() { awaitLink(t, "end") })
	within(t, l.router, func() { awaitLink(t, name) })
	return w
}

// awaitLink waits until a link carries packets: the kernel says so a moment
// after both of its ends are up, and drops them before.
func awaitLink(t testing.TB, name string) {
	t.Helper()
	for start := time.Now(); time.Since(start) < 10*time.Second; time.Sleep(time.Millisecond) {
		link, err := netlink.LinkByName(name)
		must(t, err)
		if link.Attrs().OperState == netlink.OperUp {
			return
		}
	}
	t.Fatalf("link %s never came up", name)
}

func htons(n uint16) uint16 { return n<<8 | n>>8 }

func (w *wire) send(t testing.TB, b []byte) {
	t.Helper()
	to := &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_IP), Ifindex: w.index, Halen: 6}
	copy(to.Addr[:], w.router)
	must(t, unix.Sendto(w.fd, b, 0, to))
}

// seen is a packet that came out of the router.
type seen struct {
	id                   uint16 // of the packet, or of the one that an error or a reset answers
	refusal              bool
	source, destination  netip.Addr
	protocol             uint8
	sourcePort, destPort uint16
}

// receive reads what is there, up to the packet with the identity last.
func (w *wire) receive(t testing.TB, last uint16) []seen {
	t.Helper()
	var all []seen
	buf := make([]byte, 2048)
	for {
		n, from, err := unix.Recvfrom(w.fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			t.Fatalf("the last packet never came: %v", err)
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); !ok || ll.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		s := parse(buf[:n])
		if s.id == last && !s.refusal {
			return all
		}
		all = append(all, s)
	}
}

func parse(b []byte) seen {
	s := seen{id: binary.BigEndian.Uint16(b[4:]), protocol: b[9]}
	s.source, _ = netip.AddrFromSlice(b[12:16])
	s.destination, _ = netip.AddrFromSlice(b[16:20])
	body := b[20:]
	switch {
	case s.protocol == ruleset.ICMP && body[0] == 3:
		s.refusal, s.id = true, binary.BigEndian.Uint16(body[8+4:])
	case s.protocol == ruleset.TCP && body[13]&4 != 0:
		s.refusal, s.id = true, uint16(binary.BigEndian.Uint32(body[8:])>>8)
	}
	if ruleset.HasPorts(s.protocol) {
		s.sourcePort, s.destPort = binary.BigEndian.Uint16(body), binary.BigEndian.Uint16(body[2:])
	}
	return s
}

// build makes the bytes of a packet: of TCP a SYN, then its SYN-ACK, then an ACK.
func build(p ruleset.Packet, id uint16) []byte {
	var body []byte
	switch p.Protocol {
	case ruleset.TCP:
		body = make([]byte, 20)
		binary.BigEndian.PutUint32(body[4:], uint32(id)<<8)
		body[12], body[13] = 5<<4, 2
		switch {
		case p.Reply:
			body[13] = 0x12
			binary.BigEndian.PutUint32(body[8:], uint32(id-1)<<8+1)
		case p.State == ruleset.Established:
			body[13] = 0x10
			binary.BigEndian.PutUint32(body[4:], uint32(id-2)<<8+1)
			binary.BigEndian.PutUint32(body[8:], uint32(id-1)<<8+1)
		}
		body[14] = 0x40 // a window
	case ruleset.UDP:
		body = make([]byte, 12)
		binary.BigEndian.PutUint16(body[4:], 12)
	case ruleset.ICMP:
		body = []byte{p.ICMPType, 0, 0, 0, byte(id >> 8), byte(id), 0, 1}
		if p.Reply {
			binary.BigEndian.PutUint16(body[4:], id-1)
		}
		binary.BigEndian.PutUint16(body[2:], checksum(body))
	default:
		body = make([]byte, 16)
	}
	if ruleset.HasPorts(p.Protocol) {
		binary.BigEndian.PutUint16(body, p.SourcePort)
		binary.BigEndian.PutUint16(body[2:], p.DestPort)
	}
	if p.Protocol == ruleset.TCP {
		pseudo := slices.Concat(p.Source.AsSlice(), p.Destination.AsSlice(), []byte{0, p.Protocol, 0, byte(len(body))}, body)
		binary.BigEndian.PutUint16(body[16:], checksum(pseudo))
	}
	head := make([]byte, 20)
	head[0], head[8], head[9] = 0x45, 64, p.Protocol
	binary.BigEndian.PutUint16(head[2:], uint16(20+len(body)))
	binary.BigEndian.PutUint16(head[4:], id)
	copy(head[12:], p.Source.AsSlice())
	copy(head[16:], p.Destination.AsSlice())
	binary.BigEndian.PutUint16(head[10:], checksum(head))
	return append(head, body...)
}

func checksum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i < len(b); i += 2 {
		sum += uint32(b[i]) << 8
		if i+1 < len(b) {
			sum += uint32(b[i+1])
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// fate is what became of a packet.
type fate struct {
	verdict              ruleset.Verb
	source, destination  netip.Addr // as it left
	sourcePort, destPort uint16
}

// real sends packets through the router and tells what became of each. Behind
// them goes one that the tables accept, on each wire: when it is there, so is
// all before it, because one processor has them all in its queue.
func (l *lab) real(t testing.TB, packets []ruleset.Packet) []fate {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, one unix.CPUSet
	must(t, unix.SchedGetaffinity(0, &all))
	for cpu := range 1024 {
		if all.IsSet(cpu) {
			one.Set(cpu)
			break
		}
	}
	must(t, unix.SchedSetaffinity(0, &one))
	defer func() { must(t, unix.SchedSetaffinity(0, &all)) }()
	first := l.id
	for _, p := range packets {
		w := l.left
		if p.InLink == "right" {
			w = l.right
		}
		w.send(t, build(p, l.id))
		l.id++
	}
	last := l.id
	l.id++
	marker := ruleset.Packet{Protocol: ruleset.ESP}
	marker.Source, marker.Destination = netip.MustParseAddr("10.1.99.99"), netip.MustParseAddr("10.2.99.99")
	l.left.send(t, build(marker, last))
	marker.Source, marker.Destination = marker.Destination, marker.Source
	l.right.send(t, build(marker, last))
	fates := make([]fate, len(packets))
	for i := range fates {
		fates[i].verdict = ruleset.Drop
	}
	for _, s := range append(l.left.receive(t, last), l.right.receive(t, last)...) {
		i := int(s.id - first)
		if i >= len(fates) {
			t.Fatalf("a packet that nobody sent: %+v", s)
		}
		if fates[i] = (fate{ruleset.Accept, s.source, s.destination, s.sourcePort, s.destPort}); s.refusal {
			fates[i] = fate{verdict: ruleset.Reject}
		}
	}
	return fates
}

// model is what Run says becomes of a packet.
func model(t testing.TB, table *ruleset.Table, p *ruleset.Packet, choose func(int) int) fate {
	t.Helper()
	run := func(h ruleset.Hook) ruleset.Verb {
		o, err := table.Run(h, p, choose)
		must(t, err)
		return o.Verdict
	}
	p.Local = p.Destination == routerAddress
	verdict := run(ruleset.Prerouting)
	p.OutLink = "left"
	if netip.MustParsePrefix("10.2.0.0/16").Contains(p.Destination) {
		p.OutLink = "right"
	}
	if p.Local = p.Destination == routerAddress; p.Local && verdict == ruleset.Accept {
		p.OutLink = ""
		if verdict = run(ruleset.Input); verdict == ruleset.Accept {
			return fate{verdict: ruleset.Drop} // it stays in the router
		}
		return fate{verdict: verdict}
	}
	for _, h := range []ruleset.Hook{ruleset.Forward, ruleset.Postrouting} {
		if verdict == ruleset.Accept {
			verdict = run(h)
		}
	}
	if verdict != ruleset.Accept {
		return fate{verdict: verdict}
	}
	f := fate{verdict: verdict, source: p.Source, destination: p.Destination}
	if ruleset.HasPorts(p.Protocol) {
		f.sourcePort, f.destPort = p.SourcePort, p.DestPort
	}
	return f
}
