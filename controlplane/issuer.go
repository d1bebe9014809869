// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"bytes"
	"slices"
	"strings"

	"bastide.dev/pki"
)

// WorkloadIdentity gives pods that ask for it a token for Azure's SDKs.
type WorkloadIdentity struct {
	Tenant    string `json:"tenant"`
	Authority string `json:"authority"` // the token service, https://…/
	CA        []byte `json:"ca"`        // PEM, what signs for it
}

func (w *WorkloadIdentity) validate(need func(ok bool, target string)) {
	if w == nil {
		return
	}
	need(w.Tenant != "", "workloadIdentity.tenant")
	need(strings.HasPrefix(w.Authority, "https://") && strings.HasSuffix(w.Authority, "/"), "workloadIdentity.authority")
	_, err := pki.Certificates(w.CA)
	need(err == nil, "workloadIdentity.ca")
}

// validateIssuers tells what is wrong with who issues tokens.
func (s *Spec) validateIssuers(need func(ok bool, target string)) {
	need(s.Issuer != "", "issuer")
	need(s.KeysURL == "" || strings.HasPrefix(s.KeysURL, "https://"), "keysURL")
	for _, key := range s.Keys.RetiredServiceAccounts {
		_, err := pki.ParsePublic(key)
		need(err == nil, "keys.retiredServiceAccounts")
	}
	s.WorkloadIdentity.validate(need)
}

const retiredFile = "sa-retired.pub"

// issuerArgs are the issuers and keys of service-account tokens. The first
// issuer is in new tokens, all are accepted; so are tokens of keys that sign no
// more.
func (c *compiler) issuerArgs(f func(string) string) []string {
	args := []string{"--service-account-issuer=" + c.Issuer}
	for _, former := range c.FormerIssuers {
		args = append(args, "--service-account-issuer="+former)
	}
	if c.KeysURL != "" {
		args = append(args, "--service-account-jwks-uri="+c.KeysURL)
	}
	args = append(args, "--service-account-key-file="+f("sa.key"))
	if len(c.Keys.RetiredServiceAccounts) > 0 {
		args = append(args, "--service-account-key-file="+f(retiredFile))
	}
	return append(args, "--service-account-signing-key-file="+f("sa.key"))
}

// issuerFiles are the public keys that sign no more.
func (c *compiler) issuerFiles() []File {
	if len(c.Keys.RetiredServiceAccounts) == 0 {
		return nil
	}
	return []File{{APIServer, retiredFile, bytes.Join(c.Keys.RetiredServiceAccounts, nil)}}
}

// SigningKeyIDs are the ids of the keys whose tokens the API server accepts, sorted.
func (s *Spec) SigningKeyIDs() ([]string, error) {
	signing, err := pki.PublicPEM(s.Keys.ServiceAccounts)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, public := range append([][]byte{signing}, s.Keys.RetiredServiceAccounts...) {
		key, err := pki.ParsePublic(public)
		if err != nil {
			return nil, err
		}
		id, err := pki.SigningKeyID(key)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids, nil
}
