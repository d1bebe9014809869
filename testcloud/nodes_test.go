// SPDX-License-Identifier: Apache-2.0

package testcloud_test

import (
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	aks "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v6"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// withKey lets an SSH key into a cluster's nodes.
func withKey(key string, edit func(*aks.ManagedCluster)) func(*aks.ManagedCluster) {
	return func(m *aks.ManagedCluster) {
		edit(m)
		m.Properties.LinuxProfile = &aks.LinuxProfile{AdminUsername: to.Ptr(administrator),
			SSH: &aks.SSHConfiguration{PublicKeys: []*aks.SSHPublicKey{{KeyData: &key}}}}
	}
}

// nodeAddresses are the nodes' internal addresses.
func (k *kube) nodeAddresses(t testing.TB) (all []string) {
	t.Helper()
	list, err := k.client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range list.Items {
		for _, a := range n.Status.Addresses {
			if a.Type == corev1.NodeInternalIP {
				all = append(all, a.Address)
			}
		}
	}
	return all
}

// nodesBySSH: with the cluster's key, from inside, as far as the security group lets one.
func nodesBySSH(t *testing.T, k *kube, jump *vm, key string) {
	node := k.nodeAddresses(t)[0]
	if _, err := jump.run(t.Context(), jump.here.space, []byte(read(key)), "umask 077; cat > node.key"); err != nil {
		t.Fatal(err)
	}
	try := func(key string) (string, error) {
		return jump.run(t.Context(), jump.here.space, nil, "ssh -i "+key+" -o IdentitiesOnly=yes -o BatchMode=yes -o ConnectTimeout=2 -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null "+
			administrator+"@"+node+" 'hostname; sudo id -u' 2>&1")
	}
	soon(t, func() error {
		out, err := try("node.key")
		if err == nil && (!strings.Contains(out, "aks-np-") || !strings.HasSuffix(out, "\n0\n")) {
			err = fmt.Errorf("it says %q", out)
		}
		return err
	})
	if out, err := try("another.key"); err == nil {
		t.Errorf("a stranger's key: %s", out)
	}
	if conn, err := k.here.dial(t.Context(), "tcp4", node+":22"); err == nil {
		_ = conn.Close()
		t.Error("a node's SSH answers outside")
	}
	rule := k.id(k.group, "Microsoft.Network/networkSecurityGroups/"+*k.securityGroup(t).Name+"/securityRules/no-ssh")
	k.put(t, rule, networkVersion, object{"properties": object{"priority": 310, "direction": "Inbound", "access": "Deny", "protocol": "Tcp",
		"sourceAddressPrefix": jump.private, "sourcePortRange": "*", "destinationAddressPrefix": "*", "destinationPortRange": "22"}}, nil)
	soon(t, func() error {
		if out, err := try("node.key"); err == nil {
			return fmt.Errorf("past the security group: %s", out)
		}
		return nil
	})
	k.remove(t, rule, networkVersion)
	soon(t, func() error { _, err := try("node.key"); return err })
}

// podsByRoutes: kubenet's pods have addresses of their own that the route table
// leads to; other machines of the network see their node's.
func podsByRoutes(t *testing.T, k *kube, jump *vm) {
	pods, nodes := k.pods(t, "echo"), k.nodeAddresses(t)
	if netip.MustParsePrefix("10.60.0.0/16").Contains(netip.MustParseAddr(pods[0].Status.PodIP)) {
		t.Errorf("%s has an address of the network: %s", pods[0].Name, pods[0].Status.PodIP)
	}
	a, err := k.inPod(t.Context(), pods[0].Name, pods[1].Status.PodIP+":8080")
	if err != nil || a.from() != pods[0].Status.PodIP || a.Node == pods[0].Spec.NodeName {
		t.Errorf("pod to pod on another node: %+v %v", a, err)
	}
	soon(t, func() error { // the other test starts the server there
		a, err := k.inPod(t.Context(), pods[0].Name, jump.private+":9000")
		if err == nil && a.from() != pods[0].Status.HostIP {
			err = fmt.Errorf("the machine saw %s, the pod's node is %s of %v", a.Client, pods[0].Status.HostIP, nodes)
		}
		return err
	})
	var table struct {
		Properties struct {
			Routes []struct {
				Properties struct{ NextHopIPAddress string }
			}
		}
	}
	subnet := object{}
	if err := k.rest(t.Context(), "GET", k.nid("virtualNetworks/net/subnets/kube"), networkVersion, nil, &subnet); err != nil {
		t.Fatal(err)
	}
	id := subnet["properties"].(object)["routeTable"].(object)["id"].(string)
	if err := k.rest(t.Context(), "GET", id, networkVersion, nil, &table); err != nil {
		t.Fatal(err)
	}
	if len(table.Properties.Routes) != 2 {
		t.Errorf("routes %+v", table.Properties.Routes)
	}
}

var conntrackLine = regexp.MustCompile(`tcp +6 (\d+) ESTABLISHED `)

// lives is how long the kernel keeps a silent connection between two addresses,
// at most, in any router of a network.
func (r *rig) lives(t testing.TB, from, to string) (seconds int) {
	t.Helper()
	routers, err := filepath.Glob(filepath.Join("/run/bastide", r.Name, "routers", "vnet-*"))
	if err != nil {
		t.Fatal(err)
	}
	least := 1 << 30
	for _, s := range routers {
		out, err := exec.CommandContext(t.Context(), "nsenter", "--net="+s, "conntrack", "-L", "-p", "tcp", "-s", from, "-d", to).Output()
		if err != nil {
			continue // a router that is going
		}
		for _, m := range conntrackLine.FindAllStringSubmatch(string(out), -1) {
			n, _ := strconv.Atoi(m[1])
			least = min(least, n)
		}
	}
	return least
}

// closedCluster is a private one without a zone of its own, and without a way out.
func closedCluster(m *aks.ManagedCluster) {
	m.Properties.APIServerAccessProfile = &aks.ManagedClusterAPIServerAccessProfile{EnablePrivateCluster: to.Ptr(true), PrivateDNSZone: to.Ptr("none"),
		EnablePrivateClusterPublicFQDN: to.Ptr(true)}
	m.Properties.NetworkProfile = &aks.NetworkProfile{NetworkPlugin: to.Ptr(aks.NetworkPluginAzure), NetworkPluginMode: to.Ptr(aks.NetworkPluginModeOverlay),
		OutboundType: to.Ptr(aks.OutboundTypeNone)}
}

func closedOff(t *testing.T, k *kube) {
	have, err := k.clusters(t).Get(t.Context(), "rg", k.name, nil)
	if err != nil {
		t.Fatal(err)
	}
	soon(t, func() error {
		all, err := k.here.resolve(t.Context(), text(have.Properties.Fqdn))
		if err == nil && (len(all) != 1 || !netip.MustParseAddr(all[0]).IsPrivate()) {
			err = fmt.Errorf("%s is %v outside, not its private address", text(have.Properties.Fqdn), all)
		}
		return err
	})
	var zones struct{ Value []any }
	if err := k.rest(t.Context(), "GET", k.id(k.group, "Microsoft.Network/privateDnsZones"), "2020-06-01", nil, &zones); err != nil || len(zones.Value) != 0 {
		t.Errorf("private zones: %v %v", zones.Value, err)
	}
	out, err := k.Bastide(t.Context(), "why", "--probe", "--from", "node/"+k.firstNode(t), "--to", k.here.address+":443")
	if err == nil || !strings.Contains(out, "NOT REACHABLE") || !strings.Contains(out, "agrees") {
		t.Errorf("a way out: %v %s", err, out)
	}
}

// firstNode is the name of an instance of the cluster's scale set.
func (k *kube) firstNode(t testing.TB) string {
	t.Helper()
	sets, err := k.compute.NewVirtualMachineScaleSetsClient().NewListPager(k.group, nil).NextPage(t.Context())
	if err != nil || len(sets.Value) != 1 {
		t.Fatalf("scale sets: %v %v", sets.Value, err)
	}
	vms, err := k.compute.NewVirtualMachineScaleSetVMsClient().NewListPager(k.group, *sets.Value[0].Name, nil).NextPage(t.Context())
	if err != nil || len(vms.Value) == 0 {
		t.Fatalf("instances: %v %v", vms.Value, err)
	}
	return *vms.Value[0].Properties.OSProfile.ComputerName
}
