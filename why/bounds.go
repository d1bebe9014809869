// SPDX-License-Identifier: Apache-2.0

package why

import (
	"fmt"

	rs "bastide.dev/ruleset"
)

// bounds runs a packet that a node forwards through the table that the data
// plane has in the node; false when it ends there.
func (k *walk) bounds(b *branch, n *Node) (bool, error) {
	at, ok := k.w.machineNIC(n.Machine)
	if !ok {
		return true, nil
	}
	table := at.nic.CompileMachine()
	p := k.packet(b)
	o, err := table.Run(rs.Forward, &p, nil)
	if err != nil {
		return false, fmt.Errorf("why: bounds of node %s: %w", n.Name, err)
	}
	if o.Verdict == rs.Drop || o.Verdict == rs.Reject {
		k.deny(b, k.shown(b.destination, b.port), "node "+n.Name, "the cluster closes the metadata address to pods", o.Decided.Origin, "deny")
		return false, nil
	}
	return true, nil
}
