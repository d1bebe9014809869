// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bastide.dev/dataplane"
)

const service = "198.19.99.246"

// open is a group that lets everyone in.
func open(id string) dataplane.NSG {
	return group(id, dataplane.NSGRule{Name: "all", Priority: 100, Inbound: true, Allow: true})
}

// balanced is a network with two nodes and a public front end before them.
func balanced(t *testing.T, floating bool) (*world, dataplane.VNet) {
	t.Helper()
	w, v := pairOf(t)
	v.Subnets[0].NSG = "rg/nodes"
	v.NSGs = []dataplane.NSG{open("rg/nodes")}
	b := dataplane.Balancer{Origin: "loadBalancers/kubernetes/loadBalancingRules/web", Address: addr(service), Protocol: unix.IPPROTO_TCP,
		Ports: dataplane.Ports{First: 80, Last: 80}, Floating: floating, Backends: []string{"a-n0", "a-n1"}}
	if !floating {
		b.BackendPort = 8080
	}
	udp := b
	udp.Origin, udp.Protocol = b.Origin+"-udp", unix.IPPROTO_UDP
	v.Balancers = []dataplane.Balancer{b, udp}
	return w, v
}

// ends gives both nodes what answers behind the front end.
func ends(t *testing.T, w *world, floating bool) {
	t.Helper()
	for i, id := range []string{"a-n0", "a-n1"} {
		at := fmt.Sprintf("10.224.0.%d:8080", 4+i)
		if floating {
			addTo(t, w.node(id), loopback, service+"/32")
			at = service + ":80"
		}
		serve(t, w.node(id), at, id)
	}
}

// spread asks a service again and again and tells who answered how often.
func spread(t *testing.T, path, network, to string, times int) map[string]int {
	t.Helper()
	seen := map[string]int{}
	for range times {
		seen[ask(t, path, network, "", to, nothing)]++
	}
	return seen
}

func TestBalancer(t *testing.T) {
	for name, floating := range map[string]bool{"floating": true, "with port translation": false} {
		t.Run(name, func(t *testing.T) {
			w, v := balanced(t, floating)
			w.apply(configOf(v))
			ends(t, w, floating)
			outside := newOutside(t)
			for _, network := range []string{"tcp4", "udp4"} {
				seen := spread(t, outside, network, service+":80", 40)
				if len(seen) != 2 || seen["a-n0 sees 198.51.100.2"] < 5 || seen["a-n1 sees 198.51.100.2"] < 5 {
					t.Errorf("%s from outside, the client's address kept: %v", network, seen)
				}
			}
			if seen := spread(t, rootNS, "tcp4", service+":80", 20); len(seen) != 2 || seen["a-n0 sees "+frontDoor] == 0 {
				t.Errorf("from the machine: %v", seen)
			}
			// From inside, by the network's own egress; also to oneself.
			seen := spread(t, w.node("a-n0"), "tcp4", service+":80", 30)
			if floating {
				delete(seen, "a-n0 sees "+service) // its own address, never leaves
			} else {
				for who := range seen {
					if !strings.HasSuffix(who, "sees 198.19.99.242") {
						t.Errorf("hairpin: %v", seen)
					}
				}
			}
			seen = spread(t, w.api("a"), "tcp4", service+":80", 30)
			if len(seen) != 2 || seen["a-n0 sees 198.19.99.242"] == 0 || seen["a-n1 sees 198.19.99.242"] == 0 {
				t.Errorf("from another interface of the network: %v", seen)
			}
			silent(t, outside, service+":81")
		})
	}
}

func TestBalancerAffinity(t *testing.T) {
	w, v := balanced(t, true)
	for i := range v.Balancers {
		v.Balancers[i].Affinity = dataplane.BySource
	}
	w.apply(configOf(v))
	ends(t, w, true)
	outside := newOutside(t)
	if seen := spread(t, outside, "tcp4", service+":80", 20); len(seen) != 1 || seen[""] != 0 {
		t.Errorf("one client, one back end: %v", seen)
	}
}

func TestBalancerNeedsAnOpenGroup(t *testing.T) {
	w, v := balanced(t, true)
	v.NSGs = []dataplane.NSG{group("rg/nodes")} // the defaults
	w.apply(configOf(v))
	ends(t, w, true)
	outside := newOutside(t)
	silent(t, outside, service+":80")
	// Rules are about the destination as the node sees it: the front end's.
	v.NSGs = []dataplane.NSG{group("rg/nodes", dataplane.NSGRule{Name: "web", Priority: 500, Inbound: true, Allow: true,
		Sources: dataplanePrefixes("198.51.100.0/24"), Destinations: dataplanePrefixes(service + "/32"), DestinationPorts: tcpPorts(80, 80)})}
	w.apply(configOf(v))
	if seen := spread(t, outside, "tcp4", service+":80", 10); seen[""] != 0 {
		t.Errorf("%v", seen)
	}
	silent(t, rootNS, service+":80")
}

// A back end that is drained keeps its connections and gets nothing new.
func TestDrainedBackEnd(t *testing.T) {
	w, v := balanced(t, true)
	only := func(id string) {
		for i := range v.Balancers { // another rule that still knows it would lead to it, too
			v.Balancers[i].Backends = []string{id}
		}
		w.apply(configOf(v))
	}
	only("a-n0")
	addTo(t, w.node("a-n0"), loopback, service+"/32")
	outside := newOutside(t)
	conn := openConnection(t, outside, service+":80", w.node("a-n0"))
	only("a-n1")
	ends(t, w, true)
	if seen := spread(t, outside, "tcp4", service+":80", 20); seen["a-n1 sees 198.51.100.2"] != 20 {
		t.Errorf("new connections: %v", seen)
	}
	conn.stillWorks()
}

// A front end's address is a back end's in the connections that were led to it,
// and in no other's.
func TestNobodyElseAnswers(t *testing.T) {
	w, v := balanced(t, true)
	w.apply(configOf(v))
	outside := newOutside(t)
	at := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(service + ":80"))
	servers := map[string]*net.UDPConn{}
	for _, id := range []string{"a-n0", "a-n1"} {
		addTo(t, w.node(id), loopback, service+"/32")
		visit(t, w.node(id), func() (err error) { servers[id], err = net.ListenUDP("udp4", at); return err })
		t.Cleanup(func() { must(t, servers[id].Close()) })
	}
	var client *net.UDPConn
	visit(t, outside, func() (err error) { client, err = net.DialUDP("udp4", nil, at); return err })
	defer client.Close()
	_, err := client.Write([]byte("hello"))
	must(t, err)
	type heard struct {
		id   string
		from netip.AddrPort
	}
	came := make(chan heard, 2)
	for id, server := range servers {
		go func() {
			if _, from, err := server.ReadFromUDPAddrPort(make([]byte, 64)); err == nil {
				came <- heard{id, from}
			}
		}()
	}
	led := <-came
	other := map[string]string{"a-n0": "a-n1", "a-n1": "a-n0"}[led.id]
	for _, id := range []string{other, led.id} {
		_, err := servers[id].WriteToUDPAddrPort([]byte(id), led.from)
		must(t, err)
	}
	got := make([]byte, 64)
	must(t, client.SetReadDeadline(time.Now().Add(patience)))
	n, err := client.Read(got)
	if string(got[:n]) != led.id {
		t.Errorf("%s was led to, the first answer is of %q (%v)", led.id, got[:n], err)
	}
}

func TestInternalFrontEnd(t *testing.T) {
	w, v := balanced(t, true)
	const internal = "10.224.0.200"
	for i := range v.Balancers {
		v.Balancers[i].Address = addr(internal)
	}
	w.boot("a-n2")
	v.NICs = append(v.NICs, dataplane.NIC{ID: "a-n2", Machine: "a-n2", Subnet: "nodes", Address: addr("10.224.0.6")})
	w.apply(configOf(v))
	for _, id := range []string{"a-n0", "a-n1"} {
		addTo(t, w.node(id), loopback, internal+"/32")
		serve(t, w.node(id), internal+":80", id)
	}
	for _, client := range []struct{ path, address string }{{w.api("a"), "10.226.0.4"}, {w.node("a-n2"), "10.224.0.6"}} {
		seen := spread(t, client.path, "tcp4", internal+":80", 30)
		if seen["a-n0 sees "+client.address] == 0 || seen["a-n1 sees "+client.address] == 0 || len(seen) != 2 {
			t.Errorf("from %s: %v", client.address, seen)
		}
	}
}

// serveHTTP answers the path /ready of an address with a status that can change.
func serveHTTP(t *testing.T, path, at string, status *atomic.Int32, secure *tls.Config) {
	t.Helper()
	var listener net.Listener
	visit(t, path, func() (err error) { listener, err = net.Listen("tcp4", at); return err })
	server := &http.Server{ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/ready" || !strings.HasPrefix(r.RemoteAddr, dataplane.WireServer.String()+":") {
			w.WriteHeader(http.StatusTeapot)
			return
		}
		w.WriteHeader(int(status.Load()))
	})}
	if secure != nil {
		listener = tls.NewListener(listener, secure)
	}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { must(t, server.Close()) })
}

func TestProbes(t *testing.T) {
	w, v := balanced(t, true)
	var ready, sick atomic.Int32
	ready.Store(http.StatusOK)
	sick.Store(http.StatusServiceUnavailable)
	v.Probes = []dataplane.Probe{{ID: "health", Protocol: "Http", Port: 10256, Path: "/ready", Interval: 1, Failures: 2}}
	for i := range v.Balancers {
		v.Balancers[i].Probe = "health"
	}
	w.apply(configOf(v))
	ends(t, w, true)
	serveHTTP(t, w.node("a-n0"), "10.224.0.4:10256", &ready, nil)
	serveHTTP(t, w.node("a-n1"), "10.224.0.5:10256", &sick, nil)
	outside := newOutside(t)
	begun := time.Now()
	w.until("a-n0 is healthy, a-n1 isn't", func() bool {
		s := w.apply(configOf(v))["a"]
		return slices.Equal(s.Unhealthy["health"], []string{"a-n1"})
	})
	t.Logf("healthy after %s", time.Since(begun).Round(time.Millisecond))
	if seen := spread(t, outside, "tcp4", service+":80", 20); seen["a-n0 sees 198.51.100.2"] != 20 {
		t.Errorf("only the healthy one answers: %v", seen)
	}
	changed := w.plane.Changed()
	drain(changed)
	sick.Store(http.StatusOK)
	select {
	case id := <-changed:
		if id != "a" {
			t.Errorf("changed: %s", id)
		}
	case <-time.After(patience):
		t.Fatal("nothing is told of the change")
	}
	// The kernel has it already, without an Apply.
	if seen := spread(t, outside, "tcp4", service+":80", 40); seen["a-n0 sees 198.51.100.2"] == 0 || seen["a-n1 sees 198.51.100.2"] == 0 {
		t.Errorf("both answer: %v", seen)
	}
	ready.Store(http.StatusInternalServerError)
	w.until("a-n0 is unhealthy", func() bool {
		return slices.Equal(w.apply(configOf(v))["a"].Unhealthy["health"], []string{"a-n0"})
	})
	if seen := spread(t, outside, "tcp4", service+":80", 20); seen["a-n1 sees 198.51.100.2"] != 20 {
		t.Errorf("the other one answers: %v", seen)
	}
}

func TestHTTPSProbe(t *testing.T) {
	w, v := balanced(t, true)
	var ready atomic.Int32
	ready.Store(http.StatusOK)
	v.Probes = []dataplane.Probe{{ID: "health", Protocol: "Https", Port: 10256, Path: "/ready", Interval: 1, Failures: 1}}
	for i := range v.Balancers {
		v.Balancers[i].Probe = "health"
	}
	w.apply(configOf(v))
	own := httptest.NewTLSServer(nil) // for its certificate, which nobody knows
	defer own.Close()
	serveHTTP(t, w.node("a-n0"), "10.224.0.4:10256", &ready, own.TLS)
	w.until("a-n0 is healthy, a-n1 isn't", func() bool {
		return slices.Equal(w.apply(configOf(v))["a"].Unhealthy["health"], []string{"a-n1"})
	})
	ready.Store(http.StatusMovedPermanently)
	w.until("only 200 is healthy", func() bool { return len(w.apply(configOf(v))["a"].Unhealthy["health"]) == 2 })
}

// A new process knows who is unhealthy before it writes any rules.
func TestHealthAfterARestart(t *testing.T) {
	w, v := balanced(t, true)
	v.Probes = []dataplane.Probe{{ID: "tcp", Protocol: "Tcp", Port: 80, Interval: 5, Failures: 2}}
	for i := range v.Balancers {
		v.Balancers[i].Probe = "tcp"
	}
	w.apply(configOf(v))
	addTo(t, w.node("a-n1"), loopback, service+"/32")
	serve(t, w.node("a-n1"), "0.0.0.0:80", "a-n1")
	well := func(s dataplane.VNetStatus) bool { return slices.Equal(s.Unhealthy["tcp"], []string{"a-n0"}) }
	w.until("a-n1 is healthy", func() bool { return well(w.apply(configOf(v))["a"]) })
	w.restart()
	if s := w.apply(configOf(v))["a"]; !well(s) {
		t.Errorf("the first status of a new process: %v", s)
	}
}

func drain(c <-chan string) {
	for {
		select {
		case <-c:
		case <-time.After(100 * time.Millisecond):
			return
		}
	}
}

func TestTCPProbe(t *testing.T) {
	w, v := balanced(t, false)
	v.Probes = []dataplane.Probe{{ID: "tcp", Protocol: "Tcp", Port: 8080, Interval: 5, Failures: 2}}
	for i := range v.Balancers {
		v.Balancers[i].Probe = "tcp"
	}
	w.apply(configOf(v))
	outside := newOutside(t)
	w.until("nobody answers probes", func() bool { return len(w.apply(configOf(v))["a"].Unhealthy["tcp"]) == 2 })
	begun := time.Now()
	serve(t, w.node("a-n1"), "10.224.0.5:8080", "a-n1")
	for ask(t, outside, "tcp4", "", service+":80", 50*time.Millisecond) == "" {
		if time.Since(begun) > patience {
			t.Fatal("the back end never answers")
		}
	}
	t.Logf("a new back end answered after %s", time.Since(begun).Round(time.Millisecond))
}

func TestWholeAddressForOneInterface(t *testing.T) {
	w, v := pairOf(t)
	v.Subnets[0].NSG = "rg/nodes"
	v.NSGs = []dataplane.NSG{group("rg/nodes", dataplane.NSGRule{Name: "ssh", Priority: 100, Inbound: true, Allow: true, DestinationPorts: tcpPorts(22, 22)})}
	v.Public = append(v.Public, dataplane.Public{Address: addr(service), Target: addr("10.224.0.4")})
	v.NICs[1].Egress = nil
	w.apply(configOf(v))
	serve(t, w.node("a-n0"), "10.224.0.4:22", "ssh")
	serve(t, w.node("a-n0"), "10.224.0.4:23", "telnet")
	outside := newOutside(t)
	answers(t, outside, service+":22", "ssh sees 198.51.100.2")
	silent(t, outside, service+":23")
	answers(t, w.node("a-n1"), service+":22", "ssh sees 198.19.99.242")
	// Outbound, it is the address that the front door sees.
	serve(t, rootNS, frontDoor+":443", "front door")
	answersTCP(t, w.node("a-n0"), frontDoor+":443", "front door sees "+service)
}

func TestEgressPorts(t *testing.T) {
	w, v := pairOf(t)
	for i, nic := range []int{1, 2} {
		first := uint16(2000 + 1000*i)
		v.NICs[nic].Egress = []dataplane.Egress{{Origin: "lb", Address: addr("198.19.99.242"), First: first, Last: first + 99}}
	}
	w.apply(configOf(v))
	seen := make(chan int, 100)
	var listener net.Listener
	visit(t, rootNS, func() (err error) { listener, err = net.Listen("tcp4", frontDoor+":443"); return err })
	t.Cleanup(func() { must(t, listener.Close()) })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok && a.IP.String() == "198.19.99.242" {
				seen <- a.Port
			}
			_ = conn.Close()
		}
	}()
	for i, id := range []string{"a-n0", "a-n1"} {
		for range 20 {
			ask(t, w.node(id), "tcp4", "", frontDoor+":443", patience)
			if port := <-seen; port < 2000+1000*i || port > 2099+1000*i {
				t.Errorf("%s left by port %d", id, port)
			}
		}
	}
}
