// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"iter"
	"net/netip"
	"strings"
	"sync"

	compute "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v7"
	sdk "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"
	privatedns "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/privatedns/armprivatedns"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// Types that the inventory reads, as keys have them.
const (
	typeVNet       = "microsoft.network/virtualnetworks"
	typeSubnet     = typeVNet + "/subnets"
	typePeering    = typeVNet + "/virtualnetworkpeerings"
	typeNSG        = "microsoft.network/networksecuritygroups"
	typeNSGRule    = typeNSG + "/securityrules"
	typeFlowLog    = "microsoft.network/networkwatchers/flowlogs"
	typeRouteTable = "microsoft.network/routetables"
	typeRoute      = typeRouteTable + "/routes"
	typeNIC        = "microsoft.network/networkinterfaces"
	typePublicIP   = "microsoft.network/publicipaddresses"
	typePrefix     = "microsoft.network/publicipprefixes"
	typeLB         = "microsoft.network/loadbalancers"
	typeLBPool     = typeLB + "/backendaddresspools"
	typeLBNatRule  = typeLB + "/inboundnatrules"
	typeNATGateway = "microsoft.network/natgateways"
	typeEndpoint   = "microsoft.network/privateendpoints"
	typeZoneGroup  = typeEndpoint + "/privatednszonegroups"
	typeZone       = "microsoft.network/privatednszones"
	typeZoneA      = typeZone + "/a"
	typeZoneAAAA   = typeZone + "/aaaa"
	typeZoneCNAME  = typeZone + "/cname"
	typeZoneLink   = typeZone + "/virtualnetworklinks"
	typeVM         = "microsoft.compute/virtualmachines"
	typeInstance   = "microsoft.compute/virtualmachinescalesets/virtualmachines"
	typeTerminal   = "bastide.network/terminals"
	typeServiceTag = "bastide.network/servicetags"
)

// modelOf makes an empty wire model for documents of a type; nil: not one of
// those that networks are made of.
func modelOf(typ string) any {
	switch typ {
	case typeVNet:
		return &sdk.VirtualNetwork{}
	case typeNSG:
		return &sdk.SecurityGroup{}
	case typeFlowLog:
		return &sdk.FlowLog{}
	case typeASG:
		return &sdk.ApplicationSecurityGroup{}
	case typeRouteTable:
		return &sdk.RouteTable{}
	case typeNIC:
		return &sdk.Interface{}
	case typePublicIP:
		return &sdk.PublicIPAddress{}
	case typePrefix:
		return &sdk.PublicIPPrefix{}
	case typeLB:
		return &sdk.LoadBalancer{}
	case typeNATGateway:
		return &sdk.NatGateway{}
	case typeEndpoint:
		return &sdk.PrivateEndpoint{}
	case typeZoneGroup:
		return &sdk.PrivateDNSZoneGroup{}
	case typeZone:
		return &privatedns.PrivateZone{}
	case typeZoneA, typeZoneAAAA, typeZoneCNAME:
		return &privatedns.RecordSet{}
	case typeZoneLink:
		return &privatedns.VirtualNetworkLink{}
	case typeVM:
		return &compute.VirtualMachine{}
	case typeInstance:
		return &compute.VirtualMachineScaleSetVM{}
	case typeTerminal:
		return &Terminal{}
	case typeServiceTag:
		return &ServiceTag{}
	}
	if ownType(typ) {
		return &struct{}{}
	}
	return nil
}

// wanted tells whether the inventory has documents of a type.
func wanted(typ string) bool { return ownType(typ) || typ == typeVM || typ == typeInstance }

// ownType tells whether documents of a type are this provider's.
func ownType(typ string) bool {
	return strings.HasPrefix(typ, "microsoft.network/") || strings.HasPrefix(typ, "bastide.network/")
}

// inventory is all documents that networks are made of, decoded, as they were
// at one moment. A document is what the body says: what was allocated (a NIC's
// address, a public address) stands in the body, where Azure shows it; what has
// an interface says the rest in InterfaceState.
type inventory struct {
	revision int64
	print    [sha256.Size]byte      // of all that is in it
	whole    bool                   // what is being deleted counts, too
	items    map[string]*item       // by id.Key()
	types    map[string][]*item     // by type, in the order of keys
	subnets  map[string]*sdk.Subnet // they stand in their networks' bodies
	servers  []Server
}

// item is one document, decoded.
type item struct {
	doc   *arm.Document
	model any // a pointer to the type's wire model
	state InterfaceState
	err   error // why it couldn't be decoded; such an item isn't in types
}

// gone tells whether a document is being deleted: it still has its addresses,
// but nothing is compiled from it.
func (i *item) gone() bool { return i.doc.ProvisioningState == resource.Deleting }

// reader decodes documents and keeps what it decoded: models are large, and of
// all documents few change.
type reader struct {
	mu       sync.Mutex // guards what follows
	kept     map[string]keptItem
	compiled *compiled // the last one
}

type keptItem struct {
	revision int64
	item     *item
}

// inventory reads everything.
func (p *Provider) inventory(ctx context.Context) (*inventory, error) {
	records, revision, err := p.Store.List(ctx, arm.DocumentPrefix)
	if err != nil {
		return nil, fmt.Errorf("inventory: %w", err)
	}
	servers, err := p.servers(ctx)
	if err != nil {
		return nil, err
	}
	inv := newInventory(servers)
	inv.revision = revision
	print := sha256.New()
	if err := json.NewEncoder(print).Encode(servers); err != nil {
		return nil, fmt.Errorf("inventory: %w", err)
	}
	fresh := make(map[string]keptItem, len(records))
	p.read.mu.Lock()
	defer p.read.mu.Unlock()
	for _, record := range records {
		typ := typeOfKey(record.Key)
		if !wanted(typ) {
			continue
		}
		fmt.Fprintln(print, record.Key, record.Revision)
		kept := p.read.kept[record.Key]
		if kept.item == nil || kept.revision != record.Revision {
			kept = keptItem{record.Revision, decodeItem(typ, record)}
			if kept.item.err != nil {
				p.Log.ErrorContext(ctx, "a document can't be read", "key", record.Key, "error", kept.item.err)
			}
		}
		fresh[record.Key] = kept
		inv.add(typ, strings.TrimPrefix(record.Key, arm.DocumentPrefix), kept.item)
	}
	p.read.kept = fresh
	print.Sum(inv.print[:0])
	return inv, nil
}

func newInventory(servers []Server) *inventory {
	return &inventory{items: map[string]*item{}, types: map[string][]*item{}, subnets: map[string]*sdk.Subnet{}, servers: servers}
}

func (inv *inventory) add(typ, key string, i *item) {
	if i.err != nil {
		return
	}
	inv.items[key] = i
	inv.types[typ] = append(inv.types[typ], i)
	if vnet, ok := i.model.(*sdk.VirtualNetwork); ok && vnet.Properties != nil {
		for _, s := range vnet.Properties.Subnets {
			if s != nil && s.Properties != nil {
				inv.subnets[key+"/subnets/"+strings.ToLower(value(s.Name))] = s
			}
		}
	}
}

func decodeItem(typ string, record store.Record) *item {
	doc, err := arm.DecodeDocument(record)
	if err != nil {
		return &item{err: err}
	}
	i := &item{doc: doc, model: modelOf(typ)}
	if len(doc.Body) > 0 {
		i.err = decodeModel(doc.Body, i.model)
	}
	if i.err == nil && len(doc.State) > 0 && (typ == typeVM || typ == typeInstance) {
		i.err = json.Unmarshal(doc.State, &i.state)
	}
	return i
}

// typeOfKey is the type of the resource that a document's key names, in lower case.
func typeOfKey(key string) string {
	at := strings.LastIndex(key, "/providers/")
	if at < 0 {
		return ""
	}
	parts := strings.Split(key[at+len("/providers/"):], "/")
	typ := parts[0]
	for i := 1; i < len(parts); i += 2 {
		typ += "/" + parts[i]
	}
	return typ
}

// all are the documents of a type with their models, but for those being deleted.
func all[T any](inv *inventory, typ string) iter.Seq2[*item, *T] {
	return func(yield func(*item, *T) bool) {
		for _, i := range inv.types[typ] {
			if model, ok := i.model.(*T); ok && (inv.whole || !i.gone()) && !yield(i, model) {
				return
			}
		}
	}
}

// lookup finds a document that isn't being deleted, by its id in any case.
func lookup[T any](inv *inventory, id string) (*item, *T) {
	i := inv.items[keyOf(id)]
	if i == nil || (i.gone() && !inv.whole) {
		return nil, nil
	}
	model, _ := i.model.(*T)
	return i, model
}

// keyOf is the key of an id as it stands in a body.
func keyOf(id string) string { return strings.ToLower(strings.Trim(id, "/")) }

// value is what p points to, or nothing.
func value[T any](p *T) T {
	if p == nil {
		return *new(T)
	}
	return *p
}

// subnet is what a subnet's documents say of it.
func (inv *inventory) subnet(id resource.ID) (SubnetInfo, *fault.Error) {
	info := SubnetInfo{ID: id, VNet: id.Parent()}
	doc, vnet := lookup[sdk.VirtualNetwork](inv, id.Parent().String())
	subnet := inv.subnets[id.Key()]
	if vnet == nil || subnet == nil {
		return info, fault.New(fault.NotFound, "NotFound", "The subnet %s was not found.", id)
	}
	info.Location = doc.doc.Location
	info.Prefixes = addressSpace(vnet)
	info.Prefix = subnetPrefix(subnet)
	if !info.Prefix.IsValid() {
		return info, fault.New(fault.NotFound, "NotFound", "The subnet %s has no address prefix.", id)
	}
	if group := subnet.Properties.NetworkSecurityGroup; group != nil {
		info.NSG = parsedID(value(group.ID))
	}
	if table := subnet.Properties.RouteTable; table != nil {
		info.RouteTable = parsedID(value(table.ID))
	}
	if gateway := subnet.Properties.NatGateway; gateway != nil {
		info.NATGateway = parsedID(value(gateway.ID))
	}
	return info, nil
}

// parsedID is an id of a body; root when it isn't one.
func parsedID(text string) resource.ID {
	id, err := resource.ParseID(text)
	if text == "" || err != nil {
		return resource.ID{}
	}
	return id
}

func addressSpace(vnet *sdk.VirtualNetwork) []netip.Prefix {
	if vnet.Properties == nil || vnet.Properties.AddressSpace == nil {
		return nil
	}
	return prefixesOf(vnet.Properties.AddressSpace.AddressPrefixes)
}

// subnetPrefix is a subnet's range; of several, the first.
func subnetPrefix(subnet *sdk.Subnet) netip.Prefix {
	if subnet.Properties == nil {
		return netip.Prefix{}
	}
	texts := append([]*string{subnet.Properties.AddressPrefix}, subnet.Properties.AddressPrefixes...)
	if found := prefixesOf(texts); len(found) > 0 {
		return found[0]
	}
	return netip.Prefix{}
}

// prefixesOf are the texts that are prefixes; a single address is one too.
func prefixesOf(texts []*string) []netip.Prefix {
	var found []netip.Prefix
	for _, text := range texts {
		if p, ok := prefixOf(value(text)); ok {
			found = append(found, p)
		}
	}
	return found
}

func prefixOf(text string) (netip.Prefix, bool) {
	if p, err := netip.ParsePrefix(text); err == nil {
		return p.Masked(), true
	}
	if a, ok := addrOf(text); ok {
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	return netip.Prefix{}, false
}

func addrOf(text string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(text)
	return a.Unmap(), err == nil && a.Zone() == ""
}
