// SPDX-License-Identifier: Apache-2.0

package network

import "bastide.dev/arm"

// coreTypes are virtual networks and what filters and routes in them.
func (p *Provider) coreTypes() []arm.Type { return nil }
