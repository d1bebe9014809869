// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"filippo.io/age"
	"github.com/google/uuid"

	"bastide.dev/arm"
	"bastide.dev/controlplane"
	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// Backups of clusters are Bastide's own: AKS offers them through a vault that is
// outside of it. A backup belongs to its cluster, and goes with it.
const (
	backupType = clusterType + "/backups"
	policyType = clusterType + "/backupPolicies"
	policyName = "default"
)

// Bounds of backups.
const (
	maxBackups      = 200 // that a cluster has
	maxEveryHours   = 168
	maxRetention    = 100
	failedKept      = 3               // scheduled ones that failed
	failedAgain     = time.Hour       // when another is made after one that failed, at the latest
	scheduledPrefix = "scheduled-"    // of the names of those that nobody asked for
	nameTime        = "20060102t1504" // in them
)

// backupState is the private part of a backup's document.
type backupState struct {
	Unit      string    `json:"id"` // its name on the host
	Scheduled bool      `json:"scheduled,omitempty"`
	Asked     time.Time `json:"asked"`
	// Made is what the host told of it; Error why it isn't there. Lost: the host
	// had it, and has it no more.
	Made  *controlplane.Backup `json:"made,omitempty"`
	Error string               `json:"error,omitempty"`
	Lost  bool                 `json:"lost,omitempty"`
	// What a cluster needs to have that it is restored into.
	Version  string `json:"version"`
	Services string `json:"services"` // CIDR
	DNS      string `json:"dns"`
}

// backupDoc is a backup's document with its state read.
type backupDoc struct {
	*arm.Document
	backupState
}

// open tells whether a backup is still to be made.
func (b *backupDoc) open() bool { return b.Made == nil && b.Error == "" }

// good tells whether it can be restored.
func (b *backupDoc) good() bool { return b.Made != nil && !b.Lost }

// backupPolicy is how backups are made by themselves.
type backupPolicy struct {
	Every time.Duration
	Keep  int
}

// backupTypes are the rows of backups.
func (p *Provider) backupTypes(versions []resource.APIVersion) []arm.Type {
	return []arm.Type{
		{
			Name: "managedClusters/backups", Versions: versions, NoBody: true,
			ReadOnly: []string{"id", "name", "type", "systemData", "properties"},
			Put:      p.putBackup, View: viewBackup,
		},
		{
			Name: "managedClusters/backupPolicies", Versions: versions,
			ReadOnly: []string{"id", "name", "type", "systemData", "properties.provisioningState"},
			Put:      p.putBackupPolicy, View: viewMaintenance,
		},
	}
}

var backupNameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// putBackup has a backup made, once for each name. One that failed is tried again.
func (p *Provider) putBackup(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	if r.Parent == nil {
		return nil, notFound(r.ID.Parent())
	}
	var problems []*fault.Error
	if !backupNameForm.MatchString(r.ID.Name()) {
		problems = append(problems, fault.New(fault.Invalid, "InvalidBackupName", "A backup's name has 1 to 63 letters, digits, dots, dashes and underscores, and begins with a letter or a digit.").At("name"))
	}
	for name := range r.Body {
		problems = append(problems, fault.New(fault.Invalid, "PropertyNotSupported", "A backup has nothing that could be chosen: %q isn't known.", name).At(name))
	}
	if err := fault.Join(problems...); err != nil {
		return nil, err
	}
	w, err := p.load(ctx, r.Parent)
	if err != nil {
		return nil, err
	}
	all, err := p.backupsOf(ctx, w.doc.ID)
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(all, func(b *backupDoc) bool { return b.ID.Equal(r.ID) }); i >= 0 && (all[i].good() || all[i].open()) {
		return &arm.Plan{Document: r.Old}, nil
	}
	if w.state.Stopped {
		return nil, stoppedFault()
	}
	if len(all) >= maxBackups {
		return nil, fault.New(fault.Exhausted, "QuotaExceeded", "The cluster has %d backups already: delete one first.", len(all))
	}
	document, err := r.New()
	if err != nil {
		return nil, fault.New(fault.Invalid, "InvalidRequestContent", "The request content can't be kept.").Because(err)
	}
	plan := &arm.Plan{Document: document, Async: true}
	if plan.Changes, err = p.backupKeyChange(ctx, w.state.UID); err != nil {
		return nil, err
	}
	return plan, setState(document, p.newBackup(w))
}

// newBackup is one that is still to be made.
func (p *Provider) newBackup(w *whole) backupState {
	d := &w.state.Desired
	return backupState{Unit: "b" + uuid.NewString(), Asked: p.Now().UTC(), Version: w.state.running().String(), Services: d.ServiceCIDR.String(), DNS: d.DNS.String()}
}

// viewBackup is a backup as a client sees it.
func viewBackup(_ context.Context, d *arm.Document, _ resource.APIVersion) (any, error) {
	var s backupState
	if err := json.Unmarshal(d.State, &s); err != nil {
		return nil, fmt.Errorf("backup %s: state: %w", d.ID, err)
	}
	body, err := arm.ViewBase(d)
	if err != nil {
		return nil, err
	}
	properties := object{"provisioningState": d.ProvisioningState, "scheduled": s.Scheduled, "kubernetesVersion": s.Version, "serviceCidr": s.Services, "available": s.Made != nil && !s.Lost}
	if b := s.Made; b != nil {
		properties["takenAt"], properties["kubernetesVersion"], properties["etcdVersion"] = b.Taken.UTC().Format(time.RFC3339), b.Version, b.Etcd
		properties["etcdRevision"], properties["objects"], properties["sizeBytes"], properties["sha256"] = b.Revision, b.Objects, b.Size, b.SHA256
	}
	if s.Error != "" {
		properties["error"] = s.Error
	}
	if s.Lost {
		properties["error"] = "the host doesn't have it any more"
	}
	body["properties"] = properties
	return body, nil
}

// putBackupPolicy says how often a cluster is backed up by itself.
func (p *Provider) putBackupPolicy(_ context.Context, r *arm.Request) (*arm.Plan, error) {
	if r.Parent == nil {
		return nil, notFound(r.ID.Parent())
	}
	if r.ID.Name() != policyName {
		return nil, fault.New(fault.Invalid, "InvalidBackupPolicyName", "A cluster has one backup policy, and its name is %s.", policyName).At("name")
	}
	if _, err := policyOfBackups(r.Body); err != nil {
		return nil, err
	}
	document, err := r.New()
	if err != nil {
		return nil, fault.New(fault.Invalid, "InvalidRequestContent", "The request content can't be kept.").Because(err)
	}
	return &arm.Plan{Document: document}, nil
}

// policyOfBackups reads a policy's body, and tells all that is wrong with it.
func policyOfBackups(body object) (backupPolicy, error) {
	var problems []*fault.Error
	bad := func(target, format string, args ...any) {
		problems = append(problems, fault.New(fault.Invalid, "InvalidBackupPolicy", format, args...).At(target))
	}
	properties, _ := body["properties"].(object)
	number := func(name string, most int) int {
		n, err := countOf(properties[name])
		if err != nil || n < 1 || n > most {
			bad("properties."+name, "The %s of a backup policy is a whole number from 1 to %d.", name, most)
		}
		return n
	}
	policy := backupPolicy{time.Duration(number("intervalHours", maxEveryHours)) * time.Hour, number("retentionCount", maxRetention)}
	for name := range body {
		if name != "properties" {
			bad(name, "A backup policy has no %q.", name)
		}
	}
	for name := range properties {
		if name != "intervalHours" && name != "retentionCount" {
			bad("properties."+name, "A backup policy has no %q.", name)
		}
	}
	return policy, fault.Join(problems...)
}

func countOf(v any) (int, error) {
	raw, err := json.Marshal(v)
	if err != nil || string(raw) == "null" {
		return 0, errors.Join(errors.New("there is none"), err)
	}
	n := 0
	err = json.Unmarshal(raw, &n)
	return n, err
}

// backupsOf reads the backups of a cluster.
func (p *Provider) backupsOf(ctx context.Context, cluster resource.ID) ([]*backupDoc, error) {
	documents, _, err := arm.ListDocuments(ctx, p.Store, cluster, backupType)
	if err != nil {
		return nil, fmt.Errorf("backups of %s: %w", cluster, err)
	}
	var all []*backupDoc
	for _, d := range documents {
		b := &backupDoc{Document: d}
		if err := json.Unmarshal(d.State, &b.backupState); err != nil {
			return nil, fmt.Errorf("backup %s: state: %w", d.ID, err)
		}
		all = append(all, b)
	}
	return all, nil
}

// policyFor reads a cluster's backup policy; nil when it has none.
func (p *Provider) policyFor(ctx context.Context, cluster resource.ID) (*backupPolicy, error) {
	d, err := arm.GetDocument(ctx, p.Store, cluster.Child("backupPolicies", policyName))
	if fault.Is(err, fault.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("backup policy of %s: %w", cluster, err)
	}
	body := object{}
	if err := json.Unmarshal(d.Body, &body); err != nil {
		return nil, fmt.Errorf("backup policy of %s: %w", cluster, err)
	}
	policy, err := policyOfBackups(body)
	if err != nil {
		return nil, fmt.Errorf("backup policy of %s: %w", cluster, err)
	}
	return &policy, nil
}

// Where the keys of a cluster's backups are, and those of a backup that it is
// being restored from.
func backupKeyKey(uid string) string  { return keysKey(uid) + "/backups" }
func restoreKeyKey(uid string) string { return keysKey(uid) + "/restore" }

// backupKeys open backups: an age identity, and what seals Secrets in them.
type backupKeys struct {
	Key     string `json:"key,omitempty"`
	Secrets []byte `json:"secrets,omitempty"`
}

// readBackupKeys is zero when there are none.
func (p *Provider) readBackupKeys(ctx context.Context, key string) (backupKeys, error) {
	var keys backupKeys
	record, err := p.Store.Get(ctx, key)
	if fault.Is(err, fault.NotFound) {
		return keys, nil
	}
	if err != nil {
		return keys, fmt.Errorf("keys of backups: %w", err)
	}
	if json.Unmarshal(record.Value, &keys) != nil {
		return keys, fmt.Errorf("keys of backups: unreadable") // no cause: it could quote one
	}
	return keys, nil
}

// backupKeyChange makes the key of a cluster's backups, unless it has one.
func (p *Provider) backupKeyChange(ctx context.Context, uid string) ([]store.Change, error) {
	keys, err := p.readBackupKeys(ctx, backupKeyKey(uid))
	if err != nil || keys.Key != "" {
		return nil, err
	}
	key, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, fmt.Errorf("key of backups: %w", err)
	}
	value, err := json.Marshal(backupKeys{Key: key.String()})
	if err != nil {
		return nil, fmt.Errorf("key of backups: can't be encoded")
	}
	return []store.Change{{Key: backupKeyKey(uid), Value: value, Revision: store.Absent}}, nil
}
