// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"bastide.dev/controlplane"
	"bastide.dev/guard"
)

// What API servers say of a principal is what guard reads; neither package
// imports the other.
func TestExtrasAreGuardsOwn(t *testing.T) {
	for written, read := range map[string]string{
		controlplane.ExtraPrincipal: guard.ExtraPrincipal, controlplane.ExtraTenant: guard.ExtraTenant, controlplane.ExtraApp: guard.ExtraApp,
		controlplane.ExtraKind: guard.ExtraKind, controlplane.ExtraIssued: guard.ExtraIssued, controlplane.ExtraCredential: guard.ExtraCredential,
	} {
		if written != read {
			t.Errorf("API servers write %s, guard reads %s", written, read)
		}
	}
}
