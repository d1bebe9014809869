// SPDX-License-Identifier: Apache-2.0

package netpolicy_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"bastide.dev/netpolicy"
	"bastide.dev/netpolicy/linux"
	"bastide.dev/ruleset"
)

// table isolates a pod of the node from all, or doesn't.
func isolating(isolated bool) ruleset.Table {
	s := &netpolicy.State{Node: "n0", Ranges: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/24")},
		Namespaces: []*netpolicy.Namespace{{Name: "a"}}}
	for i := range 2 {
		s.Pods = append(s.Pods, &netpolicy.Pod{Namespace: "a", Name: fmt.Sprint(i), UID: fmt.Sprint(i), Node: "n0",
			Labels: map[string]string{"pod": fmt.Sprint(i)}, Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 244, 0, byte(2 + i)})}})
	}
	if isolated {
		s.Policies = []*netpolicy.Policy{{Meta: netpolicy.Meta{Namespace: "a", Name: "deny"}, Spec: netpolicy.PolicySpec{
			PodSelector: netpolicy.Selector{MatchLabels: map[string]string{"pod": "0"}}, PolicyTypes: []string{"Ingress"}}}}
	}
	return netpolicy.Compile(s)
}

// speaker is a connection to a server that says something all the time.
func (w *world) speaker(from, to netip.Addr) net.Conn {
	w.t.Helper()
	var listener net.Listener
	w.in(w.at(to), func() {
		var err error
		listener, err = net.Listen("tcp", to.String()+":0")
		w.check(err)
	})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		for {
			if _, err := io.WriteString(conn, "x"); err != nil {
				return
			}
			time.Sleep(2 * time.Millisecond)
		}
	}()
	var conn net.Conn
	w.in(w.at(from), func() {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from.AsSlice()}, Timeout: 2 * time.Second}
		var err error
		conn, err = d.DialContext(w.t.Context(), "tcp", listener.Addr().String())
		w.check(err)
	})
	w.t.Cleanup(func() { _ = listener.Close(); _ = conn.Close() })
	return conn
}

// hears tells whether anything new comes within a while.
func hears(conn net.Conn) bool {
	_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	for buf := make([]byte, 1<<16); ; {
		if n, err := conn.Read(buf); err != nil || n < len(buf) { // what had come before
			break
		}
	}
	_ = conn.SetReadDeadline(time.Now().Add(400 * time.Millisecond))
	_, err := conn.Read(make([]byte, 1<<16))
	return err == nil
}

// TestForbiddenConnectionsEnd: one that was open when its policy came, though
// it is the server that goes on speaking; others go on.
func TestForbiddenConnectionsEnd(t *testing.T) {
	w := newWorld(t, []string{"10.244.0.2", "10.244.0.3"}, []string{"10.244.1.2"})
	server, other, client := netip.MustParseAddr("10.244.0.2"), netip.MustParseAddr("10.244.0.3"), netip.MustParseAddr("10.244.1.2")
	open := isolating(false)
	w.check(w.kernel.Put(open))
	local, remote := w.speaker(other, server), w.speaker(client, server)
	outgoing, bystander := w.speaker(server, client), w.speaker(client, other)
	for _, c := range []net.Conn{local, remote, outgoing, bystander} {
		if !hears(c) {
			t.Fatal("it doesn't speak")
		}
	}
	closed := isolating(true)
	w.check(w.kernel.Put(closed))
	w.in(w.node, func() {
		n, err := w.kernel.Cut(func(hook ruleset.Hook, p ruleset.Packet) bool {
			p.State = ruleset.New
			outcome, err := closed.Run(hook, &p, nil)
			w.check(err)
			return outcome.Verdict == ruleset.Drop
		})
		w.check(err)
		if n != 2 {
			t.Errorf("%d connections were ended, want 2", n)
		}
	})
	for _, test := range []struct {
		name string
		conn net.Conn
		want bool
	}{{"from a pod of the node", local, false}, {"from elsewhere", remote, false}, {"which the isolated pod began", outgoing, true}, {"of another pod", bystander, true}} {
		if hears(test.conn) != test.want {
			t.Errorf("the connection %s goes on: %v", test.name, !test.want)
		}
	}
}

// TestNextAgentTakesOver: the table stays without its writer, and the next one
// replaces it without a moment between.
func TestNextAgentTakesOver(t *testing.T) {
	w := newWorld(t, []string{"10.244.0.2", "10.244.0.3"}, []string{"10.244.1.2"})
	server, client := netip.MustParseAddr("10.244.0.2"), netip.MustParseAddr("10.244.1.2")
	w.check(w.kernel.Put(isolating(true)))
	w.listen(w.at(server))
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for mark := uint32(1); ; mark++ {
			select {
			case <-stop:
				return
			default:
				w.send(w.at(client), server, packet(client, server, 17, 53, mark))
			}
		}
	}()
	for range 20 {
		w.in(w.node, func() {
			w.check(w.kernel.Close())
			var err error
			w.kernel, err = linux.New()
			w.check(err)
			w.check(w.kernel.Put(isolating(true)))
		})
	}
	close(stop)
	<-ended
	w.in(w.node, func() {
		if out, err := exec.Command("nft", "list", "tables").Output(); err != nil || strings.Count(string(out), netpolicy.TableName) != 1 {
			t.Errorf("tables: %s, %v", out, err)
		}
	})
	if got := w.arrived(nil); len(got) != 0 {
		t.Errorf("%d packets came through while the table was replaced", len(got))
	}
	w.check(w.kernel.Put(isolating(false)))
	w.send(w.at(client), server, packet(client, server, 17, 53, 1<<20))
	if !w.arrived(map[uint32]bool{1 << 20: true})[1<<20] {
		t.Error("nothing comes through at all")
	}
}
