// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/host"
	"bastide.dev/pki"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// Certificate is one that a cluster uses, and when it ends.
type Certificate struct {
	Cluster string    `json:"cluster"` // ARM id; empty: the instance's own
	Name    string    `json:"name"`    // "kube-apiserver/server", "kubelet/NODE", "nodes/kube-proxy", …
	Ends    time.Time `json:"notAfter"`
}

// Certificates are those of all clusters, as their hosts report them, sorted.
func Certificates(ctx context.Context, s store.Store) ([]Certificate, error) {
	documents, _, err := arm.ListDocuments(ctx, s, resource.ID{}, clusterType)
	if err != nil {
		return nil, fmt.Errorf("certificates: %w", err)
	}
	var all []Certificate
	for _, d := range documents {
		found, err := certificatesOf(ctx, s, d)
		if err != nil {
			return nil, fmt.Errorf("certificates of %s: %w", d.ID, err)
		}
		all = append(all, found...)
	}
	slices.SortFunc(all, func(a, b Certificate) int {
		return cmp.Or(cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Name, b.Name))
	})
	return all, nil
}

func certificatesOf(ctx context.Context, s store.Store, d *arm.Document) ([]Certificate, error) {
	var state clusterState
	if err := json.Unmarshal(d.State, &state); err != nil {
		return nil, err
	}
	var all []Certificate
	add := func(name string, ends time.Time) { all = append(all, Certificate{d.ID.String(), name, ends}) }
	record, err := s.Get(ctx, host.ReportKey(state.Host, host.ControlPlaneUnit, state.ID))
	switch {
	case fault.Is(err, fault.NotFound): // it hasn't started yet
	case err != nil:
		return nil, err
	default:
		var report host.Report
		if err := json.Unmarshal(record.Value, &report); err != nil {
			return nil, err
		}
		if report.ControlPlane != nil {
			for _, c := range report.ControlPlane.Certificates {
				add(c.Name, c.Ends)
			}
		}
	}
	record, err = s.Get(ctx, keysKey(state.UID))
	if fault.Is(err, fault.NotFound) {
		return all, nil // it is being deleted
	}
	if err != nil {
		return nil, err
	}
	var keys secrets
	if json.Unmarshal(record.Value, &keys) != nil {
		return nil, errors.New("keys are unreadable") // no cause: it could quote a secret
	}
	add("nodes/kube-proxy", pki.Ends(keys.Proxy.Certificate))
	if len(keys.Policy.Certificate) > 0 {
		add("nodes/netpolicy", pki.Ends(keys.Policy.Certificate))
	}
	return all, nil
}
