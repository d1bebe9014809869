// SPDX-License-Identifier: Apache-2.0

package testcloud_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	aks "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v6"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"
	corev1 "k8s.io/api/core/v1"
)

// patienceOfServices bounds what the cloud controller does: it takes one Service
// after another, and a failed one again after 5 s, 10 s, 20 s.
const patienceOfServices = 90 * time.Second

// TestServices drives networks as AKS documents them: Services by the real cloud
// controller, ways out, pod networks, virtual machines, a private cluster. The
// clients are client-go, the Azure SDK, ssh, and packets from where people sit.
func TestServices(t *testing.T) {
	r := newRig(t, "svc")
	r.vnet(t, "net", "10.60.0.0/16", "kube=10.60.0.0/24", "lb=10.60.1.0/24", "vms=10.60.2.0/24", "ends=10.60.3.0/24")
	r.routed(t, "Internet", "")
	r.put(t, r.nid("virtualNetworks/net/subnets/flat"), networkVersion, object{"properties": object{
		"addressPrefix": "10.60.4.0/22", "defaultOutboundAccess": true, "routeTable": idRef(r.nid("routeTables/out"))}}, nil)
	var k, flat, private, closed *kube
	var jump *vm
	key, authorized, err := keyPair(t.TempDir(), "nodes")
	if err != nil {
		t.Fatal(err)
	}
	made := make(chan error)
	start := func(f func() error) { go func() { made <- f() }() }
	start(func() (err error) {
		k, err = r.cluster(t.Context(), t, "kube", withKey(authorized, inSubnet(r, "kube", 2)))
		return err
	})
	start(func() (err error) { flat, err = r.cluster(t.Context(), t, "flat", flatNetwork(r)); return err })
	start(func() (err error) { private, err = r.cluster(t.Context(), t, "private", privateOverlay); return err })
	start(func() (err error) { closed, err = r.cluster(t.Context(), t, "closed", closedCluster); return err })
	start(func() (err error) { jump, err = r.jump(t); return err })
	if err := errors.Join(<-made, <-made, <-made, <-made, <-made); err != nil {
		t.Fatal(err)
	}
	k.workload(t, "echo", 2, "8443", "53")
	flat.workload(t, "echo", 2)
	t.Run("together", func(t *testing.T) {
		t.Run("services", func(t *testing.T) { t.Parallel(); services(t, k, jump) })
		t.Run("machines", func(t *testing.T) { t.Parallel(); machines(t, r, jump) })
		t.Run("flat", func(t *testing.T) { t.Parallel(); flatPods(t, flat, jump) })
		t.Run("private", func(t *testing.T) { t.Parallel(); privateCluster(t, private, jump) })
		t.Run("closed", func(t *testing.T) { t.Parallel(); closedOff(t, closed) })
		t.Run("nodes by SSH", func(t *testing.T) { t.Parallel(); nodesBySSH(t, k, jump, key) })
		t.Run("pods by routes", func(t *testing.T) { t.Parallel(); podsByRoutes(t, k, jump) })
	})
	t.Run("ways out", func(t *testing.T) { waysOut(t, k) })
}

// inSubnet is a cluster of kubenet in a subnet of the user's.
func inSubnet(r *rig, subnet string, count int32) func(*aks.ManagedCluster) {
	return func(m *aks.ManagedCluster) {
		m.Properties.AgentPoolProfiles[0].Count = &count
		m.Properties.AgentPoolProfiles[0].VnetSubnetID = to.Ptr(r.nid("virtualNetworks/net/subnets/" + subnet))
		m.Properties.NetworkProfile = &aks.NetworkProfile{NetworkPlugin: to.Ptr(aks.NetworkPluginKubenet)}
	}
}

func services(t *testing.T, k *kube, jump *vm) {
	for _, sub := range []struct {
		name string
		test func(*testing.T, *kube, *vm)
	}{
		{"public, internal, none", typeChanges},
		{"internal subnets and addresses", internalAddresses},
		{"addresses of the user's", ownAddresses},
		{"source ranges", sourceRanges},
		{"service tags", serviceTags},
		{"health probes", healthProbes},
		{"timeouts and resets", timeouts},
		{"no floating address", noFloating},
		{"all ports", allPorts},
		{"local traffic", localTraffic},
		{"affinity", affinity},
		{"protocols and ports", protocols},
		{"annotations that can't be met", unmet},
	} {
		t.Run(sub.name, func(t *testing.T) { t.Parallel(); sub.test(t, k, jump) })
	}
}

func isPublic(a string) bool   { return strings.HasPrefix(a, "192.88.99.") }
func isInternal(a string) bool { return strings.HasPrefix(a, "10.60.") }

// typeChanges follows one Service from its birth to its end, beside a rule of the user's.
func typeChanges(t *testing.T, k *kube, jump *vm) {
	rules, group := k.network.NewSecurityRulesClient(), *k.securityGroup(t).Name
	poller, err := rules.BeginCreateOrUpdate(t.Context(), k.group, group, "mine", armnetwork.SecurityRule{Properties: &armnetwork.SecurityRulePropertiesFormat{
		Priority: to.Ptr[int32](300), Direction: to.Ptr(armnetwork.SecurityRuleDirectionInbound), Access: to.Ptr(armnetwork.SecurityRuleAccessDeny),
		Protocol: to.Ptr(armnetwork.SecurityRuleProtocolTCP), SourceAddressPrefix: to.Ptr("198.51.100.7"), SourcePortRange: to.Ptr("*"),
		DestinationAddressPrefix: to.Ptr("*"), DestinationPortRange: to.Ptr("22")}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := poller.PollUntilDone(t.Context(), everySecond); err != nil {
		t.Fatal(err)
	}
	s := k.service(t, "types", nil, "dns-label-name=types-svc")
	public := s.addressLike(t, isPublic)
	seen := map[string]bool{}
	soon(t, func() error {
		a, err := k.here.ask(t.Context(), public+":80")
		if err != nil {
			return err
		}
		if seen[a.Pod] = true; len(seen) < 2 {
			return fmt.Errorf("answers from %v alone", seen)
		}
		return nil
	})
	space("").reaches(t, public+":80")
	if got := k.rulesTo(t, public); !slices.Equal(got, []string{"Allow Tcp Internet 80"}) {
		t.Errorf("security rules %v", got)
	}
	rule, probe := s.one(t, "kubernetes")
	if *rule.FrontendPort != 80 || !*rule.EnableFloatingIP || !*rule.DisableOutboundSnat || *probe.Protocol != armnetwork.ProbeProtocolTCP {
		t.Errorf("rule %+v probe %+v", rule, probe)
	}
	name := "types-svc.eastus.cloudapp." + k.Env["BASTIDE_DOMAIN"]
	soon(t, func() error {
		got, err := k.here.resolve(t.Context(), name)
		if err == nil && !slices.Equal(got, []string{public}) {
			err = fmt.Errorf("%s is %v, not %s", name, got, public)
		}
		return err
	})
	s.change(t, func(s *corev1.Service) { annotate(s, "load-balancer-internal=true") })
	internal := s.addressLike(t, isInternal)
	jump.reaches(t, internal+":80")
	k.here.refused(t, public+":80")
	s.change(t, func(s *corev1.Service) {
		s.Spec.Type = corev1.ServiceTypeClusterIP
	})
	soonWithin(t, patienceOfServices, func() error {
		if m := s.in(t, "kubernetes-internal"); len(m.rules) > 0 {
			return fmt.Errorf("the rules are still there; %s", s.events(t.Context()))
		}
		return nil
	})
	jump.refused(t, internal+":80")
	s.delete(t)
	s.gone(t, public)
	s.gone(t, internal)
	if _, err := rules.Get(t.Context(), k.group, group, "mine", nil); err != nil {
		t.Errorf("the user's rule: %v", err)
	}
}

// resolve asks the terminal's name server.
func (t terminal) resolve(ctx context.Context, name string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return t.dial(ctx, network, edgeResolver)
	}}
	all, err := resolver.LookupIP(ctx, "ip4", name)
	var texts []string
	for _, ip := range all {
		texts = append(texts, ip.String())
	}
	return texts, err
}

// edgeResolver is the name server of the instance's Internet.
const edgeResolver = "168.63.129.16:53"

func internalAddresses(t *testing.T, k *kube, jump *vm) {
	plain := k.service(t, "inside", nil, "load-balancer-internal=true")
	other := k.service(t, "inside-lb", nil, "load-balancer-internal=true", "load-balancer-internal-subnet=lb")
	fixed := k.service(t, "inside-fixed", nil, "load-balancer-internal=true", "load-balancer-internal-subnet=lb", "load-balancer-ipv4=10.60.1.77")
	spec := k.service(t, "inside-spec", func(s *corev1.Service) { s.Spec.LoadBalancerIP = "10.60.0.99" }, "load-balancer-internal=true")
	for s, ok := range map[*service]func(string) bool{
		plain: func(a string) bool { return strings.HasPrefix(a, "10.60.0.") },
		other: func(a string) bool { return strings.HasPrefix(a, "10.60.1.") },
		fixed: func(a string) bool { return a == "10.60.1.77" },
		spec:  func(a string) bool { return a == "10.60.0.99" },
	} {
		address := s.addressLike(t, ok)
		if a := jump.reaches(t, address+":80"); a.from() == "" {
			t.Errorf("%s: %+v", s.name, a)
		}
		if a, err := k.inPod(t.Context(), k.pods(t, "echo")[0].Name, address); err != nil {
			t.Errorf("%s from a pod: %v %v", s.name, a, err)
		}
		if a, err := k.here.ask(t.Context(), address+":80"); err == nil {
			t.Errorf("%s answers the Internet: %+v", s.name, a)
		}
	}
	for _, s := range []*service{plain, other, fixed, spec} {
		if m := s.in(t, "kubernetes-internal"); len(m.rules) != 1 || len(m.fronts) != 1 {
			t.Errorf("%s: %+v", s.name, m)
		}
	}
	fixed.delete(t)
	fixed.gone(t, "10.60.1.77")
	jump.refused(t, "10.60.1.77:80")
	jump.reaches(t, "10.60.0.99:80")
}
