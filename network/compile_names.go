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
func (v *vnet) name(name string, addresses ...netip.Addr) { v.nameFor(0, name, addresses...) }

// nameFor is name with the seconds that the answer may be kept. An address that
// the name has already keeps its own.
func (v *vnet) nameFor(ttl uint32, name string, addresses ...netip.Addr) {
	name = strings.ToLower(name)
	at := -1
	var known []netip.Addr
	for i, n := range v.out.Names {
		if n.Name == name {
			known = append(known, n.Addresses...)
			if n.TTL == ttl {
				at = i
			}
		}
	}
	for _, a := range addresses {
		if slices.Contains(known, a) {
			continue
		}
		if at < 0 {
			v.out.Names = append(v.out.Names, dataplane.Name{Name: name, TTL: ttl})
			at = len(v.out.Names) - 1
		}
		v.out.Names[at].Addresses = append(v.out.Names[at].Addresses, a)
		known = append(known, a)
	}
}

// zone is what a private DNS zone says: addresses and aliases by full name.
type zone struct {
	names   []string // in order
	records map[string][]dataplane.Name
	aliases map[string]alias
	items   []*item
}

// alias is a CNAME record.
type alias struct {
	target string
	ttl    uint32
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
		slices.SortStableFunc(v.out.Names, func(a, b dataplane.Name) int { return strings.Compare(a.Name, b.Name) })
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
// addresses: aliases are followed here, and the answer is kept no longer than
// any of them may be.
func (v *vnet) resolve(zones []*zone) {
	for _, z := range zones {
		for _, name := range z.names {
			records, next := v.find(zones, name)
			kept := next.ttl
			for i := 0; next.target != "" && i < maxAliases; i++ {
				kept = min(kept, next.ttl)
				records, next = v.find(zones, next.target)
			}
			for _, r := range records {
				if kept > 0 && (r.TTL > kept || r.TTL == 0) {
					r.TTL = kept
				}
				v.nameFor(r.TTL, name, r.Addresses...)
			}
		}
	}
}

// find is what a name stands for in a network: addresses, or another name.
func (v *vnet) find(zones []*zone, name string) ([]dataplane.Name, alias) {
	for _, z := range zones {
		if records := z.records[name]; len(records) > 0 {
			return records, alias{}
		}
		if next, is := z.aliases[name]; is {
			return nil, next
		}
	}
	var known []dataplane.Name
	for _, n := range v.out.Names {
		if n.Name == name {
			known = append(known, n)
		}
	}
	return known, alias{}
}

// zones reads every private zone's records, by the zone's key.
func (c *compiler) zones() map[string]*zone {
	found := map[string]*zone{}
	for i := range all[privatedns.PrivateZone](c.inv, typeZone) {
		found[i.doc.ID.Key()] = &zone{records: map[string][]dataplane.Name{}, aliases: map[string]alias{}, items: []*item{i}}
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
	ttl := uint32(value(set.TTL))
	record := dataplane.Name{TTL: ttl}
	for _, r := range set.ARecords {
		if a, ok := addrOf(value(r.IPv4Address)); ok {
			record.Addresses = append(record.Addresses, a)
		}
	}
	for _, r := range set.AaaaRecords {
		if a, ok := addrOf(value(r.IPv6Address)); ok {
			record.Addresses = append(record.Addresses, a)
		}
	}
	if len(record.Addresses) > 0 {
		z.records[name] = append(z.records[name], record)
	}
	if set.CnameRecord != nil {
		z.aliases[name] = alias{strings.ToLower(strings.TrimSuffix(value(set.CnameRecord.Cname), ".")), ttl}
	}
}
