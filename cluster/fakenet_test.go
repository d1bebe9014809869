// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"sync"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// fakeNetwork keeps the contract of Network without kernel or host: addresses
// by counting, subnets from the documents, servers as records in the store.
type fakeNetwork struct {
	store store.Store

	mu     sync.Mutex
	public netip.Addr
	next   map[string]netip.Addr // of each subnet
	waits  string                // what Waiting says
	heard  bool                  // that it said so
}

func newFakeNetwork(s store.Store) *fakeNetwork {
	return &fakeNetwork{store: s, public: netip.MustParseAddr("192.88.99.1"), next: map[string]netip.Addr{}}
}

func (f *fakeNetwork) Subnet(ctx context.Context, id resource.ID) (Subnet, error) {
	doc, err := arm.GetDocument(ctx, f.store, id.Parent())
	if err != nil {
		return Subnet{}, err
	}
	var vnet struct {
		Properties struct {
			AddressSpace struct{ AddressPrefixes []netip.Prefix }
			Subnets      []struct {
				Name       string
				Properties struct {
					AddressPrefix          netip.Prefix
					RouteTable, NatGateway *struct{ ID resource.ID }
				}
			}
		}
	}
	if err := json.Unmarshal(doc.Body, &vnet); err != nil {
		return Subnet{}, err
	}
	for _, s := range vnet.Properties.Subnets {
		if !strings.EqualFold(s.Name, id.Name()) {
			continue
		}
		found := Subnet{ID: id, VNet: doc.ID, Prefix: s.Properties.AddressPrefix, Prefixes: vnet.Properties.AddressSpace.AddressPrefixes,
			Location: doc.Location, Free: 1<<(32-s.Properties.AddressPrefix.Bits()) - 5}
		if s.Properties.RouteTable != nil {
			found.RouteTable = s.Properties.RouteTable.ID
		}
		if s.Properties.NatGateway != nil {
			found.NATGateway = s.Properties.NatGateway.ID
		}
		return found, nil
	}
	return Subnet{}, fault.New(fault.NotFound, "", "no subnet %s", id)
}

func (f *fakeNetwork) Allocate(ctx context.Context, subnet resource.ID, wants []Want) ([]Grant, []store.Change, error) {
	s, err := f.Subnet(ctx, subnet)
	if err != nil {
		return nil, nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	next, started := f.next[subnet.Key()]
	if !started {
		next = nth(s.Prefix, reservedInNet)
	}
	take := func() netip.Addr { a := next; next = next.Next(); return a }
	var grants []Grant
	for _, want := range wants {
		g := Grant{Address: take()}
		for range want.Pods {
			a := take()
			g.Pods = append(g.Pods, netip.PrefixFrom(a, a.BitLen()))
		}
		if !s.Prefix.Contains(next) {
			return nil, nil, fault.New(fault.Exhausted, "InsufficientSubnetSize", "No address is left in %s.", s.Prefix)
		}
		grants = append(grants, g)
	}
	f.next[subnet.Key()] = next
	return grants, nil, nil
}

func (f *fakeNetwork) PublicAddress(_ context.Context, _ resource.ID) (netip.Addr, []store.Change, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.public = f.public.Next()
	if !netip.MustParsePrefix("192.88.99.0/24").Contains(f.public) {
		return netip.Addr{}, nil, fault.New(fault.Exhausted, "PublicIPCountLimitReached", "No public address is left.")
	}
	return f.public, nil, nil
}

func serverKey(cluster resource.ID) string { return "test/servers/" + cluster.Key() }

func (f *fakeNetwork) Serve(ctx context.Context, cluster resource.ID, s *Server) ([]store.Change, error) {
	record, err := f.store.Get(ctx, serverKey(cluster))
	if err != nil && !fault.Is(err, fault.NotFound) {
		return nil, err
	}
	var value []byte
	if s != nil {
		value = fmt.Appendf(nil, "%+v", *s)
	}
	if string(value) == string(record.Value) {
		return nil, nil
	}
	return []store.Change{{Key: serverKey(cluster), Value: value, Revision: store.Any}}, nil
}

func (f *fakeNetwork) Waiting(context.Context, resource.ID) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.heard = f.heard || f.waits != ""
	return f.waits, nil
}

func (f *fakeNetwork) say(waits string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waits, f.heard = waits, false
}

func (f *fakeNetwork) asked() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.heard
}
