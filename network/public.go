// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// The records of what is taken of the instance's public addresses. Each is
// written with store.Absent, so that of two requests for one address the later
// one looks again.
const (
	publicPrefix = "addresses/public/" // + address: out of the pool
	memberPrefix = "addresses/prefix/" // + address: out of a public prefix, which has it out of the pool
	labelPrefix  = "addresses/labels/" // + location/label: a public address's DNS label
)

func publicKey(a netip.Addr) string { return publicPrefix + a.String() }

func memberKey(a netip.Addr) string { return memberPrefix + a.String() }

// PublicAddresses picks the lowest free public addresses, and the changes that
// take them for owner. FreePublic gives them back.
func (p *Provider) PublicAddresses(ctx context.Context, owner resource.ID, count int) ([]netip.Addr, []store.Change, error) {
	taken, err := p.takenPublic(ctx)
	if err != nil {
		return nil, nil, err
	}
	var found []netip.Addr
	for a := p.PublicPool.Addr(); p.PublicPool.Contains(a) && len(found) < count; a = a.Next() {
		if !taken(a) {
			found = append(found, a)
		}
	}
	if len(found) < count {
		return nil, nil, fault.New(fault.Exhausted, "PublicIPCountLimitReached",
			"No public address is left in %s: delete what has one, or start the instance with a larger public pool.", p.PublicPool)
	}
	changes, err := claim(owner, found, publicKey)
	return found, changes, err
}

// publicBlock finds the lowest aligned block of a prefix's size that is wholly free.
func (p *Provider) publicBlock(ctx context.Context, owner resource.ID, bits int) (netip.Prefix, []store.Change, error) {
	taken, err := p.takenPublic(ctx)
	if err != nil {
		return netip.Prefix{}, nil, err
	}
	for at := p.PublicPool.Addr(); p.PublicPool.Contains(at); {
		block := netip.PrefixFrom(at, bits).Masked()
		members := addressesOf(block)
		free := p.PublicPool.Contains(members[0]) && p.PublicPool.Contains(members[len(members)-1])
		for _, a := range members {
			free = free && !taken(a)
		}
		if free {
			changes, err := claim(owner, members, publicKey)
			return block, changes, err
		}
		at = members[len(members)-1].Next()
	}
	return netip.Prefix{}, nil, fault.New(fault.Exhausted, "PublicIPPrefixCountLimitReached",
		"No block of size /%d is left in the public addresses %s: ask for a smaller one, or start the instance with a larger public pool.", bits, p.PublicPool).At("properties.prefixLength")
}

// memberAddress picks the lowest address of a public prefix that no public address has.
func (p *Provider) memberAddress(ctx context.Context, owner resource.ID, block netip.Prefix) (netip.Addr, []store.Change, error) {
	records, _, err := p.Store.List(ctx, memberPrefix)
	if err != nil {
		return netip.Addr{}, nil, err
	}
	taken := map[string]bool{}
	for _, r := range records {
		taken[r.Key] = true
	}
	for _, a := range addressesOf(block) {
		if !taken[memberKey(a)] {
			changes, err := claim(owner, []netip.Addr{a}, memberKey)
			return a, changes, err
		}
	}
	return netip.Addr{}, nil, fault.New(fault.Conflict, "PublicIPPrefixOutOfIpAddressesForPublicIps",
		"The public IP prefix %s has no address left.", block).At("properties.publicIPPrefix")
}

// FreePublic gives public addresses of PublicAddresses back to the pool.
func FreePublic(addresses ...netip.Addr) []store.Change { return release(addresses, publicKey) }

// takenPublic tells of an address of the pool whether someone has it.
func (p *Provider) takenPublic(ctx context.Context) (func(netip.Addr) bool, error) {
	records, _, err := p.Store.List(ctx, publicPrefix)
	if err != nil {
		return nil, fmt.Errorf("public addresses: %w", err)
	}
	taken := map[string]bool{publicKey(p.PublicPool.Addr()): true, publicKey(p.FrontDoor): true}
	for _, r := range records {
		taken[r.Key] = true
	}
	return func(a netip.Addr) bool {
		broadcast := !p.PublicPool.Contains(a.Next())
		return broadcast || taken[publicKey(a)]
	}, nil
}

func claim(owner resource.ID, addresses []netip.Addr, key func(netip.Addr) string) ([]store.Change, error) {
	value, err := json.Marshal(owner)
	if err != nil {
		return nil, fmt.Errorf("owner of an address: %w", err)
	}
	changes := make([]store.Change, len(addresses))
	for i, a := range addresses {
		changes[i] = store.Change{Key: key(a), Value: value, Revision: store.Absent}
	}
	return changes, nil
}

func release(addresses []netip.Addr, key func(netip.Addr) string) []store.Change {
	changes := make([]store.Change, len(addresses))
	for i, a := range addresses {
		changes[i] = store.Change{Key: key(a), Revision: store.Any}
	}
	return changes
}

// addressesOf lists a small prefix's addresses.
func addressesOf(block netip.Prefix) []netip.Addr {
	var all []netip.Addr
	for a := block.Masked().Addr(); block.Contains(a); a = a.Next() {
		all = append(all, a)
	}
	return all
}

func labelKey(location, label string) string {
	return labelPrefix + location + "/" + strings.ToLower(label)
}

// labelChanges moves a public address's DNS label from old to label; "" is none.
func (p *Provider) labelChanges(ctx context.Context, owner resource.ID, old, label string) ([]store.Change, error) {
	if strings.EqualFold(old, label) {
		return nil, nil
	}
	var changes []store.Change
	if old != "" {
		changes = append(changes, store.Change{Key: labelKey(p.Location, old), Revision: store.Any})
	}
	if label == "" {
		return changes, nil
	}
	if free, err := p.labelFree(ctx, label); err != nil || !free {
		if err == nil {
			err = fault.New(fault.Conflict, "DnsRecordInUse", "DNS record %s is already used by another public IP.", p.labelName(label)).At("properties.dnsSettings.domainNameLabel")
		}
		return nil, err
	}
	value, err := json.Marshal(owner)
	return append(changes, store.Change{Key: labelKey(p.Location, label), Value: value, Revision: store.Absent}), err
}

func (p *Provider) labelFree(ctx context.Context, label string) (bool, error) {
	_, err := p.Store.Get(ctx, labelKey(p.Location, label))
	if fault.Is(err, fault.NotFound) {
		return true, nil
	}
	return false, err
}

// labelName is the whole DNS name of a label.
func (p *Provider) labelName(label string) string {
	return strings.ToLower(label) + "." + p.Location + ".cloudapp." + p.Domain
}
