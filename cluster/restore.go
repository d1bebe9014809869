// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/google/uuid"

	"bastide.dev/arm"
	"bastide.dev/controlplane"
	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// restoringState is the state of a cluster that is being restored.
const restoringState resource.State = "Restoring"

// restoring is the backup that a cluster is being restored from, as long as that
// lasts. The keys to it are sealed elsewhere.
type restoring struct {
	Token     string `json:"token"`
	Operation string `json:"operation"`
	From      string `json:"from"`   // the backup's resource id
	Source    string `json:"source"` // the control plane that it is of
	Backup    string `json:"backup"` // on the host
	SHA256    string `json:"sha256"`
}

// The actions on a backup's cluster that restoring it into another one takes: who
// has them could have all that is in the backup from the cluster itself.
func restoreActions() []string {
	return []string{clusterType + "/write", clusterType + "/listClusterAdminCredential/action", backupType + "/read"}
}

// restoreCluster answers POST …/restore: the cluster becomes what the backup holds.
func (p *Provider) restoreCluster(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	if r.Old == nil {
		return nil, notFound(r.ID)
	}
	id, err := backupIDOf(r.Body)
	if err != nil {
		return nil, err
	}
	source := id.Parent()
	if err := p.mayRestore(ctx, r, id); err != nil {
		return nil, err
	}
	w, err := p.load(ctx, r.Old)
	if err != nil {
		return nil, err
	}
	if w.state.Stopped {
		return nil, stoppedFault()
	}
	b, from, err := p.backupFrom(ctx, id, source)
	if err != nil {
		return nil, err
	}
	if err := p.fits(w, b, from); err != nil {
		return nil, err
	}
	opens, err := p.readBackupKeys(ctx, backupKeyKey(from.state.UID))
	if err != nil {
		return nil, err
	}
	seals, err := p.keys(ctx, from.state.UID)
	if err != nil {
		return nil, err
	}
	opens.Secrets = seals.SecretsEncryption
	value, err := json.Marshal(opens)
	if err != nil {
		return nil, fmt.Errorf("restore: keys can't be encoded")
	}
	w.state.Restore = &restoring{Token: "r" + uuid.NewString(), Operation: r.Operation, From: b.ID.String(), Source: from.state.ID, Backup: b.Made.ID, SHA256: b.Made.SHA256}
	return &arm.Plan{Document: r.Old, Async: true, State: restoringState,
		Changes: []store.Change{{Key: restoreKeyKey(w.state.UID), Value: value, Revision: store.Any}}}, setState(r.Old, w.state)
}

// backupIDOf reads the request.
func backupIDOf(body object) (resource.ID, error) {
	var problems []*fault.Error
	for name := range body {
		if name != "backupId" {
			problems = append(problems, fault.New(fault.Invalid, "PropertyNotSupported", "A restore has no %q.", name).At(name))
		}
	}
	text, _ := body["backupId"].(string)
	id, err := resource.ParseID(text)
	if err != nil || !id.IsType(backupType) {
		problems = append(problems, fault.New(fault.Invalid, "InvalidBackupId", "backupId is the resource id of a cluster's backup: …/managedClusters/NAME/backups/BACKUP.").At("backupId"))
	}
	return id, fault.Join(problems...)
}

// mayRestore asks for the right to change the cluster as a whole, and for all that
// is in the backup. Nobody learns which backups there are by asking.
func (p *Provider) mayRestore(ctx context.Context, r *arm.Request, backup resource.ID) error {
	ask := func(action string, scope resource.ID) error {
		err := p.Authorizer.Authorize(ctx, r.Who, action, scope)
		if fault.Is(err, fault.Forbidden) {
			return fault.New(fault.Forbidden, "LinkedAuthorizationFailed",
				"The client '%s' with object id '%s' has permission to restore '%s'; however, it does not have permission to perform action '%s' on the linked scope '%s' or the linked scope is invalid.",
				r.Who.Name, r.Who.ID, r.ID, action, scope).At("backupId")
		}
		return err
	}
	if err := ask(clusterType+"/write", r.ID); err != nil {
		return err
	}
	for _, action := range restoreActions() {
		scope := backup.Parent()
		if action == backupType+"/read" {
			scope = backup
		}
		if scope.Equal(r.ID) && action != backupType+"/read" {
			continue // it all goes back to where it was
		}
		if err := ask(action, scope); err != nil {
			return err
		}
	}
	return nil
}

func (p *Provider) backupFrom(ctx context.Context, id, source resource.ID) (*backupDoc, *whole, error) {
	missing := fault.New(fault.NotFound, "BackupNotFound", "There is no backup '%s'.", id).At("backupId")
	document, err := arm.GetDocument(ctx, p.Store, id)
	if fault.Is(err, fault.NotFound) {
		return nil, nil, missing
	}
	if err != nil {
		return nil, nil, err
	}
	cluster, err := arm.GetDocument(ctx, p.Store, source)
	if fault.Is(err, fault.NotFound) {
		return nil, nil, missing
	}
	if err != nil {
		return nil, nil, err
	}
	b := &backupDoc{Document: document}
	if err := json.Unmarshal(document.State, &b.backupState); err != nil {
		return nil, nil, fmt.Errorf("backup %s: state: %w", id, err)
	}
	from, err := p.load(ctx, cluster)
	return b, from, err
}

// fits tells all that keeps a cluster from being restored from a backup.
func (p *Provider) fits(w *whole, b *backupDoc, from *whole) error {
	var problems []*fault.Error
	bad := func(code, format string, args ...any) {
		problems = append(problems, fault.New(fault.Conflict, code, format, args...).At("backupId"))
	}
	if !b.good() {
		bad("BackupNotAvailable", "The backup '%s' can't be restored: it isn't there (%s).", b.ID, or(b.Error, string(b.ProvisioningState)))
		return fault.Join(problems...)
	}
	if from.doc.ProvisioningState == resource.Deleting {
		bad("BackupNotAvailable", "The backup '%s' goes with its cluster, which is being deleted.", b.ID)
	}
	if from.state.Host != w.state.Host {
		bad("BackupNotAvailable", "The backup '%s' is on another host.", b.ID)
	}
	version, err := ParseVersion(b.Made.Version)
	if running := w.state.running(); err != nil || version.Major != running.Major || version.Minor > running.Minor {
		bad("KubernetesVersionTooOld", "The backup is of Kubernetes %s, which %s can't read: upgrade the cluster first.", b.Made.Version, running)
	}
	d := &w.state.Desired
	if d.ServiceCIDR.String() != b.Services || d.DNS.String() != b.DNS {
		bad("ServiceNetworkDiffers", "Services in the backup have addresses of %s (DNS %s), the cluster's are %s (DNS %s): make a cluster with those of the backup.", b.Services, b.DNS, d.ServiceCIDR, d.DNS)
	}
	return fault.Join(problems...)
}

// restores follows a restore: w.restore is why it failed, and what is returned
// says what it waits for, "" when nothing.
func (w *whole) restores(h *hosted) string {
	wanted := w.state.Restore
	if wanted == nil {
		return ""
	}
	status := w.planeStatus(h)
	if status == nil || status.Restore == nil || status.Restore.Token != wanted.Token {
		return "the backup hasn't been read"
	}
	switch s := status.Restore; s.Phase {
	case controlplane.RestoreDone:
		return ""
	case controlplane.RestoreFailed:
		w.unrestored = fault.New(fault.Exhausted, "RestoreFailed", "The cluster wasn't restored from '%s': %s", wanted.From, s.Error)
		return "the restore failed"
	case controlplane.RestorePreparing:
		return "the backup is being verified; the cluster serves meanwhile"
	default:
		return "what was restored isn't ready"
	}
}

// refusedRestore is why an operation's restore failed; nil when it didn't.
func (w *whole) refusedRestore(operation string) *fault.Error {
	if w.unrestored == nil || operation == "" || w.state.Restore.Operation != operation {
		return nil
	}
	return w.unrestored
}

// endRestore forgets a restore, and the keys to it, when its operation has ended.
func (w *whole) endRestore() ([]store.Change, bool) {
	if w.state.Restore == nil || w.state.Restore.Operation == w.doc.Operation {
		return nil, false
	}
	w.state.Restore = nil
	return []store.Change{{Key: restoreKeyKey(w.state.UID), Revision: store.Any}}, true
}

// compileBackups adds what a control plane keeps, and what it is restored from.
func (w *whole) compileBackups(spec *controlplane.Spec, keys secrets) {
	if w.backups != nil && keys.Backups.Key != "" {
		wanted := *w.backups
		wanted.Key = []byte(keys.Backups.Key)
		spec.Backups = &wanted
	}
	if r := w.state.Restore; r != nil && keys.Restore.Key != "" {
		spec.Restore = &controlplane.Restore{Token: r.Token, Source: r.Source, Backup: r.Backup, SHA256: r.SHA256, Key: []byte(keys.Restore.Key), Secrets: keys.Restore.Secrets}
	}
}
