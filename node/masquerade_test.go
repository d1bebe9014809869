// SPDX-License-Identifier: Apache-2.0

package node

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestFrontEndThatIsntKnownYet: what a balancer leads to a node before kube-proxy
// has heard of it leaves no trace, so that it may come again.
func TestFrontEndThatIsntKnownYet(t *testing.T) {
	outside, inside := fmt.Sprintf("bst-out-%d", os.Getpid()), fmt.Sprintf("bst-in-%d", os.Getpid())
	sh := func(input, script string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "sh", "-ec", script)
		cmd.Env = append(os.Environ(), "OUT="+outside, "IN="+inside)
		cmd.Stdin = strings.NewReader(input)
		text, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", script, err, text)
		}
		return string(text)
	}
	t.Cleanup(func() {
		for _, name := range []string{outside, inside} {
			if out, err := exec.Command("ip", "netns", "del", name).CombinedOutput(); err != nil {
				t.Errorf("%v %s", err, out)
			}
		}
	})
	sh("", `ip netns add $OUT; ip netns add $IN
		ip -n $OUT link add eth0 type veth peer name eth0 netns $IN
		ip -n $OUT addr add 10.224.0.1/24 dev eth0; ip -n $IN addr add 10.224.0.4/24 dev eth0
		ip -n $OUT addr add 198.51.100.7/32 dev lo; ip -n $OUT link set lo up
		ip -n $OUT link set eth0 up; ip -n $IN link set eth0 up
		ip -n $OUT route add 192.88.99.0/24 via 10.224.0.4 src 198.51.100.7; ip -n $OUT route add 10.244.0.0/16 via 10.224.0.4
		ip -n $IN route add default via 10.224.0.1
		ip netns exec $IN sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'`)
	config := Config{ClusterCIDR: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}, Network: PodNetwork{Plugin: "kubenet",
		VNet: []netip.Prefix{netip.MustParsePrefix("10.224.0.0/12")}, Pods: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}}}
	sh(Masquerade(config), `ip netns exec $IN nft -f -`)
	// Stands for kube-proxy that knows one front end.
	sh("table ip proxy {\n chain pre {\n type nat hook prerouting priority dstnat;\n ip daddr 192.88.99.10 dnat to 10.224.0.9\n}\n}\n", `ip netns exec $IN nft -f -`)
	tracked := func(to string) bool {
		t.Helper()
		sh("", `ip netns exec $OUT bash -c 'echo hello > /dev/udp/`+to+`/80'`)
		return strings.Contains(sh("", `ip netns exec $IN conntrack -L 2>/dev/null`), "dst="+to)
	}
	if tracked("192.88.99.20") {
		t.Error("a front end that isn't known: its connection is kept as one to nowhere")
	}
	if !tracked("192.88.99.10") {
		t.Error("a front end that is known: its connection is lost")
	}
	if !tracked("10.244.9.9") {
		t.Error("a node may be a router for its network")
	}
}
