// SPDX-License-Identifier: Apache-2.0

// Package network is Microsoft.Network: virtual networks, security groups,
// route tables, load balancers, public addresses and the rest as resources; the
// planning of addresses; and the pure compiler from all of them to what a
// host's data plane should be.
//
// Other providers reach it through interfaces that they declare and cmd fills.
package network

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"bastide.dev/arm"
	"bastide.dev/dataplane"
	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// The provider's namespaces: Azure's, and Bastide's own for what Azure hasn't
// (terminals on the instance's Internet, questions about packets).
const (
	Namespace    = "Microsoft.Network"
	OwnNamespace = "Bastide.Network"
)

// Config is what a Provider needs. All is required but what says otherwise.
type Config struct {
	Store    store.Store
	Log      *slog.Logger
	Host     string // the machine that networks are on
	Location string
	Domain   string

	PublicPool netip.Prefix // public addresses
	FrontDoor  netip.Addr   // the one in PublicPool that is taken
	Names      []dataplane.Name
	Now        func() time.Time // nil is time.Now
}

// Provider is the resource provider. It keeps nothing but its config, and what
// it decoded already.
type Provider struct {
	Config
	ops  *arm.Operations
	read reader // what it decoded before
}

// New checks the config.
func New(config Config) (*Provider, error) {
	if config.Store == nil || config.Log == nil || config.Host == "" || !config.PublicPool.IsValid() {
		return nil, fmt.Errorf("network: a dependency is missing in the config")
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	return &Provider{Config: config, ops: arm.NewOperations(config.Store, config.Now)}, nil
}

// ARM returns the provider's rows.
func (p *Provider) ARM() []arm.Provider {
	return []arm.Provider{
		{Namespace: Namespace, Types: slices.Concat(p.coreTypes(), p.edgeTypes())},
		{Namespace: OwnNamespace, Types: p.ownTypes()},
	}
}

// Server is an API server's place in a network. The cluster that it belongs to
// writes it (ServerChange); the compiler gives it its interfaces, its public
// forwarding and its names.
type Server struct {
	Cluster   resource.ID `json:"cluster"`
	Namespace string      `json:"namespace"` // dataplane.NIC.Namespace of its control plane
	Subnet    resource.ID `json:"subnet"`
	Address   netip.Addr  `json:"address"`
	// Public is the control plane's own address outside: what it sends to the
	// Internet comes from there, and unless Private, clients reach Port there.
	Public  netip.Addr `json:"public"`
	Port    uint16     `json:"port"`
	Private bool       `json:"private,omitempty"`
	// Restricted leaves Allowed as the only sources; the cluster's own egress is
	// added by the compiler.
	Restricted bool           `json:"restricted,omitempty"`
	Allowed    []netip.Prefix `json:"allowed,omitempty"`
	// FQDN is answered everywhere ("" when a private cluster has no public name): with
	// Public, or with Address when Private. In its own VNet it leads to Address.
	FQDN string `json:"fqdn,omitempty"`
	// PrivateFQDN is a private cluster's name in its private zone; "" without one.
	PrivateFQDN string `json:"privateFQDN,omitempty"`
}

const serverPrefix = "network/servers/"

// ServerChange records a cluster's API server; nil forgets it.
func ServerChange(cluster resource.ID, s *Server) (store.Change, error) {
	change := store.Change{Key: serverPrefix + cluster.Key(), Revision: store.Any}
	if s == nil {
		return change, nil
	}
	value, err := json.Marshal(s)
	if err != nil {
		return change, fmt.Errorf("API server of %s: %w", cluster, err)
	}
	change.Value = value
	return change, nil
}

// Serve is ServerChange, but no change at all when it is recorded so already.
func (p *Provider) Serve(ctx context.Context, cluster resource.ID, s *Server) ([]store.Change, error) {
	change, err := ServerChange(cluster, s)
	if err != nil {
		return nil, err
	}
	record, err := p.Store.Get(ctx, change.Key)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return nil, fmt.Errorf("API server of %s: %w", cluster, err)
	}
	if bytes.Equal(record.Value, change.Value) {
		return nil, nil
	}
	return []store.Change{change}, nil
}

// servers reads every API server's place.
func (p *Provider) servers(ctx context.Context) ([]Server, error) {
	records, _, err := p.Store.List(ctx, serverPrefix)
	if err != nil {
		return nil, fmt.Errorf("API servers: %w", err)
	}
	all := make([]Server, len(records))
	for i, r := range records {
		if err := json.Unmarshal(r.Value, &all[i]); err != nil {
			return nil, fmt.Errorf("API server %s: %w", r.Key, err)
		}
	}
	return all, nil
}

// InterfaceState is the private state (Document.State) of what has an interface:
// a scale set's instance (Microsoft.Compute/virtualMachineScaleSets/virtualMachines,
// written by cluster) and a virtual machine (Microsoft.Compute/virtualMachines,
// written by compute; its addresses are its NICs'). Of instances, which subnet,
// group, pools and application groups it has, says the body, as on Azure.
type InterfaceState struct {
	Machine string     `json:"machine"`          // dataplane.NIC.Machine
	Address netip.Addr `json:"address,omitzero"` // of an instance
	// NoMetadata closes the metadata address to an instance's pods.
	NoMetadata bool           `json:"noMetadata,omitempty"`
	Pods       []netip.Prefix `json:"pods,omitempty"` // further addresses of its subnet, or an overlay's range
}
