// SPDX-License-Identifier: Apache-2.0

package signin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bastide.dev/fault"
	"bastide.dev/identity"
	"bastide.dev/store"
	"bastide.dev/store/memory"
)

// directory knows alice, an administrator, bob, the robot and the shop.
type directory struct{}

func (directory) Application(_ context.Context, id string) (identity.Application, error) {
	switch id {
	case shop:
		return identity.Application{AppID: shop}, nil
	case identity.AppCLI, identity.AppResourceManager, identity.AppGraph:
		return identity.Application{AppID: id, Public: true}, nil
	}
	return identity.Application{}, missing(id)
}

func (directory) ServicePrincipal(_ context.Context, id string) (identity.ServicePrincipal, error) {
	if id == robot {
		return identity.ServicePrincipal{ID: robot}, nil
	}
	return identity.ServicePrincipal{}, missing(id)
}

func (directory) User(_ context.Context, id string) (identity.User, error) {
	if id == alice || id == bob {
		return identity.User{ID: id}, nil
	}
	return identity.User{}, missing(id)
}

func (directory) Group(_ context.Context, id string) (identity.Group, error) {
	if id == admins {
		return identity.Group{ID: id, Members: []string{alice}}, nil
	}
	return identity.Group{}, missing(id)
}

func (directory) GroupsOf(id string) []string {
	if id == alice {
		return []string{admins}
	}
	return nil
}

func (directory) RolesOf(id string) []string {
	if id == alice {
		return []string{role}
	}
	return nil
}

func (directory) HoldersOf(context.Context, string) ([]string, error) {
	return []string{admins, robot}, nil
}

func service(t *testing.T, s store.Store, limits Limits) *Service {
	t.Helper()
	made, err := New(Config{Store: s, Directory: directory{}, Log: slog.New(slog.DiscardHandler), Limits: limits})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func (s *Service) mustCreate(t *testing.T, conditions, controls string) Policy {
	t.Helper()
	p, err := s.CreatePolicy(t.Context(), body(t, `{"displayName":"p","state":"enabled","conditions":{`+conditions+`},`+controls+`}`))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (s *Service) verdict(t *testing.T, a attempt) string {
	t.Helper()
	v, err := s.Judge(t.Context(), a.SignIn)
	if err != nil {
		t.Fatal(err)
	}
	return say(v)
}

func TestAPolicyHoldsAtOnce(t *testing.T) {
	base := memory.New(0)
	s, other := service(t, base, Limits{}), service(t, base, Limits{})
	if got := s.verdict(t, person()); got != "" {
		t.Errorf("no policy: %q", got)
	}
	p := s.mustCreate(t, everyone, block)
	if a, b := s.verdict(t, person()), other.verdict(t, person()); a != "block" || b != "block" {
		t.Errorf("here %q, in another replica %q", a, b)
	}
	carol := identity.By(t.Context(), identity.AuditActor{Kind: identity.UserKind, Name: "carol@test"})
	if _, err := other.UpdatePolicy(carol, strings.ToUpper(p.ID), body(t, `{"state":"disabled"}`)); err != nil {
		t.Fatal(err)
	}
	if got := s.verdict(t, person()); got != "" {
		t.Errorf("disabled: %q", got)
	}
	if err := s.DeletePolicy(t.Context(), p.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Policy(t.Context(), p.ID); !fault.Is(err, fault.NotFound) {
		t.Errorf("deleted: %v", err)
	}
	records, _, err := base.List(t.Context(), "identity-audit/")
	if err != nil || len(records) != 3 || !strings.Contains(string(records[1].Value), `"before":"enabled","after":"disabled"`) ||
		!strings.Contains(string(records[1].Value), "carol") || strings.Contains(string(records[0].Value), "carol") {
		t.Errorf("audit: %+v %v", records, err)
	}
}

// TestLiveDirectoryCounts: who calls can't keep a policy away by leaving out a group or writing an id in capitals.
func TestLiveDirectoryCounts(t *testing.T) {
	s := service(t, memory.New(0), Limits{})
	s.mustCreate(t, `"users":{"includeGroups":["`+admins+`"],"includeRoles":["`+role+`"]},"applications":{"includeApplications":["All"]}`, block)
	if got := s.verdict(t, person(func(a *attempt) { a.Principal = strings.ToUpper(alice) })); got != "block" {
		t.Errorf("a member of a group: %q", got)
	}
	if got := s.verdict(t, person(func(a *attempt) { a.Principal = bob })); got != "" {
		t.Errorf("nobody's member: %q", got)
	}
	s.mustCreate(t, everyone+`,"clientAppTypes":["browser"]`, mfa)
	if got := s.verdict(t, person(func(a *attempt) { a.Principal, a.ClientID = bob, shop })); got != "mfa" {
		t.Errorf("in a browser: %q", got)
	}
	s.mustCreate(t, everyone+`,"clientAppTypes":["other"]`, block)
	if got := s.verdict(t, person(func(a *attempt) { a.Principal, a.Flow, a.Origin = bob, identity.FlowRefresh, identity.FlowPassword })); got != "block" {
		t.Errorf("what grew out of a legacy sign-in: %q", got)
	}
}

func TestReferences(t *testing.T) {
	s := service(t, memory.New(0), Limits{})
	_, err := s.CreatePolicy(t.Context(), body(t, `{"displayName":"p","state":"enabled","conditions":{"users":{"includeUsers":["`+robot+`"],"excludeGroups":["`+alice+`"]},
		"applications":{"includeApplications":["`+office+`"]},"locations":{"includeLocations":["`+cafe+`"]}},`+block+`}`))
	if f := fault.From(err); f == nil || len(f.Details) != 4 {
		t.Errorf("what doesn't exist: %v", err)
	}
	l, err := s.CreateLocation(t.Context(), body(t, `{"@odata.type":"#microsoft.graph.ipNamedLocation","displayName":"cafe","isTrusted":true,"ipRanges":[{"cidrAddress":"10.2.0.0/16"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	p := s.mustCreate(t, everyone+`,"locations":{"includeLocations":["`+l.ID+`"]}`, block)
	if got := s.verdict(t, person(from("10.2.9.9"))); got != "block" {
		t.Errorf("at the cafe: %q", got)
	}
	if err := s.DeleteLocation(t.Context(), l.ID); !fault.Is(err, fault.Invalid) {
		t.Errorf("a trusted location deleted: %v", err)
	}
	if _, err := s.UpdateLocation(t.Context(), l.ID, map[string]any{"isTrusted": false}); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteLocation(t.Context(), l.ID); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "'p'") {
		t.Errorf("a location in use deleted: %v", err)
	}
	if err := s.DeletePolicy(t.Context(), p.ID); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteLocation(t.Context(), l.ID); err != nil {
		t.Error(err)
	}
}

func TestManyWritersAtOnce(t *testing.T) {
	base := memory.New(0)
	var writers sync.WaitGroup
	for range 4 {
		s := service(t, base, Limits{})
		writers.Go(func() {
			if _, err := s.CreatePolicy(t.Context(), body(t, `{"displayName":"p","state":"enabled","conditions":{`+everyone+`},`+block+`}`)); err != nil {
				t.Error(err)
			}
		})
	}
	writers.Wait()
	if found, err := ReadPolicies(t.Context(), base); err != nil || len(found) != 4 {
		t.Errorf("%d policies, %v", len(found), err)
	}
}

func TestLockedOut(t *testing.T) {
	base := memory.New(0)
	s := service(t, base, Limits{})
	said := func() []string {
		t.Helper()
		found, err := s.LockedOut(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, p := range found {
			ids = append(ids, p.ID)
		}
		return ids
	}
	s.mustCreate(t, everyone, mfa)
	s.mustCreate(t, `"users":{"includeUsers":["`+bob+`"]},"applications":{"includeApplications":["All"]}`, block)
	if got := said(); got != nil {
		t.Errorf("an administrator can prove a second factor: %v", got)
	}
	p := s.mustCreate(t, everyone, block)
	if got := said(); !slices.Equal(got, []string{p.ID}) {
		t.Errorf("%v, want %s", got, p.ID)
	}
	if _, err := s.CreateLocation(t.Context(), body(t, `{"@odata.type":"#microsoft.graph.ipNamedLocation","displayName":"office","isTrusted":true,"ipRanges":[{"cidrAddress":"10.1.0.0/16"}]}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.UpdatePolicy(t.Context(), p.ID, body(t, `{"conditions":{"locations":{"includeLocations":["All"],"excludeLocations":["AllTrusted"]}}}`)); err != nil {
		t.Fatal(err)
	}
	if got := said(); got != nil {
		t.Errorf("the office is open: %v", got)
	}
	if _, err := s.UpdatePolicy(t.Context(), p.ID, body(t, `{"conditions":{"locations":null}}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := SwitchOff(t.Context(), base, "no such", noon); !fault.Is(err, fault.NotFound) {
		t.Errorf("an unknown policy: %v", err)
	}
	if off, err := SwitchOff(t.Context(), base, p.ID, noon); err != nil || off.State != Disabled || s.verdict(t, person(proved("fido"))) != "" {
		t.Errorf("switched off: %+v %v", off, err)
	}
}

func signIn(edits ...func(*identity.SignIn)) identity.SignIn {
	in := identity.SignIn{Time: time.Now(), Flow: identity.FlowCode, Kind: identity.UserKind, Principal: alice, Name: "alice@test", ClientID: identity.AppCLI,
		ResourceID: identity.AppGraph, Address: netip.MustParseAddr("10.1.2.3"), Methods: []string{identity.MethodPassword}}
	for _, edit := range edits {
		edit(&in)
	}
	return in
}

func TestLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := memory.New(0)
		s := service(t, base, Limits{})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		s.Record(signIn(), identity.Verdict{Policies: []identity.Applied{{ID: "1", Result: "success"}}}, nil)
		s.Record(signIn(func(in *identity.SignIn) {
			in.Principal, in.Kind, in.Name = "", "", "nobody\x1b[2J\n@test"+strings.Repeat("x", 5000)
		}), identity.Verdict{},
			fmt.Errorf("check: %w", fault.New(fault.Unauthorized, "AADSTS50034", "The user account does not exist.").Because(errors.New("inner secret"))))
		s.Record(signIn(), identity.Verdict{}, errors.New("dial tcp 10.0.0.1: secret detail"))
		s.Record(signIn(func(in *identity.SignIn) { in.Flow = identity.FlowDevice }), identity.Verdict{}, errors.New("authorization_pending: AADSTS70016: Authorization is pending."))
		for range 300 {
			s.Record(signIn(func(in *identity.SignIn) {
				in.Kind, in.Principal, in.Flow, in.Credential = identity.ServicePrincipalKind, robot, identity.FlowSecret, "s1"
			}), identity.Verdict{}, nil)
		}
		time.Sleep(2 * flushEvery)
		synctest.Wait()
		found, err := ReadSignIns(t.Context(), base, time.Time{}, nil) // what another replica sees
		if err != nil || len(found) != 4 {
			t.Fatalf("%d entries, want 4: %+v %v", len(found), found, err)
		}
		for _, e := range found {
			switch {
			case e.Principal == robot:
				if e.Count != 300 || e.EventType() != ServicePrincipal {
					t.Errorf("alike: %+v", e)
				}
			case e.Code == 50034:
				if e.Reason != "The user account does not exist." || strings.ContainsAny(e.Name, "\x1b\n") || len([]rune(e.Name)) != maxText || e.EventType() != InteractiveUser {
					t.Errorf("unknown user: %+v", e)
				}
			case e.Code == codeInternal:
				if strings.Contains(e.Reason, "secret") {
					t.Errorf("inner error: %+v", e)
				}
			case e.Code != 0 || e.AccessStatus != "success" || e.Address != "10.1.2.3" || e.ID == "":
				t.Errorf("%+v", e)
			}
		}
		if counted := CountFailures(found); len(counted) != 2 || counted[0].Count != 1 {
			t.Errorf("%+v", counted)
		}
		s.Record(signIn(), identity.Verdict{}, nil)
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if found, err = ReadSignIns(t.Context(), base, time.Time{}, nil); err != nil || len(found) != 5 {
			t.Errorf("at the end: %d entries, %v", len(found), err)
		}
	})
}

// TestFailuresCrowdOutNothing floods the log with failures.
func TestFailuresCrowdOutNothing(t *testing.T) {
	s := service(t, memory.New(0), Limits{Entries: 1000})
	s.Record(signIn(), identity.Verdict{}, nil)
	for i := range 5000 {
		s.Record(signIn(func(in *identity.SignIn) { in.Name = fmt.Sprint("guess", i) }), identity.Verdict{}, errors.New("invalid_grant: AADSTS50126: Wrong."))
	}
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	found, err := s.SignIns(t.Context(), time.Time{}, nil)
	kept := slices.IndexFunc(found, func(e Entry) bool { return e.Code == 0 })
	if err != nil || len(found) > 1001 || len(found) < 500 || kept < 0 {
		t.Errorf("%d entries, the successful one at %d, %v", len(found), kept, err)
	}
	if found[0].Name != "guess4999" && found[1].Name != "guess4999" {
		t.Errorf("the newest are kept: %+v", found[0])
	}
}

func TestTheQueueNeverWaits(t *testing.T) {
	s := service(t, broken{memory.New(0)}, Limits{})
	for range 3 * queued {
		s.Record(signIn(), identity.Verdict{}, nil)
	}
	for range 5 {
		if err := s.Flush(t.Context()); err == nil {
			t.Fatal("a store that doesn't write gave no error")
		}
		for range queued {
			s.Record(signIn(), identity.Verdict{}, nil)
		}
	}
	if len(s.pending) > pendingMost || s.lost.Load()+int64(len(s.pending)) == 0 {
		t.Errorf("%d wait", len(s.pending))
	}
}

// broken is a store that doesn't write.
type broken struct{ store.Store }

func (broken) Put(context.Context, string, []byte, int64) (int64, error) {
	return 0, fault.New(fault.Unavailable, "", "no store")
}

func TestUses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		counted := &counting{Store: memory.New(0)}
		s := service(t, counted, Limits{})
		use := func(s *Service) {
			t.Helper()
			s.Record(signIn(func(in *identity.SignIn) {
				in.Kind, in.Principal, in.Credential = identity.ServicePrincipalKind, robot, "Key/../1"
			}), identity.Verdict{}, nil)
			if err := s.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		first := time.Now()
		for range 59 {
			use(s)
			time.Sleep(time.Minute)
		}
		use(service(t, counted, Limits{})) // a restart
		if counted.uses != 1 {
			t.Errorf("%d writes within an hour", counted.uses)
		}
		if found, err := s.LastUses(t.Context(), robot); err != nil || !found["key_.._1"].Equal(first) || len(found) != 1 {
			t.Errorf("%v %v", found, err)
		}
		time.Sleep(time.Minute)
		use(s)
		s.Record(signIn(func(in *identity.SignIn) { in.Credential = "wrong" }), identity.Verdict{}, errors.New("invalid_client: AADSTS7000215: no"))
		if found, err := s.LastUses(t.Context(), robot); err != nil || !found["key_.._1"].Equal(first.Add(time.Hour)) {
			t.Errorf("an hour later: %v %v", found, err)
		}
		if found, err := s.LastUses(t.Context(), alice); err != nil || len(found) != 0 {
			t.Errorf("a failure counts as use: %v %v", found, err)
		}
		time.Sleep(useKept + time.Hour)
		if err := s.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if found, err := s.LastUses(t.Context(), robot); err != nil || len(found) != 0 {
			t.Errorf("kept for ever: %v %v", found, err)
		}
	})
}

type counting struct {
	store.Store
	uses int
}

func (c *counting) Put(ctx context.Context, key string, value []byte, revision int64) (int64, error) {
	if strings.HasPrefix(key, UsePrefix) {
		c.uses++
	}
	return c.Store.Put(ctx, key, value, revision)
}

func BenchmarkRecord(b *testing.B) {
	s, err := New(Config{Store: memory.New(0), Directory: directory{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	in := signIn()
	for b.Loop() {
		s.Record(in, identity.Verdict{}, nil)
		if len(s.queue) > queued/2 {
			if err := s.Flush(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkJudge(b *testing.B) {
	s, err := New(Config{Store: memory.New(0), Directory: directory{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	for range 20 {
		if _, err := s.CreatePolicy(b.Context(), body(b, `{"displayName":"p","state":"enabled","conditions":{`+everyone+`},`+mfa+`}`)); err != nil {
			b.Fatal(err)
		}
	}
	in := signIn()
	for b.Loop() {
		if _, err := s.Judge(b.Context(), in); err != nil {
			b.Fatal(err)
		}
	}
}
