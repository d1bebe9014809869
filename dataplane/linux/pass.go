// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"errors"
	"reflect"
	"slices"

	"bastide.dev/dataplane"
)

// pass is one network's way through one Apply.
type pass struct {
	v    *dataplane.VNet
	n    *vnet
	busy bool // something is to be done
	// safe says that its rules stand: links may lead to it, and routes.
	safe bool
	// linked says that its links were gone through: routes may have gone with some.
	linked bool
	err    error
}

// begin brings a network's router, its rules and interfaces to what they
// should be, unless they are. The rules come first: no packet is ever
// forwarded without them.
func (p *Plane) begin(c *dataplane.Config, v *dataplane.VNet, netns func(string) string) *pass {
	one := &pass{v: v}
	if one.n, one.err = p.vnetRouter(v.ID); one.err != nil {
		return one
	}
	n := one.n
	before, wasSettled := n.compiled, n.settled
	same := p.quiet(n, v, netns) && wasSettled // as far as links go
	changed, moved := n.take(p.inputOf(c, v))
	n.settled = false
	if one.err = p.program(n, c, changed); one.err != nil {
		return one
	}
	one.safe, one.busy = true, changed || !same
	if same && !moved && slices.Equal(before.Addresses, n.compiled.Addresses) && slices.Equal(before.Peers, n.compiled.Peers) {
		n.settled = !one.busy
		return one
	}
	if one.err = loopbackUp(n.nl, singles(n.compiled.Addresses)); one.err != nil {
		return one
	}
	if one.err = p.connectVNet(v.ID, n); one.err != nil {
		return one
	}
	one.linked = true
	one.err = n.forgetPlaces(v.NICs)
	var err error
	n.standing, err = p.applyNICs(v, n, netns)
	one.err = errors.Join(one.err, err)
	return one
}

// take makes in what the network is compiled from, and tells whether it
// changed, and whether that moves interfaces.
func (n *vnet) take(in input) (changed, moved bool) {
	old := n.input
	if old.vnet == nil {
		n.input = in
		return true, true
	}
	if reflect.DeepEqual(old, in) {
		return false, false
	}
	n.input = in
	return true, old.mtu != in.mtu || !reflect.DeepEqual(old.vnet.NICs, in.vnet.NICs) || !reflect.DeepEqual(old.vnet.Subnets, in.vnet.Subnets)
}
