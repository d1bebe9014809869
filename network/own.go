// SPDX-License-Identifier: Apache-2.0

package network

import "bastide.dev/arm"

// ownTypes are Bastide's own: terminals on the instance's Internet.
func (p *Provider) ownTypes() []arm.Type { return nil }
