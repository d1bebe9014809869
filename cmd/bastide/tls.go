// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
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
	if err := os.MkdirAll(k.dir, 0o711); err != nil {
		return fmt.Errorf("keyring: %w", err)
	}
	instanceCA, err := k.authority("ca", "Bastide "+k.in.Name)
	if err != nil {
		return err
	}
	etcdCA, err := k.authority("etcd-ca", "Bastide "+k.in.Name+" etcd")
	if err != nil {
		return err
	}
	serve, etcd := int(k.in.ServeUID()), int(k.in.EtcdUID())
	loopback := []netip.Addr{k.in.Loopback()}
	names := []string{"*." + k.in.Domain}
	for _, s := range instance.Services() {
		names = append(names, k.in.Host(s))
	}
	leaves := []struct {
		ca      *pki.CA
		name    string
		uid     int
		request pki.Request
	}{
		{instanceCA, "serve", serve, pki.Request{CommonName: k.in.Host("management"), DNS: names, IPs: append(loopback, k.in.FrontDoor()), Server: true}},
		{instanceCA, "host", 0, pki.Request{CommonName: host.HostSubject(hostName), Client: true}},
		{etcdCA, "etcd", etcd, pki.Request{CommonName: "etcd", IPs: loopback, Server: true, Client: true}},
		{etcdCA, "etcd-serve", serve, pki.Request{CommonName: "serve", Client: true}},
		{etcdCA, "etcd-root", 0, pki.Request{CommonName: "root", Client: true}},
	}
	for _, l := range leaves {
		l.request.Lifetime = leafLifetime
		if err := k.leaf(l.ca, l.name, l.uid, l.request); err != nil {
			return err
		}
	}
	return k.seal(serve)
}

func (k keyring) authority(name, subject string) (*pki.CA, error) {
	pair, err := k.pair(name)
	if errors.Is(err, fs.ErrNotExist) {
		if pair, err = pki.NewRoot(subject, caLifetime); err == nil { // it may vouch for a successor
			err = k.write(name, pair, 0)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("keyring: authority %s: %w", name, err)
	}
	// Everyone may read whom to trust.
	if err := os.Chmod(k.path(name+".crt"), 0o644); err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	return pki.OpenCA(pair)
}

func (k keyring) leaf(ca *pki.CA, name string, uid int, request pki.Request) error {
	if pair, err := k.pair(name); err == nil && ca.IssuedBy(pair.Certificate) && !pki.Due(pair.Certificate, time.Now()) {
		return nil
	}
	pair, err := ca.Issue(request)
	if err == nil {
		err = k.write(name, pair, uid)
	}
	if err != nil {
		return fmt.Errorf("keyring: certificate %s: %w", name, err)
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

func (k keyring) pair(name string) (pki.Pair, error) {
	certificate, err := os.ReadFile(k.path(name + ".crt"))
	if err != nil {
		return pki.Pair{}, err
	}
	key, err := os.ReadFile(k.path(name + ".key"))
	return pki.Pair{Certificate: certificate, Key: key}, err
}

// write puts the key first: a crash between the two leaves no certificate, and
// so the pair is made again.
func (k keyring) write(name string, pair pki.Pair, uid int) error {
	if err := os.Remove(k.path(name + ".crt")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := pki.WriteFile(k.path(name+".key"), pair.Key, uid, uid); err != nil {
		return err
	}
	return pki.WriteFile(k.path(name+".crt"), pair.Certificate, uid, uid)
}

// client returns the TLS side of a client that holds the leaf name and trusts ca.
func (k keyring) client(ca, name string) (*tls.Config, error) {
	bundle, err := os.ReadFile(k.path(ca + ".crt"))
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	pool, err := pki.Pool(bundle)
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	config := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}
	if name != "" {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return k.load(name) }
	}
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
