// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"bastide.dev/arm"
	"bastide.dev/controlplane"
	"bastide.dev/machine"
	"bastide.dev/node"
	"bastide.dev/resource"
	"bastide.dev/store/memory"
)

var update = flag.Bool("update", false, "write the golden files anew")

// fixed is a cluster with every name and key known.
func fixed(plugin string, stopped bool) *whole {
	w := &whole{doc: &arm.Document{Envelope: resource.Envelope{ID: resource.MustParseID(testCluster), Name: "c1"}}}
	d := Desired{Location: "eastus", Version: Version{1, 36, 3}, DNSPrefix: "c1", NodeGroup: "MC_rg1_c1_eastus", Identity: systemAssigned,
		Admin: "azureuser", Keys: []string{"ssh-ed25519 AAAA"}, Plugin: plugin, ServiceCIDR: defaultServiceCIDR(), DNS: netip.MustParseAddr("10.0.0.10")}
	d.Outbound = Outbound{Type: byLoadBalancer, Managed: 1, Idle: balancerIdle, PoolType: poolOfInterfaces}
	if plugin == kubenet {
		d.PodCIDR = defaultPodCIDR()
	}
	const uid = "11111111-2222-3333-4444-555555555555"
	w.state = clusterState{UID: uid, ID: shortID(uid), Host: "h1", Desired: d, Stopped: stopped, Etcd: "3.6.16",
		FQDN: fqdn("c1", uid, "eastus", "bastide.internal"), Domain: "bastide.internal", Public: netip.MustParseAddr("192.88.99.2")}
	system := Pool{Name: "nodepool1", Mode: systemMode, Version: d.Version, Size: "Standard_D2s_v5", Count: 2, MaxPods: defaultPods(0, &d)}
	other := Pool{Name: "np2", Mode: userMode, Version: Version{1, 35, 4}, Size: "Standard_D4s_v5", Count: 1, MaxPods: 60,
		Labels: map[string]string{"team": "a"}, Taints: []string{"gpu=no:NoSchedule"}}
	for _, pool := range []Pool{system, other} {
		w.pools = append(w.pools, &poolDoc{Document: &arm.Document{Envelope: resource.Envelope{Name: pool.Name}}, poolState: poolState{Pool: pool}})
	}
	return w
}

func TestCompile(t *testing.T) {
	p, _ := testProvider(t, memory.New(0))
	keys := secrets{Keys: controlplane.Keys{CA: controlplane.KeyPair{Certificate: []byte("ca")}, BootstrapTokenID: "abcdef", BootstrapTokenCode: "0123456789abcdef"}}
	for _, c := range []struct {
		name, plugin string
		stopped      bool
	}{{"kubenet", kubenet, false}, {"azure", azureCNI, false}, {"stopped", kubenet, true}} {
		t.Run(c.name, func(t *testing.T) {
			w := fixed(c.plugin, c.stopped)
			allotAll(t, p, w)
			w.pools[0].Nodes[1].Removed = c.name == "azure"
			units, err := p.compile(w, keys)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, filepath.Join("testdata", c.name+".json"), readable(t, units))
			golden(t, filepath.Join("testdata", c.name+"-documents.json"), readableDocuments(t, w))
		})
	}
}

// allotAll gives a cluster all that it lacks, as the reconciler's steps do.
func allotAll(t *testing.T, p *Provider, w *whole) {
	t.Helper()
	if w.state.ServerSubnet.IsRoot() {
		w.state.ServerSubnet = w.subnet(&w.pools[0].Pool)
	}
	for range 3 {
		changes, err := p.ensure(t.Context(), w)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Store.Txn(t.Context(), changes...); err != nil {
			t.Fatal(err)
		}
		if w.subnets, err = p.subnets(t.Context(), w.places()); err != nil {
			t.Fatal(err)
		}
		if _, err := p.allot(t.Context(), w); err != nil {
			t.Fatal(err)
		}
	}
}

// readableDocuments writes the documents of a cluster's node resource group.
func readableDocuments(t *testing.T, w *whole) []byte {
	t.Helper()
	var out []any
	for _, d := range w.documents() {
		out = append(out, object{"id": d.id.String(), "location": d.location, "tags": d.tags, "body": d.body, "state": d.state})
	}
	raw, err := json.MarshalIndent(out, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return append(raw, '\n')
}

// readable writes units with a node's config spelt out.
func readable(t *testing.T, units []unit) []byte {
	t.Helper()
	var out []any
	for _, u := range units {
		entry := object{"unit": string(u.kind) + "/" + u.name, "spec": u.spec}
		if m, ok := u.spec.(machine.Spec); ok {
			var config node.Config
			if err := json.Unmarshal(m.Files[0].Data, &config); err != nil {
				t.Fatal(err)
			}
			entry["node"], m.Files[0].Data = config, nil
		}
		out = append(out, entry)
	}
	raw, err := json.MarshalIndent(out, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return append(raw, '\n')
}

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (go test -update writes it anew); got:\n%s", path, got)
	}
}

func TestAddresses(t *testing.T) {
	p := func(s string) netip.Prefix { return netip.MustParsePrefix(s) }
	for _, c := range []struct {
		from   string
		length int
		taken  []netip.Prefix
		want   string
	}{
		{"10.244.0.0/16", 24, nil, "10.244.0.0/24"},
		{"10.244.0.0/16", 24, []netip.Prefix{p("10.244.0.0/24"), p("10.244.2.0/24")}, "10.244.1.0/24"},
		{"10.224.0.0/16", 27, []netip.Prefix{p("10.224.0.0/19")}, "10.224.32.0/27"},
		{"10.224.0.0/16", 26, []netip.Prefix{p("10.224.0.0/19"), p("10.224.32.0/27")}, "10.224.32.64/26"},
		{"10.224.0.0/30", 30, []netip.Prefix{p("10.224.0.0/30")}, ""},
		{"10.224.0.0/24", 16, nil, ""},
	} {
		got, ok := freeBlock(p(c.from), c.length, c.taken)
		if ok != (c.want != "") || ok && got.String() != c.want {
			t.Errorf("freeBlock(%s, %d, %v) = %v %v, want %q", c.from, c.length, c.taken, got, ok, c.want)
		}
	}
}

func TestVersions(t *testing.T) {
	versions, err := NewVersions([]string{"1.36.3", "1.34.4", "1.35.4", "1.36.1"})
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{"": "1.35.4", "1.36": "1.36.3", "1.36.1": "1.36.1", "1.34": "1.34.4", "1.33": "", "1": "", "v1.36.3": "", "1.36.03": ""} {
		v, ok := versions.Find(text)
		if ok != (want != "") || ok && v.String() != want {
			t.Errorf("Find(%q) = %s, %v, want %q", text, v, ok, want)
		}
	}
	if got := Versions(versions.upgrades(Version{1, 35, 4})).list(); got != "1.36.1, 1.36.3" {
		t.Errorf("upgrades of 1.35.4: %s", got)
	}
	if got := Versions(versions.forPool(Version{1, 36, 1})).list(); got != "1.34.4, 1.35.4, 1.36.1" {
		t.Errorf("pool versions under 1.36.1: %s", got)
	}
	if def, _ := versions[:1].Default(); def.String() != "1.34.4" {
		t.Errorf("the default of one version is %s", def)
	}
	if _, ok := Versions(nil).Default(); ok {
		t.Error("no version has a default")
	}
}

func TestNames(t *testing.T) {
	const uid = "11111111-2222-3333-4444-555555555555"
	id := shortID(uid)
	if m := machineID(id, "nodepool1", 37); unitOwner(m) != id || unitOwner(id) != id || len(m) > 63 {
		t.Errorf("machine %s doesn't lead back to %s", m, id)
	}
	if got := nodeName("nodepool1", nodeDigits(uid), 36); len(nodeDigits(uid)) != 8 || got != "aks-nodepool1-"+nodeDigits(uid)+"-vmss000010" {
		t.Errorf("node name %s", got)
	}
}
