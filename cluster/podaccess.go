// SPDX-License-Identifier: Apache-2.0

package cluster

import "strings"

// Whether pods reach the metadata address, and so the tokens of their node's
// identity, says networkProfile.podLinkLocalAccess. AKS has it in its preview
// API (az aks create --enable-imds-restriction), which the SDK's models don't know.
const (
	podAccessPath = "properties.networkProfile.podLinkLocalAccess"
	podAccessIMDS = "IMDS"
	podAccessNone = "None"
)

// podAccess reads the switch.
func (p *parser) podAccess(d *Desired, body object, old *Desired) {
	if old != nil {
		d.NoPodMetadata = old.NoPodMetadata
	}
	sent := get(body, podAccessPath)
	if empty(sent) {
		return
	}
	text, _ := sent.(string)
	switch {
	case strings.EqualFold(text, podAccessIMDS):
		d.NoPodMetadata = false
	case strings.EqualFold(text, podAccessNone):
		d.NoPodMetadata = true
	default:
		p.bad("InvalidParameter", podAccessPath, "podLinkLocalAccess can't be %v: it is %s, or %s to close the metadata address to pods.", sent, podAccessIMDS, podAccessNone)
	}
}

// fillPodAccess shows the switch where it is set.
func fillPodAccess(body object, d *Desired) {
	switch {
	case d.NoPodMetadata:
		set(body, podAccessPath, podAccessNone)
	case !empty(get(body, podAccessPath)):
		set(body, podAccessPath, podAccessIMDS)
	}
}
