// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// lockedOut warns of clusters whose authorised ranges leave out this machine:
// what comes from it, kubectl among it, has the front door's address.
func lockedOut(machine netip.Addr, clusters []clusterView) []string {
	var warnings []string
	for _, c := range clusters {
		ranges := c.Properties.Access.Ranges
		if len(ranges) == 0 || slices.ContainsFunc(ranges, func(text string) bool { return holdsAddress(text, machine) }) {
			continue
		}
		own := netip.PrefixFrom(machine, machine.BitLen()).String()
		warnings = append(warnings, fmt.Sprintf("the authorized IP ranges of %s leave out this machine (%s): kubectl can't reach its API server from here. "+
			"To let it in: az aks update -g %s -n %s --api-server-authorized-ip-ranges %s",
			c.Name, machine, groupOf(c.ID), c.Name, strings.Join(append(slices.Clone(ranges), own), ",")))
	}
	return warnings
}

func holdsAddress(text string, a netip.Addr) bool {
	if p, err := netip.ParsePrefix(text); err == nil {
		return p.Contains(a)
	}
	one, err := netip.ParseAddr(text)
	return err == nil && one == a
}

// groupOf is the resource group in an id.
func groupOf(id string) string {
	parts := strings.Split(strings.Trim(id, "/"), "/")
	for i := 0; i+1 < len(parts); i++ {
		if strings.EqualFold(parts[i], "resourceGroups") {
			return parts[i+1]
		}
	}
	return ""
}
