// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"

	"bastide.dev/resource"
)

// Servers are the places of all API servers.
func (p *Provider) Servers(ctx context.Context) ([]Server, error) { return p.servers(ctx) }

// TerminalID is a terminal's ID in the data plane.
func TerminalID(id resource.ID) string { return terminalID(id) }
