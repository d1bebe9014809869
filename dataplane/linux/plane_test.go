// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"bastide.dev/dataplane"
	"bastide.dev/fault"
)

// two builds two networks with the same private addresses, and servers on all
// of their interfaces.
func two(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	for _, id := range []string{"a-n0", "a-n1", "b-n0"} {
		w.boot(id)
	}
	c := configOf(network("a", "198.19.99.242", "198.19.99.243", 2), network("b", "198.19.99.244", "198.19.99.245", 1))
	status := w.apply(c)
	if got := status["a"].NICs; !slices.Equal(got, []string{"a-api", "a-n0", "a-n1"}) {
		t.Fatalf("interfaces that stand: %v", got)
	}
	for _, id := range []string{"a", "b"} {
		serve(t, w.api(id), "10.226.0.4:6443", "api of "+id)
		serve(t, w.node(id+"-n0"), "10.224.0.4:80", "node of "+id)
	}
	serve(t, w.node("a-n1"), "10.224.0.5:80", "second node of a")
	return w
}

func TestPackets(t *testing.T) {
	w := two(t)
	t.Run("within a network", func(t *testing.T) {
		answers(t, w.node("a-n0"), "10.224.0.5:80", "second node of a sees 10.224.0.4")
		answers(t, w.node("a-n0"), "10.226.0.4:6443", "api of a sees 10.224.0.4")
		answers(t, w.api("a"), "10.224.0.4:80", "node of a sees 10.226.0.4")
	})
	t.Run("overlapping networks don't meet", func(t *testing.T) {
		answers(t, w.node("b-n0"), "10.226.0.4:6443", "api of b sees 10.224.0.4")
		answers(t, w.api("b"), "10.224.0.4:80", "node of b sees 10.226.0.4")
		silent(t, w.node("b-n0"), "10.224.0.5:80") // a has it, b hasn't
	})
	t.Run("public address, from the machine, another network, and its own", func(t *testing.T) {
		answersTCP(t, rootNS, "198.19.99.243:443", "api of a sees "+frontDoor)
		answersTCP(t, w.node("b-n0"), "198.19.99.243:443", "api of a sees 198.19.99.244")
		answersTCP(t, w.node("a-n0"), "198.19.99.243:443", "api of a sees 198.19.99.242") // as from any other network
		answersTCP(t, w.api("a"), "198.19.99.243:443", "api of a sees 198.19.99.243")
	})
	t.Run("nothing else of a public address", func(t *testing.T) {
		silent(t, rootNS, "198.19.99.243:6443")
		silent(t, w.node("a-n0"), "198.19.99.243:6443")
		silent(t, w.node("b-n0"), "198.19.99.242:80")
		silent(t, w.node("a-n0"), "198.19.99.250:80") // nobody's
	})
	t.Run("no private address from outside", func(t *testing.T) {
		silent(t, w.node("a-n0"), "169.254.1.1:80")
		silent(t, w.node("a-n0"), "172.16.0.1:80")
	})
}

func TestFrontDoor(t *testing.T) {
	w := two(t)
	serve(t, rootNS, frontDoor+":443", "front door")
	serve(t, rootNS, frontDoor+":4443", "something else of the machine")
	answersTCP(t, w.node("a-n0"), frontDoor+":443", "front door sees 198.19.99.242")
	answersTCP(t, w.api("b"), frontDoor+":443", "front door sees 198.19.99.244")
	answersTCP(t, rootNS, frontDoor+":443", "front door sees "+frontDoor)
	silent(t, w.node("a-n0"), frontDoor+":4443")
	uplink, err := UplinkMTU()
	must(t, err)
	visit(t, w.node("a-n0"), func() error {
		h, err := openSpace(threadNetns)
		if err != nil {
			return err
		}
		link, err := mustLink(h.nl, firstLink)
		if err == nil && link.Attrs().MTU != uplink {
			t.Errorf("mtu %d, the uplink's is %d", link.Attrs().MTU, uplink)
		}
		return err
	})
}

func TestEgressIsMasqueraded(t *testing.T) {
	w := two(t)
	outside := newOutside(t)
	serve(t, outside, "198.51.100.2:80", "outside")
	answers(t, w.node("a-n0"), "198.51.100.2:80", "outside sees 198.51.100.1")
	silent(t, w.node("a-n0"), "198.51.100.1:80") // the machine's own addresses aren't the networks'
	serve(t, rootNS, "198.51.100.1:80", "the machine")
	silent(t, w.node("a-n0"), "198.51.100.1:80")
	// A client out there reaches a public address, and is seen as it is.
	answersTCP(t, outside, "198.19.99.243:443", "api of a sees 198.51.100.2")
}

func TestNoEgress(t *testing.T) {
	w := newWorld(t)
	w.boot("a-n0")
	v := network("a", "198.19.99.242", "198.19.99.243", 1)
	setEgress(&v, "")
	outside := newOutside(t)
	serve(t, outside, "198.51.100.2:80", "outside")
	w.apply(configOf(v))
	silent(t, w.node("a-n0"), "198.51.100.2:80")
	setEgress(&v, "198.19.99.242")
	w.apply(configOf(v))
	answers(t, w.node("a-n0"), "198.51.100.2:80", "outside sees 198.51.100.1")
}

func TestSpoofedSourcesAreDropped(t *testing.T) {
	w := two(t)
	addAddresses(t, w.node("a-n0"), "10.224.0.77/32", "10.244.0.9/32", "10.244.1.9/32", "198.19.99.242/32", "8.8.8.8/32")
	to := "10.226.0.4:6443"
	if got := ask(t, w.node("a-n0"), "udp4", "10.244.0.9", to, patience); got != "api of a sees 10.244.0.9" {
		t.Errorf("its own pod: got %q", got)
	}
	// What is counted is whether the packet arrives, not whether an answer finds its way back.
	for _, source := range []string{"10.224.0.77", "10.244.1.9", "198.19.99.242", "8.8.8.8"} {
		if arrived(t, w.node("a-n0"), source, w.api("a"), "10.226.0.4:7000") {
			t.Errorf("a packet from %s arrived", source)
		}
	}
	if !arrived(t, w.node("a-n0"), "10.244.0.9", w.api("a"), "10.226.0.4:7000") {
		t.Error("a pod's packet didn't arrive: the check above shows nothing")
	}
}

func TestRoutesOfPodsAndUsers(t *testing.T) {
	w := newWorld(t)
	w.boot("a-n0")
	w.boot("a-n1")
	v := network("a", "198.19.99.242", "198.19.99.243", 2)
	v.Routes = []dataplane.Route{{Prefix: prefix("10.250.0.0/24"), Via: addr("10.224.0.5")}}
	w.apply(configOf(v))
	addAddresses(t, w.node("a-n1"), "10.244.1.1/32", "10.250.0.1/32")
	serve(t, w.node("a-n1"), "10.244.1.1:80", "pod")
	serve(t, w.node("a-n1"), "10.250.0.1:80", "appliance")
	answers(t, w.node("a-n0"), "10.244.1.1:80", "pod sees 10.224.0.4")
	answers(t, w.node("a-n0"), "10.250.0.1:80", "appliance sees 10.224.0.4")
}

// azure: pods have addresses of the nodes' own subnet.
func TestPodsInTheSubnet(t *testing.T) {
	w := newWorld(t)
	w.boot("a-n0")
	w.boot("a-n1")
	v := network("a", "198.19.99.242", "198.19.99.243", 2)
	v.NICs[1].Pods = dataplanePrefixes("10.224.0.32/28", "10.224.0.48/31")
	v.NICs[2].Pods = dataplanePrefixes("10.224.0.64/28")
	w.apply(configOf(v))
	addAddresses(t, w.node("a-n0"), "10.224.0.49/32")
	addAddresses(t, w.node("a-n1"), "10.224.0.66/32")
	serve(t, w.node("a-n1"), "10.224.0.66:80", "pod")
	if got := ask(t, w.node("a-n0"), "tcp4", "10.224.0.49", "10.224.0.66:80", patience); got != "pod sees 10.224.0.49" {
		t.Errorf("pod to pod: %q", got)
	}
}

func TestMachinesComeAndGo(t *testing.T) {
	w := newWorld(t)
	c := configOf(network("a", "198.19.99.242", "198.19.99.243", 1))
	if got := w.apply(c)["a"].NICs; !slices.Equal(got, []string{"a-api"}) {
		t.Fatalf("before the machine is there: %v", got)
	}
	serve(t, w.api("a"), "10.226.0.4:6443", "api of a")
	for range 3 { // each boot has a namespace of its own
		w.boot("a-n0")
		if got := w.apply(c)["a"].NICs; len(got) != 2 {
			t.Fatalf("with the machine: %v", got)
		}
		answers(t, w.node("a-n0"), "10.226.0.4:6443", "api of a sees 10.224.0.4")
		w.halt("a-n0")
	}
	if got := w.apply(c)["a"].NICs; len(got) != 1 {
		t.Fatalf("after it is gone: %v", got)
	}
}

func TestInterfaceGetsAnotherAddress(t *testing.T) {
	w := two(t)
	c := configOf(network("a", "198.19.99.242", "198.19.99.243", 2), network("b", "198.19.99.244", "198.19.99.245", 1))
	c.VNets[0].NICs[1].Address, c.VNets[0].NICs[1].Subnet = addr("10.226.0.5"), "api"
	c.VNets[0].NICs[1].Pods = nil
	w.apply(c)
	serve(t, w.node("a-n0"), "10.226.0.5:81", "moved")
	answers(t, w.node("a-n1"), "10.226.0.5:81", "moved sees 10.224.0.5")
	silent(t, w.node("a-n1"), "10.224.0.4:80")
}

func TestInterfaceMovesToAnotherNetwork(t *testing.T) {
	w := two(t)
	c := configOf(network("a", "198.19.99.242", "198.19.99.243", 2), network("b", "198.19.99.244", "198.19.99.245", 1))
	moving := c.VNets[1].NICs[1]
	moving.Address, moving.Egress = addr("10.224.0.99"), c.VNets[0].NICs[0].Egress
	c.VNets[1].NICs, c.VNets[0].NICs = c.VNets[1].NICs[:1], append(c.VNets[0].NICs, moving)
	c.VNets[0].NICs[1].Pods = nil
	if status := w.apply(c); len(status["a"].NICs) != 4 || len(status["b"].NICs) != 1 {
		t.Fatalf("%v", status)
	}
	answers(t, w.node("b-n0"), "10.224.0.5:80", "second node of a sees 10.224.0.99")
}

func TestRefusals(t *testing.T) {
	w := newWorld(t)
	c := configOf(network("a", "198.19.99.242", "198.19.99.243", 0))
	c.VNets[0].Prefixes = append(c.VNets[0].Prefixes, prefix("fd00::/64"))
	if _, err := w.plane.Apply(context.Background(), c, w.netns); !fault.Is(err, fault.Unsupported) {
		t.Errorf("IPv6: %v", err)
	}
	c = configOf(network("a", "1.2.3.4", "198.19.99.243", 0))
	if _, err := w.plane.Apply(context.Background(), c, w.netns); !fault.Is(err, fault.Invalid) {
		t.Errorf("foreign egress: %v", err)
	}
}

func TestDownLeavesNothing(t *testing.T) {
	before := snapshot(t)
	w := newWorld(t)
	w.boot("a-n0")
	w.apply(configOf(network("a", "198.19.99.242", "198.19.99.243", 1), network("b", "198.19.99.244", "198.19.99.245", 1)))
	if during := snapshot(t); slices.Equal(before, during) {
		t.Fatal("nothing was made: the comparison shows nothing")
	}
	w.restart() // a later process takes it down
	must(t, w.plane.Down(context.Background()))
	w.halt("a-n0")
	if after := snapshot(t); !slices.Equal(before, after) {
		t.Errorf("before and after differ:\n%s\n---\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
	hosts, err := os.ReadFile(w.config.HostsFile)
	must(t, err)
	if string(hosts) != "127.0.0.1 localhost\n" {
		t.Errorf("hosts file: %q", hosts)
	}
	for _, dir := range []string{"routers", "netns"} {
		if _, err := os.Stat(filepath.Join(w.config.RunDir, dir)); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", dir, err)
		}
	}
}

// A real machine's namespace belongs to a user namespace of its own, and is
// found by its first process.
func TestMachineInAUserNamespace(t *testing.T) {
	w := newWorld(t)
	child := exec.Command("sleep", "60")
	child.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 3000000, Size: 65536}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 3000000, Size: 65536}},
	}
	must(t, child.Start())
	path := fmt.Sprintf("/proc/%d/ns/net", child.Process.Pid)
	netns := func(string) string { return path }
	c := configOf(network("a", "198.19.99.242", "198.19.99.243", 1))
	for range 2 {
		status, err := w.plane.Apply(t.Context(), c, netns)
		if err != nil || len(status["a"].NICs) != 2 {
			t.Fatalf("%v %v", status, err)
		}
	}
	serve(t, w.api("a"), "10.226.0.4:6443", "api of a")
	answers(t, path, "10.226.0.4:6443", "api of a sees 10.224.0.4")
	must(t, child.Process.Kill())
	if err := child.Wait(); err == nil {
		t.Error("a killed process ended well")
	}
	// The path is stale now: nobody told the plane, and that is no error.
	if status, err := w.plane.Apply(t.Context(), c, netns); err != nil || len(status["a"].NICs) != 1 {
		t.Errorf("after the machine died: %v %v", status, err)
	}
}
