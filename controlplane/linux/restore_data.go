// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"context"
	"errors"
	"fmt"
	"os"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"bastide.dev/controlplane"
)

const (
	objectPage  = 500 // objects that are read at once
	objectWrite = 100 // and written: etcd takes 128 in one transaction
)

// prepare makes a data directory of a backup, and has an etcd of its own look at
// it beside the one that serves. It returns how many objects are in it.
func (p *Plane) prepare(ctx context.Context, spec *controlplane.Spec, seen int64) (objects int64, err error) {
	uid, err := p.readUID(spec.ID)
	if err != nil {
		return 0, fmt.Errorf("prepare restore: %w", err)
	}
	if err := p.endTrial(ctx, spec.ID); err != nil { // of a killed Plane
		return 0, err
	}
	dir := p.dir(spec.ID, restoreDir)
	if err := errors.Join(p.clearRestore(spec.ID), os.Mkdir(dir, 0o700), os.Lchown(dir, uid, uid)); err != nil {
		return 0, fmt.Errorf("prepare restore: %w", err)
	}
	file, data := p.dir(spec.ID, restoreDir, "snapshot"), p.dir(spec.ID, restoreDir, "data")
	if err := p.openBackup(spec.Restore, file, uid); err != nil {
		return 0, err
	}
	if err := RestoreAs(ctx, p.CacheDir, spec.Etcd, uid, controlplane.RestoreArgsAfter(file, data, seen)); err != nil {
		return 0, fmt.Errorf("the backup can't be restored: %w", err)
	}
	if err := os.Remove(file); err != nil {
		return 0, fmt.Errorf("prepare restore: %w", err)
	}
	client, err := p.startTrial(ctx, spec, data, uid)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	if err := p.rewrite(ctx, spec, client); err != nil {
		return 0, fmt.Errorf("the backup is of no use: %w", err)
	}
	return countKeys(ctx, client)
}

// seen is the revision that clients know; 0 when etcd doesn't answer.
func (p *Plane) seen(ctx context.Context, spec *controlplane.Spec) int64 {
	client, err := p.etcdClient(*spec)
	if err != nil {
		return 0
	}
	ctx, cancel := context.WithTimeout(ctx, etcdDial)
	defer cancel()
	answer, err := client.Get(ctx, rootKey, clientv3.WithCountOnly())
	if err := errors.Join(err, client.Close()); err != nil {
		return 0
	}
	return answer.Header.Revision
}

func (p *Plane) endTrial(ctx context.Context, id string) error {
	return p.end(ctx, id, p.supervisor.Kill, controlplane.TrialEtcd)
}

// startTrial starts an etcd over restored data, and waits until it answers.
func (p *Plane) startTrial(ctx context.Context, spec *controlplane.Spec, data string, uid int) (*clientv3.Client, error) {
	d, err := p.draft(*spec, p.readRunning(spec.ID).Slot, uid)
	if err != nil {
		return nil, err
	}
	want, is := d.plan.Trial(data)
	if !is {
		return nil, errors.New("the control plane has no etcd")
	}
	found, err := p.programs(controlplane.Plan{Programs: []controlplane.Program{want}})
	if err != nil {
		return nil, err
	}
	if err := p.supervisor.Set(p.process(spec.ID, want, found[0], d.netns, uid, "")); err != nil {
		return nil, fmt.Errorf("look at the backup: %w", err)
	}
	return p.trialClient(ctx, spec)
}

// trialClient is a client of the etcd over restored data, once that answers.
func (p *Plane) trialClient(ctx context.Context, spec *controlplane.Spec) (*clientv3.Client, error) {
	client, err := p.etcdClient(*spec)
	if err != nil {
		return nil, err
	}
	client.SetEndpoints(controlplane.TrialEtcdURL)
	waiting, cancel := context.WithTimeout(ctx, etcdHealthy)
	defer cancel()
	for {
		once, cancel := context.WithTimeout(waiting, etcdDial)
		_, err = client.Get(once, rootKey, clientv3.WithCountOnly())
		cancel()
		if err == nil {
			return client, nil
		}
		status, _ := p.supervisor.Status(processName(spec.ID, controlplane.TrialEtcd))
		if waiting.Err() != nil || status.Restarts >= accidents {
			return nil, errors.Join(fmt.Errorf("etcd doesn't come up with the backup's data: %w: %s", err, lastLine(status.Log)), client.Close())
		}
		pause(waiting, probeEvery)
	}
}

// rewrite reads every object, and changes those that have to be changed.
func (p *Plane) rewrite(ctx context.Context, spec *controlplane.Spec, client *clientv3.Client) error {
	rules, err := newRules(spec)
	if err != nil {
		return err
	}
	namespace, err := client.Get(ctx, rootKey+"namespaces/kube-system")
	if err != nil {
		return fmt.Errorf("read objects: %w", err)
	}
	if len(namespace.Kvs) == 0 {
		return errors.New("it has no namespace kube-system: no cluster was in it")
	}
	w := &batch{client: client}
	err = eachObject(ctx, client, rootKey, func(kv *mvccpb.KeyValue) error {
		value, err := rules.judge(string(kv.Key), kv.Value)
		switch {
		case err != nil:
			return err
		case value == nil:
			return w.add(ctx, clientv3.OpDelete(string(kv.Key)))
		case string(value) != string(kv.Value):
			return w.add(ctx, clientv3.OpPut(string(kv.Key), string(value), clientv3.WithLease(clientv3.LeaseID(kv.Lease))))
		}
		return nil
	})
	if err != nil {
		return err
	}
	return w.flush(ctx)
}

// copyMachines replaces what restored data tells of machines by what is so now.
// etcd is asked after the last who writes to it has ended. A cluster whose etcd is
// lost is restored for that very reason: then a note says what that means.
func (p *Plane) copyMachines(ctx context.Context, spec *controlplane.Spec) (note string, err error) {
	ctx, cancel := context.WithTimeout(ctx, etcdHealthy)
	defer cancel()
	restored, err := p.trialClient(ctx, spec)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, restored.Close()) }()
	now, err := p.etcdClient(*spec)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, now.Close()) }()
	there, err := readMachines(ctx, now)
	if err != nil && ctx.Err() == nil {
		p.Logger.Warn("nodes as in the backup", "controlplane", spec.ID, "error", err)
		return "etcd didn't tell which nodes there are: they are as in the backup", nil
	}
	if err != nil {
		return "", err
	}
	w := &batch{client: restored}
	for _, prefix := range machineKeys() {
		err := eachObject(ctx, restored, prefix, func(kv *mvccpb.KeyValue) error {
			if _, is := there[string(kv.Key)]; is {
				return nil
			}
			return w.add(ctx, clientv3.OpDelete(string(kv.Key)))
		})
		if err != nil {
			return "", err
		}
	}
	for key, value := range there {
		if err := w.add(ctx, clientv3.OpPut(key, value)); err != nil {
			return "", err
		}
	}
	return "", w.flush(ctx)
}

func readMachines(ctx context.Context, client *clientv3.Client) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, etcdDial)
	defer cancel()
	there := map[string]string{}
	for _, prefix := range machineKeys() {
		err := eachObject(ctx, client, prefix, func(kv *mvccpb.KeyValue) error {
			there[string(kv.Key)] = string(kv.Value)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return there, nil
}

// eachObject reads what is below a key, as it was when it began.
func eachObject(ctx context.Context, client *clientv3.Client, prefix string, each func(*mvccpb.KeyValue) error) error {
	from, end, revision := prefix, clientv3.GetPrefixRangeEnd(prefix), int64(0)
	for {
		answer, err := client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(objectPage), clientv3.WithRev(revision))
		if err != nil {
			return fmt.Errorf("read objects: %w", err)
		}
		for _, kv := range answer.Kvs {
			if err := each(kv); err != nil {
				return err
			}
		}
		if !answer.More || len(answer.Kvs) == 0 {
			return nil
		}
		revision = answer.Header.Revision
		from = string(answer.Kvs[len(answer.Kvs)-1].Key) + "\x00"
	}
}

// batch collects writes into transactions.
type batch struct {
	client *clientv3.Client
	ops    []clientv3.Op
}

func (b *batch) add(ctx context.Context, ops ...clientv3.Op) error {
	for _, op := range ops {
		if b.ops = append(b.ops, op); len(b.ops) < objectWrite {
			continue
		}
		if err := b.flush(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (b *batch) flush(ctx context.Context) error {
	if len(b.ops) == 0 {
		return nil
	}
	_, err := b.client.Txn(ctx).Then(b.ops...).Commit()
	b.ops = b.ops[:0]
	if err != nil {
		return fmt.Errorf("write objects: %w", err)
	}
	return nil
}
