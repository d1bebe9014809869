// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"bastide.dev/dataplane"
)

// Spokes that aren't peered reach each other by an appliance in the hub, when
// their route tables say so and the peerings let forwarded packets in.
func TestHubAndSpokes(t *testing.T) {
	w := newWorld(t)
	hub, one, two := spoke("hub", "10.1.0.0/24", "10.1.0.4"), spoke("one", "10.2.0.0/24", "10.2.0.4"), spoke("two", "10.3.0.0/24", "10.3.0.4")
	hub.NICs[0].Forwarding = true
	peered(&hub, &one)
	peered(&hub, &two)
	one.Peers[0].Forwarded, two.Peers[0].Forwarded = true, true
	for _, v := range []*dataplane.VNet{&one, &two} {
		v.Subnets[0].RouteTable = "rg/to-hub"
		v.RouteTables = []dataplane.RouteTable{{ID: "rg/to-hub", Routes: []dataplane.UserRoute{
			{Name: "all", Prefix: prefix("10.0.0.0/8"), Hop: dataplane.HopAppliance, Via: addr("10.1.0.4")},
		}}}
	}
	w.apply(configOf(hub, one, two))
	serve(t, w.api("one"), "10.2.0.4:80", "one")
	serve(t, w.api("two"), "10.3.0.4:80", "two")
	silent(t, w.api("one"), "10.3.0.4:80") // the appliance doesn't forward yet
	visit(t, w.api("hub"), func() error {
		return apply([]setting{{forwarding, "1"}, {"ipv4/conf/all/send_redirects", "0"}, {"ipv4/conf/eth0/send_redirects", "0"}})
	})
	answers(t, w.api("one"), "10.3.0.4:80", "two sees 10.2.0.4")
	answers(t, w.api("two"), "10.2.0.4:80", "one sees 10.3.0.4")
	two.Peers[0].Forwarded = false
	w.apply(configOf(hub, one, two))
	silent(t, w.api("one"), "10.3.0.4:80")
}

// kubenet: pods' ranges are routes of the cluster's route table.
func TestPodsByRouteTable(t *testing.T) {
	w, v := pairOf(t)
	v.Subnets[0].RouteTable = "rg/aks-routetable"
	table := dataplane.RouteTable{ID: "rg/aks-routetable"}
	for i := range 2 {
		nic := &v.NICs[1+i]
		nic.Forwarding = true
		table.Routes = append(table.Routes, dataplane.UserRoute{Name: nic.ID, Prefix: nic.Pods[0], Hop: dataplane.HopAppliance, Via: nic.Address})
		nic.Pods = nil
	}
	v.RouteTables = []dataplane.RouteTable{table}
	w.apply(configOf(v))
	addAddresses(t, w.node("a-n0"), "10.244.0.9/32")
	addAddresses(t, w.node("a-n1"), "10.244.1.9/32")
	serve(t, w.node("a-n1"), "10.244.1.9:80", "pod")
	if got := ask(t, w.node("a-n0"), "tcp4", "10.244.0.9", "10.244.1.9:80", patience); got != "pod sees 10.244.0.9" {
		t.Errorf("pod to pod: %q", got)
	}
	v.RouteTables[0].Routes = table.Routes[:1]
	w.apply(configOf(v))
	if got := ask(t, w.node("a-n0"), "tcp4", "10.244.0.9", "10.244.1.9:80", nothing); got != "" {
		t.Errorf("without the route: %q", got)
	}
}

func TestSeveralEgressAddresses(t *testing.T) {
	w, v := pairOf(t)
	v.NICs[1].Egress = []dataplane.Egress{{Origin: "lb/1", Address: addr("198.19.99.242")}, {Origin: "lb/2", Address: addr(service)}}
	w.apply(configOf(v))
	serve(t, rootNS, frontDoor+":443", "door")
	seen := map[string]int{}
	for range 40 {
		seen[ask(t, w.node("a-n0"), "tcp4", "", frontDoor+":443", patience)]++
	}
	if len(seen) != 2 || seen["door sees 198.19.99.242"] == 0 || seen["door sees "+service] == 0 {
		t.Errorf("%v", seen)
	}
}

// A connection that was silent for longer than its balancer lets it is reset.
func TestIdleReset(t *testing.T) {
	w, v := balanced(t, true)
	v.Balancers[0].Idle, v.Balancers[0].Reset = 1, true
	w.apply(configOf(v))
	addTo(t, w.node("a-n0"), loopback, service+"/32")
	v.Balancers[0].Backends = []string{"a-n0"}
	w.apply(configOf(v))
	outside := newOutside(t)
	conn := openConnection(t, outside, service+":80", w.node("a-n0"))
	conn.stillWorks()
	var err error
	w.until("it is reset", func() bool {
		time.Sleep(2100 * time.Millisecond) // the silence that is tested
		if _, err = conn.client.Write([]byte("hello")); err == nil {
			must(t, conn.client.SetReadDeadline(time.Now().Add(patience)))
			_, err = conn.client.Read(make([]byte, 1))
		}
		return err != nil
	})
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v", err)
	}
}

// Back ends that don't answer at all keep no threads.
func TestProbesKeepNoThreads(t *testing.T) {
	w := newWorld(t)
	v := spoke("v", "10.1.0.0/24", "10.1.0.4")
	v.NSGs = []dataplane.NSG{{ID: "rg/none", Rules: []dataplane.NSGRule{{Name: "deny", Priority: 100, Inbound: true}}}}
	v.NICs[0].NSG = "rg/none"
	for port := uint16(1); port <= 200; port++ {
		id := fmt.Sprint("p", port)
		v.Probes = append(v.Probes, dataplane.Probe{ID: id, Protocol: "Tcp", Port: port, Interval: 5, Failures: 1})
		v.Balancers = append(v.Balancers, dataplane.Balancer{Origin: id, Address: addr(service), Protocol: 6, Ports: dataplane.Ports{First: port, Last: port},
			Floating: true, Backends: []string{"v-vm"}, Probe: id})
	}
	before := threads(t)
	w.apply(configOf(v))
	w.until("all are probed", func() bool { return len(w.apply(configOf(v))["v"].Unhealthy) == 200 })
	if after := threads(t); after > before+20 {
		t.Errorf("%d threads before, %d with 200 probes", before, after)
	}
}

func threads(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/task")
	must(t, err)
	return len(all)
}
