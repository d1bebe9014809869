// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"

	"bastide.dev/controlplane"
	"bastide.dev/fault"
	"bastide.dev/pki"
	"bastide.dev/store"
)

// accessKeys are what decides who gets into a cluster beside its own keys. They
// are a document of their own: they change on other occasions.
type accessKeys struct {
	// Secret is what the cluster's API server shows to the service's webhooks.
	Secret string `json:"secret"`
	// Local signs for local accounts. It is thrown away when they are disabled, so
	// that nothing it signed ever counts again, and made anew when they come back.
	Local controlplane.KeyPair `json:"local,omitzero"`
	// Shared says that the cluster's own authority signed for local accounts once:
	// the cluster is older than theirs.
	Shared bool `json:"shared,omitempty"`
}

func accessKey(uid string) string { return keysKey(uid) + "/access" }

// newAccess makes the secrets of a cluster's access.
func newAccess(local bool) (accessKeys, error) {
	random := make([]byte, 32)
	_, _ = rand.Read(random) // crypto/rand never fails (Go 1.24)
	a := accessKeys{Secret: base64.RawURLEncoding.EncodeToString(random)}
	if !local {
		return a, nil
	}
	return a, a.makeLocal()
}

func (a *accessKeys) makeLocal() error {
	pair, err := pki.NewRoot("local-accounts", caLifetime)
	if err != nil {
		return fmt.Errorf("local accounts: %w", err)
	}
	a.Local = controlplane.KeyPair(pair)
	return nil
}

func (a *accessKeys) hasLocal() bool { return len(a.Local.Certificate) > 0 }

func (a *accessKeys) change(uid string, revision int64) (store.Change, error) {
	value, err := json.Marshal(a)
	if err != nil {
		return store.Change{}, fmt.Errorf("access keys of cluster %s: %w", uid, err)
	}
	return store.Change{Key: accessKey(uid), Value: value, Revision: revision}, nil
}

// access reads a cluster's access keys with their revision; store.Absent when
// the cluster is older than they are.
func (p *Provider) access(ctx context.Context, uid string) (accessKeys, int64, error) {
	record, err := p.Store.Get(ctx, accessKey(uid))
	if fault.Is(err, fault.NotFound) {
		return accessKeys{}, store.Absent, nil
	}
	if err != nil {
		return accessKeys{}, 0, fmt.Errorf("access keys of cluster %s: %w", uid, err)
	}
	var a accessKeys
	if err := json.Unmarshal(record.Value, &a); err != nil {
		return accessKeys{}, 0, fmt.Errorf("access keys of cluster %s: unreadable", uid) // no cause: it could quote a secret
	}
	return a, record.Revision, nil
}

// foundAccess are a new cluster's access keys, and what guard knows of it.
func (p *Provider) foundAccess(uid, resource string, d *Desired) ([]store.Change, error) {
	a, err := newAccess(!d.NoLocalAccounts)
	if err != nil {
		return nil, err
	}
	keys, err := a.change(uid, store.Absent)
	if err != nil {
		return nil, err
	}
	guard, err := guarded(resource, &a, d).change(uid)
	return []store.Change{keys, guard}, err
}

// changeAccess are the changes that an existing cluster's access needs to become
// what is desired. Both are in the transaction that accepts the request: from
// then on no old certificate is given out, and the webhooks answer by the new.
func (p *Provider) changeAccess(ctx context.Context, w *whole, d *Desired) ([]store.Change, error) {
	a, revision, err := p.access(ctx, w.state.UID)
	if err != nil {
		return nil, err
	}
	if revision == store.Absent {
		return nil, fault.New(fault.Conflict, "OperationNotAllowed", "The cluster is being taken over from an older release: try again in a moment.")
	}
	var changes []store.Change
	if a.hasLocal() == d.NoLocalAccounts {
		if a.Shared && d.NoLocalAccounts {
			return nil, fault.New(fault.Conflict, "OperationNotAllowed",
				"Local accounts of this cluster can't be disabled: its admin certificates of before can't be told from its own, since they have one authority. Clusters that are made now have two.").At("properties.disableLocalAccounts")
		}
		if a.Local = (controlplane.KeyPair{}); !d.NoLocalAccounts {
			if err := a.makeLocal(); err != nil {
				return nil, err
			}
		}
		change, err := a.change(w.state.UID, revision)
		if err != nil {
			return nil, err
		}
		changes = append(changes, change)
	}
	guard, err := guarded(w.doc.ID.String(), &a, d).change(w.state.UID)
	return append(changes, guard), err
}

// ensureAccess are the changes that a cluster of an older release needs, and
// those that make what guard knows of a cluster right again.
func (p *Provider) ensureAccess(ctx context.Context, w *whole) ([]store.Change, error) {
	a, revision, err := p.access(ctx, w.state.UID)
	if err != nil {
		return nil, err
	}
	var changes []store.Change
	if revision == store.Absent {
		if a, err = newAccess(true); err != nil {
			return nil, err
		}
		a.Shared = true
		change, err := a.change(w.state.UID, store.Absent)
		if err != nil {
			return nil, err
		}
		changes = append(changes, change)
	}
	wanted, err := guarded(w.doc.ID.String(), &a, &w.state.Desired).change(w.state.UID)
	if err != nil {
		return nil, err
	}
	record, err := p.Store.Get(ctx, wanted.Key)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return nil, fmt.Errorf("guard of cluster %s: %w", w.state.UID, err)
	}
	if !bytes.Equal(record.Value, wanted.Value) {
		wanted.Revision = store.Absent
		if err == nil {
			wanted.Revision = record.Revision
		}
		changes = append(changes, wanted)
	}
	return changes, nil
}

// Guarded is what the service's webhooks know of a cluster.
type Guarded struct {
	Resource  string   `json:"resource"` // ARM id
	Secret    [32]byte `json:"secret"`   // SHA-256
	Directory bool     `json:"directory,omitempty"`
	AzureRBAC bool     `json:"azureRBAC,omitempty"`
}

func guardKey(uid string) string { return "guards/" + uid }

func guarded(resource string, a *accessKeys, d *Desired) Guarded {
	return Guarded{Resource: resource, Secret: sha256.Sum256([]byte(a.Secret)), Directory: d.Integration.Enabled, AzureRBAC: d.Integration.AzureRBAC}
}

func (g Guarded) change(uid string) (store.Change, error) {
	value, err := json.Marshal(g)
	if err != nil {
		return store.Change{}, fmt.Errorf("guard of cluster %s: %w", uid, err)
	}
	return store.Change{Key: guardKey(uid), Value: value, Revision: store.Any}, nil
}

// Guarded finds a cluster by the id that its API server calls the webhooks with.
func (p *Provider) Guarded(ctx context.Context, uid string) (Guarded, error) {
	var g Guarded
	if !guidForm.MatchString(uid) {
		return g, fault.New(fault.NotFound, "", "No cluster has the id.")
	}
	record, err := p.Store.Get(ctx, guardKey(uid))
	if err != nil {
		return g, fmt.Errorf("guard of cluster %s: %w", uid, err)
	}
	if err := json.Unmarshal(record.Value, &g); err != nil {
		return g, fmt.Errorf("guard of cluster %s: %w", uid, err)
	}
	return g, nil
}
