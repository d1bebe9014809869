// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// File is a file that a node writes at its start.
type File struct {
	Path string
	Mode uint32
	Data []byte
}

// Where the parts of a node find what belongs to them.
const (
	CAPath             = "/etc/kubernetes/certs/ca.crt"
	KubeletConfigPath  = "/etc/kubernetes/kubelet.json"
	BootstrapPath      = "/etc/kubernetes/bootstrap.kubeconfig"
	KubeconfigPath     = "/var/lib/kubelet/kubeconfig" // written by kubelet itself
	ProxyConfigPath    = "/etc/kubernetes/kube-proxy.json"
	ContainerdPath     = "/etc/containerd/config.toml"
	ContainerdSocket   = "/run/containerd/containerd.sock"
	ResolvConfPath     = "/etc/resolv.conf"
	proxyCertPath      = "/etc/kubernetes/certs/kube-proxy.crt"
	proxyKeyPath       = "/etc/kubernetes/certs/kube-proxy.key"
	proxyKubeconfig    = "/etc/kubernetes/kube-proxy.kubeconfig"
	registriesPath     = "/etc/containerd/certs.d"
	instanceCAPath     = "/etc/containerd/certs.d/instance.crt"
	NetworkPath        = "/etc/cni/net.d/10-bastide.conflist"
	wireServer         = "168.63.129.16" // answers DNS in every Azure virtual network
	containerLogFiles  = 5
	kubeletPort        = 10250
	proxyHealthAddress = "0.0.0.0:10256"
)

// Check returns every problem of a Config.
func (c Config) Check() error {
	var problems []error
	need := func(ok bool, what string) {
		if !ok {
			problems = append(problems, errors.New(what+" is missing"))
		}
	}
	need(c.Hostname != "", "hostname")
	need(c.Address.IsValid(), "address")
	need(c.CPUs > 0 && c.Memory > 0, "size")
	if c.Mirror != "" && !mirrorForm(c.Mirror) {
		problems = append(problems, fmt.Errorf("mirror %q isn't an http or https URL", c.Mirror))
	}
	if c.SSH() && !adminForm.MatchString(c.AdminUser) {
		problems = append(problems, fmt.Errorf("admin user %q isn't a name: a letter, then letters, digits, - and _", c.AdminUser))
	}
	if c.Role == RoleVM {
		return errors.Join(problems...)
	}
	need(strings.HasPrefix(c.Server, "https://"), "server (https://…)")
	need(len(c.CA) > 0, "ca")
	need(len(c.Proxy.Certificate) > 0 && len(c.Proxy.Key) > 0, "proxy certificate and key")
	need(c.ClusterDNS.IsValid() && c.ClusterDomain != "", "cluster DNS")
	need(c.MaxPods > 0, "maxPods")
	need(c.PauseImage != "", "pauseImage")
	need(c.Policy == nil || len(c.Policy.Credential.Certificate) > 0 && len(c.Policy.Credential.Key) > 0, "policy agent's certificate and key")
	switch c.Network.Plugin {
	case "kubenet", "azure":
		need(len(c.Network.Pods) > 0, "range of pods")
	case "none":
	default:
		problems = append(problems, fmt.Errorf("network plugin %q isn't one of kubenet, azure, none", c.Network.Plugin))
	}
	return errors.Join(problems...)
}

// Files renders all that a node's parts read, from its Config alone.
func Files(c Config) ([]File, error) {
	if err := c.Check(); err != nil {
		return nil, fmt.Errorf("node config: %w", err)
	}
	files := slices.Concat(baseFiles(c), patchFiles(c), sshFiles(c))
	if c.Role == RoleVM {
		return files, nil
	}
	files = append(files, []File{
		{CAPath, 0o644, c.CA},
		{proxyCertPath, 0o644, c.Proxy.Certificate},
		{proxyKeyPath, 0o600, c.Proxy.Key},
		{ContainerdPath, 0o644, containerdConfig(c)},
	}...)
	if c.Registry != "" {
		files = append(files, File{instanceCAPath, 0o644, c.InstanceCA},
			File{registriesPath + "/" + c.Registry + "/hosts.toml", 0o644, registryHosts(c)})
	}
	if c.BootstrapToken != "" {
		files = append(files, File{BootstrapPath, 0o600, kubeconfig(c, map[string]any{"token": c.BootstrapToken})})
	}
	policy, err := policyFiles(c)
	if err != nil {
		return nil, err
	}
	files = append(files, policy...)
	files = append(files, File{proxyKubeconfig, 0o600,
		kubeconfig(c, map[string]any{"client-certificate": proxyCertPath, "client-key": proxyKeyPath})})
	for path, document := range map[string]any{
		KubeletConfigPath: kubeletConfig(c), ProxyConfigPath: proxyConfig(c), NetworkPath: podNetwork(c), credentialsPath: credentials(c),
	} {
		if path == NetworkPath && c.Network.Plugin == "none" || path == credentialsPath && c.Registry == "" {
			continue
		}
		data, err := json.MarshalIndent(document, "", "  ")
		if err != nil {
			return nil, err
		}
		files = append(files, File{path, 0o644, data})
	}
	return files, nil
}

// ContainerdReads are the files whose change containerd notices only when it
// starts, and so on for the others. What a registry is signed by is read with
// each pull, a network with each pod.
func ContainerdReads() []string { return []string{ContainerdPath} }

// KubeletReads are kubelet's.
func KubeletReads() []string {
	return []string{KubeletConfigPath, CAPath, BootstrapPath, credentialsPath}
}

// ProxyReads are kube-proxy's.
func ProxyReads() []string {
	return []string{ProxyConfigPath, proxyKubeconfig, proxyCertPath, proxyKeyPath, CAPath}
}

// baseFiles are those of any machine.
func baseFiles(c Config) []File {
	return []File{
		{"/etc/hostname", 0o644, []byte(c.Hostname + "\n")},
		{"/etc/hosts", 0o644, hosts(c)},
		{"/etc/machine-id", 0o444, machineID(c)},
		{ResolvConfPath, 0o644, []byte("nameserver " + wireServer + "\noptions edns0\n")},
	}
}

func hosts(c Config) []byte {
	return fmt.Appendf(nil, "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n%s %s\n", c.Address, c.Hostname)
}

// machineID differs for each node and stays over its reimages.
func machineID(c Config) []byte {
	sum := sha256.Sum256([]byte("bastide machine id\x00" + c.ProviderID + "\x00" + c.Hostname))
	return []byte(hex.EncodeToString(sum[:16]) + "\n")
}

func kubeconfig(c Config, user map[string]any) []byte {
	data, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "node",
		"clusters": []any{map[string]any{"name": "node", "cluster": map[string]any{"server": c.Server, "certificate-authority": CAPath}}},
		"users":    []any{map[string]any{"name": "node", "user": user}},
		"contexts": []any{map[string]any{"name": "node", "context": map[string]any{"cluster": "node", "user": "node"}}},
	})
	if err != nil {
		panic(err) // maps of strings always encode
	}
	return data
}

// podNetwork gives each pod a routed pair of interfaces: the node is the router
// of its pods, as the virtual network's router is of its nodes.
func podNetwork(c Config) map[string]any {
	ranges, routes := podRanges(c)
	ptp := map[string]any{"type": "ptp", "ipMasq": false,
		"ipam": map[string]any{"type": "host-local", "ranges": ranges, "routes": routes, "dataDir": "/run/cni/ipam"}}
	if c.Network.MTU > 0 {
		ptp["mtu"] = c.Network.MTU
	}
	plugins := []any{ptp}
	if c.Enforces() {
		plugins = append(plugins, policyPlugin())
	}
	plugins = append(plugins, map[string]any{"type": "portmap", "backend": "nftables", "capabilities": map[string]any{"portMappings": true}})
	return map[string]any{"cniVersion": "1.0.0", "name": "bastide", "plugins": plugins}
}

// podRanges are the ranges pods get addresses from, one set per family, and
// their routes. With azure each range is given by its ends, within the whole
// subnet, so that every address of a block is a pod's, single ones too; their
// gateway is the node itself, as the subnet's first address is its router's.
func podRanges(c Config) (ranges, routes []any) {
	for _, family := range []struct {
		is4 bool
		all string
	}{{true, "0.0.0.0/0"}, {false, "::/0"}} {
		var set []any
		for _, prefix := range c.Network.Pods {
			if prefix.Addr().Is4() != family.is4 {
				continue
			}
			one := map[string]any{"subnet": prefix.Masked().String()}
			if around, ok := subnetAround(c, prefix); ok {
				one = map[string]any{"subnet": around.String(), "gateway": c.Address.String(),
					"rangeStart": prefix.Masked().Addr().String(), "rangeEnd": lastOf(prefix).String()}
			}
			set = append(set, one)
		}
		if len(set) > 0 {
			ranges, routes = append(ranges, set), append(routes, map[string]any{"dst": family.all})
		}
	}
	return ranges, routes
}

// subnetAround is the subnet that a block of pod addresses is part of; a
// kubenet node's range is a subnet of its own.
func subnetAround(c Config, block netip.Prefix) (netip.Prefix, bool) {
	if c.Network.Plugin != "azure" || c.Address.Is4() != block.Addr().Is4() {
		return netip.Prefix{}, false
	}
	for _, list := range [][]netip.Prefix{c.ClusterCIDR, c.Network.VNet} {
		for _, p := range list {
			if p.Bits() <= block.Bits() && p.Contains(block.Addr()) {
				return p.Masked(), true
			}
		}
	}
	return netip.Prefix{}, false
}

func lastOf(p netip.Prefix) netip.Addr {
	raw := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(raw)*8; i++ {
		raw[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(raw)
	return a
}

// Masquerade is the nftables table that gives what pods send out of their
// virtual network the node's address, as AKS's nodes do. It replaces itself.
//
// It also drops what comes from outside of the network for an address that isn't
// known here: a balancer leads to a node as soon as its node port answers, which
// may be before kube-proxy has heard of the front end. Passed on, the connection
// would be tracked as one to nowhere, and its repeated SYNs with it.
func Masquerade(c Config) string {
	if c.Network.Plugin == "none" {
		return ""
	}
	var b bytes.Buffer
	b.WriteString("table inet bastide-masquerade {}\ndelete table inet bastide-masquerade\ntable inet bastide-masquerade {\n" +
		"\tchain postrouting {\n\t\ttype nat hook postrouting priority srcnat + 5; policy accept;\n")
	for family, prefix := range map[string]func(netip.Prefix) bool{"ip": is4, "ip6": is6} {
		pods := set(prefix, c.Network.Pods)
		inside := set(prefix, c.Network.VNet, c.ClusterCIDR, c.Network.Pods)
		if pods != "" {
			fmt.Fprintf(&b, "\t\t%[1]s saddr { %[2]s } %[1]s daddr != { %[3]s } masquerade\n", family, pods, inside)
		}
	}
	b.WriteString("\t}\n\tchain passing {\n\t\ttype filter hook forward priority filter; policy accept;\n")
	for family, prefix := range map[string]func(netip.Prefix) bool{"ip": is4, "ip6": is6} {
		if inside := set(prefix, c.Network.VNet, c.ClusterCIDR, c.Network.Pods); inside != "" {
			fmt.Fprintf(&b, "\t\tiifname \"eth0\" oifname \"eth0\" ct state new ct status & dnat == 0 %s saddr != { %s } drop\n", family, inside)
		}
	}
	b.WriteString("\t}\n}\n")
	return b.String()
}

func is4(p netip.Prefix) bool { return p.Addr().Is4() }
func is6(p netip.Prefix) bool { return p.Addr().Is6() }

// set lists the prefixes of one family without those inside another one: an
// interval set refuses overlaps.
func set(family func(netip.Prefix) bool, lists ...[]netip.Prefix) string {
	var all []netip.Prefix
	for _, list := range lists {
		for _, p := range list {
			if family(p) {
				all = append(all, p.Masked())
			}
		}
	}
	var words []string
	for i, p := range all {
		covered := false
		for j, other := range all {
			covered = covered || i != j && other.Overlaps(p) && (other.Bits() < p.Bits() || other.Bits() == p.Bits() && j < i)
		}
		if !covered {
			words = append(words, p.String())
		}
	}
	return strings.Join(words, ", ")
}
