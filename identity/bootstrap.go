// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"bastide.dev/fault"
	"bastide.dev/store"
)

// BootstrapOptions name what a new instance gets. Empty ids are made up.
type BootstrapOptions struct {
	Domain         string // the instance's; user names end in it
	DisplayName    string
	TenantID       string
	SubscriptionID string
}

// Bootstrapped is what Bootstrap found or made. Password and Secret are set
// only by the call that made them: afterwards nobody can read them again.
type Bootstrapped struct {
	Tenant        Tenant
	Administrator string // user principal name
	Password      string
	ClientID      string // of the service principal with Owner
	PrincipalID   string
	Secret        string
	Created       bool
}

// Bootstrap makes a tenant, a subscription's id, an administrator and a service
// principal, both Owner of the subscription, in one transaction. When they are
// there already it only says which they are.
func (d *Directory) Bootstrap(ctx context.Context, o BootstrapOptions) (Bootstrapped, error) {
	if err := d.keys.ensure(ctx); err != nil {
		return Bootstrapped{}, err
	}
	found, err := d.bootstrapped(ctx)
	if !fault.Is(err, fault.NotFound) {
		return found, err
	}
	made, changes, err := d.firstDocuments(ctx, o)
	if err != nil {
		return Bootstrapped{}, err
	}
	if _, err := d.config.Store.Txn(ctx, changes...); err != nil {
		if fault.Is(err, fault.Precondition) { // another process was first
			return d.bootstrapped(ctx)
		}
		return Bootstrapped{}, fmt.Errorf("write first directory: %w", err)
	}
	if _, err := d.objects.list(ctx); err != nil {
		return Bootstrapped{}, err
	}
	d.log.Info("directory created", "tenant", made.Tenant.ID, "subscription", made.Tenant.SubscriptionID)
	return made, nil
}

// first is the document that remembers who Bootstrap made.
type first struct {
	UserID      string `json:"userId"`
	PrincipalID string `json:"principalId"`
}

const firstKey = "identity-marks/first"

func (d *Directory) bootstrapped(ctx context.Context) (Bootstrapped, error) {
	record, err := d.config.Store.Get(ctx, firstKey)
	if err != nil {
		return Bootstrapped{}, err
	}
	var f first
	if err := json.Unmarshal(record.Value, &f); err != nil {
		return Bootstrapped{}, fmt.Errorf("decode %s: %w", firstKey, err)
	}
	if _, err := d.objects.list(ctx); err != nil {
		return Bootstrapped{}, err
	}
	tenant, err := d.Tenant(ctx)
	if err != nil {
		return Bootstrapped{}, err
	}
	b := Bootstrapped{Tenant: tenant}
	// Either may have been deleted since, on purpose.
	if u, err := d.User(ctx, f.UserID); err == nil {
		b.Administrator = u.Name
	}
	if sp, err := d.ServicePrincipal(ctx, f.PrincipalID); err == nil {
		b.ClientID, b.PrincipalID = sp.AppID, sp.ID
	}
	return b, d.takeOver(ctx, f)
}

// takeOver gives a directory from before there were directory roles its administrators.
func (d *Directory) takeOver(ctx context.Context, f first) error {
	all, err := d.RoleAssignments(ctx)
	if err != nil || len(all) > 0 {
		return err
	}
	return d.administer(ctx, f.UserID, f.PrincipalID)
}

// administer makes Global Administrators of those that are there and aren't yet.
func (d *Directory) administer(ctx context.Context, ids ...string) error {
	for _, id := range ids {
		_, err := d.AssignRole(ctx, id, GlobalAdministrator)
		if err != nil && !fault.Is(err, fault.NotFound) && !fault.Is(err, fault.Conflict) {
			return err
		}
	}
	return nil
}

func (d *Directory) firstDocuments(ctx context.Context, o BootstrapOptions) (Bootstrapped, []store.Change, error) {
	now := d.stamp()
	for _, id := range []*string{&o.TenantID, &o.SubscriptionID} {
		if *id == "" {
			*id = uuid.NewString()
		} else if uuid.Validate(*id) != nil {
			return Bootstrapped{}, nil, fault.New(fault.Invalid, "InvalidParameter", "%q is not a GUID.", *id)
		}
	}
	if o.DisplayName == "" {
		o.DisplayName = "Bastide"
	}
	tenant := Tenant{ID: o.TenantID, DisplayName: o.DisplayName, Domain: o.Domain, SubscriptionID: o.SubscriptionID, Created: now}
	password := Random(24)
	hash, err := d.hashPassword(ctx, password)
	if err != nil {
		return Bootstrapped{}, nil, err
	}
	user := User{ID: uuid.NewString(), Name: "admin@" + o.Domain, DisplayName: "Administrator", PasswordHash: hash, ValidFrom: now, Created: now}
	plain, secret := newSecret(now.Add(10 * 365 * 24 * time.Hour))
	app := Application{ID: uuid.NewString(), AppID: uuid.NewString(), DisplayName: "bastide-owner", Secrets: []Secret{secret}, Created: now}
	sp := ServicePrincipal{ID: uuid.NewString(), AppID: app.AppID, DisplayName: app.DisplayName, Type: ApplicationPrincipal, Names: []string{app.AppID}, ValidFrom: now, Created: now}
	documents := map[string]any{
		tenantKey:             tenant,
		users + user.ID:       user,
		applications + app.ID: app,
		principals + sp.ID:    sp,
		firstKey:              first{UserID: user.ID, PrincipalID: sp.ID},

		names + "users/" + user.Name:     user.ID,
		names + "principals/" + sp.AppID: sp.ID,
	}
	for _, administrator := range []string{user.ID, sp.ID} {
		a := roleOf(administrator, GlobalAdministrator, now)
		documents[roleHolders+a.ID] = a
	}
	var changes []store.Change
	for key, document := range documents {
		data, err := json.Marshal(document)
		if err != nil {
			return Bootstrapped{}, nil, fmt.Errorf("encode %s: %w", key, err)
		}
		changes = append(changes, store.Change{Key: key, Value: data, Revision: store.Absent})
	}
	return Bootstrapped{Tenant: tenant, Administrator: user.Name, Password: password,
		ClientID: sp.AppID, PrincipalID: sp.ID, Secret: plain, Created: true}, changes, nil
}

// ResetOwner gives the first administrator a new password and its service
// principal a new secret in place of all old ones; for whoever has the machine.
func (d *Directory) ResetOwner(ctx context.Context) (Bootstrapped, error) {
	b, err := d.bootstrapped(ctx)
	if err != nil {
		return Bootstrapped{}, err
	}
	user, err := d.User(ctx, b.Administrator)
	if err != nil {
		return Bootstrapped{}, err
	}
	if err := d.administer(ctx, user.ID, b.PrincipalID); err != nil {
		return Bootstrapped{}, err
	}
	b.Password = Random(24)
	if err := d.SetPassword(ctx, user.ID, b.Password); err != nil {
		return Bootstrapped{}, err
	}
	app, err := d.Application(ctx, b.ClientID)
	if err != nil {
		return Bootstrapped{}, err
	}
	plain, secret := newSecret(d.stamp().Add(10 * 365 * 24 * time.Hour))
	b.Secret = plain
	return b, update(ctx, d, applications+app.ID, func(a *Application) { a.Secrets = []Secret{secret} })
}

// claim writes value under key, or returns what another wrote there first.
func (d *Directory) claim(ctx context.Context, key string, value ServicePrincipal) (ServicePrincipal, error) {
	data, err := json.Marshal(value)
	if err != nil {
		return value, fmt.Errorf("encode %s: %w", key, err)
	}
	_, err = d.config.Store.Put(ctx, key, data, store.Absent)
	if err == nil {
		return value, nil
	}
	if !fault.Is(err, fault.Precondition) {
		return value, fmt.Errorf("write %s: %w", key, err)
	}
	record, err := d.config.Store.Get(ctx, key)
	if err != nil {
		return value, fmt.Errorf("read %s: %w", key, err)
	}
	if err := json.Unmarshal(record.Value, &value); err != nil {
		return value, fmt.Errorf("decode %s: %w", key, err)
	}
	return value, nil
}
