// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"bastide.dev/store"
)

// Categories of the audit log, as Graph names them.
const (
	CategoryUser        = "UserManagement"
	CategoryGroup       = "GroupManagement"
	CategoryApplication = "ApplicationManagement"
	CategoryRole        = "RoleManagement"
)

// AuditPrefix is where the audit log is kept.
const AuditPrefix = "identity-audit/"

// The audit log stands outside of the watched prefix, in the order of time.
const (
	auditPrefix = AuditPrefix
	auditAge    = 30 * 24 * time.Hour
	auditMost   = 10_000
	auditSweep  = 10 * time.Minute
	auditForm   = "2006-01-02T15:04:05.000000000Z"
	maxShown    = 2000 // characters of a value before or after
)

// activity is what a transaction does, for the log. What is left empty follows
// from the documents that change.
type activity struct {
	Name     string
	Category string
	About    []string // object ids that it is about beside the documents changed
}

// AuditEntry is one write to the directory.
type AuditEntry struct {
	ID       string        `json:"id"`
	Time     time.Time     `json:"time"`
	Activity string        `json:"activity"`
	Category string        `json:"category"`
	By       AuditActor    `json:"by"`
	Targets  []AuditTarget `json:"targets"`
}

// AuditActor is who wrote; Service is set for what the service did by itself.
type AuditActor struct {
	Kind    PrincipalKind `json:"kind,omitempty"`
	ID      string        `json:"id,omitempty"`
	Name    string        `json:"name,omitempty"` // user principal name, or app id
	AppID   string        `json:"appId,omitempty"`
	Address string        `json:"address,omitempty"`
	Service bool          `json:"service,omitempty"`
}

// AuditTarget is an object that was written, with what changed of it.
type AuditTarget struct {
	Type    string          `json:"type"` // User, Group, …
	ID      string          `json:"id"`
	Name    string          `json:"name,omitempty"`
	Changed []AuditProperty `json:"changed,omitempty"`
}

// AuditProperty is a property before and after, as JSON; of a secret one only
// that it changed.
type AuditProperty struct {
	Name   string          `json:"name"`
	Before json.RawMessage `json:"before,omitempty"`
	After  json.RawMessage `json:"after,omitempty"`
}

type actorKey struct{}

// By marks a context's writes to the directory as somebody's. Without it they
// are the service's own.
func By(ctx context.Context, who AuditActor) context.Context {
	return context.WithValue(ctx, actorKey{}, who)
}

// ByPrincipal is By for an authenticated principal.
func ByPrincipal(ctx context.Context, p Principal, address string) context.Context {
	return By(ctx, AuditActor{Kind: p.Kind, ID: p.ID, Name: p.Name, AppID: p.AppID, Address: address})
}

// record is the log's document of a transaction.
func (d *Directory) record(ctx context.Context, a activity, changes []change) (store.Change, error) {
	now := d.now().UTC()
	entry := AuditEntry{ID: uuid.NewString(), Time: now, Activity: a.Name, Category: a.Category, By: AuditActor{Service: true}}
	if who, ok := ctx.Value(actorKey{}).(AuditActor); ok {
		entry.By = who
	}
	for _, c := range changes {
		if c.check || !strings.HasPrefix(c.key, prefix) {
			continue
		}
		target := targetOf(either(c.after, c.before))
		target.ID = c.key[strings.LastIndexByte(c.key, '/')+1:]
		if len(entry.Targets) < maxTargets {
			target.Changed = differences(c.before, c.after)
			entry.Targets = append(entry.Targets, target)
		}
		if entry.Activity == "" {
			entry.Activity = verb(c) + " " + strings.ToLower(target.Type)
		}
		entry.Category = cmp.Or(entry.Category, categoryOf(target.Type))
	}
	for _, id := range a.About {
		if v, err := d.Object(ctx, id); err == nil {
			target := targetOf(v)
			target.ID = id
			entry.Targets = append(entry.Targets, target)
		}
	}
	data, err := json.Marshal(entry)
	if err != nil {
		return store.Change{}, fmt.Errorf("encode audit entry: %w", err)
	}
	return store.Change{Key: auditPrefix + now.Format(auditForm) + "-" + entry.ID, Value: data, Revision: store.Absent}, nil
}

// Note records a write that somebody else made, about an object.
func (d *Directory) Note(ctx context.Context, name, category, id string) error {
	return d.commit(ctx, activity{Name: name, Category: category, About: []string{id}})
}

const maxTargets = 50

func either(after, before any) any {
	if after != nil {
		return after
	}
	return before
}

func verb(c change) string {
	switch {
	case c.before == nil:
		return "Add"
	case c.after == nil:
		return "Delete"
	}
	return "Update"
}

func targetOf(v any) AuditTarget {
	if r := reflect.ValueOf(v); r.Kind() == reflect.Pointer {
		v = r.Elem().Interface()
	}
	switch v := v.(type) {
	case User:
		return AuditTarget{Type: "User", Name: v.Name}
	case Group:
		return AuditTarget{Type: "Group", Name: v.DisplayName}
	case Application:
		return AuditTarget{Type: "Application", Name: v.DisplayName}
	case ServicePrincipal:
		return AuditTarget{Type: "Service principal", Name: v.DisplayName}
	case RoleAssignment:
		i := slices.IndexFunc(DirectoryRoles(), func(r DirectoryRole) bool { return r.ID == v.Role })
		if i < 0 {
			return AuditTarget{Type: "Role"}
		}
		return AuditTarget{Type: "Role", Name: DirectoryRoles()[i].Name}
	case AppRoleAssignment:
		return AuditTarget{Type: "App role assignment"}
	case Grant:
		return AuditTarget{Type: "Delegated permission grant"}
	}
	return AuditTarget{Type: "Other"}
}

func categoryOf(kind string) string {
	switch kind {
	case "User":
		return CategoryUser
	case "Group":
		return CategoryGroup
	case "Role":
		return CategoryRole
	}
	return CategoryApplication
}

// shown properties are named with their values; of secrets, and of what is made
// from them, the log says only that they changed. A test holds every property of
// every document against it.
func shown(name string) bool {
	return !slices.Contains([]string{"passwordHash", "secrets", "platform", "certificates"}, name)
}

// differences are the properties in which two forms of a document differ. Of a
// list only what was taken out and what was put in is named.
func differences(before, after any) []AuditProperty {
	old, next := properties(before), properties(after)
	names := slices.Sorted(maps.Keys(old))
	for name := range next {
		if _, known := old[name]; !known {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var found []AuditProperty
	for _, name := range names {
		if string(old[name]) == string(next[name]) || name == "id" || name == "created" {
			continue
		}
		p := AuditProperty{Name: name}
		if shown(name) {
			p.Before, p.After = narrowed(old[name], next[name])
		}
		found = append(found, p)
	}
	return found
}

func properties(v any) map[string]json.RawMessage {
	if v == nil {
		return nil
	}
	data, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	var found map[string]json.RawMessage
	_ = json.Unmarshal(data, &found) // it was an object a line ago
	return found
}

// narrowed leaves out what two lists have in common, and cuts what is too long.
func narrowed(before, after json.RawMessage) (json.RawMessage, json.RawMessage) {
	var old, next []string
	if (before == nil || json.Unmarshal(before, &old) == nil) && (after == nil || json.Unmarshal(after, &next) == nil) {
		before, after = without(old, next), without(next, old)
	}
	return bounded(before), bounded(after)
}

func without(list, other []string) json.RawMessage {
	known := make(map[string]bool, len(other))
	for _, v := range other {
		known[v] = true
	}
	left := []string{}
	for _, v := range list {
		if !known[v] {
			left = append(left, v)
		}
	}
	data, _ := json.Marshal(left) // strings always encode
	return data
}

func bounded(v json.RawMessage) json.RawMessage {
	if len(v) <= maxShown {
		return v
	}
	data, _ := json.Marshal(string(v[:maxShown]) + "…")
	return data
}

// AuditLog lists the log, the newest first.
func (d *Directory) AuditLog(ctx context.Context) ([]AuditEntry, error) {
	return ReadAudit(ctx, d.config.Store)
}

// ReadAudit reads the log of a directory that runs elsewhere.
func ReadAudit(ctx context.Context, from store.Store) ([]AuditEntry, error) {
	records, _, err := from.List(ctx, auditPrefix)
	if err != nil {
		return nil, fmt.Errorf("list audit log: %w", err)
	}
	found := make([]AuditEntry, 0, len(records))
	for _, r := range slices.Backward(records) {
		var entry AuditEntry
		if err := json.Unmarshal(r.Value, &entry); err != nil {
			return nil, fmt.Errorf("decode %s: %w", r.Key, err)
		}
		found = append(found, entry)
	}
	return found, nil
}

// sweepAudit keeps the log below its age and number until ctx ends.
func (d *Directory) sweepAudit(ctx context.Context, log *slog.Logger) error {
	for ctx.Err() == nil {
		if err := d.SweepAudit(ctx); err != nil && ctx.Err() == nil {
			log.Error("audit log not swept", "error", err)
		}
		pause(ctx, auditSweep)
	}
	return nil
}

// SweepAudit removes what is older, or more, than the log keeps. Run does it.
func (d *Directory) SweepAudit(ctx context.Context) error {
	records, _, err := d.config.Store.List(ctx, auditPrefix)
	if err != nil {
		return fmt.Errorf("list audit log: %w", err)
	}
	oldest := auditPrefix + d.now().UTC().Add(-auditAge).Format(auditForm)
	for i, r := range records {
		if r.Key >= oldest && len(records)-i <= auditMost {
			return nil
		}
		if err := d.config.Store.Delete(ctx, r.Key, store.Any); err != nil {
			return fmt.Errorf("delete %s: %w", r.Key, err)
		}
	}
	return nil
}
