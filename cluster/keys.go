// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"time"

	"bastide.dev/controlplane"
	"bastide.dev/pki"
	"bastide.dev/store"
)

// caLifetime is AKS's for a cluster's authorities.
const caLifetime = 30 * 365 * 24 * time.Hour

// keysKey is where a cluster's keys are; the store seals what is under "secrets/".
func keysKey(uid string) string { return "secrets/clusters/" + uid }

// secrets are a cluster's keys, and what its nodes share.
type secrets struct {
	controlplane.Keys
	Proxy  pki.Pair `json:"proxy"`           // client certificate of every kube-proxy
	Policy pki.Pair `json:"policy,omitzero"` // and of every node's policy agent
	turning

	revision int64 // of the document; store.Absent when there is none

	Access accessKeys `json:"-"` // who gets in
	Cloud  principal  `json:"-"` // what the cluster acts on Resource Manager with

	Signers signers `json:"-"` // of service accounts' tokens

	Backups backupKeys `json:"-"` // of its own
	Restore backupKeys `json:"-"` // of the one that it is being restored from
}

// newKeys makes all secrets of a cluster. They are made once; later there is turn.
func newKeys() (secrets, error) {
	var keys secrets
	for name, pair := range map[string]*controlplane.KeyPair{
		"cluster-ca": &keys.CA, "front-proxy-ca": &keys.FrontProxyCA, "etcd-ca": &keys.EtcdCA,
	} {
		made, err := pki.NewRoot(name, caLifetime)
		if err != nil {
			return keys, fmt.Errorf("cluster keys: %w", err)
		}
		*pair = controlplane.KeyPair(made)
	}
	signer, err := pki.NewSigningKey()
	if err != nil {
		return keys, fmt.Errorf("cluster keys: %w", err)
	}
	keys.ServiceAccounts = signer
	keys.SecretsEncryption = make([]byte, 32)
	_, _ = rand.Read(keys.SecretsEncryption) // crypto/rand never fails (Go 1.24)
	keys.BootstrapTokenID, keys.BootstrapTokenCode = tokenText(6), tokenText(16)
	return keys, keys.issueShared()
}

// tokenText is n random characters of a bootstrap token's alphabet.
func tokenText(n int) string {
	const alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"
	text := make([]byte, 0, n)
	for buf := make([]byte, 4*n); len(text) < n; {
		_, _ = rand.Read(buf)
		for _, b := range buf {
			// 252 is the largest multiple of 36 in a byte: above it the choice would lean.
			if b < 252 && len(text) < n {
				text = append(text, alphabet[int(b)%len(alphabet)])
			}
		}
	}
	return string(text)
}

func (p *Provider) keys(ctx context.Context, uid string) (secrets, error) {
	var keys secrets
	record, err := p.Store.Get(ctx, keysKey(uid))
	if err != nil {
		return keys, fmt.Errorf("keys of cluster %s: %w", uid, err)
	}
	if err := json.Unmarshal(record.Value, &keys); err != nil {
		return keys, fmt.Errorf("keys of cluster %s: unreadable", uid) // no cause: it could quote a secret
	}
	keys.revision = record.Revision
	if keys.Signers, err = p.signers(ctx, uid); err != nil {
		return keys, err
	}
	if keys.Backups, err = p.readBackupKeys(ctx, backupKeyKey(uid)); err != nil {
		return keys, err
	}
	if keys.Restore, err = p.readBackupKeys(ctx, restoreKeyKey(uid)); err != nil {
		return keys, err
	}
	keys.Access, _, err = p.access(ctx, uid)
	return keys, err
}

// principal is the service principal that a cluster acts as, when the user gave it one.
type principal struct {
	ClientID string `json:"clientID"`
	Secret   string `json:"secret"`
}

func principalKey(uid string) string { return keysKey(uid) + "/principal" }

func principalChange(uid, clientID, secret string) (store.Change, error) {
	value, err := json.Marshal(principal{clientID, secret})
	return store.Change{Key: principalKey(uid), Value: value, Revision: store.Any}, err
}

// credential is what a cluster acts on Resource Manager with.
func (p *Provider) credential(ctx context.Context, s *clusterState) (principal, error) {
	if s.Desired.Identity != byPrincipal {
		id, secret, err := p.Directory.PlatformSecret(ctx, s.PrincipalID)
		return principal{id, secret}, err
	}
	var credential principal
	record, err := p.Store.Get(ctx, principalKey(s.UID))
	if err != nil {
		return credential, fmt.Errorf("service principal of cluster %s: %w", s.UID, err)
	}
	if err := json.Unmarshal(record.Value, &credential); err != nil {
		return credential, fmt.Errorf("service principal of cluster %s: unreadable", s.UID)
	}
	return credential, nil
}
