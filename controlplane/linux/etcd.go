// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"bastide.dev/controlplane"
	"bastide.dev/pki"
	"bastide.dev/supervise"
)

const (
	etcdDial    = 2 * time.Second
	etcdHealthy = 15 * time.Second       // until what it came with is taken again
	quiet       = 10 * time.Second       // for requests under way to end
	breath      = 400 * time.Millisecond // in which TCP sends again what was dropped, and a request ends
)

// etcdClient talks to a control plane's etcd from within its namespace.
func (p *Plane) etcdClient(spec controlplane.Spec) (*clientv3.Client, error) {
	ca, err := pki.OpenCA(pki.Pair(spec.Keys.EtcdCA))
	if err != nil {
		return nil, err
	}
	leaf, err := ca.Issue(pki.Request{CommonName: probeUser, Client: true, Lifetime: probeLife})
	if err != nil {
		return nil, err
	}
	certificate, err := leaf.TLS()
	if err != nil {
		return nil, err
	}
	trust, err := pki.Pool(spec.Keys.Trust().Etcd)
	if err != nil {
		return nil, err
	}
	dial := Dialer(p.Netns(spec.Namespace))
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{controlplane.EtcdURL},
		TLS:       &tls.Config{RootCAs: trust, Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12},
		Logger:    zap.NewNop(), // what goes wrong comes back as an error
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return dial(ctx, "tcp", address)
		})},
	})
	if err != nil {
		return nil, fmt.Errorf("make client of etcd: %w", err)
	}
	return client, nil
}

// changeEtcd starts etcd anew while clients are held back: what they asked for
// is answered before, and what they ask next after it.
func (p *Plane) changeEtcd(ctx context.Context, in *instance, a *attempt) error {
	now := p.readRunning(in.id)
	d, err := p.draft(a.spec, now.Slot, a.owner)
	if err != nil {
		return err
	}
	api, err := dialSlot(a.spec, d.netns, d.slot)
	if err != nil {
		return err
	}
	defer api.hangUp()
	if !now.Holding {
		if err := p.keepSnapshot(ctx, a.spec); err != nil {
			return fmt.Errorf("no snapshot of etcd, so etcd stays: %w", err)
		}
		if err := p.at(ctx, "etcd"); err != nil {
			return err
		}
		if err := awaitQuiet(ctx, api, func(held bool) error { return p.hold(ctx, in, a, d, held) }); err != nil {
			return err
		}
		if err := p.at(ctx, "held"); err != nil {
			return err
		}
		if err := p.replaceEtcd(ctx, in, a, d); err != nil {
			return errors.Join(err, p.hold(ctx, in, a, d, false))
		}
		if err := p.at(ctx, "replaced"); err != nil {
			return err
		}
	}
	failed := p.awaitEtcd(ctx, a.spec, api)
	if failed != nil && ctx.Err() == nil {
		failed = verdict{errors.Join(failed, p.etcdBack(ctx, in, a, now.Launched[controlplane.Etcd], api))}
	}
	if p.ctx.Err() != nil {
		return p.ctx.Err()
	}
	return errors.Join(failed, p.hold(ctx, in, a, d, false))
}

// hold keeps clients back, or lets them go on. What is on disk comes first.
func (p *Plane) hold(ctx context.Context, in *instance, a *attempt, d *draft, held bool) error {
	if err := in.apply.lockContext(ctx); err != nil {
		return err
	}
	defer in.apply.Unlock()
	if held && !in.is(a) {
		return context.Canceled
	}
	now := p.readRunning(in.id)
	now.Holding = held
	if err := p.writeRunning(in.id, now); err != nil {
		return err
	}
	return lead(d.netns, in.way(now))
}

// awaitQuiet holds clients back until no request is under way. One whose beginning
// came and whose rest is held back would never end: clients are let go on then, and
// held back again. Not for ever: a request that waits so long for a webhook may meet
// what comes, as ever.
func awaitQuiet(ctx context.Context, api *slotClient, hold func(held bool) error) error {
	for end := time.Now().Add(quiet); ; pause(ctx, breath) {
		if err := hold(true); err != nil {
			return err
		}
		for begin := time.Now(); ctx.Err() == nil && time.Since(begin) < breath; pause(ctx, probeEvery/5) {
			if n, err := api.executing(ctx); err == nil && n == 0 {
				return nil
			}
		}
		if ctx.Err() != nil || time.Now().After(end) {
			return ctx.Err()
		}
		if err := hold(false); err != nil {
			return err
		}
	}
}

// replaceEtcd writes down what will run before it ends what does: whoever reads
// it after a crash starts that.
func (p *Plane) replaceEtcd(ctx context.Context, in *instance, a *attempt, d *draft) error {
	processes, err := d.write(controlplane.Etcd)
	if err != nil {
		return err
	}
	return p.launchEtcd(ctx, in, a, processes[controlplane.Etcd])
}

func (p *Plane) launchEtcd(ctx context.Context, in *instance, a *attempt, process supervise.Process) error {
	if err := in.apply.lockContext(ctx); err != nil {
		return err
	}
	defer in.apply.Unlock()
	if !in.is(a) {
		return context.Canceled
	}
	now := p.readRunning(in.id)
	now = now.launched(now.Launched)
	now.Launched[controlplane.Etcd] = process
	if err := p.writeRunning(in.id, now); err != nil {
		return err
	}
	// Asked to end, etcd waits seconds for watches that go on. Nothing is under way,
	// and what it acknowledged is on disk: it is made for ending like this.
	if err := p.end(ctx, in.id, p.supervisor.Kill, controlplane.Etcd); err != nil {
		return err
	}
	return p.supervisor.Set(process)
}

// etcdBack starts what ran before.
func (p *Plane) etcdBack(ctx context.Context, in *instance, a *attempt, before supervise.Process, api *slotClient) error {
	if before.Path == "" {
		return errors.New("etcd has nothing to go back to")
	}
	if err := p.launchEtcd(ctx, in, a, before); err != nil {
		return err
	}
	return p.awaitEtcd(ctx, a.spec, api)
}

// awaitEtcd waits until etcd answers, and the API server gets answers of it.
func (p *Plane) awaitEtcd(ctx context.Context, spec controlplane.Spec, api *slotClient) (err error) {
	ctx, cancel := context.WithTimeout(ctx, etcdHealthy)
	defer cancel()
	client, err := p.etcdClient(spec)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	for {
		once, cancel := context.WithTimeout(ctx, etcdDial)
		_, err = client.Get(once, "/registry/health", clientv3.WithCountOnly())
		cancel()
		if err == nil {
			_, err = api.get(ctx, "/readyz/etcd")
		}
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("etcd isn't healthy: %w", err)
		}
		pause(ctx, probeEvery)
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
