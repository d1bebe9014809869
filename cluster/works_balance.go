// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"bastide.dev/arm"
	"bastide.dev/resource"
)

// balancing is which load balancers of a cluster lead to which of its nodes, by
// their documents: the cloud-controller-manager takes nodes out of them.
type balancing struct {
	// used are the back-end pools that load-balancing rules lead to; those of
	// outbound rules alone aren't.
	used map[string]bool
	// members are the pools that an instance's interface is in; addresses those
	// that an address is in.
	members   map[string][]string
	addresses map[netip.Addr][]string
	instance  func(n *allotted) resource.ID
	// applied tells whether the data plane is as the documents say.
	applied bool
}

// lead tells whether any load balancer leads to any node.
func (b *balancing) lead() bool { return b != nil && len(b.used) > 0 }

// dropped tells whether no load balancer leads to a node any more.
func (b *balancing) dropped(n *allotted) bool { return !b.lead() || !b.in(n) && b.applied }

// joined tells whether a load balancer leads to a node.
func (b *balancing) joined(n *allotted) bool { return b.in(n) && b.applied }

// in tells whether a node is in a pool that a rule leads to.
func (b *balancing) in(n *allotted) bool {
	in := b.addresses[n.Address]
	for _, pool := range append(in[:len(in):len(in)], b.members[b.instance(n).Key()]...) {
		if b.used[pool] {
			return true
		}
	}
	return false
}

// resourceRef is a reference in a document.
type resourceRef struct{ ID string }

// poolRule is a rule that leads to a back-end pool.
type poolRule struct {
	Properties struct{ BackendAddressPool resourceRef }
}

// balancerBody is what of a load balancer's document is read here.
type balancerBody struct {
	Properties struct {
		LoadBalancingRules  []poolRule
		BackendAddressPools []struct {
			Name       string
			Properties struct {
				LoadBalancerBackendAddresses []struct {
					Properties struct{ IPAddress string }
				}
			}
		}
	}
}

// instanceBody is the same of a scale set's instance.
type instanceBody struct {
	Properties struct {
		NetworkProfileConfiguration struct {
			NetworkInterfaceConfigurations []struct {
				Properties struct {
					IPConfigurations []struct {
						Properties struct {
							LoadBalancerBackendAddressPools []resourceRef
						}
					}
				}
			}
		}
	}
}

// balancing reads the documents in the node resource group.
func (r *runner) balancing(ctx context.Context, w *whole) (*balancing, error) {
	documents, _, err := arm.ListDocuments(ctx, r.Store, w.group(), "")
	if err != nil {
		return nil, fmt.Errorf("node resource group: %w", err)
	}
	b := &balancing{used: map[string]bool{}, members: map[string][]string{}, addresses: map[netip.Addr][]string{}, instance: w.instanceOf}
	for _, d := range documents {
		switch strings.ToLower(d.Type) {
		case "microsoft.network/loadbalancers":
			err = b.balancer(d)
		case "microsoft.compute/virtualmachinescalesets/virtualmachines":
			err = b.member(d)
		}
		if err != nil {
			return nil, err
		}
	}
	if !b.lead() {
		return b, nil
	}
	waits, err := r.Network.Waiting(ctx, w.state.ServerSubnet.Parent())
	b.applied = waits == ""
	return b, err
}

// instanceOf is a node's instance, whatever pool it is in.
func (w *whole) instanceOf(n *allotted) resource.ID {
	for _, pool := range w.pools {
		for i := range pool.Nodes {
			if pool.Nodes[i].Name == n.Name {
				return w.instance(pool.Pool.Name, n.Number)
			}
		}
	}
	return resource.ID{}
}

func (b *balancing) balancer(d *arm.Document) error {
	var body balancerBody
	if err := json.Unmarshal(d.Body, &body); err != nil {
		return fmt.Errorf("load balancer %s: %w", d.ID, err)
	}
	for _, rule := range body.Properties.LoadBalancingRules {
		if id := rule.Properties.BackendAddressPool.ID; id != "" {
			b.used[strings.ToLower(id)] = true
		}
	}
	for _, pool := range body.Properties.BackendAddressPools {
		id := strings.ToLower(d.ID.Child("backendAddressPools", pool.Name).String())
		for _, address := range pool.Properties.LoadBalancerBackendAddresses {
			if ip, err := netip.ParseAddr(address.Properties.IPAddress); err == nil {
				b.addresses[ip] = append(b.addresses[ip], id)
			}
		}
	}
	return nil
}

func (b *balancing) member(d *arm.Document) error {
	var body instanceBody
	if err := json.Unmarshal(d.Body, &body); err != nil {
		return fmt.Errorf("instance %s: %w", d.ID, err)
	}
	key := d.ID.Key()
	for _, nic := range body.Properties.NetworkProfileConfiguration.NetworkInterfaceConfigurations {
		for _, config := range nic.Properties.IPConfigurations {
			for _, pool := range config.Properties.LoadBalancerBackendAddressPools {
				b.members[key] = append(b.members[key], strings.ToLower(pool.ID))
			}
		}
	}
	return nil
}
