// SPDX-License-Identifier: Apache-2.0

package network

import "bastide.dev/arm"

// edgeTypes are what connects networks with the outside and with services.
func (p *Provider) edgeTypes() []arm.Type { return nil }
