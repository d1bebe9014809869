// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// Network is what clusters need of Microsoft.Network. Changes that it returns
// are to be written in the caller's own transaction; a lost race is the
// transaction's fault.Precondition, and the caller tries again.
type Network interface {
	// Subnet reads a subnet; fault.NotFound when there is none.
	Subnet(ctx context.Context, id resource.ID) (Subnet, error)
	// Allocate takes addresses of a subnet; of one virtual network only once in a transaction.
	Allocate(ctx context.Context, subnet resource.ID, wants []Want) ([]Grant, []store.Change, error)
	// PublicAddress takes one public address for a resource.
	PublicAddress(ctx context.Context, owner resource.ID) (netip.Addr, []store.Change, error)
	// Serve records where a cluster's API server is; nil forgets it. No change
	// when that is so already.
	Serve(ctx context.Context, cluster resource.ID, s *Server) ([]store.Change, error)
	// Waiting says what of a virtual network, and of the names outside, the
	// host hasn't made yet; "" when it is all there, or gone when that is wanted.
	Waiting(ctx context.Context, vnet resource.ID) (string, error)
}

// Subnet is a subnet as a cluster sees it.
type Subnet struct {
	ID         resource.ID
	VNet       resource.ID
	Prefix     netip.Prefix
	Prefixes   []netip.Prefix // the virtual network's
	Location   string
	NSG        resource.ID // the root: none
	RouteTable resource.ID
	NATGateway resource.ID
	Free       int // addresses that are left
}

// Want is an address, and further ones for pods.
type Want struct {
	Address netip.Addr // zero: any
	Pods    int
}

// Grant is what a Want got.
type Grant struct {
	Address netip.Addr
	Pods    []netip.Prefix
}

// Server is where an API server is.
type Server struct {
	Namespace  string      // its control plane's
	Subnet     resource.ID // where Address is
	Address    netip.Addr
	Public     netip.Addr // its source outside, and unless Private its listener
	Port       uint16
	Private    bool
	Restricted bool // to Allowed, and what the cluster itself comes from
	Allowed    []netip.Prefix
	FQDN       string // "": no public name
	// PrivateFQDN is a private cluster's name in its private zone; "" without one.
	PrivateFQDN string
}

// subnets reads the subnets that there are of ids, by key.
func (p *Provider) subnets(ctx context.Context, ids []resource.ID) (map[string]Subnet, error) {
	found := make(map[string]Subnet, len(ids))
	for _, id := range ids {
		if id.IsRoot() {
			continue
		}
		s, err := p.Network.Subnet(ctx, id)
		if fault.Is(err, fault.NotFound) {
			continue // the validation says so
		}
		if err != nil {
			return nil, fmt.Errorf("subnet %s: %w", id, err)
		}
		found[id.Key()] = s
	}
	return found, nil
}

// overlay is another cluster's pod range in the same virtual network.
type overlay struct {
	cluster string
	pods    netip.Prefix
}

// overlays are those of the other clusters in the networks of a cluster's subnets.
func (p *Provider) overlays(ctx context.Context, id resource.ID, d *Desired) ([]overlay, error) {
	if !d.Overlay || len(d.subnets()) == 0 {
		return nil, nil
	}
	documents, _, err := arm.ListDocuments(ctx, p.Store, resource.ID{}, clusterType)
	if err != nil {
		return nil, fmt.Errorf("other clusters: %w", err)
	}
	var found []overlay
	for _, doc := range documents {
		var s clusterState
		if err := json.Unmarshal(doc.State, &s); err != nil {
			return nil, fmt.Errorf("cluster %s: state: %w", doc.ID, err)
		}
		if s.Desired.Overlay && !doc.ID.Equal(id) && s.ServerSubnet.Parent().Equal(d.subnets()[0].Parent()) {
			found = append(found, overlay{doc.Name, s.Desired.PodCIDR})
		}
	}
	return found, nil
}
