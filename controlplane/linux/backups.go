// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"filippo.io/age"
	clientv3 "go.etcd.io/etcd/client/v3"

	"bastide.dev/controlplane"
	"bastide.dev/fault"
	"bastide.dev/pki"
)

// Backups are in backups/kept of their control plane: NAME.age, sealed, and
// NAME.json, which is written last and says that the other is whole.
const (
	keptDir     = "kept"
	sealedEnd   = ".age"
	describeEnd = ".json"
	rootKey     = "/registry/" // of everything that an API server keeps
)

// backupPause is how long what couldn't be made waits for another try.
const backupPause = time.Minute

func (p *Plane) kept(id, name string) string { return p.dir(id, backupsDir, keptDir, name) }

// keptBackups lists those that are whole, by name.
func (p *Plane) keptBackups(id string) []controlplane.Backup {
	entries, err := os.ReadDir(p.kept(id, ""))
	if err != nil {
		return nil
	}
	var all []controlplane.Backup
	for _, e := range entries {
		name, described := strings.CutSuffix(e.Name(), describeEnd)
		if !described {
			continue
		}
		if b, err := p.keptBackup(id, name); err == nil {
			all = append(all, b)
		}
	}
	return all
}

func (p *Plane) keptBackup(id, name string) (controlplane.Backup, error) {
	var b controlplane.Backup
	if !controlplane.IsID(id) || !controlplane.IsID(name) {
		return b, fault.New(fault.Invalid, "", "%q of %q is no backup's name.", name, id)
	}
	data, err := os.ReadFile(p.kept(id, name+describeEnd))
	if err == nil {
		err = json.Unmarshal(data, &b)
	}
	if err == nil && b.ID != name {
		err = errors.New("it is another one's")
	}
	if err != nil {
		return b, fmt.Errorf("backup %s: %w", name, err)
	}
	return b, nil
}

// dropBackups removes those that nobody asks for.
func (p *Plane) dropBackups(spec *controlplane.Spec) error {
	entries, err := os.ReadDir(p.kept(spec.ID, ""))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove backups: %w", err)
	}
	wanted := map[string]bool{}
	if b := spec.Backups; b != nil {
		for _, name := range slices.Concat(b.Take, b.Keep) {
			wanted[name+describeEnd], wanted[name+sealedEnd] = true, true
		}
	}
	// Descriptions first: what has none isn't there.
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(filepath.Ext(b.Name()), filepath.Ext(a.Name())) })
	for _, e := range entries {
		if wanted[e.Name()] || strings.HasPrefix(e.Name(), halfSnapshot) {
			continue
		}
		if err := os.Remove(p.kept(spec.ID, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove backups: %w", err)
		}
	}
	return nil
}

// takeBackup makes a sealed copy of etcd.
func (p *Plane) takeBackup(ctx context.Context, spec *controlplane.Spec, name string) (err error) {
	key, err := age.ParseX25519Identity(string(spec.Backups.Key))
	if err != nil {
		return errors.New("the key of backups is none") // no cause: it could quote it
	}
	if err := os.MkdirAll(p.kept(spec.ID, ""), 0o700); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	if halves, err := filepath.Glob(p.kept(spec.ID, halfSnapshot+"*")); err == nil {
		for _, half := range halves { // of a Plane that was killed: there is one job at a time
			if err := os.Remove(half); err != nil {
				return fmt.Errorf("backup: %w", err)
			}
		}
	}
	b := controlplane.Backup{ID: name, Taken: time.Now().UTC(), Version: spec.Version, Etcd: spec.Etcd}
	if b.Objects, err = p.countObjects(ctx, spec); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	f, err := os.CreateTemp(p.kept(spec.ID, ""), halfSnapshot+"*")
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	taken, err := p.sealSnapshot(ctx, spec, f, key.Recipient())
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), p.kept(spec.ID, name+sealedEnd))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	b.Revision, b.Size, b.SHA256 = taken.Revision, taken.Size, taken.SHA256
	data, err := json.Marshal(b)
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	if err := pki.WriteFile(p.kept(spec.ID, name+describeEnd), data, 0, 0); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	return nil
}

func (p *Plane) sealSnapshot(ctx context.Context, spec *controlplane.Spec, f *os.File, to age.Recipient) (Snapshot, error) {
	sealed, err := age.Encrypt(f, to)
	if err != nil {
		return Snapshot{}, fmt.Errorf("seal backup: %w", err)
	}
	taken, err := p.snapshot(ctx, *spec, sealed)
	return taken, errors.Join(err, sealed.Close(), f.Sync())
}

func (p *Plane) countObjects(ctx context.Context, spec *controlplane.Spec) (n int64, err error) {
	client, err := p.etcdClient(*spec)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	return countKeys(ctx, client)
}

func countKeys(ctx context.Context, client *clientv3.Client) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, etcdHealthy)
	defer cancel()
	answer, err := client.Get(ctx, rootKey, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return 0, fmt.Errorf("count objects: %w", err)
	}
	return answer.Count, nil
}

// openBackup writes a backup's database to a file of uid's own, and verifies it.
func (p *Plane) openBackup(r *controlplane.Restore, path string, uid int) error {
	key, err := age.ParseX25519Identity(string(r.Key))
	if err != nil {
		return errors.New("the key of the backup is none")
	}
	if _, err := p.keptBackup(r.Source, r.Backup); err != nil {
		return err
	}
	f, err := os.Open(p.kept(r.Source, r.Backup+sealedEnd))
	if err != nil {
		return fmt.Errorf("open backup: %w", err)
	}
	defer f.Close()
	plain, err := age.Decrypt(f, key)
	if err != nil {
		return errors.New("the backup can't be opened with its key: it is damaged, or another one's")
	}
	sum := newTrailer()
	counted := &tally{}
	if err := copyOwned(path, io.TeeReader(plain, io.MultiWriter(sum, counted)), uid); err != nil {
		return fmt.Errorf("the backup is damaged or cut short: %w", err)
	}
	digest, err := sum.verify(counted.n)
	if err != nil {
		return fmt.Errorf("open backup: %w", err)
	}
	if !bytes.Equal([]byte(digest), []byte(r.SHA256)) {
		return errors.New("the backup isn't the one that was asked for: it has another checksum")
	}
	return nil
}

// tally counts what is written to it.
type tally struct{ n int64 }

func (c *tally) Write(b []byte) (int, error) {
	c.n += int64(len(b))
	return len(b), nil
}
