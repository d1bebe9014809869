// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"bastide.dev/host"
	"bastide.dev/instance"
	"bastide.dev/pki"
)

// hostName is this machine's name as a host of the instance; a fleet gives each
// machine its own.
const hostName = "local"

const (
	caLifetime   = 10 * 365 * 24 * time.Hour
	leafLifetime = 365 * 24 * time.Hour
)

// keyring is the instance's own certificates on disk: below tls/ in the state
// directory, each private key readable by its one user only.
type keyring struct {
	in  *instance.Instance
	dir string
}

func newKeyring(in *instance.Instance) keyring { return keyring{in, in.Dir("tls")} }

func (k keyring) path(name string) string { return filepath.Join(k.dir, name) }

// ensure makes what is missing and renews what is due. It is safe to repeat.
func (k keyring) ensure() error {
	unlock, err := k.lock()
	if err != nil {
		return err
	}
	defer unlock()
	return k.ensureLocked()
}

// ensureLocked is ensure for who has the lock. Leaves come before whom to
// believe: a new authority's are believed by those who know the one before, and
// who knows the new one alone must not meet what the one before signed.
func (k keyring) ensureLocked() error {
	kept := map[string]authority{}
	for _, name := range authorities {
		a, err := k.authority(name)
		if err != nil {
			return err
		}
		kept[name] = a
	}
	for _, l := range k.leaves() {
		ca, err := pki.OpenCA(kept[l.ca].Current)
		if err != nil {
			return fmt.Errorf("keyring: authority %s: %w", l.ca, err)
		}
		if err := k.leaf(ca, l); err != nil {
			return err
		}
	}
	for _, name := range authorities {
		if err := k.tell(name, kept[name]); err != nil {
			return err
		}
	}
	return k.seal(int(k.in.ServeUID()))
}

// leaf is a certificate that a part of the service holds.
type leaf struct {
	ca, name string
	uid      int
	request  pki.Request
}

func (k keyring) leaves() []leaf {
	serve, etcd := int(k.in.ServeUID()), int(k.in.EtcdUID())
	loopback := []netip.Addr{k.in.Loopback()}
	names := []string{"*." + k.in.Domain}
	for _, s := range instance.Services() {
		names = append(names, k.in.Host(s))
	}
	return []leaf{
		{"ca", "serve", serve, pki.Request{CommonName: k.in.Host("management"), DNS: names, IPs: []netip.Addr{k.in.Loopback(), k.in.FrontDoor()}, Server: true, Lifetime: leafLifetime}},
		{"ca", "host", 0, pki.Request{CommonName: host.HostSubject(hostName), Client: true, Lifetime: leafLifetime}},
		{"etcd-ca", "etcd", etcd, pki.Request{CommonName: "etcd", IPs: loopback, Server: true, Client: true, Lifetime: leafLifetime}},
		{"etcd-ca", "etcd-serve", serve, pki.Request{CommonName: "serve", Client: true, Lifetime: leafLifetime}},
		{"etcd-ca", "etcd-root", 0, pki.Request{CommonName: "root", Client: true, Lifetime: leafLifetime}},
	}
}

func (k keyring) leaf(ca *pki.CA, l leaf) error {
	if pair, err := k.pair(l.name); err == nil && ca.Current(pair, l.request, time.Now()) {
		return nil
	}
	pair, err := ca.Issue(l.request)
	if err == nil {
		err = pki.WriteFile(k.leafPath(l.name), slices.Concat(pair.Key, pair.Certificate), l.uid, l.uid)
	}
	if err != nil {
		return fmt.Errorf("keyring: certificate %s: %w", l.name, err)
	}
	return nil
}

// seal makes the key that seals secrets in the store, and lives outside it.
func (k keyring) seal(uid int) error {
	if _, err := os.Stat(k.path("seal.key")); err == nil {
		return nil
	}
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return fmt.Errorf("keyring: %w", err)
	}
	return pki.WriteFile(k.path("seal.key"), key, uid, uid)
}

// leafPath is a leaf's one file, with its key and its chain: who reads it, and
// who is killed as it is written, has the old pair or the new.
func (k keyring) leafPath(name string) string { return k.path(name + ".pem") }

func (k keyring) pair(name string) (pki.Pair, error) {
	data, err := os.ReadFile(k.leafPath(name))
	return pki.Pair{Certificate: data, Key: data}, err
}

// client returns the TLS side of a client that holds the leaf name and trusts ca,
// both as they are when it connects. Servers are those on the instance's loopback.
func (k keyring) client(ca, name string) (*tls.Config, error) {
	believed := k.trust(ca)
	if _, err := believed.get(); err != nil {
		return nil, err
	}
	config := believed.config(k.in.Loopback().String())
	config.MinVersion = tls.VersionTLS13
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return k.load(name) }
	return config, nil
}

// load reads a leaf from disk each time it is needed: a renewed one is used at once.
func (k keyring) load(name string) (*tls.Certificate, error) {
	pair, err := k.pair(name)
	if err != nil {
		return nil, err
	}
	certificate, err := pair.TLS()
	return &certificate, err
}
