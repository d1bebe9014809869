// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"bastide.dev/dataplane"
)

// indexes are the numbers of all links of a namespace: a link that was made
// again has another.
func indexes(t *testing.T, path string) map[string]int {
	t.Helper()
	s, err := openSpace(path)
	must(t, err)
	byName, err := links(s.nl)
	must(t, err)
	all := map[string]int{}
	for name, link := range byName {
		all[name] = link.Attrs().Index
	}
	must(t, s.close())
	return all
}

func TestAnotherProcessAdoptsAll(t *testing.T) {
	w := two(t)
	c := configOf(network("a", "198.19.99.242", "198.19.99.243", 2), network("b", "198.19.99.244", "198.19.99.245", 1))
	paths := []string{rootNS, w.plane.routerPath("edge"), w.plane.vnetPath("a"), w.plane.vnetPath("b"), w.node("a-n0"), w.api("b")}
	var before []map[string]int
	for _, path := range paths {
		before = append(before, indexes(t, path))
	}
	conn := openConnection(t, w.node("b-n0"), "10.226.0.4:9000", w.api("b"))
	w.restart()
	w.apply(c)
	w.apply(c)
	for i, path := range paths {
		if after := indexes(t, path); !maps.Equal(before[i], after) {
			t.Errorf("links of %s were made again: %v, then %v", path, before[i], after)
		}
	}
	conn.stillWorks()
	answersTCP(t, w.node("a-n0"), "198.19.99.243:443", "api of a sees 198.19.99.242")
	if got := addresses(resolve(t, w.node("a-n0"), "udp", "inside.a.test", 1)); !slices.Equal(got, []string{"10.226.0.4"}) {
		t.Errorf("names after the restart: %v", got)
	}
}

func TestAChangeTouchesOnlyItsNetwork(t *testing.T) {
	w := two(t)
	before := indexes(t, w.plane.vnetPath("b"))
	gen := generation(t, w.plane.vnetPath("b"))
	c := configOf(network("a", "198.19.99.246", "198.19.99.247", 1), network("b", "198.19.99.244", "198.19.99.245", 1))
	w.apply(c)
	if after := indexes(t, w.plane.vnetPath("b")); !maps.Equal(before, after) {
		t.Errorf("b's links: %v, then %v", before, after)
	}
	if now := generation(t, w.plane.vnetPath("b")); now != gen {
		t.Error("b's rules were written again")
	}
	if _, there := indexes(t, w.node("a-n1"))[firstLink]; there {
		t.Error("the removed interface is still in its machine")
	}
	answersTCP(t, w.node("b-n0"), "198.19.99.247:443", "api of a sees 198.19.99.244")
	silent(t, w.node("b-n0"), "198.19.99.243:443")
	w.apply(configOf(c.VNets[1]))
	silent(t, w.node("b-n0"), "198.19.99.247:443")
	if _, err := os.Stat(w.api("a")); !os.IsNotExist(err) {
		t.Errorf("a's namespace is left: %v", err)
	}
}

func TestDamageIsRepaired(t *testing.T) {
	c := configOf(network("a", "198.19.99.242", "198.19.99.243", 2))
	edge := func(w *world) string { return w.plane.routerPath("edge") }
	router := func(w *world) string { return w.plane.vnetPath("a") }
	damages := map[string]func(*testing.T, *world){
		"a veth pair is deleted": func(t *testing.T, w *world) { deleteLink(t, w.node("a-n0"), firstLink) },
		"the API server's too":   func(t *testing.T, w *world) { deleteLink(t, w.api("a"), firstLink) },
		"the way to the edge":    func(t *testing.T, w *world) { deleteLink(t, router(w), dataplane.RouterLink) },
		"the way to the machine": func(t *testing.T, w *world) { deleteLink(t, rootNS, w.plane.rootEnd()) },
		"a link is down":         func(t *testing.T, w *world) { linkDown(t, router(w), dataplane.RouterLink) },
		"the router's routes":    func(t *testing.T, w *world) { flushRoutes(t, router(w)) },
		"the edge's routes":      func(t *testing.T, w *world) { flushRoutes(t, edge(w)) },
		"the API server's route": func(t *testing.T, w *world) { flushRoutes(t, w.api("a")) },
		"the router's addresses": func(t *testing.T, w *world) { flushAddresses(t, router(w), loopback) },
		"the front door's":       func(t *testing.T, w *world) { flushAddresses(t, rootNS, w.plane.rootEnd()) },
		"the router's rules":     func(t *testing.T, w *world) { flushRules(t, router(w)) },
		"the router's namespace": func(t *testing.T, w *world) { must(t, unix.Unmount(router(w), unix.MNT_DETACH)) },
		"the edge's namespace":   func(t *testing.T, w *world) { must(t, unix.Unmount(edge(w), unix.MNT_DETACH)) },
		"forwarding is off":      func(t *testing.T, _ *world) { must(t, apply([]setting{{forwarding, "0"}})) },
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.boot("a-n0")
			w.boot("a-n1")
			w.settle(c)
			serve(t, rootNS, frontDoor+":443", "front door")
			damage(t, w)
			if status := w.apply(c); len(status["a"].NICs) != 3 {
				t.Fatalf("interfaces after the repair: %v", status["a"].NICs)
			}
			serve(t, w.api("a"), "10.226.0.4:6443", "api of a")
			answersTCP(t, w.node("a-n0"), "198.19.99.243:443", "api of a sees 198.19.99.242")
			answersTCP(t, rootNS, "198.19.99.243:443", "api of a sees "+frontDoor)
			answersTCP(t, w.node("a-n0"), frontDoor+":443", "front door sees 198.19.99.242")
			if got := addresses(resolve(t, w.node("a-n1"), "udp", "inside.a.test", 1)); len(got) != 1 {
				t.Errorf("names after the repair: %v", got)
			}
			if value, err := readForwarding(); err != nil || value != "1" {
				t.Errorf("forwarding %s (%v)", value, err)
			}
		})
	}
}

// settle applies until nothing is left to do, and the next Apply would look at
// nothing but whether anyone else did something.
func (w *world) settle(c dataplane.Config) {
	w.t.Helper()
	w.until("all is settled", func() bool {
		w.apply(c)
		for i := range c.VNets {
			n := w.plane.vnets[c.VNets[i].ID]
			if !n.settled || !w.plane.quiet(n, &c.VNets[i], w.netns) {
				return false
			}
		}
		return true
	})
}

func deleteLink(t *testing.T, path, name string) {
	t.Helper()
	s, err := openSpace(path)
	must(t, err)
	if indexes(t, path)[name] == 0 {
		t.Fatalf("no link %s to delete", name)
	}
	must(t, removeLink(s.nl, name))
	must(t, s.close())
}

func linkDown(t *testing.T, path, name string) {
	t.Helper()
	s, err := openSpace(path)
	must(t, err)
	link, err := mustLink(s.nl, name)
	must(t, err)
	must(t, s.nl.LinkSetDown(link))
	must(t, s.close())
}

func flushRoutes(t *testing.T, path string) {
	t.Helper()
	s, err := openSpace(path)
	must(t, err)
	must(t, syncRoutes(s.nl, nil, 0))
	must(t, s.close())
}

func flushAddresses(t *testing.T, path, name string) {
	t.Helper()
	s, err := openSpace(path)
	must(t, err)
	link, err := mustLink(s.nl, name)
	must(t, err)
	must(t, syncAddresses(s.nl, link, nil))
	must(t, s.close())
}

func flushRules(t *testing.T, path string) {
	t.Helper()
	visit(t, path, func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		conn.FlushRuleset()
		return conn.Flush()
	})
}

// connection is one that stays open over what happens meanwhile.
type connection struct {
	t              *testing.T
	client, server net.Conn
}

func openConnection(t *testing.T, client, at, server string) *connection {
	t.Helper()
	var listener net.Listener
	visit(t, server, func() (err error) { listener, err = net.Listen("tcp4", at); return err })
	c := &connection{t: t}
	visit(t, client, func() (err error) { c.client, err = net.DialTimeout("tcp4", at, patience); return err })
	var err error
	c.server, err = listener.Accept()
	must(t, err)
	must(t, listener.Close())
	t.Cleanup(func() { must(t, c.client.Close()); must(t, c.server.Close()) })
	return c
}

// stillWorks says something in both directions.
func (c *connection) stillWorks() {
	c.t.Helper()
	for _, way := range []struct {
		name     string
		from, to net.Conn
	}{{"to the server", c.client, c.server}, {"to the client", c.server, c.client}} {
		must(c.t, way.to.SetReadDeadline(time.Now().Add(patience))) // a test that hangs cleans nothing up
		_, err := way.from.Write([]byte("hello"))
		must(c.t, err)
		got := make([]byte, 5)
		if _, err := io.ReadFull(way.to, got); err != nil || string(got) != "hello" {
			c.t.Errorf("the open connection broke %s: %q %v", way.name, got, err)
		}
	}
}

func TestTwoInstances(t *testing.T) {
	one, other := newWorld(t), newWorld(t)
	other.config.HostsFile, other.config.Instance = one.config.HostsFile, one.config.Instance+"-2"
	must(t, other.plane.Close())
	other.open()
	half := func(pool, door, egress, public string) dataplane.Config {
		c := configOf(network("a", egress, public, 0))
		c.Edge.Pools, c.Edge.FrontDoor = []netip.Prefix{prefix(pool)}, addr(door)
		c.Edge.Names = []dataplane.Name{{Name: "management." + door + ".test", Addresses: []netip.Addr{addr(door)}}}
		return c
	}
	one.apply(half("198.19.99.240/29", "198.19.99.241", "198.19.99.242", "198.19.99.243"))
	other.apply(half("198.19.99.248/29", "198.19.99.249", "198.19.99.250", "198.19.99.251"))
	serve(t, one.api("a"), "10.226.0.4:6443", "one")
	serve(t, other.api("a"), "10.226.0.4:6443", "other")
	answersTCP(t, rootNS, "198.19.99.243:443", "one sees 198.19.99.241")
	answersTCP(t, rootNS, "198.19.99.251:443", "other sees 198.19.99.249")
	hosts, err := os.ReadFile(one.config.HostsFile)
	must(t, err)
	if strings.Count(string(hosts), "management.") != 2 {
		t.Errorf("hosts file: %s", hosts)
	}
	must(t, other.plane.Down(t.Context()))
	answersTCP(t, rootNS, "198.19.99.243:443", "one sees 198.19.99.241")
}
