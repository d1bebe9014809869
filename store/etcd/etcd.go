// SPDX-License-Identifier: Apache-2.0

// Package etcd is the store over an etcd cluster: the one that instances run on.
//
// Only cmd and tests make one; everybody else sees a store.Store.
package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"bastide.dev/fault"
	"bastide.dev/store"
)

// maxMessage bounds one answer; a List of everything must fit.
const maxMessage = 256 << 20

// again is how soon etcd is looked for when it was away: it is back in less than a
// second when it is started anew, and gRPC would wait for one and more.
var again = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
	MinConnectTimeout: 5 * time.Second,
}

// Config says which etcd, and where in it.
type Config struct {
	Endpoints   []string      // "https://10.0.0.1:2379" or "unix:///run/…/etcd.sock"
	TLS         *tls.Config   // client certificate and CA; nil for a unix socket
	Prefix      string        // of all keys, such as "/bastide/"; "" is none
	DialTimeout time.Duration // for the first connection; 0 is 10 s
}

// Store is a store.Store over etcd. Close it after its last use.
type Store struct {
	client *clientv3.Client
	prefix string
}

var _ store.Store = (*Store)(nil)

// New connects, and waits until an endpoint answers.
func New(ctx context.Context, c Config) (*Store, error) {
	if c.DialTimeout == 0 {
		c.DialTimeout = 10 * time.Second
	}
	client, err := clientv3.New(clientv3.Config{
		Context:              context.WithoutCancel(ctx),
		Endpoints:            c.Endpoints,
		TLS:                  c.TLS,
		DialTimeout:          c.DialTimeout,
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 5 * time.Second,
		MaxCallRecvMsgSize:   maxMessage,
		MaxCallSendMsgSize:   maxMessage,
		DialOptions:          []grpc.DialOption{grpc.WithConnectParams(again)},
		Logger:               zap.NewNop(), // what goes wrong comes back as an error
	})
	if err != nil {
		return nil, fmt.Errorf("etcd: connect to %s: %w", strings.Join(c.Endpoints, ","), err)
	}
	s := &Store{client: client, prefix: c.Prefix}
	ctx, stop := context.WithTimeout(ctx, c.DialTimeout)
	defer stop()
	if _, err := client.Get(ctx, s.prefix+"\x00", clientv3.WithCountOnly()); err != nil {
		return nil, errors.Join(fmt.Errorf("etcd: reach %s: %w", strings.Join(c.Endpoints, ","), err), client.Close())
	}
	return s, nil
}

// Close ends the connection and every watch.
func (s *Store) Close() error { return s.client.Close() }

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string) (store.Record, error) {
	resp, err := s.client.Get(ctx, s.prefix+key)
	if err != nil {
		return store.Record{}, failed(ctx, "get "+key, err)
	}
	if len(resp.Kvs) == 0 {
		return store.Record{}, store.NotFound(key)
	}
	kv := resp.Kvs[0]
	return store.Record{Key: key, Value: notNil(kv.Value), Revision: kv.ModRevision}, nil
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, prefix string) ([]store.Record, int64, error) {
	resp, err := s.client.Get(ctx, s.rangeStart(prefix), s.within(prefix))
	if err != nil {
		return nil, 0, failed(ctx, "list "+prefix, err)
	}
	records := make([]store.Record, len(resp.Kvs))
	for i, kv := range resp.Kvs {
		records[i] = store.Record{Key: string(kv.Key[len(s.prefix):]), Value: notNil(kv.Value), Revision: kv.ModRevision}
	}
	return records, resp.Header.Revision, nil
}

// Put implements store.Store.
func (s *Store) Put(ctx context.Context, key string, value []byte, revision int64) (int64, error) {
	return s.Txn(ctx, store.Change{Key: key, Value: notNil(value), Revision: revision})
}

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, key string, revision int64) error {
	_, err := s.Txn(ctx, store.Change{Key: key, Revision: revision})
	return err
}

// Txn implements store.Store.
func (s *Store) Txn(ctx context.Context, changes ...store.Change) (int64, error) {
	if err := store.CheckChanges(changes); err != nil {
		return 0, err
	}
	var conditions []clientv3.Cmp
	var effects []clientv3.Op
	var conditional string
	for _, c := range changes {
		key := s.prefix + c.Key
		if c.Revision != store.Any {
			conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(key), "=", c.Revision))
			conditional = c.Key
		}
		switch {
		case c.Check:
		case c.Value == nil:
			effects = append(effects, clientv3.OpDelete(key))
		default:
			effects = append(effects, clientv3.OpPut(key, string(c.Value)))
		}
	}
	resp, err := s.client.Txn(ctx).If(conditions...).Then(effects...).Commit()
	if err != nil {
		return 0, failed(ctx, "write", err)
	}
	if !resp.Succeeded {
		return 0, store.Mismatch(conditional)
	}
	return resp.Header.Revision, nil
}

// Watch implements store.Store. A lost connection is taken up again by the
// client where it broke off, so only lost history ends the channel early.
func (s *Store) Watch(ctx context.Context, prefix string, after int64) <-chan store.Event {
	out := make(chan store.Event)
	ctx, stop := context.WithCancel(ctx)
	responses := s.client.Watch(ctx, s.rangeStart(prefix), s.within(prefix), clientv3.WithRev(after+1))
	go func() {
		defer close(out)
		defer stop()
		for response := range responses {
			if response.Err() != nil {
				return
			}
			for _, event := range response.Events {
				select {
				case out <- s.event(event):
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return out
}

func (s *Store) event(e *clientv3.Event) store.Event {
	r := store.Record{Key: string(e.Kv.Key[len(s.prefix):]), Revision: e.Kv.ModRevision}
	if e.Type == clientv3.EventTypeDelete {
		return store.Event{Record: r, Deleted: true}
	}
	r.Value = notNil(e.Kv.Value)
	return store.Event{Record: r}
}

// rangeStart is the first key of a prefix; etcd has no empty key, so everything starts at NUL.
func (s *Store) rangeStart(prefix string) string {
	if s.prefix+prefix == "" {
		return "\x00"
	}
	return s.prefix + prefix
}

func (s *Store) within(prefix string) clientv3.OpOption {
	if s.prefix+prefix == "" {
		return clientv3.WithFromKey()
	}
	return clientv3.WithRange(clientv3.GetPrefixRangeEnd(s.prefix + prefix))
}

// failed says what an error of etcd means to the caller.
func failed(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("etcd: %s: %w", what, ctx.Err())
	}
	err = fmt.Errorf("etcd: %s: %w", what, err)
	switch status.Code(errors.Unwrap(err)) {
	case codes.InvalidArgument, codes.OutOfRange, codes.Unauthenticated, codes.PermissionDenied:
		return err // our own mistake: saying "try again" would be a lie
	case codes.ResourceExhausted:
		return fault.New(fault.Exhausted, "", "The service's store is full.").Because(err)
	}
	return fault.New(fault.Unavailable, "", "The service's store can't be reached. Try again.").Because(err)
}

func notNil(value []byte) []byte {
	if value == nil {
		return []byte{}
	}
	return value
}

// Snapshot writes a copy of the whole etcd, in the form that etcdutl restores:
// the database, and its checksum behind it.
func (s *Store) Snapshot(ctx context.Context, to io.Writer) (err error) {
	from, err := s.client.SnapshotWithVersion(ctx)
	if err != nil {
		return fmt.Errorf("etcd: snapshot: %w", err)
	}
	defer func() { err = errors.Join(err, from.Snapshot.Close()) }()
	if _, err := io.Copy(to, from.Snapshot); err != nil {
		return fmt.Errorf("etcd: snapshot: %w", err)
	}
	return nil
}
