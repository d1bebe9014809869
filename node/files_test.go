// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func sample() Config {
	return Config{
		Hostname: "aks-nodepool1-12345678-vmss000000", Address: netip.MustParseAddr("10.224.0.5"), KubernetesVersion: "1.36.3",
		Server: "https://10.224.0.4:443", CA: []byte("CA"), BootstrapToken: "abcdef.0123456789abcdef",
		Proxy:         Credential{Certificate: []byte("CERT"), Key: []byte("KEY")},
		ClusterDomain: "cluster.local", ClusterDNS: netip.MustParseAddr("10.0.0.10"), ServiceCIDR: netip.MustParsePrefix("10.0.0.0/16"),
		ClusterCIDR: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")},
		Network: PodNetwork{Plugin: "kubenet", Pods: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")},
			VNet: []netip.Prefix{netip.MustParsePrefix("10.224.0.0/12")}, MTU: 1500},
		MaxPods: 110, Labels: map[string]string{"b": "2", "a": "1"}, Taints: []string{"k=v:NoSchedule"}, ProviderID: "azure:///x",
		CPUs: 2, Memory: 8 << 30, Registry: "registry.bastide.test", InstanceCA: []byte("ICA"), PauseImage: "bastide.local/pause:3.10",
	}
}

func file(t *testing.T, files []File, path string) File {
	t.Helper()
	i := slices.IndexFunc(files, func(f File) bool { return f.Path == path })
	if i < 0 {
		t.Fatalf("no %s", path)
	}
	return files[i]
}

func TestFiles(t *testing.T) {
	files, err := Files(sample())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		secret := bytes.Contains(f.Data, []byte("KEY")) || bytes.Contains(f.Data, []byte("abcdef.0123"))
		if secret && f.Mode != 0o600 {
			t.Errorf("%s holds a secret and has mode %o", f.Path, f.Mode)
		}
		if strings.HasSuffix(f.Path, ".json") && !json.Valid(f.Data) {
			t.Errorf("%s isn't JSON", f.Path)
		}
	}
	var kubelet struct {
		KubeReserved map[string]string
		Taints       []map[string]string `json:"registerWithTaints"`
	}
	if err := json.Unmarshal(file(t, files, KubeletConfigPath).Data, &kubelet); err != nil {
		t.Fatal(err)
	}
	if kubelet.KubeReserved["cpu"] != "100m" || kubelet.KubeReserved["memory"] != "2048Mi" || kubelet.Taints[0]["effect"] != "NoSchedule" {
		t.Errorf("%+v", kubelet)
	}
	if got := string(file(t, files, "/etc/containerd/certs.d/registry.bastide.test/hosts.toml").Data); !strings.Contains(got, `[host."https://registry.bastide.test"]`) {
		t.Error(got)
	}
	if args := KubeletArgs(sample()); !slices.Contains(args, "--node-labels=a=1,b=2") {
		t.Error(args)
	}
}

func TestMasquerade(t *testing.T) {
	got := Masquerade(sample())
	if !strings.Contains(got, "ip saddr { 10.244.1.0/24 } ip daddr != { 10.224.0.0/12, 10.244.0.0/16 } masquerade") || strings.Contains(got, "ip6") {
		t.Error(got)
	}
	azure := sample()
	azure.Network = PodNetwork{Plugin: "azure", Pods: []netip.Prefix{netip.MustParsePrefix("10.224.1.0/27")}, VNet: azure.Network.VNet}
	azure.ClusterCIDR = nil
	if got := Masquerade(azure); !strings.Contains(got, "ip saddr { 10.224.1.0/27 } ip daddr != { 10.224.0.0/12 }") {
		t.Error(got)
	}
}

func TestCheckTellsAllProblems(t *testing.T) {
	err := Config{Network: PodNetwork{Plugin: "magic"}}.Check()
	for _, want := range []string{"hostname", "address", "server", "proxy", "magic"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q isn't in %v", want, err)
		}
	}
	bad := sample()
	bad.CA = nil
	if _, err := Files(bad); err == nil {
		t.Error("rendered without a CA")
	}
}

func TestSSH(t *testing.T) {
	c := sample()
	files, err := Files(c)
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(files, func(f File) bool { return f.Path == SSHConfigPath || f.Path == sudoersPath }) {
		t.Error("a way in without a key")
	}
	c.AuthorizedKeys, c.AdminUser = []string{"ssh-rsa AAAA a", "ssh-ed25519 BBBB b"}, "azureuser"
	if files, err = Files(c); err != nil {
		t.Fatal(err)
	}
	config := string(file(t, files, SSHConfigPath).Data)
	for _, line := range []string{"AllowUsers azureuser", "PermitRootLogin no", "PasswordAuthentication no", "AuthenticationMethods publickey"} {
		if !strings.Contains(config, line+"\n") {
			t.Errorf("no %q in\n%s", line, config)
		}
	}
	if got := string(c.AuthorizedKeysFile()); got != "ssh-rsa AAAA a\nssh-ed25519 BBBB b\n" {
		t.Error(got)
	}
	for _, name := range []string{"", "root\nPermitRootLogin yes", "a b", "*"} {
		c.AdminUser = name
		if _, err := Files(c); err == nil {
			t.Errorf("%q passed for a name", name)
		}
	}
}

func TestPodRanges(t *testing.T) {
	c := sample()
	if ranges, _ := podRanges(c); len(ranges) != 1 || len(ranges[0].([]any)) != 1 || ranges[0].([]any)[0].(map[string]any)["subnet"] != "10.244.1.0/24" {
		t.Errorf("kubenet: %v", ranges)
	}
	c.Network.Plugin, c.ClusterCIDR = "azure", []netip.Prefix{netip.MustParsePrefix("10.224.0.0/16")}
	c.Network.Pods = []netip.Prefix{netip.MustParsePrefix("10.224.0.6/31"), netip.MustParsePrefix("10.224.0.8/32")}
	ranges, routes := podRanges(c)
	if len(ranges) != 1 || len(routes) != 1 || len(ranges[0].([]any)) != 2 {
		t.Fatalf("azure: %v, %v", ranges, routes)
	}
	for i, want := range [][2]string{{"10.224.0.6", "10.224.0.7"}, {"10.224.0.8", "10.224.0.8"}} {
		got := ranges[0].([]any)[i].(map[string]any)
		if got["rangeStart"] != want[0] || got["rangeEnd"] != want[1] || got["subnet"] != "10.224.0.0/16" || got["gateway"] != "10.224.0.5" {
			t.Errorf("range %d is %v, want %v", i, got, want)
		}
	}
}
