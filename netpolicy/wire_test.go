// SPDX-License-Identifier: Apache-2.0

package netpolicy_test

import (
	"encoding/binary"
	"hash/crc32"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"bastide.dev/netpolicy/linux"
)

// world is a node's network namespace with its pods' behind routed pairs of
// interfaces, as its CNI plugin makes them, and everything else in one more.
type world struct {
	t       testing.TB
	node    netns.NsHandle
	outside netns.NsHandle
	spaces  map[netip.Addr]netns.NsHandle
	kernel  *linux.Kernel

	mu  sync.Mutex // guards got
	got map[uint32]bool
}

var nodeAddress = netip.MustParseAddr("10.224.0.4")

func newWorld(t testing.TB, pods, others []string) *world {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("network namespaces need root")
	}
	w := &world{t: t, spaces: map[netip.Addr]netns.NsHandle{}, got: map[uint32]bool{}}
	w.node = w.space()
	w.outside = w.space()
	w.in(w.node, func() {
		for path, value := range map[string]string{"ipv4/ip_forward": "1", "ipv4/conf/all/rp_filter": "0", "ipv4/conf/default/rp_filter": "0"} {
			w.check(os.WriteFile("/proc/sys/net/"+path, []byte(value), 0o644))
		}
		var err error
		w.kernel, err = linux.New()
		w.check(err)
	})
	t.Cleanup(func() { _ = w.kernel.Close() })
	w.address(w.node, "lo", nodeAddress)
	for _, text := range pods {
		a := netip.MustParseAddr(text)
		w.spaces[a] = w.space()
		w.pair(w.spaces[a], "pod"+a.String()[len("10.244."):], []netip.Addr{a})
	}
	var rest []netip.Addr
	for _, text := range others {
		rest = append(rest, netip.MustParseAddr(text))
	}
	w.pair(w.outside, "uplink", rest)
	// One of the pods says that it is another one.
	w.spaces[netip.MustParseAddr("10.244.0.200")] = w.spaces[netip.MustParseAddr(pods[0])]
	return w
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// space makes a namespace that ends with the test.
func (w *world) space() netns.NsHandle {
	w.t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	back, err := netns.Get()
	w.check(err)
	defer back.Close()
	made, err := netns.New()
	w.check(err)
	w.check(netns.Set(back))
	w.t.Cleanup(func() { _ = made.Close() })
	w.link(made, "lo")
	return made
}

// in runs f in a namespace; sockets that it makes stay there.
func (w *world) in(space netns.NsHandle, f func()) {
	w.t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	back, err := netns.Get()
	w.check(err)
	defer back.Close()
	w.check(netns.Set(space))
	defer func() { w.check(netns.Set(back)) }()
	f()
}

func (w *world) link(space netns.NsHandle, name string) (*netlink.Handle, netlink.Link) {
	w.t.Helper()
	h, err := netlink.NewHandleAt(space)
	w.check(err)
	w.t.Cleanup(h.Close)
	link, err := h.LinkByName(name)
	w.check(err)
	w.check(h.LinkSetUp(link))
	return h, link
}

func (w *world) address(space netns.NsHandle, name string, a netip.Addr) {
	w.t.Helper()
	h, link := w.link(space, name)
	w.check(h.AddrAdd(link, &netlink.Addr{IPNet: host(a)}))
}

func host(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

// pair joins a namespace with those addresses to the node.
func (w *world) pair(space netns.NsHandle, name string, addresses []netip.Addr) {
	w.t.Helper()
	h, err := netlink.NewHandleAt(w.node)
	w.check(err)
	w.t.Cleanup(h.Close)
	w.check(h.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "eth0", PeerNamespace: netlink.NsFd(space)}))
	_, near := w.link(w.node, name)
	inside, far := w.link(space, "eth0")
	for _, a := range addresses {
		w.address(space, "eth0", a)
		w.check(h.RouteAdd(&netlink.Route{LinkIndex: near.Attrs().Index, Dst: host(a), Scope: netlink.SCOPE_LINK}))
	}
	w.check(h.AddrAdd(near, &netlink.Addr{IPNet: host(netip.MustParseAddr("169.254.1.1"))}))
	gateway := net.IPv4(169, 254, 1, 1)
	w.check(inside.RouteAdd(&netlink.Route{LinkIndex: far.Attrs().Index, Dst: host(netip.MustParseAddr("169.254.1.1")), Scope: netlink.SCOPE_LINK}))
	w.check(inside.RouteAdd(&netlink.Route{LinkIndex: far.Attrs().Index, Gw: gateway}))
}

// at is the namespace where an address is.
func (w *world) at(a netip.Addr) netns.NsHandle {
	if a == nodeAddress {
		return w.node
	}
	if s, ok := w.spaces[a]; ok {
		return s
	}
	return w.outside
}

// listen notes the marks of all packets that arrive in a namespace.
func (w *world) listen(space netns.NsHandle) {
	w.t.Helper()
	for _, protocol := range []int{unix.IPPROTO_ICMP, unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP} {
		var fd int
		w.in(space, func() {
			var err error
			fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
			w.check(err)
		})
		w.check(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000}))
		stop, ended := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(ended)
			buf := make([]byte, 2048)
			for {
				n, _, err := unix.Recvfrom(fd, buf, 0)
				if err == nil {
					w.note(buf[:n])
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		}()
		w.t.Cleanup(func() { close(stop); <-ended; _ = unix.Close(fd) })
	}
}

// note reads the mark of a packet as packet wrote it.
func (w *world) note(p []byte) {
	body := p[int(p[0]&15)*4:]
	at := map[byte]int{1: 8, 6: 4, 17: 8, 132: 16}[p[9]]
	if len(body) < at+4 || p[9] == 1 && body[0] != 8 || p[9] == 6 && body[13] != 2 {
		return // an answer
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.got[binary.BigEndian.Uint32(body[at:])] = true
}

// packet is the first one of a connection, with a mark in it: an echo request, a
// SYN, a datagram, an INIT. The source port is the mark's.
func packet(from, to netip.Addr, protocol uint8, port uint16, mark uint32) []byte {
	sport := uint16(1024 + mark%60000)
	var body []byte
	switch protocol {
	case 1:
		body = make([]byte, 12)
		body[0] = 8
		binary.BigEndian.PutUint16(body[4:], sport)
		binary.BigEndian.PutUint32(body[8:], mark)
		binary.BigEndian.PutUint16(body[2:], checksum(body))
	case 6:
		body = make([]byte, 20)
		binary.BigEndian.PutUint32(body[4:], mark)
		body[12], body[13] = 5<<4, 2
		binary.BigEndian.PutUint16(body[14:], 1024)
	case 17:
		body = make([]byte, 12)
		binary.BigEndian.PutUint16(body[4:], 12)
		binary.BigEndian.PutUint32(body[8:], mark)
	case 132:
		body = make([]byte, 32)
		body[12], body[15] = 1, 20
		binary.BigEndian.PutUint32(body[16:], mark)
		binary.BigEndian.PutUint32(body[20:], 65536)
		body[25], body[27] = 1, 1
	}
	if protocol != 1 {
		binary.BigEndian.PutUint16(body, sport)
		binary.BigEndian.PutUint16(body[2:], port)
	}
	pseudo := append(append(append([]byte{}, from.AsSlice()...), to.AsSlice()...), 0, protocol, 0, byte(len(body)))
	switch protocol {
	case 6:
		binary.BigEndian.PutUint16(body[16:], checksum(append(pseudo, body...)))
	case 17:
		binary.BigEndian.PutUint16(body[6:], checksum(append(pseudo, body...)))
	case 132:
		binary.LittleEndian.PutUint32(body[8:], crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)))
	}
	header := make([]byte, 20)
	header[0], header[8], header[9] = 0x45, 64, protocol
	binary.BigEndian.PutUint16(header[2:], uint16(20+len(body)))
	copy(header[12:], from.AsSlice())
	copy(header[16:], to.AsSlice())
	return append(header, body...)
}

func checksum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// send sends a raw packet from a namespace.
func (w *world) send(space netns.NsHandle, to netip.Addr, p []byte) {
	w.t.Helper()
	w.in(space, func() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		w.check(err)
		defer unix.Close(fd)
		err = unix.Sendto(fd, p, 0, &unix.SockaddrInet4{Addr: to.As4()})
		if err != nil && err != unix.EHOSTUNREACH && err != unix.ENETUNREACH {
			w.t.Fatal(err)
		}
	})
}

// arrived waits until all of the marks are there, or none more can come.
func (w *world) arrived(want map[uint32]bool) map[uint32]bool {
	deadline := time.Now().Add(300 * time.Millisecond)
	for quiet := time.Now().Add(15 * time.Millisecond); ; time.Sleep(time.Millisecond) {
		w.mu.Lock()
		missing := 0
		for mark, passes := range want {
			if passes && !w.got[mark] {
				missing++
			}
		}
		got := make(map[uint32]bool, len(w.got))
		for mark := range w.got {
			got[mark] = true
		}
		w.mu.Unlock()
		if now := time.Now(); missing == 0 && now.After(quiet) || now.After(deadline) {
			return got
		}
	}
}
