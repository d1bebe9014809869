// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"bastide.dev/dataplane"
)

func TestTerminals(t *testing.T) {
	w := two(t)
	c := configOf(network("a", "198.19.99.242", "198.19.99.243", 2), network("b", "198.19.99.244", "198.19.99.245", 1))
	c.Edge.Terminals = []dataplane.Terminal{
		{ID: "red", Namespace: "t-red", Address: addr("198.19.99.250")}, {ID: "blue", Namespace: "t-blue", Address: addr("198.19.99.251")},
	}
	w.apply(c)
	red, blue := w.plane.NetnsPath("t-red"), w.plane.NetnsPath("t-blue")
	serve(t, blue, "198.19.99.251:80", "blue")
	serve(t, rootNS, frontDoor+":443", "front door")
	answersTCP(t, red, "198.19.99.243:443", "api of a sees 198.19.99.250")
	answers(t, red, "198.19.99.251:80", "blue sees 198.19.99.250")
	answersTCP(t, red, frontDoor+":443", "front door sees 198.19.99.250")
	answers(t, w.node("a-n0"), "198.19.99.251:80", "blue sees 198.19.99.242")
	silent(t, red, "10.226.0.4:6443")
	silent(t, w.node("a-n0"), "198.19.99.250:81")

	for _, network := range []string{"udp", "tcp"} {
		if got := addresses(resolve(t, red, network, "management.test", dns.TypeA)); !slices.Equal(got, []string{frontDoor}) {
			t.Errorf("a name of the edge: %v", got)
		}
	}
	if m := resolve(t, red, "udp", "inside.a.test", dns.TypeA); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("a network's name: %v", m)
	}
	text, err := os.ReadFile(w.plane.TerminalResolver("red"))
	must(t, err)
	if !strings.HasPrefix(string(text), "nameserver 168.63.129.16\n") {
		t.Errorf("resolver file: %s", text)
	}
	t.Run("its source is its own", func(t *testing.T) {
		addAddresses(t, red, "198.19.99.252/32", "8.8.8.8/32")
		for _, source := range []string{"198.19.99.252", "8.8.8.8"} {
			if arrived(t, red, source, blue, "198.19.99.251:7000") {
				t.Errorf("a packet from %s arrived", source)
			}
		}
		if !arrived(t, red, "198.19.99.250", blue, "198.19.99.251:7000") {
			t.Error("an honest packet didn't arrive: the check above shows nothing")
		}
	})
	t.Run("it heals", func(t *testing.T) {
		deleteLink(t, red, firstLink)
		w.restart()
		w.apply(c)
		answers(t, red, "198.19.99.251:80", "blue sees 198.19.99.250")
		if got := addresses(resolve(t, red, "udp", "management.test", dns.TypeA)); len(got) != 1 {
			t.Errorf("names: %v", got)
		}
	})
	t.Run("it goes", func(t *testing.T) {
		c.Edge.Terminals = c.Edge.Terminals[1:]
		w.apply(c)
		silent(t, blue, "198.19.99.250:80")
		for _, path := range []string{red, w.plane.TerminalResolver("red")} {
			if _, err := os.Stat(path); !os.IsNotExist(err) {
				t.Errorf("%s is left: %v", path, err)
			}
		}
	})
}
