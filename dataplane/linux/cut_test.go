// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"bastide.dev/dataplane"
)

func TestRestrictedPublic(t *testing.T) {
	w := newWorld(t)
	w.boot("a-n0")
	outside := newOutside(t)
	v := network("a", "198.19.99.242", "198.19.99.243", 1)
	public := "198.19.99.243:443"
	allow := func(texts ...string) {
		t.Helper()
		v.Public[0].Restricted, v.Public[0].Allowed = true, dataplanePrefixes(texts...)
		w.apply(configOf(v))
	}
	w.apply(configOf(v))
	fromOutside := openTranslated(t, outside, public, w.api("a"), "10.226.0.4:6443")
	fromRoot := openTranslated(t, rootNS, public, w.api("a"), "10.226.0.4:6443")
	fromNode := openTranslated(t, w.node("a-n0"), public, w.api("a"), "10.226.0.4:6443")

	allow("198.51.100.0/24", "198.19.99.242/32")
	fromOutside.stillWorks()
	fromNode.stillWorks()
	fromRoot.isCut()
	serve(t, w.api("a"), "10.226.0.4:6443", "api")
	answersTCP(t, outside, public, "api sees 198.51.100.2")
	answersTCP(t, w.node("a-n0"), public, "api sees 198.19.99.242")
	silent(t, rootNS, public)

	begun := time.Now()
	allow("198.19.99.241/32")
	took := time.Since(begun)
	fromOutside.isCut()
	silent(t, outside, public)
	answersTCP(t, rootNS, public, "api sees "+frontDoor)
	t.Logf("the change took %s", took.Round(10*time.Microsecond))

	v.Public[0].Restricted, v.Public[0].Allowed = false, nil
	w.apply(configOf(v))
	answersTCP(t, outside, public, "api sees 198.51.100.2")
}

// A connection that a dead host should have cut is cut by the next one.
func TestCutAfterARestart(t *testing.T) {
	w := newWorld(t)
	v := network("a", "198.19.99.242", "198.19.99.243", 0)
	w.apply(configOf(v))
	conn := openTranslated(t, rootNS, "198.19.99.243:443", w.api("a"), "10.226.0.4:6443")
	w.restart()
	v.Public[0].Restricted, v.Public[0].Allowed = true, dataplanePrefixes("198.51.100.0/24")
	w.apply(configOf(v))
	conn.isCut()
}

func openTranslated(t *testing.T, client, to, server, at string) *connection {
	t.Helper()
	var listener net.Listener
	visit(t, server, func() (err error) { listener, err = net.Listen("tcp4", at); return err })
	c := &connection{t: t}
	visit(t, client, func() (err error) { c.client, err = net.DialTimeout("tcp4", to, patience); return err })
	var err error
	c.server, err = listener.Accept()
	must(t, err)
	must(t, listener.Close())
	t.Cleanup(func() { must(t, c.client.Close()); must(t, c.server.Close()) })
	c.stillWorks()
	return c
}

// isCut tells that nothing passes any more, in either direction.
func (c *connection) isCut() {
	c.t.Helper()
	for _, way := range [][2]net.Conn{{c.client, c.server}, {c.server, c.client}} {
		_, _ = way[0].Write([]byte("hello")) // may be refused already
		must(c.t, way[1].SetReadDeadline(time.Now().Add(nothing)))
		if n, _ := way[1].Read(make([]byte, 5)); n > 0 {
			c.t.Error("the connection isn't cut")
		}
		must(c.t, way[1].SetReadDeadline(time.Time{}))
	}
}

func TestCutAmongThousands(t *testing.T) {
	w := newWorld(t)
	w.apply(configOf(network("a", "198.19.99.242", "198.19.99.243", 0)))
	ns, err := openNetns(w.plane.vnetPath("a"))
	must(t, err)
	defer func() { must(t, ns.Close()) }()
	h, err := netlink.NewHandleAt(netns.NsHandle(ns.Fd()), unix.NETLINK_NETFILTER)
	must(t, err)
	defer h.Close()
	const others, ours = 4000, 100
	for i := range others + ours {
		port := uint16(444)
		if i < ours {
			port = 443
		}
		source, public := net.IP{198, 18, byte(i >> 8), byte(i)}, net.IP{198, 19, 99, 243}
		must(t, h.ConntrackCreate(netlink.ConntrackTable, unix.AF_INET, &netlink.ConntrackFlow{FamilyType: unix.AF_INET, TimeOut: 100,
			Forward:   netlink.IPTuple{Protocol: unix.IPPROTO_TCP, SrcIP: source, DstIP: public, SrcPort: 4000, DstPort: port},
			Reverse:   netlink.IPTuple{Protocol: unix.IPPROTO_TCP, SrcIP: public, DstIP: source, SrcPort: port, DstPort: 4000},
			ProtoInfo: &netlink.ProtoInfoTCP{State: 3}}))
	}
	begun := time.Now()
	ended, err := cut(ns, endings([]dataplane.Cut{{Destination: addr("198.19.99.243"), Port: 443, Allowed: dataplanePrefixes("198.18.0.0/28", "198.18.0.20/32")}}))
	must(t, err)
	took := time.Since(begun)
	if ended != ours-17 {
		t.Errorf("%d connections were cut, not %d", ended, ours-17)
	}
	left, err := h.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
	must(t, err)
	if len(left) != others+17 {
		t.Error(fmt.Errorf("%d connections are left", len(left)))
	}
	t.Logf("%d of %d connections cut in %s", ended, others+ours, took.Round(10*time.Microsecond))
}

// A flow that goes on while its address changes takes the new one.
func TestEgressChanges(t *testing.T) {
	w := newWorld(t)
	w.boot("a-n0")
	v := network("a", "198.19.99.242", "198.19.99.243", 1)
	w.apply(configOf(v))
	seen := make(chan string, 10)
	var server net.PacketConn
	c := configOf(v)
	c.Edge.Terminals = []dataplane.Terminal{{ID: "red", Namespace: "t-red", Address: addr("198.19.99.250")}}
	w.apply(c)
	visit(t, w.plane.NetnsPath("t-red"), func() (err error) { server, err = net.ListenPacket("udp4", "198.19.99.250:7000"); return err })
	t.Cleanup(func() { must(t, server.Close()) })
	go func() {
		for {
			_, from, err := server.ReadFrom(make([]byte, 10))
			if err != nil {
				return
			}
			seen <- host(from)
		}
	}()
	var client net.Conn
	visit(t, w.node("a-n0"), func() (err error) { client, err = net.Dial("udp4", "198.19.99.250:7000"); return err })
	t.Cleanup(func() { must(t, client.Close()) })
	for _, address := range []string{"198.19.99.242", "198.19.99.246"} {
		setEgress(&c.VNets[0], address)
		w.apply(c)
		_, err := client.Write([]byte("?"))
		must(t, err)
		select {
		case got := <-seen:
			if got != address {
				t.Errorf("seen from %s, not %s", got, address)
			}
		case <-time.After(patience):
			t.Errorf("nothing came from %s", address)
		}
	}
}
