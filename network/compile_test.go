// SPDX-License-Identifier: Apache-2.0

package network

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bastide.dev/arm"
	"bastide.dev/dataplane"
	"bastide.dev/resource"
	"bastide.dev/store"
)

var update = flag.Bool("update", false, "write the golden files anew")

// scene is a compiler test's input: documents as the store has them.
type scene struct {
	Servers   []Server            `json:"servers"`
	Documents []resource.Envelope `json:"documents"`
}

// placeholders make inputs readable: a resource group's path each.
func placeholders(text []byte) []byte {
	return []byte(strings.NewReplacer(
		"${rg}", "/subscriptions/s/resourceGroups/rg/providers",
		"${mc}", "/subscriptions/s/resourceGroups/mc_rg/providers",
		"${MC}", "/subscriptions/S/resourcegroups/MC_RG/providers").Replace(string(text)))
}

func readScene(t testing.TB, path string) scene {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var s scene
	decoder := json.NewDecoder(bytes.NewReader(placeholders(text)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&s); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s scene) inventory(t testing.TB) *inventory {
	t.Helper()
	inv := newInventory(s.Servers)
	for _, envelope := range s.Documents {
		change, err := arm.PutDocument(&arm.Document{Envelope: envelope})
		if err != nil {
			t.Fatal(err)
		}
		typ := typeOfKey(change.Key)
		if !wanted(typ) {
			t.Fatalf("%s is of no known type", envelope.ID)
		}
		i := decodeItem(typ, store.Record{Key: change.Key, Value: change.Value, Revision: 1})
		if i.err != nil {
			t.Fatalf("%s: %v", envelope.ID, i.err)
		}
		inv.add(typ, envelope.ID.Key(), i)
	}
	return inv
}

func testSettings() settings {
	return settings{Pool: cidr("192.88.99.0/24"), FrontDoor: ip("192.88.99.1"), Location: "eastus", Domain: "bastide.test",
		Names: []dataplane.Name{{Name: "management.bastide.test", Addresses: []netip.Addr{ip("192.88.99.1")}}}}
}

func TestCompileGolden(t *testing.T) {
	inputs, err := filepath.Glob("testdata/compile-*.json")
	if err != nil || len(inputs) < 3 {
		t.Fatalf("inputs %v, %v", inputs, err)
	}
	for _, input := range inputs {
		if strings.HasSuffix(input, ".golden.json") {
			continue
		}
		t.Run(filepath.Base(input), func(t *testing.T) {
			s := readScene(t, input)
			vnets, edge, ties := compile(s.inventory(t), testSettings())
			config := dataplane.Config{Edge: edge, VNets: vnets}
			if err := config.Validate(); err != nil {
				t.Error(err)
			}
			for i := range config.VNets {
				router := dataplane.Compile("test", &config, &config.VNets[i], nil)
				if err := router.Table.Validate(); err != nil {
					t.Errorf("%s: %v", config.VNets[i].ID, err)
				}
			}
			got, err := json.MarshalIndent(map[string]any{"config": config, "ties": ties}, "", " ")
			if err != nil {
				t.Fatal(err)
			}
			golden := strings.TrimSuffix(input, ".json") + ".golden.json"
			if *update {
				if err := os.WriteFile(golden, append(got, '\n'), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if string(want) != string(got)+"\n" {
				t.Errorf("the configuration differs from %s; -update writes it anew:\n%s", golden, got)
			}
		})
	}
}

// The order that documents are listed in, and repetition, change nothing.
func TestCompileIsPure(t *testing.T) {
	s := readScene(t, "testdata/compile-machines.json")
	inv := s.inventory(t)
	first := fmt.Sprint(compile(inv, testSettings()))
	for range 20 {
		if again := fmt.Sprint(compile(inv, testSettings())); again != first {
			t.Fatal("the same documents gave another configuration")
		}
	}
}

// largeScene is a network of 100 nodes and a security group of 1,000 rules.
func largeScene(t testing.TB) scene {
	s := readScene(t, "testdata/compile-cluster.json")
	node, group := -1, -1
	for i, d := range s.Documents {
		switch {
		case strings.HasSuffix(d.ID.Key(), "/virtualmachines/0"):
			node = i
		case d.ID.Name() == "aks-nsg":
			group = i
		}
	}
	for n := range 97 {
		d := s.Documents[node]
		d.ID = d.ID.Parent().Child("virtualMachines", fmt.Sprint(100+n))
		d.State = json.RawMessage(fmt.Sprintf(`{"machine":"m%d","address":"10.224.1.%d","pods":["10.224.%d.0/27"]}`, n, n+1, n+2))
		s.Documents = append(s.Documents, d)
	}
	var rules []string
	for n := range 1000 {
		rules = append(rules, fmt.Sprintf(`{"name":"r%d","properties":{"priority":%d,"direction":"Inbound","access":"Allow","protocol":"Tcp","sourceAddressPrefixes":["198.51.%d.0/24","203.0.113.%d"],"sourcePortRange":"*","destinationAddressPrefix":"VirtualNetwork","destinationPortRange":"%d"}}`,
			n, 100+n, n%200, n%250, 1000+n))
	}
	s.Documents[group].Body = json.RawMessage(`{"properties":{"securityRules":[` + strings.Join(rules, ",") + `]}}`)
	return s
}

func BenchmarkCompile(b *testing.B) {
	inv := largeScene(b).inventory(b)
	b.ReportAllocs()
	for b.Loop() {
		compile(inv, testSettings())
	}
}

func TestPortsEach(t *testing.T) {
	for _, c := range []struct {
		allocated              int32
		members, at, addresses int
		want                   uint32
	}{{0, 50, 0, 1, 1024}, {0, 51, 1, 2, 512}, {0, 200, 0, 1, 256}, {0, 400, 0, 1, 128}, {0, 800, 0, 1, 64}, {0, 801, 0, 1, 32},
		{8000, 3, 0, 1, 8000}, {1000, 3, 0, 3, 334}, {1000, 3, 2, 3, 333}} {
		if got := portsEach(c.allocated, c.members, c.at, c.addresses); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

// Members beyond what an address has ports for get none of it, and no port is two members'.
func TestDealtPortsEnd(t *testing.T) {
	c := &compiler{blocks: map[netip.Addr]uint32{}}
	members := make([]*nic, 9)
	for i := range members {
		members[i] = &nic{}
	}
	dealt := map[*nic][]dataplane.Egress{}
	c.deal(dealt, members, dataplane.Egress{Address: ip("192.88.99.9")}, 8000)
	if last := dealt[members[7]]; len(last) != 1 || last[0].First != 57024 || last[0].Last != 65023 || len(dealt[members[8]]) != 0 {
		t.Errorf("the last two have %v, %v", last, dealt[members[8]])
	}
}

func TestKnownTags(t *testing.T) {
	c := &ruleCheck{tags: instanceTags(testSettings(), newInventory(nil))}
	c.tags.own["office.berlin"] = &item{model: &ServiceTag{}}
	for name, want := range map[string]bool{"VirtualNetwork": true, "internet": true, "AzureLoadBalancer": true, "AzureCloud.westeurope": true,
		"AzureCloud.EastUS": true, "AzureCloud.atlantis": false, "Office.Berlin": true, "Office": false, "Office.Berlin.eastus": false, "Nonsense": false, "10.0.0.0/8": false} {
		if c.knownTag(name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
}
