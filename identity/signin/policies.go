// SPDX-License-Identifier: Apache-2.0

package signin

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"bastide.dev/fault"
	"bastide.dev/identity"
	"bastide.dev/store"
)

// Where policies are kept. Each write changes the version too, and only when
// nobody else did: so a policy's references hold, and who looks at the version
// alone knows whether anything changed.
const (
	accessPrefix   = "access/"
	versionKey     = accessPrefix + "version"
	policyPrefix   = accessPrefix + "policies/"
	locationPrefix = accessPrefix + "locations/"
)

// book is all policies and locations at one version. It doesn't change once made.
type book struct {
	version   int64
	active    bool // any policy isn't disabled
	policies  []Policy
	locations map[string]Location
}

// current is the book as it stands.
func (s *Service) current(ctx context.Context) (*book, error) {
	version, err := s.version(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	held := s.book
	s.mu.Unlock()
	if held.version == version {
		return held, nil
	}
	fresh, err := readBook(ctx, s.store)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if fresh.version > s.book.version {
		s.book = fresh
	}
	return fresh, nil
}

func (s *Service) version(ctx context.Context) (int64, error) {
	record, err := s.store.Get(ctx, versionKey)
	if fault.Is(err, fault.NotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read policies: %w", err)
	}
	return record.Revision, nil
}

func readBook(ctx context.Context, from store.Store) (*book, error) {
	records, _, err := from.List(ctx, accessPrefix)
	if err != nil {
		return nil, fmt.Errorf("list policies: %w", err)
	}
	b := &book{locations: map[string]Location{}}
	for _, r := range records {
		switch {
		case r.Key == versionKey:
			b.version = r.Revision
		case strings.HasPrefix(r.Key, policyPrefix):
			var p Policy
			if err := json.Unmarshal(r.Value, &p); err != nil {
				return nil, fmt.Errorf("decode %s: %w", r.Key, err)
			}
			b.policies = append(b.policies, p)
			b.active = b.active || p.State != Disabled
		case strings.HasPrefix(r.Key, locationPrefix):
			var l Location
			if err := json.Unmarshal(r.Value, &l); err != nil {
				return nil, fmt.Errorf("decode %s: %w", r.Key, err)
			}
			b.locations[l.ID] = l
		}
	}
	slices.SortFunc(b.policies, func(x, y Policy) int {
		return strings.Compare(strings.ToLower(x.Name)+x.ID, strings.ToLower(y.Name)+y.ID)
	})
	return b, nil
}

// change is what was done, for the directory's audit log: before and after are
// a Policy or a Location, nil when there was or is none. Who did it is in the
// context, by identity.By.
type change struct {
	activity      string
	target        identity.AuditTarget
	before, after any
}

// attempts bounds how often a change is tried anew when others change policies at the same moment.
const attempts = 10

// edit writes one document together with the version and the audit record.
// look sees the book and says what to write: nil as after deletes.
func (s *Service) edit(ctx context.Context, key string, look func(*book) (change, error)) error {
	for range attempts {
		b, err := readBook(ctx, s.store)
		if err != nil {
			return err
		}
		c, err := look(b)
		if err != nil {
			return err
		}
		err = commit(ctx, s.store, s.now(), key, b.version, c)
		if !fault.Is(err, fault.Precondition) {
			return err
		}
	}
	return fault.New(fault.Conflict, "Conflict", "The policies were changed by others at the same moment. Try again.")
}

func commit(ctx context.Context, to store.Store, now time.Time, key string, version int64, c change) error {
	write := store.Change{Key: key, Revision: store.Any}
	if c.after != nil {
		data, err := json.Marshal(c.after)
		if err != nil {
			return fmt.Errorf("encode %s: %w", key, err)
		}
		write.Value = data
	}
	changes := []store.Change{write, {Key: versionKey, Value: []byte(uuid.NewString()), Revision: version}}
	audit, err := identity.AuditChange(ctx, now, c.activity, identity.CategoryPolicy, c.target, c.before, c.after)
	if err != nil {
		return err
	}
	if _, err := to.Txn(ctx, append(changes, audit)...); err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	return nil
}

// Policies lists all policies, by name.
func (s *Service) Policies(ctx context.Context) ([]Policy, error) {
	b, err := s.current(ctx)
	if err != nil {
		return nil, err
	}
	return slices.Clone(b.policies), nil
}

// Policy finds a policy by its id.
func (s *Service) Policy(ctx context.Context, id string) (Policy, error) {
	b, err := s.current(ctx)
	if err != nil {
		return Policy{}, err
	}
	return b.policy(id)
}

func (b *book) policy(id string) (Policy, error) {
	at := slices.IndexFunc(b.policies, func(p Policy) bool { return strings.EqualFold(p.ID, id) })
	if at < 0 {
		return Policy{}, missing(id)
	}
	return b.policies[at], nil
}

// CreatePolicy adds a policy from Graph's body.
func (s *Service) CreatePolicy(ctx context.Context, body map[string]any) (Policy, error) {
	p, err := ParsePolicy(body, nil)
	if err != nil {
		return Policy{}, err
	}
	p.ID, p.Created = uuid.NewString(), s.now().UTC()
	return p, s.edit(ctx, policyPrefix+p.ID, func(b *book) (change, error) {
		if len(b.policies) >= maxPolicies {
			return change{}, fault.New(fault.Conflict, "BadRequest", "There are %d policies; more aren't possible.", maxPolicies)
		}
		return change{"Add conditional access policy", identity.AuditTarget{Type: "Policy", ID: p.ID, Name: p.Name}, nil, p}, s.references(ctx, b, p)
	})
}

// UpdatePolicy lays a PATCH over a policy.
func (s *Service) UpdatePolicy(ctx context.Context, id string, body map[string]any) (Policy, error) {
	var p Policy
	err := s.edit(ctx, policyPrefix+strings.ToLower(id), func(b *book) (change, error) {
		old, err := b.policy(id)
		if err != nil {
			return change{}, err
		}
		if p, err = ParsePolicy(body, &old); err != nil {
			return change{}, err
		}
		p.Modified = s.now().UTC()
		return change{"Update conditional access policy", identity.AuditTarget{Type: "Policy", ID: p.ID, Name: p.Name}, old, p}, s.references(ctx, b, p)
	})
	return p, err
}

// DeletePolicy removes a policy.
func (s *Service) DeletePolicy(ctx context.Context, id string) error {
	return s.edit(ctx, policyPrefix+strings.ToLower(id), func(b *book) (change, error) {
		old, err := b.policy(id)
		return change{"Delete conditional access policy", identity.AuditTarget{Type: "Policy", ID: old.ID, Name: old.Name}, old, nil}, err
	})
}

// Locations lists all named locations, by name.
func (s *Service) Locations(ctx context.Context) ([]Location, error) {
	b, err := s.current(ctx)
	if err != nil {
		return nil, err
	}
	found := []Location{}
	for _, l := range b.locations {
		found = append(found, l)
	}
	slices.SortFunc(found, func(x, y Location) int { return strings.Compare(x.Name+x.ID, y.Name+y.ID) })
	return found, nil
}

// Location finds a named location by its id.
func (s *Service) Location(ctx context.Context, id string) (Location, error) {
	b, err := s.current(ctx)
	if err != nil {
		return Location{}, err
	}
	return b.location(id)
}

func (b *book) location(id string) (Location, error) {
	l, found := b.locations[strings.ToLower(id)]
	if !found {
		return Location{}, missing(id)
	}
	return l, nil
}

// CreateLocation adds a named location from Graph's body.
func (s *Service) CreateLocation(ctx context.Context, body map[string]any) (Location, error) {
	l, err := ParseLocation(body, nil)
	if err != nil {
		return Location{}, err
	}
	l.ID, l.Created = uuid.NewString(), s.now().UTC()
	return l, s.edit(ctx, locationPrefix+l.ID, func(b *book) (change, error) {
		if len(b.locations) >= maxLocations {
			return change{}, fault.New(fault.Conflict, "BadRequest", "There are %d named locations; more aren't possible.", maxLocations)
		}
		return change{"Add named location", identity.AuditTarget{Type: "NamedLocation", ID: l.ID, Name: l.Name}, nil, l}, nil
	})
}

// UpdateLocation lays a PATCH over a named location.
func (s *Service) UpdateLocation(ctx context.Context, id string, body map[string]any) (Location, error) {
	var l Location
	err := s.edit(ctx, locationPrefix+strings.ToLower(id), func(b *book) (change, error) {
		old, err := b.location(id)
		if err != nil {
			return change{}, err
		}
		if l, err = ParseLocation(body, &old); err != nil {
			return change{}, err
		}
		l.Modified = s.now().UTC()
		return change{"Update named location", identity.AuditTarget{Type: "NamedLocation", ID: l.ID, Name: l.Name}, old, l}, nil
	})
	return l, err
}

// DeleteLocation removes a named location that no policy names and that isn't trusted.
func (s *Service) DeleteLocation(ctx context.Context, id string) error {
	return s.edit(ctx, locationPrefix+strings.ToLower(id), func(b *book) (change, error) {
		old, err := b.location(id)
		if err != nil {
			return change{}, err
		}
		if old.Trusted {
			return change{}, fault.New(fault.Invalid, "BadRequest", "The named location '%s' is trusted. Mark it as not trusted before you delete it.", old.Name)
		}
		for _, p := range b.policies {
			if l := p.Conditions.Locations; l != nil && (slices.Contains(l.Include, old.ID) || slices.Contains(l.Exclude, old.ID)) {
				return change{}, fault.New(fault.Invalid, "BadRequest", "The named location '%s' is used by the policy '%s'.", old.Name, p.Name)
			}
		}
		return change{"Delete named location", identity.AuditTarget{Type: "NamedLocation", ID: old.ID, Name: old.Name}, old, nil}, nil
	})
}

func missing(id string) error {
	return fault.New(fault.NotFound, "ResourceNotFound", "Resource '%.100s' does not exist.", id)
}

// references checks that all that a policy names is there: a misspelt id would
// make it say something else than was meant.
func (s *Service) references(ctx context.Context, b *book, p Policy) error {
	var found []*fault.Error
	look := func(target string, names []string, exists func(id string) error) error {
		for _, name := range names {
			if uuid.Validate(name) != nil {
				continue // one of the words
			}
			err := exists(name)
			if fault.Is(err, fault.NotFound) {
				found = append(found, bad(target, "'%s' in '%s' does not exist.", name, target))
			} else if err != nil {
				return err
			}
		}
		return nil
	}
	c := p.Conditions
	user := func(id string) error { _, err := s.directory.User(ctx, id); return err }
	group := func(id string) error { _, err := s.directory.Group(ctx, id); return err }
	app := func(id string) error { _, err := s.directory.Application(ctx, id); return err }
	principal := func(id string) error { _, err := s.directory.ServicePrincipal(ctx, id); return err }
	location := func(id string) error { _, err := b.location(id); return err }
	err := cmpErr(look("conditions.users.includeUsers", c.Users.IncludeUsers, user), look("conditions.users.excludeUsers", c.Users.ExcludeUsers, user),
		look("conditions.users.includeGroups", c.Users.IncludeGroups, group), look("conditions.users.excludeGroups", c.Users.ExcludeGroups, group),
		look("conditions.applications.includeApplications", c.Applications.Include, app), look("conditions.applications.excludeApplications", c.Applications.Exclude, app))
	if err == nil && c.Clients != nil {
		err = cmpErr(look("conditions.clientApplications.includeServicePrincipals", c.Clients.Include, principal),
			look("conditions.clientApplications.excludeServicePrincipals", c.Clients.Exclude, principal))
	}
	if err == nil && c.Locations != nil {
		err = cmpErr(look("conditions.locations.includeLocations", c.Locations.Include, location), look("conditions.locations.excludeLocations", c.Locations.Exclude, location))
	}
	if err != nil {
		return err
	}
	return fault.Join(found...)
}

func cmpErr(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
