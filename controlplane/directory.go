// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"regexp"
	"strings"

	"sigs.k8s.io/yaml"
)

// Directory lets principals of the service's directory into a cluster: by its
// tokens, and by what a webhook says of them.
type Directory struct {
	Issuer    string   `json:"issuer"` // of tokens' version 1: https://login.<domain>/<tenant>/
	Tenant    string   `json:"tenant"`
	Audiences []string `json:"audiences"`
	CA        []byte   `json:"ca"` // PEM, what signs for the issuer and the webhook

	// Guard is where the webhooks are: https://guard.<domain>/clusters/<id>, and
	// Secret what the API server shows there.
	Guard  string `json:"guard"`
	Secret string `json:"secret"`

	// Admins are groups whose members may do everything.
	Admins []string `json:"admins,omitempty"`
}

// Extra keys under which the API server knows a principal of the directory.
const (
	ExtraPrincipal  = "directory.bastide.dev/oid"
	ExtraTenant     = "directory.bastide.dev/tid"
	ExtraApp        = "directory.bastide.dev/appid"
	ExtraKind       = "directory.bastide.dev/idtyp"
	ExtraIssued     = "directory.bastide.dev/iat"
	ExtraCredential = "directory.bastide.dev/credential"
)

var guidForm = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// validate tells what is missing; no directory misses nothing.
func (d *Directory) validate(need func(ok bool, target string)) {
	if d == nil {
		return
	}
	need(strings.HasPrefix(d.Issuer, "https://"), "directory.issuer")
	need(guidForm.MatchString(d.Tenant), "directory.tenant")
	need(len(d.Audiences) > 0, "directory.audiences")
	need(len(d.CA) > 0, "directory.ca")
	need(strings.HasPrefix(d.Guard, "https://"), "directory.guard")
	need(d.Secret != "", "directory.secret")
	for _, id := range d.Admins {
		need(guidForm.MatchString(id), "directory.admins")
	}
}

// guardFiles are the API server's ways to the webhooks, each a kubeconfig.
func (c *compiler) guardFiles() ([]File, error) {
	if c.Directory == nil {
		return nil, nil
	}
	var files []File
	for _, webhook := range []string{"authenticate", "authorize"} {
		data, err := yaml.Marshal(object{
			"apiVersion":      "v1",
			"kind":            "Config",
			"clusters":        []named{{"name": "guard", "cluster": object{"server": c.Directory.Guard + "/" + webhook, "certificate-authority-data": c.Directory.CA}}},
			"users":           []named{{"name": "cluster", "user": object{"token": c.Directory.Secret}}},
			"contexts":        []named{{"name": "guard", "context": object{"cluster": "guard", "user": "cluster"}}},
			"current-context": "guard",
		})
		if err != nil {
			return nil, err
		}
		files = append(files, File{APIServer, webhook + ".kubeconfig", data})
	}
	return files, nil
}

// directoryArgs are the API server's for tokens that it can't read for itself.
// What the webhook said of one is forgotten at once: the API server keeps every
// token's answer for ten seconds anyway, and the other webhook is asked then.
func (c *compiler) directoryArgs(f func(string) string) []string {
	if c.Directory == nil {
		return nil
	}
	return []string{
		"--authentication-token-webhook-config-file=" + f("authenticate.kubeconfig"),
		"--authentication-token-webhook-version=v1",
		"--authentication-token-webhook-cache-ttl=0s",
	}
}

// clientTrust is what signs for clients of the API server: the cluster's own
// authority and, as long as there are local accounts, theirs.
func (k *Keys) clientTrust() []byte {
	t := k.Trust()
	return append(t.CA, t.LocalCA...)
}
