// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"bastide.dev/controlplane"
	"bastide.dev/pki"
)

// A restore, beside etcd/ in the control plane's directory:
//
//	restore.json  how far it is; written down before each step
//	restore/      the uid's own: what is being made of the backup, in restore/data
//	etcd.before/  the data of before, until what was restored is good
const (
	restoreFile = "restore.json"
	restoreDir  = "restore"
	beforeDir   = "etcd.before"
)

// restoring is what is on disk of a restore.
type restoring struct {
	controlplane.RestoreStatus
	Since time.Time `json:"since,omitzero"` // of a trial
	// Seen is the last revision that clients may know by way of restores, for when
	// etcd can't tell.
	Seen int64 `json:"seen,omitempty"`
}

// readRestoring returns a zero value when there is nothing that can be read.
func (p *Plane) readRestoring(id string) restoring {
	var r restoring
	data, err := os.ReadFile(p.dir(id, restoreFile))
	if err != nil || json.Unmarshal(data, &r) != nil {
		return restoring{}
	}
	return r
}

func (p *Plane) writeRestoring(id string, r restoring) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("restore of %s: %w", id, err)
	}
	return pki.WriteFile(p.dir(id, restoreFile), data, 0, 0) // synced: directories are moved by what it says
}

// arrange moves directories as far as a restore has come, which a killed Plane
// may have left half done. in.apply is held.
func (p *Plane) arrange(ctx context.Context, in *instance) error {
	r := p.readRestoring(in.id)
	if r.Phase != controlplane.RestoreSwitching && r.Phase != controlplane.RestoreReturning {
		return nil
	}
	in.mu.Lock()
	in.abandon()
	in.mu.Unlock()
	in.endAgent()
	if err := p.end(ctx, in.id, p.supervisor.Stop, clients()...); err != nil {
		return err
	}
	if err := p.end(ctx, in.id, p.supervisor.Kill, controlplane.Etcd); err != nil {
		return err
	}
	if err := p.ended(in.id); err != nil {
		return err
	}
	move, next := p.replaceData, controlplane.RestoreTrying
	if r.Phase == controlplane.RestoreReturning {
		move, next = p.returnData, controlplane.RestoreFailed
	}
	if err := errors.Join(move(in.id), syncDir(p.dir(in.id))); err != nil {
		return fmt.Errorf("restore of %s: %w", in.id, err)
	}
	r.Phase, r.Since = next, time.Now()
	return p.writeRestoring(in.id, r)
}

// replaceData puts what was restored in the place of the data. It may be repeated.
func (p *Plane) replaceData(id string) error {
	data, before, made := p.dir(id, etcdDir), p.dir(id, beforeDir), p.dir(id, restoreDir, "data")
	if _, err := os.Stat(made); errors.Is(err, fs.ErrNotExist) {
		_, err := os.Stat(before)
		return err // it was moved already
	}
	if _, err := os.Stat(before); errors.Is(err, fs.ErrNotExist) {
		if err := os.Rename(data, before); err != nil {
			return err
		}
	}
	// Who makes what is missing may have made an empty one; anything else stays.
	if err := os.Remove(data); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Rename(made, data)
}

// returnData puts the data of before back. It may be repeated.
func (p *Plane) returnData(id string) error {
	if _, err := os.Stat(p.dir(id, beforeDir)); errors.Is(err, fs.ErrNotExist) {
		return nil // it was moved already
	}
	if err := os.RemoveAll(p.dir(id, etcdDir)); err != nil {
		return err
	}
	return os.Rename(p.dir(id, beforeDir), p.dir(id, etcdDir))
}

// clearRestore removes what a restore that is over, or begins, left behind.
func (p *Plane) clearRestore(id string) error {
	err := os.RemoveAll(p.dir(id, restoreDir))
	if p.readRestoring(id).Phase == controlplane.RestoreDone {
		err = errors.Join(err, os.RemoveAll(p.dir(id, beforeDir)))
	}
	if err != nil {
		return fmt.Errorf("clear restore of %s: %w", id, err)
	}
	return nil
}

func syncDir(path string) error {
	dir, err := os.Open(filepath.Clean(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
