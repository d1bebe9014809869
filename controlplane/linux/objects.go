// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"context"
	"encoding/json"

	"bastide.dev/fault"
)

// Objects lists what decides about packets in a control plane's cluster, by the
// names of agent.Agent.Objects. It reaches the API server of a private cluster
// just so.
func (p *Plane) Objects(ctx context.Context, id string) (map[string]json.RawMessage, error) {
	p.mu.Lock()
	in := p.byID[id]
	p.mu.Unlock()
	if in == nil {
		return nil, fault.New(fault.NotFound, "", "There is no control plane %s here.", id)
	}
	in.mu.Lock()
	a := in.agent
	in.mu.Unlock()
	if a == nil {
		return nil, fault.New(fault.Unavailable, "", "Control plane %s doesn't run.", id)
	}
	return a.Objects(ctx)
}
