// SPDX-License-Identifier: Apache-2.0

package testcloud_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	aks "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v6"
)

// waysOut looks from a terminal at where a cluster's packets come from.
func waysOut(t *testing.T, k *kube) {
	k.here.listener(t, k.here.address+":8080")
	t.Run("one managed address", func(t *testing.T) { k.leavesBy(t, k.outbound(t, 1)) })
	t.Run("two managed addresses", func(t *testing.T) {
		k.change(t, func(m *aks.ManagedCluster) {
			m.Properties.NetworkProfile.LoadBalancerProfile.ManagedOutboundIPs = &aks.ManagedClusterLoadBalancerProfileManagedOutboundIPs{Count: to.Ptr[int32](2)}
		})
		k.leavesBy(t, k.outbound(t, 2))
	})
	t.Run("ports a node", func(t *testing.T) {
		k.change(t, func(m *aks.ManagedCluster) {
			m.Properties.NetworkProfile.LoadBalancerProfile.AllocatedOutboundPorts = to.Ptr[int32](1024)
		})
		k.leavesBy(t, k.outbound(t, 2))
		lb, err := k.network.NewLoadBalancersClient().Get(t.Context(), k.group, "kubernetes", nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := *lb.Properties.OutboundRules[0].Properties.AllocatedOutboundPorts; got != 1024 {
			t.Errorf("the rule allocates %d ports", got)
		}
		k.portsOf(t, 1024)
	})
	t.Run("addresses of the user's", func(t *testing.T) {
		mine := k.publicIP(t, "rg", "mine-out")
		k.change(t, func(m *aks.ManagedCluster) {
			m.Properties.NetworkProfile.LoadBalancerProfile = &aks.ManagedClusterLoadBalancerProfile{OutboundIPs: &aks.ManagedClusterLoadBalancerProfileOutboundIPs{
				PublicIPs: []*aks.ResourceReference{{ID: to.Ptr(k.nid("publicIPAddresses/mine-out"))}}}}
		})
		k.leavesBy(t, []string{mine})
	})
}

// outbound are the addresses that the cluster says it leaves by.
func (k *kube) outbound(t testing.TB, count int) (addresses []string) {
	t.Helper()
	have, err := k.clusters(t).Get(t.Context(), "rg", k.name, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, ip := range have.Properties.NetworkProfile.LoadBalancerProfile.EffectiveOutboundIPs {
		addresses = append(addresses, k.addressOf(t, *ip.ID))
	}
	if len(addresses) != count {
		t.Fatalf("effective outbound addresses: %v", addresses)
	}
	return addresses
}

func (r *rig) addressOf(t testing.TB, id string) string {
	t.Helper()
	var view struct{ Properties struct{ IPAddress string } }
	if err := r.rest(t.Context(), "GET", id, networkVersion, nil, &view); err != nil {
		t.Fatal(err)
	}
	return view.Properties.IPAddress
}

// leavesBy asks the listener outside from each pod, and from a node.
func (k *kube) leavesBy(t testing.TB, addresses []string) {
	t.Helper()
	for _, pod := range k.pods(t, "echo") {
		soon(t, func() error {
			a, err := k.inPod(t.Context(), pod.Name, k.here.address+":8080")
			if err == nil && !slices.Contains(addresses, a.from()) {
				err = fmt.Errorf("it left by %s, not by one of %v", a.from(), addresses)
			}
			return err
		})
	}
}

// portsOf asks many times; each node's source ports are in a block of the size.
func (k *kube) portsOf(t testing.TB, size uint16) {
	t.Helper()
	for _, pod := range k.pods(t, "echo") {
		var least, most uint16 = 65535, 0
		for range 12 {
			a, err := k.inPod(t.Context(), pod.Name, k.here.address+":8080")
			if err != nil {
				t.Fatal(err)
			}
			p := must(netip.ParseAddrPort(a.Client)).Port()
			least, most = min(least, p), max(most, p)
		}
		if most-least >= size {
			t.Errorf("%s's source ports go from %d to %d: more than %d", pod.Spec.NodeName, least, most, size)
		}
	}
}

// flatNetwork is a cluster of the azure plugin whose packets go where the user's route table says.
func flatNetwork(r *rig) func(*aks.ManagedCluster) {
	return func(m *aks.ManagedCluster) {
		inSubnet(r, "flat", 2)(m)
		m.Properties.AgentPoolProfiles[0].MaxPods = to.Ptr[int32](30)
		m.Properties.NetworkProfile = &aks.NetworkProfile{NetworkPlugin: to.Ptr(aks.NetworkPluginAzure), NetworkPolicy: to.Ptr(aks.NetworkPolicyAzure),
			ServiceCidr: to.Ptr("10.70.0.0/16"), DNSServiceIP: to.Ptr("10.70.0.10"), OutboundType: to.Ptr(aks.OutboundTypeUserDefinedRouting)}
	}
}

// routed makes the route table `out` with a default route and gives it to a subnet.
func (r *rig) routed(t testing.TB, hop string, via string) {
	t.Helper()
	route := object{"addressPrefix": "0.0.0.0/0", "nextHopType": hop}
	if via != "" {
		route["nextHopIpAddress"] = via
	}
	r.put(t, r.nid("routeTables/out"), networkVersion, props(object{"routes": []any{object{"name": "default", "properties": route}}}), nil)
}

// flatPods: pods have addresses of the subnet, and leave as the route table says.
func flatPods(t *testing.T, k *kube, jump *vm) {
	pods := k.pods(t, "echo")
	subnet := netip.MustParsePrefix("10.60.4.0/22")
	t.Run("pods are in the subnet", func(t *testing.T) {
		for _, p := range pods {
			if !subnet.Contains(netip.MustParseAddr(p.Status.PodIP)) {
				t.Errorf("%s has %s", p.Name, p.Status.PodIP)
			}
			if a := jump.reaches(t, p.Status.PodIP+":8080"); a.from() != jump.private {
				t.Errorf("the pod saw %s, the machine is %s", a.Client, jump.private)
			}
		}
		a, err := k.inPod(t.Context(), pods[0].Name, pods[1].Status.PodIP+":8080")
		if err != nil || a.from() != pods[0].Status.PodIP {
			t.Errorf("pod to pod on another node: %+v %v", a, err)
		}
	})
	t.Run("a machine sees the pod's own address", func(t *testing.T) {
		jump.sh(t, "PORTS=9000 nohup ./echo >echo.log 2>&1 </dev/null &")
		soon(t, func() error {
			a, err := k.inPod(t.Context(), pods[0].Name, jump.private+":9000")
			if err == nil && a.from() != pods[0].Status.PodIP {
				err = fmt.Errorf("the machine saw %s, the pod is %s", a.Client, pods[0].Status.PodIP)
			}
			return err
		})
	})
	t.Run("service", func(t *testing.T) {
		s := k.service(t, "flat", nil, "load-balancer-internal=true")
		jump.reaches(t, s.address(t)+":80")
	})
	t.Run("the route table decides", func(t *testing.T) { byRoutes(t, k, jump, pods[0].Name) })
}

// byRoutes sends packets out as the network does by itself, then through a machine that translates them, then nowhere.
func byRoutes(t *testing.T, k *kube, jump *vm, pod string) {
	k.far.listener(t, k.far.address+":8080")
	if _, err := k.inPod(t.Context(), pod, k.far.address+":8080"); err != nil {
		t.Errorf("the network's own way out: %v", err)
	}
	nic, err := k.network.NewInterfacesClient().Get(t.Context(), "rg", "jump", nil)
	if err != nil {
		t.Fatal(err)
	}
	nic.Properties.EnableIPForwarding = to.Ptr(true)
	poller, err := k.network.NewInterfacesClient().BeginCreateOrUpdate(t.Context(), "rg", "jump", nic.Interface, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := poller.PollUntilDone(t.Context(), everySecond); err != nil {
		t.Fatal(err)
	}
	jump.sh(t, "sudo sysctl -qw net.ipv4.ip_forward=1 && sudo nft add table ip nat && "+
		"sudo nft 'add chain ip nat post { type nat hook postrouting priority 100 ; }' && sudo nft add rule ip nat post ip saddr 10.60.4.0/22 masquerade")
	k.routed(t, "VirtualAppliance", jump.private)
	soon(t, func() error {
		a, err := k.inPod(t.Context(), pod, k.far.address+":8080")
		if err == nil && a.from() != jump.public {
			err = fmt.Errorf("it left by %s, not by the appliance's %s", a.Client, jump.public)
		}
		return err
	})
	k.routed(t, "None", "")
	soon(t, func() error {
		if a, err := k.inPod(t.Context(), pod, k.far.address+":8080"); err == nil {
			return fmt.Errorf("still a way out: %+v", a)
		}
		return nil
	})
}

// privateOverlay is a private cluster of the azure plugin's overlay, in a network
// of its own, behind a NAT gateway.
func privateOverlay(m *aks.ManagedCluster) {
	m.Properties.APIServerAccessProfile = &aks.ManagedClusterAPIServerAccessProfile{EnablePrivateCluster: to.Ptr(true)}
	m.Properties.NetworkProfile = &aks.NetworkProfile{NetworkPlugin: to.Ptr(aks.NetworkPluginAzure), NetworkPluginMode: to.Ptr(aks.NetworkPluginModeOverlay),
		OutboundType: to.Ptr(aks.OutboundTypeManagedNATGateway), NatGatewayProfile: &aks.ManagedClusterNATGatewayProfile{
			ManagedOutboundIPProfile: &aks.ManagedClusterManagedOutboundIPProfile{Count: to.Ptr[int32](1)}}}
}

// privateCluster: its API server answers the networks that it is meant for, and nobody else.
func privateCluster(t *testing.T, k *kube, jump *vm) {
	have, err := k.clusters(t).Get(t.Context(), "rg", k.name, nil)
	if err != nil {
		t.Fatal(err)
	}
	name := *have.Properties.PrivateFQDN
	if !strings.Contains(name, ".privatelink.") {
		t.Errorf("private name %q", name)
	}
	config := must(k.clusters(t).ListClusterAdminCredentials(t.Context(), "rg", k.name, nil)).Kubeconfigs[0].Value
	if _, err := jump.run(t.Context(), jump.here.space, config, "cat > private.kubeconfig"); err != nil {
		t.Fatal(err)
	}
	const get = "kubectl --kubeconfig private.kubeconfig --request-timeout=3s get nodes --no-headers"
	if out, err := jump.run(t.Context(), jump.here.space, nil, get); err == nil {
		t.Errorf("another network reaches it: %s", out)
	}
	t.Run("nothing listens outside", func(t *testing.T) { noListener(t, k, have.Properties) })
	t.Run("a private endpoint", func(t *testing.T) { ownEndpoint(t, k, jump, name, *have.ID) })
	t.Run("a peered network", func(t *testing.T) { peered(t, k, jump, get, name) })
	t.Run("out by the NAT gateway", func(t *testing.T) { byGateway(t, k, jump) })
}

// byGateway runs a pod, by the machine's kubectl, that asks outside.
func byGateway(t *testing.T, k *kube, jump *vm) {
	k.here.listener(t, k.here.address+":8090")
	const kubectl = "kubectl --kubeconfig private.kubeconfig "
	jump.sh(t, kubectl+"run asker --image="+k.Env["BASTIDE_REGISTRY"]+"/echo:1 && "+kubectl+"wait --for=condition=Ready pod/asker --timeout=60s")
	var a said
	if err := json.Unmarshal([]byte(jump.sh(t, kubectl+"exec asker -- /echo get http://"+k.here.address+":8090/")), &a); err != nil {
		t.Fatal(err)
	}
	have, err := k.clusters(t).Get(t.Context(), "rg", k.name, nil)
	if err != nil {
		t.Fatal(err)
	}
	ips := have.Properties.NetworkProfile.NatGatewayProfile.EffectiveOutboundIPs
	if len(ips) != 1 || k.addressOf(t, *ips[0].ID) != a.from() {
		t.Errorf("it left by %s; the gateway has %d addresses", a.from(), len(ips))
	}
}

func noListener(t *testing.T, k *kube, p *aks.ManagedClusterProperties) {
	for _, label := range []*string{p.PrivateFQDN, p.Fqdn} {
		if all, err := k.here.resolve(t.Context(), text(label)); err == nil && len(all) > 0 && text(label) != "" {
			for _, a := range all {
				if conn, err := k.here.dial(t.Context(), "tcp4", a+":443"); err == nil {
					_ = conn.Close()
					t.Errorf("%s answers outside at %s", *label, a)
				}
			}
		}
	}
}

// ownEndpoint reaches it by a private endpoint of the user's in another network.
func ownEndpoint(t *testing.T, k *kube, jump *vm, name, cluster string) {
	var view struct {
		Properties struct {
			CustomDNSConfigs []struct {
				FQDN        string
				IPAddresses []string
			}
			NetworkInterfaces []struct{ ID string }
		}
	}
	k.put(t, k.nid("privateEndpoints/mine"), networkVersion, props(object{"subnet": idRef(k.nid("virtualNetworks/net/subnets/ends")),
		"privateLinkServiceConnections": []any{object{"name": "mine", "properties": object{"privateLinkServiceId": cluster, "groupIds": []string{"management"}}}}}), &view)
	if len(view.Properties.CustomDNSConfigs) != 1 || len(view.Properties.CustomDNSConfigs[0].IPAddresses) != 1 {
		t.Fatalf("endpoint %+v", view.Properties)
	}
	address := view.Properties.CustomDNSConfigs[0].IPAddresses[0]
	soon(t, func() error {
		out, err := jump.run(t.Context(), jump.here.space, nil, "kubectl --kubeconfig private.kubeconfig --request-timeout=3s --server=https://"+address+":443 --tls-server-name="+name+" get nodes --no-headers")
		if err == nil && !strings.Contains(out, "Ready") {
			err = fmt.Errorf("nodes: %s", out)
		}
		return err
	})
	k.remove(t, k.nid("privateEndpoints/mine"), networkVersion)
}

// peered reaches it from the other network by its name, once they are peered and the zone is linked.
func peered(t *testing.T, k *kube, jump *vm, get, name string) {
	pager := k.network.NewVirtualNetworksClient().NewListPager(k.group, nil)
	page, err := pager.NextPage(t.Context())
	if err != nil || len(page.Value) != 1 {
		t.Fatalf("networks: %v %v", page.Value, err)
	}
	theirs, ours := *page.Value[0].ID, k.nid("virtualNetworks/net")
	peer := func(from, to string) {
		k.put(t, from+"/virtualNetworkPeerings/p", networkVersion, object{"properties": object{"remoteVirtualNetwork": idRef(to), "allowVirtualNetworkAccess": true}}, nil)
	}
	peer(theirs, ours)
	peer(ours, theirs)
	_, zone, _ := strings.Cut(name, ".")
	link := k.id(k.group, "Microsoft.Network/privateDnsZones/"+zone+"/virtualNetworkLinks/jump")
	if err := k.rest(t.Context(), "PUT", link, "2020-06-01", object{"location": "global", "properties": object{"virtualNetwork": idRef(ours), "registrationEnabled": false}}, nil); err != nil {
		t.Fatal(err)
	}
	soon(t, func() error {
		out, err := jump.run(t.Context(), jump.here.space, nil, get)
		if err == nil && !strings.Contains(out, "Ready") {
			err = fmt.Errorf("nodes: %s", out)
		}
		return err
	})
}
