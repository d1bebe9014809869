// SPDX-License-Identifier: Apache-2.0

//go:build bench

package bench

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"bastide.dev/dataplane"
	"bastide.dev/ruleset/linux"
)

// benchRules compiles a network of a hundred nodes before which a thousand rules
// stand, and gives it to the kernel of a fresh namespace; then changes one rule.
func benchRules(r *report) error {
	config := hundredNodes()
	var whole, compiled, one []float64
	var chains, messages int
	for range turns {
		took, changed, err := putRules(config, func(compiling, all time.Duration) {
			compiled, whole = append(compiled, ms(compiling)), append(whole, ms(all))
		})
		if err != nil {
			return err
		}
		one = append(one, ms(took))
		chains, messages = len(changed.Chains), changed.Messages
		if changed.Whole {
			return fmt.Errorf("one rule's change replaced the whole table")
		}
	}
	r.add(NewFigure("100 nodes and 1,000 rules: compiled and in the kernel", "ms", whole).Against(AtMost, 100).
		With(fmt.Sprintf("compiling alone %.1f ms", Median(compiled)), ""))
	r.add(NewFigure("one of the 1,000 rules changes: compiled and in the kernel", "ms", one).
		With(fmt.Sprintf("touches %d chains, by %d messages", chains, messages), ""))
	say("1,000 rules: %.1f ms, of it compiling %.1f ms; one of them: %.1f ms", Median(whole), Median(compiled), Median(one))
	return nil
}

// putRules takes both figures once.
func putRules(config *dataplane.Config, first func(compiling, all time.Duration)) (time.Duration, linux.Change, error) {
	const instance = "benchrules"
	var change linux.Change
	ns, err := freshNamespace()
	if err != nil {
		return 0, change, err
	}
	defer ns.Close()
	f, err := linux.New(ns, dataplane.TableName(instance))
	if err != nil {
		return 0, change, err
	}
	defer f.Close()
	begin := time.Now()
	router := dataplane.Compile(instance, config, &config.VNets[0], nil)
	compiling := time.Since(begin)
	if err := f.Put(router.Table); err != nil {
		return 0, change, err
	}
	first(compiling, time.Since(begin))
	other := *config
	other.VNets = slices.Clone(config.VNets)
	group := &other.VNets[0].NSGs
	*group = slices.Clone(*group)
	(*group)[0].Rules = slices.Clone((*group)[0].Rules)
	rule := &(*group)[0].Rules[500]
	rule.Allow = !rule.Allow
	begin = time.Now()
	router = dataplane.Compile(instance, &other, &other.VNets[0], nil)
	err = f.Put(router.Table)
	return time.Since(begin), f.Last(), err
}

// hundredNodes is a network of an API server and a hundred nodes, with a front
// end and an outbound rule.
func hundredNodes() *dataplane.Config {
	at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 224, 0, byte(4 + i)}) }
	public := netip.MustParseAddr("198.18.64.9")
	v := dataplane.VNet{ID: "v", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.224.0.0/12")},
		Subnets: []dataplane.Subnet{{Name: "nodes", Prefix: netip.MustParsePrefix("10.224.0.0/16"), NSG: "g/nsg"}},
		NICs:    []dataplane.NIC{{ID: "api", Namespace: "api", Address: at(0), Subnet: "nodes", Platform: true}}}
	front := dataplane.Balancer{Origin: "lb", Address: public, Protocol: 6, Ports: dataplane.Ports{First: 80, Last: 80}, Floating: true}
	for i := range 100 {
		nic := dataplane.NIC{ID: fmt.Sprintf("n%d", i), Machine: fmt.Sprintf("n%d", i), Address: at(1 + i), Subnet: "nodes",
			Pods:   []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(i), 0}), 24)},
			Egress: []dataplane.Egress{{Origin: "out", Address: public, First: uint16(1024 + 512*i), Last: uint16(1024 + 512*i + 511)}}}
		v.NICs = append(v.NICs, nic)
		front.Backends = append(front.Backends, nic.ID)
	}
	v.Balancers = []dataplane.Balancer{front}
	group := dataplane.NSG{ID: "g/nsg"}
	for i := range 1000 {
		group.Rules = append(group.Rules, dataplane.NSGRule{Name: fmt.Sprintf("r%d", i), Priority: 100 + i, Inbound: i%4 != 3, Allow: i%3 != 0, Protocol: 6,
			Sources:          []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i / 256), byte(i), 0}), 24)},
			DestinationPorts: []dataplane.Ports{{First: uint16(1000 + 7*i), Last: uint16(1000 + 7*i + i%5)}}})
	}
	v.NSGs = []dataplane.NSG{group}
	return &dataplane.Config{VNets: []dataplane.VNet{v}}
}
