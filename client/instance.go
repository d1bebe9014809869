// SPDX-License-Identifier: Apache-2.0

// Package client is how Bastide's own CLI, portal and tests talk to an
// instance: the file that describes it, the environment that makes other
// people's tools use it, and a small typed client of its APIs.
//
// It talks to the front door like any other client and knows no server package.
package client

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
)

// Files in an instance's state directory.
const (
	instanceFile = "instance.json"
	secretsFile  = "secrets.json"
)

// Instance describes a running instance to whoever is on its machine. It holds nothing secret.
type Instance struct {
	Name           string     `json:"name"`
	Domain         string     `json:"domain"`
	Location       string     `json:"location"`
	Address        netip.Addr `json:"address"` // of the front door
	Port           uint16     `json:"port"`
	TenantID       string     `json:"tenantId"`
	SubscriptionID string     `json:"subscriptionId"`
	Administrator  string     `json:"administrator"` // user principal name
	ClientID       string     `json:"clientId"`      // the service principal with Owner
	StateDir       string     `json:"stateDir"`
	RunDir         string     `json:"runDir"`
	BinDir         string     `json:"binDir,omitempty"` // kubectl and others that were built
	CAFile         string     `json:"caFile"`           // the instance's CA alone, PEM
}

// Secrets let the machine's root use the instance; they stand in a file of their own.
type Secrets struct {
	ClientSecret string `json:"clientSecret"`
}

// LoadInstance reads the description in a state directory.
func LoadInstance(stateDir string) (Instance, error) {
	var i Instance
	return i, load(filepath.Join(stateDir, instanceFile), &i)
}

// Save writes the description into its state directory, whole or not at all.
func (i Instance) Save() error {
	return save(filepath.Join(i.StateDir, instanceFile), i, 0o644)
}

// LoadSecrets reads the secrets in a state directory.
func LoadSecrets(stateDir string) (Secrets, error) {
	var s Secrets
	path := filepath.Join(stateDir, secretsFile)
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
		return s, fmt.Errorf("%s may be read by others: remove it and run `bastide up`", path)
	}
	return s, load(path, &s)
}

// Save writes the secrets, readable for nobody but the owner.
func (s Secrets) Save(stateDir string) error {
	return save(filepath.Join(stateDir, secretsFile), s, 0o600)
}

// ErrNoInstance says that a state directory has no instance.
var ErrNoInstance = errors.New("there is no instance: run `bastide up`")

func load(path string, into any) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", path, ErrNoInstance)
	}
	if err != nil {
		return fmt.Errorf("read instance: %w", err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("decode %s: %w", path, err)
	}
	return nil
}

func save(path string, value any, mode fs.FileMode) error {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	return writeFile(path, append(data, '\n'), mode)
}

// writeFile replaces a file atomically. The temporary one is made with mode 0600
// and in the same directory.
func writeFile(path string, data []byte, mode fs.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // nothing more can be done about it
		}
	}()
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func (i Instance) url(host string) string {
	if i.Port != 0 && i.Port != 443 {
		return "https://" + net.JoinHostPort(host, strconv.Itoa(int(i.Port)))
	}
	return "https://" + host
}

// ResourceManager is the address of the ARM front door.
func (i Instance) ResourceManager() string { return i.url("management." + i.Domain) }

// Authority is the address of the token service.
func (i Instance) Authority() string { return i.url("login." + i.Domain) }

// Graph is the address of the directory.
func (i Instance) Graph() string { return i.url("graph." + i.Domain) }

// Registry is the address of the image registry.
func (i Instance) Registry() string { return i.url("registry." + i.Domain) }

// Hosts are the names that the front door answers for.
func (i Instance) Hosts() []string {
	return []string{"management." + i.Domain, "login." + i.Domain, "graph." + i.Domain, "registry." + i.Domain}
}

// Kubeconfig is where `bastide env` lets kubectl look.
func (i Instance) Kubeconfig() string { return filepath.Join(i.StateDir, "kubeconfig") }

// AzureConfigDir is the private configuration of az.
func (i Instance) AzureConfigDir() string { return filepath.Join(i.StateDir, "azure") }

// Bundle holds the machine's certificate authorities and the instance's.
func (i Instance) Bundle() string { return filepath.Join(i.StateDir, "ca-bundle.pem") }

func (i Instance) roots() (*x509.CertPool, error) {
	data, err := os.ReadFile(i.CAFile)
	if err != nil {
		return nil, fmt.Errorf("read the instance's CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s has no certificate", i.CAFile)
	}
	return pool, nil
}
