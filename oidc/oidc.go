// SPDX-License-Identifier: Apache-2.0

// Package oidc publishes the clusters' token issuers: for each a discovery
// document and the public keys that its API server signs service-account tokens
// with, under https://oidc.<domain>/{tenant}/{cluster}/.
//
// It knows no cluster: who runs an issuer writes its Document to the store, and
// this package serves it to everybody, without authentication, and to the token
// service without a network trip. Providers import it for the Document, cmd for
// the handler.
package oidc

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"bastide.dev/pki"
)

// prefix of documents in the store. They hold nothing secret.
const prefix = "oidc/"

// Document is what the world may know of an issuer.
type Document struct {
	Issuer string             `json:"issuer"`
	Keys   jose.JSONWebKeySet `json:"keys"`
}

// IssuerURL is the name of an issuer, as tokens carry it. The slash at its end
// is part of it.
func IssuerURL(base, tenant, id string) string {
	return strings.TrimSuffix(base, "/") + "/" + tenant + "/" + id + "/"
}

// KeysURL is where an issuer's keys are.
func KeysURL(issuer string) string { return strings.TrimSuffix(issuer, "/") + keysPath }

// StoreKey is where the document of an issuer is kept.
func StoreKey(tenant, id string) string { return prefix + tenant + "/" + id }

// NewDocument is an issuer with its public keys (PEM, as pki.PublicPEM makes
// them), the one that signs first.
func NewDocument(issuer string, publics ...[]byte) (Document, error) {
	d := Document{Issuer: issuer, Keys: jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}}
	for _, public := range publics {
		key, err := pki.ParsePublic(public)
		if err != nil {
			return d, fmt.Errorf("keys of issuer %s: %w", issuer, err)
		}
		id, err := pki.SigningKeyID(key)
		if err != nil {
			return d, fmt.Errorf("keys of issuer %s: %w", issuer, err)
		}
		d.Keys.Keys = append(d.Keys.Keys, jose.JSONWebKey{Key: key, KeyID: id, Algorithm: string(jose.RS256), Use: "sig"})
	}
	return d, nil
}

// IDs are the ids of the keys.
func (d *Document) IDs() []string {
	ids := make([]string, 0, len(d.Keys.Keys))
	for i := range d.Keys.Keys {
		ids = append(ids, d.Keys.Keys[i].KeyID)
	}
	return ids
}

// discovery is the document of OpenID Connect Discovery 1.0, as far as an issuer
// has it that people don't sign in at.
func (d *Document) discovery() ([]byte, error) {
	return json.Marshal(map[string]any{
		"issuer":                                d.Issuer,
		"jwks_uri":                              KeysURL(d.Issuer),
		"response_types_supported":              []string{"id_token"},
		"subject_types_supported":               []string{"public"},
		"id_token_signing_alg_values_supported": []string{string(jose.RS256)},
	})
}
