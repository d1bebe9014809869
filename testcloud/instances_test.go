// SPDX-License-Identifier: Apache-2.0

package testcloud_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"bastide.dev/testcloud"
)

// party is one of two instances that live on one machine and don't meet.
type party struct {
	*testcloud.Cloud
	*stubborn
	pool netip.Prefix
}

// TestTwoInstances runs two instances at once, each with a cluster of the same
// name, group and addresses inside.
func TestTwoInstances(t *testing.T) {
	both := [2]*party{{pool: netip.MustParsePrefix("198.18.66.0/27")}, {pool: netip.MustParsePrefix("198.18.66.32/27")}}
	for i, name := range []string{"two-a", "two-b"} {
		both[i].Cloud = testcloud.Start(t, name, "--public-pool", both[i].pool.String())
	}
	// Only now: Go keeps what it read in the hosts file for five seconds.
	for _, p := range both {
		p.stubborn = newStubborn(t, p.Cloud)
	}
	a, b := both[0], both[1]
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	created := make(chan error)
	for _, p := range both {
		go func() { created <- p.create(ctx, "c") }()
	}
	if err := errors.Join(<-created, <-created); err != nil {
		t.Fatal(err)
	}
	t.Run("each has a whole cluster at the same inner addresses", func(t *testing.T) {
		var inner [2]string
		for i, p := range both {
			p.whole(t, "c", 1)
			inner[i] = must(p.stubborn.kubectl(t, "c")("get", "nodes", "-o", `jsonpath={.items[*].status.addresses[?(@.type=="InternalIP")].address}`))
		}
		if inner[0] != inner[1] || inner[0] == "" {
			t.Errorf("addresses %q", inner)
		}
	})
	t.Run("neither sees the other", func(t *testing.T) { strangers(t, a, b); strangers(t, b, a) })
	t.Run("down of one leaves the other", func(t *testing.T) { downOfOne(t, a, b) })
	t.Run("up brings its cluster back", func(t *testing.T) {
		b.Must(t, "up")
		retry(t, func() error {
			_, err := b.stubborn.kubectl(t, "c")("wait", "--for=condition=Ready", "nodes", "--all", "--timeout=30s")
			return err
		})
		b.whole(t, "c", 1)
	})
	t.Run("clean frees its place", func(t *testing.T) { cleanOne(t, a, b) })
}

// strangers: to one instance the other is as if it weren't there.
func strangers(t *testing.T, one, other *party) {
	if one.sub == other.sub || one.Env["AZURE_TENANT_ID"] == other.Env["AZURE_TENANT_ID"] {
		t.Error("they share a tenant or a subscription")
	}
	list := func(token string) (int, errorBody) {
		status, e, _ := one.request(t, http.MethodGet, "/subscriptions/"+one.sub+"/resourceGroups?api-version=2021-04-01", token, "")
		return status, e
	}
	if status, _ := list(one.token(t)); status != http.StatusOK {
		t.Errorf("%s doesn't answer its own token: %d", one.Name, status)
	}
	if status, e := list(other.token(t)); status != http.StatusUnauthorized {
		t.Errorf("%s answers a token of %s: %d %+v", one.Name, other.Name, status, e)
	}
	if status, _, _ := one.request(t, http.MethodGet, "/subscriptions/"+other.sub+"/resourceGroups/rg?api-version=2021-04-01", one.token(t), ""); status/100 == 2 {
		t.Errorf("%s knows the subscription of %s", one.Name, other.Name)
	}
	for name, addresses := range hostsBlock(t, one.Name) {
		if !strings.HasSuffix(name, "."+one.Env["BASTIDE_DOMAIN"]) || !one.pool.Contains(addresses) {
			t.Errorf("%s has the entry %s %s", one.Name, addresses, name)
		}
	}
	kubectl := one.stubborn.kubectl(t, "c")
	one.Must(t, "image", "load", toolbox(t), "toolbox:1")
	if _, err := kubectl("run", "box", "--image="+one.Env["BASTIDE_REGISTRY"]+"/toolbox:1"); err != nil {
		t.Fatal(err)
	}
	if _, err := kubectl("wait", "--for=condition=Ready", "pod/box", "--timeout=60s"); err != nil {
		t.Fatal(err)
	}
	if _, err := kubectl("exec", "box", "--", "nslookup", "management."+one.Env["BASTIDE_DOMAIN"]); err != nil {
		t.Errorf("its own name: %v", err)
	}
	if out, err := kubectl("exec", "box", "--", "nslookup", "management."+other.Env["BASTIDE_DOMAIN"]); err == nil {
		t.Errorf("a pod of %s resolves a name of %s: %s", one.Name, other.Name, out)
	}
}

// hostsBlock reads an instance's part of the machine's hosts file.
func hostsBlock(t *testing.T, instance string) map[string]netip.Addr {
	t.Helper()
	entries := map[string]netip.Addr{}
	inside := false
	for line := range strings.Lines(read("/etc/hosts")) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "#"):
			inside = strings.Contains(line, "bastide "+instance+" begin")
		case inside:
			fields := strings.Fields(line)
			for _, name := range fields[1:] {
				entries[name] = netip.MustParseAddr(fields[0])
			}
		}
	}
	if len(entries) < 5 {
		t.Errorf("%s has in the hosts file: %v", instance, entries)
	}
	return entries
}

func downOfOne(t *testing.T, a, b *party) {
	before := fmt.Sprint(victims(a.Cloud))
	b.Must(t, "down")
	if left := testcloud.Leftovers(t, b.Cloud); len(left) > 0 {
		t.Errorf("down left: %s", strings.Join(left, "\n"))
	}
	if after := fmt.Sprint(victims(a.Cloud)); after != before {
		t.Errorf("the other instance's processes were %s\nand are %s", before, after)
	}
	a.whole(t, "c", 1)
	strayed, err := a.stubborn.kubectl(t, "c")("get", "pod", "box", "-o", "jsonpath={.status.containerStatuses[0].restartCount}")
	if err != nil || strayed != "0" {
		t.Errorf("a pod of the other was restarted %s times, %v", strayed, err)
	}
}

func cleanOne(t *testing.T, a, b *party) {
	b.Must(t, "clean", "--yes")
	if left := testcloud.Leftovers(t, b.Cloud); len(left) > 0 {
		t.Errorf("clean left: %s", strings.Join(left, "\n"))
	}
	if _, err := os.Stat(b.StateDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its state is still there: %v", err)
	}
	const slots = "/var/lib/bastide/.slots"
	holders := map[string]bool{}
	for _, slot := range names(slots) {
		if target, err := os.Readlink(slots + "/" + slot); err == nil {
			name, _, _ := strings.Cut(target, " ")
			holders[name] = true
		}
	}
	if holders[b.Name] || !holders[a.Name] {
		t.Errorf("places are held by %v", holders)
	}
	a.whole(t, "c", 1)
}
