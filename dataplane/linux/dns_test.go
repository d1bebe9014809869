// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"bastide.dev/dataplane"
)

func TestNamesInANetwork(t *testing.T) {
	w := two(t)
	for _, network := range []string{"udp", "tcp"} {
		for name, want := range map[string]string{
			"inside.a.test": "10.226.0.4", "INSIDE.a.test": "10.226.0.4", "management.test": frontDoor, "x.y.apps.test": frontDoor,
		} {
			answer := resolve(t, w.node("a-n0"), network, name, dns.TypeA)
			if got := addresses(answer); !slices.Equal(got, []string{want}) {
				t.Errorf("%s over %s: %v", name, network, answer)
			}
		}
	}
	if m := resolve(t, w.node("a-n0"), "udp", "management.test", dns.TypeAAAA); m.Rcode != dns.RcodeSuccess || len(m.Answer) != 0 {
		t.Errorf("a name without an address of the family has no data: %v", m)
	}
	if m := resolve(t, w.node("b-n0"), "udp", "inside.a.test", dns.TypeA); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("another network's name, and no resolver to ask: %v", m)
	}
	v := network("a", "198.19.99.242", "198.19.99.243", 2)
	v.Names = []dataplane.Name{{Name: "new.a.test", Addresses: []netip.Addr{addr("10.224.0.4")}}}
	w.apply(configOf(v))
	if got := addresses(resolve(t, w.node("a-n0"), "udp", "new.a.test", dns.TypeA)); len(got) != 1 {
		t.Errorf("a new name: %v", got)
	}
	if m := resolve(t, w.node("a-n0"), "udp", "inside.a.test", dns.TypeA); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("a name that is gone: %v", m)
	}
}

// TestForwarding has resolvers on the machine's loopback, one of which is dead.
func TestForwarding(t *testing.T) {
	w := newWorld(t)
	w.apply(configOf(network("a", "198.19.99.242", "198.19.99.243", 0)))
	port := startResolver(t, "127.0.0.98")
	// The file has no ports: all of its servers have the same one.
	write(t, w.config.ResolvConf, "nameserver 127.0.0.97\nnameserver 127.0.0.98\noptions timeout:1\n")
	w.plane.upstream.mu.Lock()
	w.plane.upstream.read = time.Time{}
	w.plane.upstream.mu.Unlock()
	list, err := w.plane.upstream.list()
	must(t, err)
	if !slices.Equal(list, []string{"127.0.0.97:53", "127.0.0.98:53"}) {
		t.Fatalf("resolvers: %v", list)
	}
	for i := range list {
		list[i] = strings.TrimSuffix(list[i], "53") + port
	}
	if got := addresses(resolve(t, w.api("a"), "udp", "elsewhere.example", dns.TypeA)); !slices.Equal(got, []string{"9.9.9.9"}) {
		t.Errorf("forwarded: %v", got)
	}
	if m := resolve(t, w.api("a"), "udp", "missing.example", dns.TypeA); m.Rcode != dns.RcodeNameError {
		t.Errorf("a name that isn't there: %v", m)
	}
	whole := resolve(t, w.api("a"), "tcp", "big.example", dns.TypeTXT)
	if len(whole.Answer) != 40 {
		t.Errorf("a big answer over TCP has %d records", len(whole.Answer))
	}
	if cut := resolve(t, w.api("a"), "udp", "big.example", dns.TypeTXT); !cut.Truncated {
		t.Error("a big answer over UDP isn't marked as cut")
	}
}

// startResolver is a real server of a few names, over UDP and TCP.
func startResolver(t *testing.T, at string) string {
	t.Helper()
	packets, err := net.ListenPacket("udp4", at+":0")
	must(t, err)
	_, port, err := net.SplitHostPort(packets.LocalAddr().String())
	must(t, err)
	listener, err := net.Listen("tcp4", net.JoinHostPort(at, port))
	must(t, err)
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		head := dns.RR_Header{Name: q.Question[0].Name, Rrtype: q.Question[0].Qtype, Class: dns.ClassINET, Ttl: 1}
		switch q.Question[0].Name {
		case "elsewhere.example.":
			m.Answer = append(m.Answer, &dns.A{Hdr: head, A: net.IPv4(9, 9, 9, 9)})
		case "big.example.":
			for i := range 40 {
				m.Answer = append(m.Answer, &dns.TXT{Hdr: head, Txt: []string{fmt.Sprintf("%d %s", i, strings.Repeat("x", 100))}})
			}
		default:
			m.Rcode = dns.RcodeNameError
		}
		if w.RemoteAddr().Network() == "udp" {
			m.Truncate(dns.MinMsgSize)
		}
		_ = w.WriteMsg(m)
	})
	for _, s := range []*dns.Server{{PacketConn: packets, Handler: handler}, {Listener: listener, Handler: handler}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { _ = s.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { must(t, s.Shutdown()) })
	}
	return port
}

func TestZone(t *testing.T) {
	one, two := []netip.Addr{addr("1.1.1.1")}, []netip.Addr{addr("2.2.2.2")}
	z := newZone([]dataplane.Name{{Name: "*.b.c", Addresses: one}, {Name: "x.b.c", Addresses: two}, {Name: "*.a.b.c", Addresses: two}})
	for name, want := range map[string][]netip.Addr{"y.b.c": one, "z.y.b.c": one, "x.b.c": two, "y.a.b.c": two, "b.c": nil, "c": nil, "": nil} {
		var got []netip.Addr
		found, _ := z.lookup(name)
		for _, a := range found {
			got = append(got, a.Addr)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", name, got, want)
		}
	}
}

func TestTimesToLive(t *testing.T) {
	var s nameServer
	s.edge = &edgeNames{}
	s.set([]dataplane.Name{
		{Name: "kept.test", TTL: 3600, Addresses: []netip.Addr{addr("10.0.0.4")}},
		{Name: "kept.test", TTL: 60, Addresses: []netip.Addr{addr("fd00::4")}},
		{Name: "machine.test", Addresses: []netip.Addr{addr("10.0.0.5")}}})
	for _, c := range []struct {
		name string
		typ  uint16
		want uint32
	}{{"kept.test.", dns.TypeA, 3600}, {"kept.test.", dns.TypeAAAA, 60}, {"machine.test.", dns.TypeA, nameTTL}} {
		answer := s.answer(new(dns.Msg).SetQuestion(c.name, c.typ), "udp")
		if len(answer.Answer) != 1 || answer.Answer[0].Header().Ttl != c.want {
			t.Errorf("%s: %v, want a TTL of %d", c.name, answer, c.want)
		}
	}
}
