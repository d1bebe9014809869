// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bastide.dev/dataplane"
)

// A few thousand packets between four interfaces under random security groups:
// what the kernel does, what Trace says of the same compiled tables, and a plain
// reading of the rules are the same.
func TestRandomVerdicts(t *testing.T) {
	const rounds, flows = 40, 80
	w := newWorld(t)
	v := network("a", "198.19.99.242", "198.19.99.243", 4)
	for _, nic := range v.NICs[1:] {
		w.boot(nic.Machine)
	}
	w.apply(configOf(v))
	for _, nic := range v.NICs[1:] {
		for _, port := range testPorts {
			serve(t, w.node(nic.Machine), netip.AddrPortFrom(nic.Address, port).String(), nic.ID)
		}
	}
	r := rand.New(rand.NewPCG(3, 1959))
	allowed := 0
	for round := range rounds {
		randomGroups(r, &v)
		c := configOf(v)
		w.apply(c)
		attempts := randomAttempts(r, &v, round, flows)
		for _, nic := range v.NICs[1:] {
			visit(t, w.node(nic.Machine), func() error { return begin(attempts, nic.ID) })
		}
		time.Sleep(nothing / 2)
		for _, a := range attempts {
			passed, err := a.end()
			must(t, err)
			path, err := dataplane.Trace(w.config.Instance, &c, nil, dataplane.Endpoint{NIC: a.from.ID},
				dataplane.Flow{Protocol: a.protocol, Destination: a.to.Address, Port: a.port, SourcePort: a.sourcePort})
			must(t, err)
			plain := plainly(&v, a)
			if passed != plain || path.Reached != plain {
				t.Errorf("round %d, %s: the kernel says %t, Trace %t (%s), the rules %t", round, a, passed, path.Reached, path.By, plain)
			}
			if passed {
				allowed++
			}
		}
	}
	if total := rounds * flows; allowed < total/10 || allowed > total*9/10 {
		t.Errorf("%d of %d packets pass: such rules test little", allowed, total)
	}
}

// testPorts are those that every interface answers on.
var testPorts = []uint16{80, 443, 1000, 8080}

// randomGroups gives the nodes' subnet and some interfaces groups of random rules.
func randomGroups(r *rand.Rand, v *dataplane.VNet) {
	v.NSGs = nil
	for i := range 3 {
		var rules []dataplane.NSGRule
		priorities := r.Perm(4000)
		for n := range 1 + r.IntN(14) {
			rules = append(rules, randomRule(r, n, 100+priorities[n]))
		}
		v.NSGs = append(v.NSGs, group(fmt.Sprintf("g%d", i), rules...))
	}
	pick := func() string { return []string{"", "g0", "g1", "g2"}[r.IntN(4)] }
	v.Subnets[0].NSG = pick()
	for i := range v.NICs[1:] {
		v.NICs[i+1].NSG = pick()
	}
}

func randomRule(r *rand.Rand, n, priority int) dataplane.NSGRule {
	rule := dataplane.NSGRule{Name: fmt.Sprintf("rule%d", n), Priority: priority, Inbound: r.IntN(2) == 0, Allow: r.IntN(2) == 0,
		Protocol: []uint8{0, unix.IPPROTO_TCP, unix.IPPROTO_UDP}[r.IntN(3)], None: r.IntN(20) == 0}
	rule.Sources, rule.Destinations = randomPrefixes(r), randomPrefixes(r)
	rule.SourcePorts, rule.DestinationPorts = randomPorts(r, 20000, 60000), randomPorts(r, 1, 9000)
	return rule
}

func randomPrefixes(r *rand.Rand) []netip.Prefix {
	if r.IntN(2) == 0 {
		return nil
	}
	var all []netip.Prefix
	for range 1 + r.IntN(3) {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 224, 0, byte(4 + r.IntN(4))}), []int{32, 31, 30, 12}[r.IntN(4)]).Masked()
		all = append(all, p)
	}
	return all
}

func randomPorts(r *rand.Rand, from, to int) []dataplane.Ports {
	if r.IntN(2) == 0 {
		return nil
	}
	var all []dataplane.Ports
	for range 1 + r.IntN(2) {
		first := from + r.IntN(to-from)
		all = append(all, dataplane.Ports{First: uint16(first), Last: uint16(first + r.IntN(min(to-first, 1500)+1))})
	}
	return all
}

// attempt is one connection, begun but not waited for.
type attempt struct {
	from, to         dataplane.NIC
	protocol         uint8
	port, sourcePort uint16
	socket           int
}

func (a *attempt) String() string {
	return fmt.Sprintf("protocol %d from %s:%d to %s:%d", a.protocol, a.from.Address, a.sourcePort, a.to.Address, a.port)
}

// randomAttempts differ in their source ports from all earlier ones: none is of
// a connection that the kernel knows.
func randomAttempts(r *rand.Rand, v *dataplane.VNet, round, count int) []*attempt {
	var all []*attempt
	for i := range count {
		from, to := 1+r.IntN(4), 1+r.IntN(3)
		if to >= from {
			to++
		}
		all = append(all, &attempt{from: v.NICs[from], to: v.NICs[to], protocol: []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP}[r.IntN(2)],
			port: testPorts[r.IntN(len(testPorts))], sourcePort: uint16(20000 + (round*count+i)*12), socket: -1})
	}
	return all
}

// begin sends the first packets of the attempts from one interface.
func begin(attempts []*attempt, nic string) error {
	for _, a := range attempts {
		if a.from.ID != nic {
			continue
		}
		kind := unix.SOCK_STREAM
		if a.protocol == unix.IPPROTO_UDP {
			kind = unix.SOCK_DGRAM
		}
		var err error
		if a.socket, err = unix.Socket(unix.AF_INET, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err := unix.Bind(a.socket, &unix.SockaddrInet4{Port: int(a.sourcePort), Addr: a.from.Address.As4()}); err != nil {
			return fmt.Errorf("%s: %w", a, err)
		}
		err = unix.Connect(a.socket, &unix.SockaddrInet4{Port: int(a.port), Addr: a.to.Address.As4()})
		if err != nil && !errors.Is(err, unix.EINPROGRESS) {
			return fmt.Errorf("%s: %w", a, err)
		}
		if a.protocol == unix.IPPROTO_UDP {
			if _, err := unix.Write(a.socket, []byte("?")); err != nil {
				return fmt.Errorf("%s: %w", a, err)
			}
		}
	}
	return nil
}

// end tells whether an answer came.
func (a *attempt) end() (bool, error) {
	defer func() { _ = unix.Close(a.socket) }()
	if a.protocol == unix.IPPROTO_UDP {
		_, err := unix.Read(a.socket, make([]byte, 64))
		return err == nil, nil
	}
	poll := []unix.PollFd{{Fd: int32(a.socket), Events: unix.POLLOUT}}
	n, err := unix.Poll(poll, 0)
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Poll(poll, 0)
	}
	if n == 0 || err != nil {
		return false, err
	}
	problem, err := unix.GetsockoptInt(a.socket, unix.SOL_SOCKET, unix.SO_ERROR)
	return err == nil && problem == 0, err
}

// plainly reads the rules as their documents say them: the first by priority
// that matches decides, of each group on the way.
func plainly(v *dataplane.VNet, a *attempt) bool {
	subnet := v.Subnets[0].NSG
	return lets(v, a.from.NSG, false, a) && lets(v, subnet, false, a) && lets(v, subnet, true, a) && lets(v, a.to.NSG, true, a)
}

func lets(v *dataplane.VNet, id string, inbound bool, a *attempt) bool {
	if id == "" {
		return true
	}
	var decides *dataplane.NSGRule
	for _, g := range v.NSGs {
		for i := range g.Rules {
			rule := &g.Rules[i]
			if g.ID == id && rule.Inbound == inbound && matches(rule, a) && (decides == nil || rule.Priority < decides.Priority) {
				decides = rule
			}
		}
	}
	return decides != nil && decides.Allow
}

func matches(r *dataplane.NSGRule, a *attempt) bool {
	return !r.None && (r.Protocol == 0 || r.Protocol == a.protocol) &&
		anyPrefix(r.Sources, a.from.Address) && anyPrefix(r.Destinations, a.to.Address) &&
		anyPorts(r.SourcePorts, a.sourcePort) && anyPorts(r.DestinationPorts, a.port)
}

func anyPrefix(list []netip.Prefix, a netip.Addr) bool {
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return len(list) == 0
}

func anyPorts(list []dataplane.Ports, port uint16) bool {
	for _, p := range list {
		if p.First <= port && port <= p.Last {
			return true
		}
	}
	return len(list) == 0
}
