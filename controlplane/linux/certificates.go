// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"bastide.dev/controlplane"
	"bastide.dev/pki"
)

// tellCertificates fills in which certificates are in use, and whose count. A
// control plane that is Ready, and wasn't refused what it asks for, runs with
// what its spec has.
func (p *Plane) tellCertificates(status *controlplane.Status, spec *controlplane.Spec, slot controlplane.Slot, seen *controlplane.Authorities) {
	status.Certificates = append(spec.Keys.AuthorityCertificates(), p.certificates(spec, slot)...)
	if seen == nil {
		return
	}
	for _, k := range seen.Kubelets {
		status.Certificates = append(status.Certificates, controlplane.Certificate{Name: "kubelet/" + k.Node, Ends: k.Ends})
	}
	told := *seen
	if status.Phase == controlplane.Ready && status.Refused == "" {
		told.Running = spec.Keys.Digest()
	}
	status.Authorities = &told
}

// certificates are those on disk that programs have a key for.
func (p *Plane) certificates(spec *controlplane.Spec, slot controlplane.Slot) []controlplane.Certificate {
	var all []controlplane.Certificate
	for _, program := range spec.Programs() {
		of := program
		if program == controlplane.APIServer {
			of = slot.Program()
		}
		keys, err := filepath.Glob(p.dir(spec.ID, configDir, of, "*.key"))
		if err != nil {
			continue // the pattern is fixed
		}
		slices.Sort(keys)
		for _, key := range keys {
			name := strings.TrimSuffix(filepath.Base(key), ".key")
			data, err := os.ReadFile(strings.TrimSuffix(key, ".key") + ".crt")
			if err != nil || name == "signer" { // an authority, or no certificate
				continue
			}
			if ends := pki.Ends(data); !ends.IsZero() {
				all = append(all, controlplane.Certificate{Name: program + "/" + name, Ends: ends})
			}
		}
	}
	return all
}
