// SPDX-License-Identifier: Apache-2.0

package compute

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/host"
	"bastide.dev/metadata"
	"bastide.dev/reconcile"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// again is how often a machine's metadata are compiled anew in any case: the
// secrets in them are replaced some day.
const again = time.Hour

// sweep is the key by which metadata of machines that are gone are looked for.
const sweep = "/"

// teller keeps what machines find at the metadata address: a unit for each
// virtual machine and each instance of a scale set. Its memory is a queue.
type teller struct {
	*Provider
	queue *reconcile.Queue
}

func newTeller(p *Provider) *teller {
	return &teller{Provider: p, queue: reconcile.NewQueue(reconcile.Backoff{Min: 50 * time.Millisecond, Max: 10 * time.Second})}
}

func (t *teller) addTo(group *reconcile.Group) {
	t.queue.Add(sweep)
	group.Add("metadata's documents", func(ctx context.Context) error {
		return store.Follow(ctx, t.Store, arm.DocumentPrefix, t.Log, func(r store.Record, deleted bool) { t.document(ctx, r, deleted) })
	})
	group.Add("metadata's reports", func(ctx context.Context) error {
		return store.Follow(ctx, t.Store, host.ReportKey(t.Host, host.MetadataUnit, ""), t.Log, func(store.Record, bool) { t.queue.Add(sweep) })
	})
	group.Add("metadata", reconcile.Loop{Name: "metadata", Queue: t.queue, Workers: workers, Logger: t.Log, Reconciler: reconcile.Func(t.reconcile)}.Run)
}

// typeOf is the type in a document's key, in lower case.
func typeOf(key string) string {
	at := strings.LastIndex(key, "/providers/")
	if at < 0 {
		return ""
	}
	parts := strings.Split(key[at+len("/providers/"):], "/")
	typ := parts[0]
	for i := 1; i < len(parts); i += 2 {
		typ += "/" + parts[i]
	}
	return typ
}

// document queues the machines that a document matters to.
func (t *teller) document(ctx context.Context, record store.Record, deleted bool) {
	key := strings.TrimPrefix(record.Key, arm.DocumentPrefix)
	switch typeOf(key) {
	case strings.ToLower(vmType), strings.ToLower(instanceType):
		if deleted {
			key = sweep
		}
		t.queue.Add(key)
	case strings.ToLower(setType):
		t.queueBelow(ctx, record.Key+"/")
	case strings.ToLower(identityType):
		t.queueBelow(ctx, arm.DocumentPrefix)
	}
}

// queueBelow queues all machines whose documents are beneath a prefix.
func (t *teller) queueBelow(ctx context.Context, prefix string) {
	records, _, err := t.Store.List(ctx, prefix)
	if err != nil {
		t.Log.WarnContext(ctx, "machines aren't listed", "error", err) // they are told again within the hour
		return
	}
	for _, r := range records {
		key := strings.TrimPrefix(r.Key, arm.DocumentPrefix)
		if typ := typeOf(key); typ == strings.ToLower(vmType) || typ == strings.ToLower(instanceType) {
			t.queue.Add(key)
		}
	}
}

func (t *teller) reconcile(ctx context.Context, key string) (time.Duration, error) {
	if key == sweep {
		return 0, t.sweep(ctx)
	}
	id, err := resource.ParseID("/" + key)
	if err != nil {
		return 0, err
	}
	d, err := arm.GetDocument(ctx, t.Store, id)
	if fault.Is(err, fault.NotFound) || err == nil && d.ProvisioningState == resource.Deleting {
		t.queue.Add(sweep)
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	m, err := t.metadataOf(ctx, d)
	if err != nil {
		return 0, err
	}
	_, err = t.tell(ctx, m)
	if fault.Is(err, fault.Precondition) {
		return time.Millisecond, nil
	}
	return again, err
}

// tell writes a machine's unit, and says what it still waits for; "" when the
// host has it.
func (p *Provider) tell(ctx context.Context, m metadata.Machine) (string, error) {
	const waits = "the machine's metadata aren't there yet"
	value, err := json.Marshal(m)
	if err != nil {
		return "", fmt.Errorf("metadata of machine %s: %w", m.ID, err)
	}
	key := host.UnitKey(p.Host, host.MetadataUnit, m.ID)
	unit, err := p.Store.Get(ctx, key)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return "", err
	}
	if !bytes.Equal(unit.Value, value) {
		_, err := p.Store.Put(ctx, key, value, unit.Revision)
		return waits, err
	}
	record, err := p.Store.Get(ctx, host.ReportKey(p.Host, host.MetadataUnit, m.ID))
	if fault.Is(err, fault.NotFound) {
		return waits, nil
	}
	if err != nil {
		return "", err
	}
	var report host.Report
	if err := json.Unmarshal(record.Value, &report); err != nil {
		return "", fmt.Errorf("report on metadata of %s: %w", m.ID, err)
	}
	if report.Generation < unit.Revision || !report.Applied {
		return waits, nil
	}
	return "", nil
}

// sweep ends the units of machines that have no document any more.
func (t *teller) sweep(ctx context.Context) error {
	prefix := host.UnitKey(t.Host, host.MetadataUnit, "")
	units, _, err := t.Store.List(ctx, prefix)
	if err != nil || len(units) == 0 {
		return err
	}
	machines, err := t.machines(ctx)
	if err != nil {
		return err
	}
	for _, unit := range units {
		name := strings.TrimPrefix(unit.Key, prefix)
		if machines[name] {
			continue
		}
		if err := t.end(ctx, unit, name); err != nil && !fault.Is(err, fault.Precondition) {
			return err
		}
	}
	return nil
}

// end asks the host to forget a machine, and forgets the unit when it has.
func (t *teller) end(ctx context.Context, unit store.Record, name string) error {
	if !bytes.Equal(unit.Value, host.Tombstone) {
		_, err := t.Store.Put(ctx, unit.Key, host.Tombstone, unit.Revision)
		return err
	}
	reportKey := host.ReportKey(t.Host, host.MetadataUnit, name)
	record, err := t.Store.Get(ctx, reportKey)
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	var report host.Report
	if err := json.Unmarshal(record.Value, &report); err != nil {
		return fmt.Errorf("report on metadata of %s: %w", name, err)
	}
	if !report.Gone || report.Generation < unit.Revision {
		return nil // its report wakes us
	}
	_, err = t.Store.Txn(ctx, store.Change{Key: unit.Key, Revision: unit.Revision}, store.Change{Key: reportKey, Revision: store.Any})
	return err
}

// machines are those that have a document, by the host's names for them.
func (t *teller) machines(ctx context.Context) (map[string]bool, error) {
	records, _, err := t.Store.List(ctx, arm.DocumentPrefix)
	if err != nil {
		return nil, err
	}
	found := map[string]bool{}
	for _, r := range records {
		if typ := typeOf(r.Key); typ != strings.ToLower(vmType) && typ != strings.ToLower(instanceType) {
			continue
		}
		d, err := arm.DecodeDocument(r)
		if err != nil {
			return nil, err
		}
		var state instanceState // a virtual machine's names its machine alike
		if err := json.Unmarshal(d.State, &state); err != nil {
			return nil, fmt.Errorf("machine %s: state: %w", d.ID, err)
		}
		found[state.Machine] = d.ProvisioningState != resource.Deleting
	}
	return found, nil
}
