// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"bastide.dev/controlplane"
	"bastide.dev/fault"
)

const (
	snapshotTime = 5 * time.Minute
	upgradeKept  = 3 // snapshots taken before changes
	upgradeMark  = "before-change-"
	halfSnapshot = ".new-"
	snapshotEnd  = ".db"
	etcdPage     = 512 // etcd's file is whole pages, its checksum isn't
)

// Snapshot is a copy of a control plane's etcd, in etcd's own form: the database
// and its SHA-256 behind it, as `etcdutl snapshot restore` reads it.
type Snapshot struct {
	Size     int64  `json:"size"`     // in bytes, with the checksum
	SHA256   string `json:"sha256"`   // of the database
	Revision int64  `json:"revision"` // the newest that is in it for certain
	Etcd     string `json:"etcd"`     // the version that wrote it
}

// Snapshot copies what a control plane's etcd has. What was written is good only
// when it returns no error: the checksum comes last.
func (p *Plane) Snapshot(ctx context.Context, id string, to io.Writer) (Snapshot, error) {
	p.mu.Lock()
	in := p.byID[id]
	p.mu.Unlock()
	if in == nil {
		return Snapshot{}, fault.New(fault.NotFound, "", "There is no control plane %s here.", id)
	}
	spec, known := in.current()
	if !known || spec.Stopped {
		return Snapshot{}, fault.New(fault.Unavailable, "", "Control plane %s doesn't run.", id)
	}
	return p.snapshot(ctx, spec, to)
}

func (p *Plane) snapshot(ctx context.Context, spec controlplane.Spec, to io.Writer) (_ Snapshot, err error) {
	ctx, cancel := context.WithTimeout(ctx, snapshotTime)
	defer cancel()
	client, err := p.etcdClient(spec)
	if err != nil {
		return Snapshot{}, err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	at, err := client.Get(ctx, "/registry/health", clientv3.WithCountOnly()) // linearizable
	if err != nil {
		return Snapshot{}, fmt.Errorf("snapshot of %s: %w", spec.ID, err)
	}
	stream, err := client.SnapshotWithVersion(ctx)
	if err != nil {
		return Snapshot{}, fmt.Errorf("snapshot of %s: %w", spec.ID, err)
	}
	defer func() { err = errors.Join(err, stream.Snapshot.Close()) }()
	sum := newTrailer()
	size, err := io.Copy(io.MultiWriter(to, sum), stream.Snapshot)
	if err != nil {
		return Snapshot{}, fmt.Errorf("snapshot of %s: %w", spec.ID, err)
	}
	digest, err := sum.verify(size)
	if err != nil {
		return Snapshot{}, fmt.Errorf("snapshot of %s: %w", spec.ID, err)
	}
	return Snapshot{Size: size, SHA256: digest, Revision: at.Header.Revision, Etcd: stream.Version}, nil
}

// VerifySnapshot reads a snapshot and tells whether it is whole.
func VerifySnapshot(from io.Reader) (size int64, digest string, err error) {
	sum := newTrailer()
	if size, err = io.Copy(sum, from); err != nil {
		return 0, "", fmt.Errorf("read snapshot: %w", err)
	}
	digest, err = sum.verify(size)
	return size, digest, err
}

// trailer digests all but the last bytes that are written to it, which are the
// digest that should be.
type trailer struct {
	hash hash.Hash
	last []byte
}

func newTrailer() *trailer { return &trailer{hash: sha256.New()} }

func (t *trailer) Write(b []byte) (int, error) {
	t.last = append(t.last, b...)
	if n := len(t.last) - sha256.Size; n > 0 {
		t.hash.Write(t.last[:n]) // never fails
		t.last = append(t.last[:0], t.last[n:]...)
	}
	return len(b), nil
}

func (t *trailer) verify(size int64) (string, error) {
	if size <= sha256.Size || (size-sha256.Size)%etcdPage != 0 {
		return "", fmt.Errorf("%d bytes are no whole snapshot", size)
	}
	sum := t.hash.Sum(nil)
	if !bytes.Equal(sum, t.last) {
		return "", errors.New("the snapshot isn't what its checksum says")
	}
	return hex.EncodeToString(sum), nil
}

// keepSnapshot copies etcd into the control plane's own backups before a change
// that may not be taken back, and removes the oldest of them.
func (p *Plane) keepSnapshot(ctx context.Context, spec controlplane.Spec) (err error) {
	dir := p.dir(spec.ID, backupsDir)
	f, err := os.CreateTemp(dir, halfSnapshot+"*")
	if err != nil {
		return fmt.Errorf("keep snapshot of %s: %w", spec.ID, err)
	}
	_, err = p.snapshot(ctx, spec, f)
	if err == nil {
		err = f.Sync()
	}
	name := upgradeMark + time.Now().UTC().Format("20060102T150405.000000Z") + snapshotEnd
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, name))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return p.pruneSnapshots(dir, name)
}

// pruneSnapshots keeps the newest, and in any case the one that was just taken:
// the clock may have been set back.
func (p *Plane) pruneSnapshots(dir, latest string) error {
	entries, err := os.ReadDir(dir) // by name, which is by time
	if err != nil {
		return fmt.Errorf("remove old snapshots: %w", err)
	}
	left := upgradeKept - 1
	for _, e := range slices.Backward(entries) {
		name := e.Name()
		half := strings.HasPrefix(name, halfSnapshot) // of a Plane that was killed
		if name == latest || !half && !strings.HasPrefix(name, upgradeMark) {
			continue
		}
		if !half && left > 0 {
			left--
			continue
		}
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("remove old snapshots: %w", err)
		}
	}
	return nil
}
