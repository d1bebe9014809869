// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"net/netip"

	"bastide.dev/dataplane"
	"bastide.dev/fault"
)

// supported refuses what this data plane can't do yet, by name. (A user's route
// to an IPv6 prefix is no such thing: it has nothing to route.)
func supported(c *dataplane.Config) error {
	var problems []*fault.Error
	only4 := func(target string, prefixes ...netip.Prefix) {
		for _, p := range prefixes {
			if !p.Addr().Is4() {
				problems = append(problems, fault.New(fault.Unsupported, "PropertyNotSupported", "IPv6 isn't supported by the data plane yet.").At(target))
				return
			}
		}
	}
	only4("edge.pools", c.Edge.Pools...)
	for i := range c.VNets {
		v := &c.VNets[i]
		target := "vnets." + v.ID
		only4(target+".prefixes", v.Prefixes...)
		for _, nic := range v.NICs {
			only4(target+".nics."+nic.ID+".pods", nic.Pods...)
		}
		for _, r := range v.Routes {
			only4(target+".routes", r.Prefix)
		}
	}
	return fault.Join(problems...)
}
