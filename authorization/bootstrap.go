// SPDX-License-Identifier: Apache-2.0

package authorization

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/rbac"
	"bastide.dev/resource"
	"bastide.dev/store"
)

const (
	// mark is written with the first assignments: what an administrator takes away
	// later must not come back at the next start.
	mark = "authorization-marks/bootstrapped"

	// older is where instances kept role assignments before they were ARM documents.
	older = "identity/assignments/"

	// olderOwner is the id by which those knew Owner.
	olderOwner = "8e3af657-a8ff-443c-a75c-2fe8c4b6b635"

	// chunk is how many documents one transaction writes; etcd takes 128.
	chunk = 64
)

// BootstrapOptions say what a new instance is given.
type BootstrapOptions struct {
	Tenant, TenantName, Subscription string
	Owners                           []Principal // of the subscription
}

// Bootstrap makes the management group above all others and the subscription's
// first Owners, once in an instance's life. One whose assignments have the older
// form keeps those instead.
func Bootstrap(ctx context.Context, s store.Store, o BootstrapOptions) error {
	switch _, err := s.Get(ctx, mark); {
	case err == nil:
		return dropOlder(ctx, s)
	case !fault.Is(err, fault.NotFound):
		return fmt.Errorf("read %s: %w", mark, err)
	}
	now := time.Now().UTC().Truncate(time.Second)
	found, err := olderAssignments(ctx, s, o, now)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		for _, owner := range o.Owners {
			found = append(found, &rbac.Assignment{Scope: "/subscriptions/" + o.Subscription, PrincipalID: owner.ID, PrincipalType: owner.Kind,
				Role: rbac.OwnerRole, Created: now})
		}
	}
	root, err := rootDocument(o.Tenant, now)
	if err != nil {
		return err
	}
	changes := []store.Change{root}
	for _, a := range found {
		change, err := assignmentChange(a)
		if err != nil {
			return err
		}
		changes = append(changes, change)
	}
	for ; len(changes) > chunk; changes = changes[chunk:] {
		if _, err := s.Txn(ctx, changes[:chunk]...); err != nil {
			return fmt.Errorf("write first role assignments: %w", err)
		}
	}
	changes = append(changes, store.Change{Key: mark, Value: []byte(`{}`), Revision: store.Absent})
	if _, err := s.Txn(ctx, changes...); err != nil && !fault.Is(err, fault.Precondition) { // another process was first
		return fmt.Errorf("write first role assignments: %w", err)
	}
	return dropOlder(ctx, s)
}

// dropOlder removes the documents of the older form, when what they say is taken over.
func dropOlder(ctx context.Context, s store.Store) error {
	records, _, err := s.List(ctx, older)
	if err != nil {
		return fmt.Errorf("list %s: %w", older, err)
	}
	for _, r := range records {
		if err := s.Delete(ctx, r.Key, store.Any); err != nil {
			return fmt.Errorf("delete %s: %w", r.Key, err)
		}
	}
	return nil
}

func assignmentChange(a *rbac.Assignment) (store.Change, error) {
	name := uuid.NewSHA1(uuid.Nil, []byte(strings.ToLower(a.PrincipalID+" "+a.Role+" "+a.Scope)))
	id, err := AssignmentID(a.Scope, name.String())
	if err != nil {
		return store.Change{}, fmt.Errorf("scope of %s: %w", a.PrincipalID, err)
	}
	a.ID = id.String()
	d, err := NewAssignment(a)
	if err != nil {
		return store.Change{}, err
	}
	change, err := arm.PutDocument(d)
	change.Revision = store.Any // a start that was killed may have written it
	return change, err
}

func olderAssignments(ctx context.Context, s store.Store, o BootstrapOptions, now time.Time) ([]*rbac.Assignment, error) {
	records, _, err := s.List(ctx, older)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", older, err)
	}
	kinds := map[string]string{}
	for _, owner := range o.Owners {
		kinds[strings.ToLower(owner.ID)] = owner.Kind
	}
	var found []*rbac.Assignment
	for _, r := range records {
		var was struct{ PrincipalID, Role, Scope string }
		if err := json.Unmarshal(r.Value, &was); err != nil {
			return nil, fmt.Errorf("decode %s: %w", r.Key, err)
		}
		a := &rbac.Assignment{Scope: was.Scope, PrincipalID: was.PrincipalID, PrincipalType: kinds[strings.ToLower(was.PrincipalID)], Role: was.Role, Created: now}
		if a.PrincipalType == "" { // all others were made by the service, for clusters
			a.PrincipalType, a.Service = rbac.ServicePrincipal, ownService
		}
		if a.Role == olderOwner {
			a.Role = rbac.OwnerRole
		}
		found = append(found, a)
	}
	return found, nil
}

func rootDocument(tenant string, now time.Time) (store.Change, error) {
	d := &arm.Document{}
	d.ID = resource.ID{}.Resource(ManagementNamespace, "managementGroups", tenant)
	d.Name, d.Type, d.ProvisioningState, d.Etag, d.Generation = tenant, TypeManagementGroup, resource.Succeeded, uuid.NewString(), 1
	d.SystemData = resource.SystemData{CreatedBy: "Bastide", CreatedByType: "Application", CreatedAt: now,
		LastModifiedBy: "Bastide", LastModifiedByType: "Application", LastModifiedAt: now}
	d.Body = json.RawMessage(`{"properties":{"displayName":"Tenant Root Group"}}`)
	change, err := arm.PutDocument(d)
	change.Revision = store.Any
	return change, err
}
