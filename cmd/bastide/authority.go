// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"bastide.dev/fault"
	"bastide.dev/pki"
)

// authorities are the instance's own: what signs for its front door and hosts,
// and what signs for its store.
var authorities = [...]string{"ca", "etcd-ca"}

// authority is one of them as root keeps it, whole in one file: with one write it
// is replaced by a successor, and its key is gone.
type authority struct {
	Generation int `json:"generation"` // from 1
	// Current signs. Behind its certificate stand those with which the ones before
	// vouch for it; they go with everything that it signs.
	Current pki.Pair `json:"current"`
	// Former is the one before, PEM, as long as it is believed: a rotation goes on.
	Former []byte `json:"former,omitempty"`
}

func (k keyring) subject(name string) string {
	if name == "ca" {
		return "Bastide " + k.in.Name
	}
	return "Bastide " + k.in.Name + " etcd"
}

// lock is held while the keyring is changed.
func (k keyring) lock() (unlock func(), err error) {
	if err := os.MkdirAll(k.dir, 0o711); err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	return lockFile(k.path("lock"), unix.LOCK_EX)
}

func lockFile(path string, how int) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), how); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// authority reads one, and makes it when there is none. One that is there and
// can't be read is never replaced by another.
func (k keyring) authority(name string) (authority, error) {
	a, err := k.kept(name)
	if errors.Is(err, fs.ErrNotExist) {
		a.Generation = 1
		if a.Current, err = pki.NewRoot(k.subject(name), caLifetime); err == nil { // it may vouch for a successor
			err = k.keep(name, a)
		}
	}
	if err != nil {
		return a, fmt.Errorf("keyring: authority %s: %w", name, err)
	}
	return a, nil
}

func (k keyring) kept(name string) (authority, error) {
	var a authority
	data, err := os.ReadFile(k.path(name + ".json"))
	if errors.Is(err, fs.ErrNotExist) {
		return k.adopt(name)
	}
	if err != nil {
		return a, err
	}
	if json.Unmarshal(data, &a) != nil || a.Generation < 1 {
		return a, errors.New("its file is unreadable") // no cause: it could quote a secret
	}
	if _, err := pki.OpenCA(a.Current); err != nil {
		return a, err
	}
	return a, k.forget(name + ".key")
}

// adopt takes an authority over from a former release, which kept it in two files.
func (k keyring) adopt(name string) (authority, error) {
	certificate, err := os.ReadFile(k.path(name + ".crt"))
	if err != nil {
		return authority{}, err
	}
	key, err := os.ReadFile(k.path(name + ".key"))
	if errors.Is(err, fs.ErrNotExist) {
		return authority{}, errors.New("it has a certificate and no key") // not as if there were none
	}
	if err != nil {
		return authority{}, err
	}
	a := authority{Generation: 1, Current: pki.Pair{Certificate: certificate, Key: key}}
	if _, err := pki.OpenCA(a.Current); err != nil {
		return a, err
	}
	if err := k.keep(name, a); err != nil {
		return a, err
	}
	return a, k.forget(name + ".key")
}

func (k keyring) keep(name string, a authority) error {
	data, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("keyring: authority %s can't be encoded", name)
	}
	return pki.WriteFile(k.path(name+".json"), data, 0, 0)
}

func (k keyring) forget(file string) error {
	if err := os.Remove(k.path(file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// tell writes whom to believe, for everyone to read: the new one, then the former.
func (k keyring) tell(name string, a authority) error {
	bundle, err := pki.Bundle(pki.First(a.Current.Certificate), a.Former)
	if err != nil {
		return fmt.Errorf("keyring: authority %s: %w", name, err)
	}
	path := k.path(name + ".crt")
	if now, err := os.ReadFile(path); err == nil && bytes.Equal(now, bundle) {
		return os.Chmod(path, 0o644) // a former release's was root's for a moment
	}
	return pki.WritePublic(path, bundle)
}

// rotating tells whether a rotation was begun and hasn't ended.
func (k keyring) rotating() (bool, error) {
	for _, name := range authorities {
		a, err := k.authority(name)
		if err != nil {
			return false, err
		}
		if len(a.Former) > 0 {
			return true, nil
		}
	}
	return false, nil
}

// succeed replaces the authorities by successors for which they vouch, and
// destroys their keys: from here a rotation only goes forward. One that was
// killed in between is taken on. All are asked before one is replaced.
func (k keyring) succeed() error {
	unlock, err := k.lock()
	if err != nil {
		return err
	}
	defer unlock()
	var old, next [len(authorities)]authority
	newest, begun := 0, false
	for i, name := range authorities {
		if old[i], err = k.authority(name); err != nil {
			return err
		}
		newest, begun = max(newest, old[i].Generation), begun || len(old[i].Former) > 0
	}
	target := newest
	if !begun && old[len(old)-1].Generation == newest {
		target++
	}
	for i, name := range authorities {
		if next[i] = old[i]; old[i].Generation < target {
			if next[i], err = old[i].successor(k.subject(name), target); err != nil {
				return err
			}
		}
	}
	for i, name := range authorities {
		if next[i].Generation == old[i].Generation {
			continue
		}
		if err := k.keep(name, next[i]); err != nil {
			return err
		}
	}
	return k.ensureLocked()
}

func (a authority) successor(subject string, generation int) (authority, error) {
	ca, err := pki.OpenCA(a.Current)
	if err != nil {
		return a, fmt.Errorf("rotate: %w", err)
	}
	pair, err := ca.Succeed(fmt.Sprintf("%s %d", subject, generation), caLifetime)
	if errors.Is(err, pki.ErrNoSuccessor) {
		return a, fault.New(fault.Unsupported, "OperationNotAllowed",
			"The authority %q is older than rotation and may not vouch for another: who trusts it alone would be cut off. Instances that are made now have one that may.", subject).Because(err)
	}
	if err != nil {
		return a, fmt.Errorf("rotate: %w", err)
	}
	return authority{Generation: generation, Current: pair, Former: pki.First(a.Current.Certificate)}, nil
}

// distrust ends belief in the former ones. The first is the last to be done: a
// rotation goes on as long as it has a former one.
func (k keyring) distrust() error {
	unlock, err := k.lock()
	if err != nil {
		return err
	}
	defer unlock()
	for i := len(authorities) - 1; i >= 0; i-- {
		a, err := k.authority(authorities[i])
		if err != nil {
			return err
		}
		if a.Former == nil {
			continue
		}
		a.Former = nil
		if err := k.keep(authorities[i], a); err != nil {
			return err
		}
	}
	for _, l := range k.leaves() { // a former release's
		if err := errors.Join(k.forget(l.name+".key"), k.forget(l.name+".crt")); err != nil {
			return fmt.Errorf("keyring: %w", err)
		}
	}
	return k.ensureLocked()
}
