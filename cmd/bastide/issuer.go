// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/x509"
	"fmt"
	"log/slog"

	"bastide.dev/identity/federated"
	"bastide.dev/oidc"
)

// newFederation makes what publishes clusters' issuers, and what checks the
// tokens of those and of others. Issuers may have certificates of the
// instance's authority, too.
func newFederation(s *service, keys keyring, log *slog.Logger) (*oidc.Service, *federated.Checker, error) {
	issuers, err := oidc.New(oidc.Config{Store: s.store, URL: s.in.URL("oidc"), Tenant: s.in.Tenant, Log: log})
	if err != nil {
		return nil, nil, err
	}
	system, err := x509.SystemCertPool()
	if err != nil {
		return nil, nil, fmt.Errorf("system's certificates: %w", err)
	}
	checker, err := federated.New(federated.Config{Directory: s.directory, Local: issuers, TLS: keys.trust("ca").besides(system).config(""), Log: log})
	return issuers, checker, err
}
