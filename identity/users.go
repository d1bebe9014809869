// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/google/uuid"

	"bastide.dev/fault"
	"bastide.dev/store"
)

// names hold each name that only one object may have: who writes the mark first
// has it. They stand outside of the watched prefix.
const names = "identity-marks/names/"

var localName = regexp.MustCompile(`^[A-Za-z0-9'._+!#^~-]{1,64}$`)

// CreateUser adds a user; name is "alice" or "alice@<tenant's domain>".
func (d *Directory) CreateUser(ctx context.Context, name, displayName, password string) (User, error) {
	return d.AddUser(ctx, User{Name: name, DisplayName: displayName}, password)
}

// AddUser adds a user with a password. Its ids and times are made here.
func (d *Directory) AddUser(ctx context.Context, u User, password string) (User, error) {
	tenant, err := d.Tenant(ctx)
	if err != nil {
		return User{}, err
	}
	if !strings.Contains(u.Name, "@") {
		u.Name += "@" + tenant.Domain
	}
	problems := checkUser(tenant, u)
	if len(password) < minPassword || len(password) > maxPassword {
		problems = append(problems, badValue("passwordProfile.password", "A password has %d to %d characters.", minPassword, maxPassword))
	}
	if err := fault.Join(problems...); err != nil {
		return User{}, err
	}
	if u.PasswordHash, err = d.hashPassword(ctx, password); err != nil {
		return User{}, err
	}
	u.ID, u.ValidFrom, u.Created = uuid.NewString(), d.stamp(), d.stamp()
	u.PasswordSet = u.Created
	if _, err := d.User(ctx, u.Name); err == nil {
		return User{}, nameTaken()
	}
	err = d.commit(ctx, activity{Name: "Add user"}, change{key: users + u.ID, after: u, revision: store.Absent}, d.nameMark(u.Name, u.ID))
	if fault.Is(err, fault.Precondition) {
		return User{}, nameTaken()
	}
	return u, err
}

const minPassword = 8

func (d *Directory) nameMark(name, id string) change {
	return change{key: names + "users/" + strings.ToLower(name), after: id, revision: store.Absent}
}

func nameTaken() error {
	return fault.New(fault.Invalid, "Request_BadRequest", "Another object with the same value for property userPrincipalName already exists.").At("userPrincipalName")
}

// checkUser finds all that is wrong with a user's properties.
func checkUser(tenant Tenant, u User) []*fault.Error {
	var problems []*fault.Error
	local, domain, _ := strings.Cut(u.Name, "@")
	if !localName.MatchString(local) || strings.HasPrefix(local, ".") || strings.HasSuffix(local, ".") {
		problems = append(problems, badValue("userPrincipalName", "The part of userPrincipalName before @ has 1 to 64 letters, digits and '.-_!#^~+."))
	}
	if !strings.EqualFold(domain, tenant.Domain) {
		problems = append(problems, badValue("userPrincipalName", "The domain portion of the userPrincipalName property is invalid. You must use one of the verified domain names in your organization: %s.", tenant.Domain))
	}
	if u.DisplayName == "" {
		problems = append(problems, badValue("displayName", "A value is required for property 'displayName' of resource 'User'."))
	}
	return append(problems, checkTexts(u)...)
}

// maxText bounds every text of an object, and maxTexts a list of them.
const (
	maxText  = 1024
	maxTexts = 250
)

// checkTexts bounds the texts of an object: none is longer than a line needs,
// none holds control characters.
func checkTexts(v any) []*fault.Error {
	var problems []*fault.Error
	r := reflect.ValueOf(v)
	for i := range r.NumField() {
		field := r.Type().Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		switch value := r.Field(i).Interface().(type) {
		case Profile:
			problems = append(problems, checkTexts(value)...)
		case string:
			problems = append(problems, checkText(name, value)...)
		case []string:
			if name == "members" || name == "owners" {
				continue
			}
			if len(value) > maxTexts {
				problems = append(problems, badValue(name, "The property '%s' has at most %d values.", name, maxTexts))
				continue
			}
			for _, text := range value {
				problems = append(problems, checkText(name, text)...)
			}
		}
	}
	return problems
}

func checkText(name, value string) []*fault.Error {
	if len(value) > maxText || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\n' && r != '\r' && r != '\t' || r == 0x7f }) {
		return []*fault.Error{badValue(name, "Invalid value specified for property '%s': it is longer than %d bytes or has control characters.", name, maxText)}
	}
	return nil
}

// UpdateUser changes a user through change, again when another writer was first.
func (d *Directory) UpdateUser(ctx context.Context, id string, change func(*User)) error {
	return update(ctx, d, users+strings.ToLower(id), change)
}

// EditUser changes a user through apply, whose error stops it, and judges the result.
func (d *Directory) EditUser(ctx context.Context, id string, apply func(*User) error) error {
	tenant, err := d.Tenant(ctx)
	if err != nil {
		return err
	}
	key := users + strings.ToLower(id)
	return d.retry(ctx, func() (activity, []change, error) {
		current, revision, err := get[User](ctx, d.objects, key)
		if err != nil {
			return activity{}, nil, err
		}
		next, err := clone(current)
		if err != nil {
			return activity{}, nil, err
		}
		if err := apply(next); err != nil {
			return activity{}, nil, err
		}
		if err := fault.Join(checkUser(tenant, *next)...); err != nil {
			return activity{}, nil, err
		}
		if next.Disabled && !current.Disabled {
			if err := d.staysAdministered(ctx, next.ID); err != nil {
				return activity{}, nil, err
			}
		}
		changes := []change{{key: key, before: *current, after: *next, revision: revision}}
		if !strings.EqualFold(current.Name, next.Name) {
			if other, err := d.User(ctx, next.Name); err == nil && other.ID != next.ID {
				return activity{}, nil, nameTaken()
			}
			changes = append(changes, d.nameMark(next.Name, next.ID), change{key: names + "users/" + strings.ToLower(current.Name), revision: store.Any})
		}
		return activity{Name: "Update user"}, changes, nil
	})
}

// staysAdministered refuses to disable the last Global Administrator.
func (d *Directory) staysAdministered(ctx context.Context, id string) error {
	if !slices.Contains(d.RolesOf(id), GlobalAdministrator) {
		return nil
	}
	holders, err := d.HoldersOf(ctx, GlobalAdministrator)
	if err != nil {
		return err
	}
	for _, holder := range holders {
		switch v, _ := d.Object(ctx, holder); v := v.(type) {
		case *User:
			if v.ID != id && !v.Disabled {
				return nil
			}
		case *ServicePrincipal:
			if v.ID != id && !v.Disabled {
				return nil
			}
		case *Group:
			return nil
		}
	}
	return fault.New(fault.Forbidden, "Authorization_RequestDenied", "The last Global Administrator of the directory can't be disabled.")
}

// ResetPassword gives a user another's choice of a password; mustChange makes it
// good for one sign-in, in which the user chooses.
func (d *Directory) ResetPassword(ctx context.Context, id, password string, mustChange bool) error {
	hash, err := d.hashPassword(ctx, password)
	if err != nil {
		return err
	}
	now := d.stamp()
	return edit(ctx, d, users+strings.ToLower(id), activity{Name: "Reset user password"}, func(u *User) ([]string, error) {
		u.PasswordHash, u.ValidFrom, u.PasswordSet, u.MustChange = hash, now, now, mustChange
		return nil, nil
	})
}

// ChangePassword replaces a user's password by one of their own choice. Wrong
// ones count like those of a sign-in.
func (d *Directory) ChangePassword(ctx context.Context, id, current, next, address string) error {
	user, err := d.User(ctx, id)
	if err != nil {
		return err
	}
	if _, err := d.CheckPassword(ctx, user.Name, current, address); err != nil {
		if fault.Is(err, fault.Unauthorized) {
			return badValue("currentPassword", "The specified password does not match the current password, or too many wrong ones were tried. Please supply the correct current password.").Because(err)
		}
		return err
	}
	if current == next {
		return badValue("newPassword", "The new password is the current one.")
	}
	hash, err := d.hashPassword(ctx, next)
	if err != nil {
		return err
	}
	now := d.stamp()
	return edit(ctx, d, users+user.ID, activity{Name: "Change user password"}, func(u *User) ([]string, error) {
		if u.PasswordHash != user.PasswordHash {
			return nil, fault.New(fault.Conflict, "Directory_ConcurrencyViolation", "The password was changed by another request.")
		}
		u.PasswordHash, u.ValidFrom, u.PasswordSet, u.MustChange = hash, now, now, false
		return nil, nil
	})
}

// RevokeSessions ends everything that was issued to a user so far.
func (d *Directory) RevokeSessions(ctx context.Context, id string) error {
	now := d.stamp()
	return edit(ctx, d, users+strings.ToLower(id), activity{Name: "Revoke sign-in sessions"}, func(u *User) ([]string, error) {
		u.ValidFrom = now
		return nil, nil
	})
}

// DeleteUser removes a user with all that the directory gave them; tokens of
// theirs are refused from the next call on.
func (d *Directory) DeleteUser(ctx context.Context, id string) error {
	id = strings.ToLower(id)
	return d.remove(ctx, activity{Name: "Delete user"}, id, func() ([]change, error) {
		u, revision, err := get[User](ctx, d.objects, users+id)
		if err != nil {
			return nil, err
		}
		return []change{{key: users + id, before: *u, revision: revision},
			{key: names + "users/" + strings.ToLower(u.Name), revision: store.Any},
			{key: factorsPrefix + id, revision: store.Any}}, nil
	})
}
