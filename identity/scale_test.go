// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"

	"bastide.dev/identity"
	"bastide.dev/store"
	"bastide.dev/store/memory"
)

// big is a directory of 10,000 users and 1,000 groups, each user in ten.
func big(tb testing.TB) (*identity.Directory, []string) {
	tb.Helper()
	s := memory.New(0)
	d, err := identity.New(identity.Config{Store: s, Endpoints: endpoints, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := d.Bootstrap(tb.Context(), identity.BootstrapOptions{Domain: "test"}); err != nil {
		tb.Fatal(err)
	}
	var changes []store.Change
	put := func(key string, v any) {
		data, err := json.Marshal(v)
		if err != nil {
			tb.Fatal(err)
		}
		changes = append(changes, store.Change{Key: key, Value: data, Revision: store.Absent})
	}
	ids := make([]string, 10_000)
	members := make([][]string, 1000)
	for i := range ids {
		ids[i] = uuid.NewString()
		put("identity/users/"+ids[i], identity.User{ID: ids[i], Name: fmt.Sprintf("user%d@test", i), DisplayName: fmt.Sprint("User ", i), Created: time.Now()})
		for j := range 10 {
			members[(i+j*101)%1000] = append(members[(i+j*101)%1000], ids[i])
		}
	}
	for i, m := range members {
		id := uuid.NewString()
		put("identity/groups/"+id, identity.Group{ID: id, DisplayName: fmt.Sprint("Group ", i), Members: m})
	}
	if _, err := s.Txn(tb.Context(), changes...); err != nil {
		tb.Fatal(err)
	}
	again, err := identity.New(identity.Config{Store: s, Endpoints: endpoints, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := again.Users(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	return again, ids
}

// TestScale: what is asked at each request is known until a group changes.
func TestScale(t *testing.T) {
	d, ids := big(t)
	if got := d.GroupsOf(ids[7]); len(got) != 10 {
		t.Errorf("%d groups", len(got))
	}
	if allocations := testing.AllocsPerRun(100, func() { d.GroupsOf(ids[7]) }); allocations > 1 {
		t.Errorf("GroupsOf follows the groups each time: %.0f allocations", allocations)
	}
	group, err := d.CreateGroup(t.Context(), "late", ids[7])
	if err != nil {
		t.Fatal(err)
	}
	if got := d.GroupsOf(ids[7]); len(got) != 11 {
		t.Errorf("a new membership isn't seen: %d", len(got))
	}
	if err := d.DeleteGroup(t.Context(), group.ID); err != nil || len(d.GroupsOf(ids[7])) != 10 {
		t.Errorf("%v, %d groups", err, len(d.GroupsOf(ids[7])))
	}
}
