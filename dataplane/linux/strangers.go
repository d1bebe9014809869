// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"fmt"

	"github.com/google/nftables"
)

// strangers lists the chains of the machine's other firewalls that drop
// forwarded packets by default: an accept in ours can't overrule them.
func strangers() ([]string, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	chains, err := conn.ListChains()
	if err != nil {
		return nil, fmt.Errorf("list nftables chains: %w", err)
	}
	var found []string
	for _, c := range chains {
		if c.Hooknum != nil && *c.Hooknum == *nftables.ChainHookForward && c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop {
			found = append(found, c.Table.Name+" "+c.Name)
		}
	}
	return found, nil
}
