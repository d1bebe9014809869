// SPDX-License-Identifier: Apache-2.0

package network

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/host"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// conclude ends the operations whose networks stand as compiled, and those that
// a host's error keeps from it; it says when to look again at the others.
func (r *runner) conclude(ctx context.Context, want *compiled, have standing, wrote map[string]bool) (time.Duration, error) {
	r.noteTrouble(have)
	running := want.running()
	for id := range r.operations {
		if running[id] == nil {
			delete(r.operations, id)
		}
	}
	var again time.Duration
	for _, id := range slices.Sorted(maps.Keys(running)) {
		o, err := r.pending(ctx, id, want, have, wrote)
		if err != nil {
			return 0, err
		}
		if o.foreign {
			continue
		}
		wait, err := r.concludeOne(ctx, id, o, running[id], want, have)
		if err != nil {
			return 0, err
		}
		if wait > 0 && (again == 0 || wait < again) {
			again = wait
		}
	}
	r.first = false
	return again, nil
}

// running are the provider's operations under way, each with the networks that
// its documents are part of.
func (c *compiled) running() map[string]map[string]bool {
	found := map[string]map[string]bool{}
	for key, i := range c.inv.items {
		id := i.doc.Operation
		if id == "" || !ownType(typeOfKey(arm.DocumentKey(i.doc.ID))) {
			continue
		}
		if found[id] == nil {
			found[id] = map[string]bool{edgeUnit: true}
		}
		maps.Copy(found[id], c.ties[key])
		if i.doc.ID.IsType(typeVNet) {
			found[id][VNetID(i.doc.ID)] = true // also when it is going
		}
	}
	return found
}

// pending remembers an operation. Networks that were written in the round that
// first saw it may have changed because of it, even if nothing ties it to them
// any more; after a start, so may all that haven't been applied yet.
func (r *runner) pending(ctx context.Context, id string, want *compiled, have standing, wrote map[string]bool) (*pending, error) {
	if o := r.operations[id]; o != nil {
		return o, nil
	}
	op, err := r.ops.Get(ctx, id)
	if notFound(err) != nil {
		return nil, err
	}
	o := &pending{since: r.Now(), touched: maps.Clone(wrote)}
	o.foreign = err != nil || !ownType(strings.ToLower(op.Resource.Type()))
	if r.first {
		for name := range want.units {
			o.touched[name] = o.touched[name] || want.waits(have, name) != ""
		}
	}
	r.operations[id] = o
	return o, nil
}

func (r *runner) concludeOne(ctx context.Context, id string, o *pending, tied map[string]bool, want *compiled, have standing) (time.Duration, error) {
	waiting, trouble := false, ""
	var since time.Time
	for _, name := range slices.Sorted(maps.Keys(tied)) {
		if want.waits(have, name) == "" {
			continue
		}
		waiting = true
		if text := have[name].trouble(); text != "" && trouble == "" {
			trouble, since = fmt.Sprintf("The %s can't be made so: %s", want.vnetOf(name), text), r.troubled[name]
		}
	}
	for name, touched := range o.touched {
		// What others broke isn't this operation's.
		waiting = waiting || (touched && !tied[name] && want.waits(have, name) != "" && have[name].trouble() == "")
	}
	switch {
	case !waiting:
		return 0, notFound(r.ops.Finish(ctx, id, arm.Ending{}))
	case trouble == "":
		return 0, nil
	}
	if since.Before(o.since) {
		since = o.since
	}
	if left := patience - r.Now().Sub(since); left > 0 {
		return left, nil
	}
	return 0, notFound(r.ops.Finish(ctx, id, arm.Ending{Fault: fault.New(fault.Exhausted, "NetworkProvisioningFailed", "%s", trouble)}))
}

// noteTrouble remembers since when units report errors.
func (r *runner) noteTrouble(have standing) {
	for name, unit := range have {
		if unit.trouble() != "" {
			r.troubled[name] = cmp.Or(r.troubled[name], r.Now())
		} else if unit.answered() {
			delete(r.troubled, name)
		}
	}
	for name := range r.troubled {
		if unit := have[name]; unit.value == nil && unit.refused == "" {
			delete(r.troubled, name)
		}
	}
}

// addressPrefix is where the records stand of what is taken of the instance's
// public addresses and names, each with its owner's id.
const addressPrefix = "addresses/"

// sweep gives back what documents had that are gone, and removes questions that
// nobody waits for any more.
func (r *runner) sweep(ctx context.Context) error {
	if err := r.sweepQueries(ctx); err != nil {
		return err
	}
	if !r.removed.Swap(false) {
		return nil
	}
	records, _, err := r.Store.List(ctx, addressPrefix)
	if err != nil {
		return fmt.Errorf("public addresses: %w", err)
	}
	for _, record := range records {
		var owner resource.ID
		if json.Unmarshal(record.Value, &owner) != nil || owner.IsRoot() {
			continue
		}
		// Owner and address are written at once, and the address was read first.
		_, err := r.Store.Get(ctx, arm.DocumentKey(owner))
		if err == nil {
			continue
		}
		if !fault.Is(err, fault.NotFound) {
			return fmt.Errorf("owner of %s: %w", record.Key, err)
		}
		r.Log.InfoContext(ctx, "a public address or name is free again", "key", record.Key, "owner", owner.String())
		if err := r.Store.Delete(ctx, record.Key, record.Revision); err != nil && !fault.Is(err, fault.Precondition) {
			return fmt.Errorf("release %s: %w", record.Key, err)
		}
	}
	return nil
}

// sweepQueries removes questions whose asker has stopped waiting.
func (r *runner) sweepQueries(ctx context.Context) error {
	for _, prefix := range []string{host.UnitKey(r.Host, host.QueryUnit, ""), host.ReportKey(r.Host, host.QueryUnit, "")} {
		records, _, err := r.Store.List(ctx, prefix)
		if err != nil {
			return fmt.Errorf("questions: %w", err)
		}
		for _, record := range records {
			name := record.Key[len(prefix):]
			if until, ours := askedUntil(name); !ours || r.Now().Before(until) {
				continue
			}
			if err := r.forgetQuery(ctx, name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *Provider) forgetQuery(ctx context.Context, name string) error {
	_, err := p.Store.Txn(ctx,
		store.Change{Key: host.UnitKey(p.Host, host.QueryUnit, name), Revision: store.Any},
		store.Change{Key: host.ReportKey(p.Host, host.QueryUnit, name), Revision: store.Any})
	if err != nil {
		return fmt.Errorf("forget question %s: %w", name, err)
	}
	return nil
}
