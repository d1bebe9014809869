// SPDX-License-Identifier: Apache-2.0

package network

import (
	"net/netip"
	"slices"
	"strings"

	sdk "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"
	privatedns "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/privatedns/armprivatedns"

	"bastide.dev/dataplane"
)

// maxAliases bounds how long a chain of CNAME records is followed.
const maxAliases = 8

// name answers a name in a network, with one more address.
func (v *vnet) name(name string, addresses ...netip.Addr) {
	name = strings.ToLower(name)
	at := slices.IndexFunc(v.out.Names, func(n dataplane.Name) bool { return n.Name == name })
	if at < 0 {
		v.out.Names = append(v.out.Names, dataplane.Name{Name: name})
		at = len(v.out.Names) - 1
	}
	for _, a := range addresses {
		if !slices.Contains(v.out.Names[at].Addresses, a) {
			v.out.Names[at].Addresses = append(v.out.Names[at].Addresses, a)
		}
	}
}

// zone is what a private DNS zone says: addresses and aliases by full name.
type zone struct {
	names   []string // in order
	records map[string][]netip.Addr
	aliases map[string]string
	items   []*item
}

// names gives each network its machines' names and the private zones linked to it.
func (c *compiler) names() {
	zones := c.zones()
	for _, v := range c.vnets {
		for _, n := range v.nics {
			if n.host != "" {
				v.name(n.host, n.out.Address)
			}
		}
	}
	linked := map[*vnet][]*zone{}
	for i, link := range all[privatedns.VirtualNetworkLink](c.inv, typeZoneLink) {
		if link.Properties == nil || link.Properties.VirtualNetwork == nil {
			continue
		}
		v, z := c.byKey[keyOf(value(link.Properties.VirtualNetwork.ID))], zones[i.doc.ID.Parent().Key()]
		if v == nil || z == nil {
			continue
		}
		c.use(v, i)
		for _, of := range z.items {
			c.use(v, of)
		}
		linked[v] = append(linked[v], z)
		if value(link.Properties.RegistrationEnabled) {
			v.register(i.doc.ID.Parent().Name())
		}
	}
	for v, all := range linked {
		v.resolve(all)
	}
	for _, v := range c.vnets {
		slices.SortFunc(v.out.Names, func(a, b dataplane.Name) int { return strings.Compare(a.Name, b.Name) })
	}
}

// register names a network's machines in a zone.
func (v *vnet) register(zone string) {
	for _, n := range v.nics {
		if n.host != "" {
			v.name(n.host+"."+zone, n.out.Address)
		}
	}
}

// resolve answers what the zones linked to a network say. Who asks gets
// addresses: aliases are followed here.
func (v *vnet) resolve(zones []*zone) {
	find := func(name string) ([]netip.Addr, string) {
		for _, z := range zones {
			if addresses := z.records[name]; len(addresses) > 0 {
				return addresses, ""
			}
			if alias := z.aliases[name]; alias != "" {
				return nil, alias
			}
		}
		for _, n := range v.out.Names {
			if n.Name == name {
				return n.Addresses, ""
			}
		}
		return nil, ""
	}
	for _, z := range zones {
		for _, name := range z.names {
			addresses, alias := find(name)
			for i := 0; alias != "" && i < maxAliases; i++ {
				addresses, alias = find(alias)
			}
			if len(addresses) > 0 {
				v.name(name, addresses...)
			}
		}
	}
}

// zones reads every private zone's records, by the zone's key.
func (c *compiler) zones() map[string]*zone {
	found := map[string]*zone{}
	for i := range all[privatedns.PrivateZone](c.inv, typeZone) {
		found[i.doc.ID.Key()] = &zone{records: map[string][]netip.Addr{}, aliases: map[string]string{}, items: []*item{i}}
	}
	for _, typ := range []string{typeZoneA, typeZoneAAAA, typeZoneCNAME} {
		for i, set := range all[privatedns.RecordSet](c.inv, typ) {
			if z := found[i.doc.ID.Parent().Key()]; z != nil && set.Properties != nil {
				z.add(i, set.Properties)
			}
		}
	}
	for i, group := range all[sdk.PrivateDNSZoneGroup](c.inv, typeZoneGroup) {
		if group.Properties == nil {
			continue
		}
		for _, config := range group.Properties.PrivateDNSZoneConfigs {
			if config == nil || config.Properties == nil {
				continue
			}
			if z := found[keyOf(value(config.Properties.PrivateDNSZoneID))]; z != nil {
				z.items = append(z.items, i)
			}
		}
	}
	return found
}

// add takes a record set over. "@" is the zone itself.
func (z *zone) add(i *item, set *privatedns.RecordSetProperties) {
	name := strings.ToLower(i.doc.ID.Parent().Name())
	if own := strings.ToLower(i.doc.ID.Name()); own != "@" {
		name = own + "." + name
	}
	z.items = append(z.items, i)
	z.names = append(z.names, name)
	for _, r := range set.ARecords {
		if a, ok := addrOf(value(r.IPv4Address)); ok {
			z.records[name] = append(z.records[name], a)
		}
	}
	for _, r := range set.AaaaRecords {
		if a, ok := addrOf(value(r.IPv6Address)); ok {
			z.records[name] = append(z.records[name], a)
		}
	}
	if set.CnameRecord != nil {
		z.aliases[name] = strings.ToLower(strings.TrimSuffix(value(set.CnameRecord.Cname), "."))
	}
}
