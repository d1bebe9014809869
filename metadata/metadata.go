// SPDX-License-Identifier: Apache-2.0

// Package metadata is what machines find at 169.254.169.254: who they are, and
// tokens for the identities that were given to them.
//
// A machine is known by the address that it sends from, which its network's
// router has checked; whoever else connects is answered nothing. Tokens are
// bought from the token service with the identities' platform secrets, which a
// host has for the machines that it runs, and kept in memory until shortly
// before they end.
//
// compute says what a machine is (Machine); the host keeps a Service, which the
// data plane gives each network's listener. Only they, cmd and tests import it.
package metadata

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"reflect"
	"sync"
	"time"
)

// Machine is all that is said of one machine, and the identities it may get
// tokens for. It holds secrets.
type Machine struct {
	ID       string  `json:"id"`       // the host's name for it
	Compute  Compute `json:"compute"`  // as the machine reads it
	TenantID string  `json:"tenantId"` // of its subscription and identities
	// TokenURL is where tokens are bought: the token service's OAuth endpoint, v1.
	TokenURL   string     `json:"tokenUrl"`
	Identities []Identity `json:"identities,omitempty"`
}

// Identity is a managed identity of a machine.
type Identity struct {
	PrincipalID string `json:"principalId"`
	ClientID    string `json:"clientId"`
	ResourceID  string `json:"resourceId"` // the user-assigned identity, or the machine itself
	System      bool   `json:"system,omitempty"`
	Secret      string `json:"secret"`
}

// Tag is a name and a value.
type Tag struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Compute is what a machine may read of itself; what isn't here doesn't exist
// here, and is shown empty.
type Compute struct {
	Name           string   `json:"name"`
	VMID           string   `json:"vmId"`
	ResourceID     string   `json:"resourceId"`
	Location       string   `json:"location"`
	Size           string   `json:"vmSize"`
	SubscriptionID string   `json:"subscriptionId"`
	Group          string   `json:"resourceGroupName"`
	ScaleSet       string   `json:"vmScaleSetName,omitempty"`
	ScaleSetID     string   `json:"scaleSetId,omitempty"`
	Hostname       string   `json:"computerName"`
	Admin          string   `json:"adminUsername,omitempty"`
	Keys           []string `json:"publicKeys,omitempty"`
	Tags           []Tag    `json:"tags,omitempty"` // sorted by name
}

// Config is what a Service needs; all of it.
type Config struct {
	// Roots are whom to believe the token service; TLS is how to reach it, instead,
	// where those are replaced while the service runs. One of both is needed.
	Roots *x509.CertPool
	TLS   *tls.Config
	Log   *slog.Logger
	Now   func() time.Time // nil is time.Now
}

// Service answers for machines. Its methods are safe for concurrent use.
type Service struct {
	Config
	client *http.Client

	mu       sync.RWMutex // guards the rest
	machines map[string]*box
}

// New checks the config. A Service has no goroutines of its own.
func New(config Config) (*Service, error) {
	if config.Roots == nil && config.TLS == nil || config.Log == nil {
		return nil, errors.New("metadata: a dependency is missing in the config")
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.TLS == nil {
		config.TLS = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: config.Roots}
	}
	transport := &http.Transport{
		TLSClientConfig:     config.TLS,
		TLSHandshakeTimeout: buyTimeout, MaxIdleConnsPerHost: purchases, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true,
	} // and no proxy, whatever the environment says
	return &Service{Config: config, machines: map[string]*box{}, client: &http.Client{Transport: transport, Timeout: buyTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}, nil
}

// Check returns every problem of a machine.
func (m *Machine) Check() error {
	var problems []error
	need := func(ok bool, what string) {
		if !ok {
			problems = append(problems, errors.New(what+" is missing"))
		}
	}
	need(m.ID != "", "id")
	need(m.TenantID != "", "tenant")
	if u, err := url.Parse(m.TokenURL); err != nil || u.Scheme != "https" || u.Host == "" {
		problems = append(problems, fmt.Errorf("%q is no address of a token service", m.TokenURL))
	}
	for i, id := range m.Identities {
		need(id.PrincipalID != "" && id.ClientID != "" && id.ResourceID != "" && id.Secret != "", fmt.Sprintf("a part of identity %d", i))
	}
	if err := errors.Join(problems...); err != nil {
		return fmt.Errorf("metadata of machine %s: %w", m.ID, err)
	}
	return nil
}

// Put makes a machine known, or changes what is. Tokens of identities that it
// has no longer are forgotten with it.
func (s *Service) Put(m Machine) error {
	if err := m.Check(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.machines[m.ID]
	if old != nil && reflect.DeepEqual(old.machine, m) {
		return nil
	}
	s.machines[m.ID] = newBox(m, old)
	return nil
}

// Remove forgets a machine; one that isn't there is no error.
func (s *Service) Remove(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.machines, id)
}

func (s *Service) box(id string) *box {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.machines[id]
}
