// SPDX-License-Identifier: Apache-2.0

// Package compute is Microsoft.Compute as far as clusters and jump hosts need
// it: the scale sets that node pools are, their instances, and virtual machines.
//
// Clusters write the documents of scale sets and instances, and run their
// machines; here they are shown, and what others may change of them is changed.
// Virtual machines are this package's own: it compiles each into a machine of
// the host. Only cmd and testcloud import it.
package compute

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"bastide.dev/arm"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// Namespace is the provider's.
const Namespace = "Microsoft.Compute"

// Full names of the types with documents.
const (
	setType      = Namespace + "/virtualMachineScaleSets"
	instanceType = setType + "/virtualMachines"
	vmType       = Namespace + "/virtualMachines"
)

// Catalogue says what a new virtual machine is made of: the version of the node
// image, and the layers over it that hold kubectl.
type Catalogue interface {
	Machine() (image string, layers []string, err error)
}

// Interface is a network interface as a virtual machine sees it.
type Interface struct {
	ID       resource.ID
	Location string
	Address  netip.Addr
	Public   netip.Addr  // its own public address, when it has one
	Owner    resource.ID // the machine that has it; the root: none
}

// Network is what virtual machines need of Microsoft.Network.
type Network interface {
	// Interface reads a network interface; fault.NotFound when there is none.
	Interface(ctx context.Context, id resource.ID) (Interface, error)
	// Waiting says what of a machine's interfaces the host hasn't made yet; "" when it is all there.
	Waiting(ctx context.Context, nic resource.ID) (string, error)
}

// Config is what a Provider needs. All is required but what says otherwise.
type Config struct {
	Store     store.Store
	Catalogue Catalogue
	Network   Network
	Directory Directory
	Nodes     Nodes // nil: nothing is done to machines of node pools
	// Authorizer tells whether a caller may assign an identity to a machine.
	Authorizer arm.Authorizer
	Log        *slog.Logger

	Host     string // the machine that virtual machines are placed on
	Location string
	Tenant   string // of the directory
	Login    string // the token service's URL: https://login.…

	// Deadline bounds operations; zero is 5 minutes. Patience is how long a
	// unit's error may last before its operation fails; zero is 30 seconds.
	Deadline, Patience time.Duration
	Now                func() time.Time // nil is time.Now
}

// Provider is the resource provider. It keeps nothing but its config.
type Provider struct {
	Config
	ops *arm.Operations
}

// New checks the config.
func New(config Config) (*Provider, error) {
	if config.Store == nil || config.Catalogue == nil || config.Network == nil || config.Log == nil || config.Host == "" || config.Location == "" ||
		config.Directory == nil || config.Authorizer == nil || config.Tenant == "" || config.Login == "" {
		return nil, fmt.Errorf("compute: a dependency is missing in the config")
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Deadline == 0 {
		config.Deadline = 5 * time.Minute
	}
	if config.Patience == 0 {
		config.Patience = 30 * time.Second
	}
	return &Provider{Config: config, ops: arm.NewOperations(config.Store, config.Now)}, nil
}

// versions are the API versions: Azure's of compute, from the oldest that a
// client of today sends.
func versions() []resource.APIVersion {
	return []resource.APIVersion{
		"2025-04-01", "2024-11-01", "2024-07-01", "2024-03-01", "2023-09-01", "2023-07-01", "2023-03-01", "2022-11-01", "2022-08-01", "2022-03-01",
		"2021-11-01", "2021-07-01", "2021-04-01", "2021-03-01", "2020-12-01", "2020-06-01", "2019-12-01", "2019-07-01", "2019-03-01", "2018-10-01", "2018-06-01", "2017-12-01",
	}
}

// ARM returns the provider's rows.
func (p *Provider) ARM() arm.Provider {
	v := versions()
	return arm.Provider{Namespace: Namespace, Types: []arm.Type{
		{
			Name: "virtualMachineScaleSets", Versions: v, ReadOnly: []string{"etag", "properties.uniqueId", "properties.timeCreated"},
			Put: p.putScaleSet, Delete: p.deleteManaged, View: p.viewScaleSet, Actions: p.managedActions(),
		},
		{
			Name: "virtualMachineScaleSets/virtualMachines", Versions: v,
			ReadOnly: []string{"etag", "instanceId", "resources", "zones", "properties.instanceView", "properties.latestModelApplied", "properties.vmId", "properties.timeCreated"},
			Put:      p.putInstance, Delete: p.deleteManaged, View: p.viewInstance, Actions: p.managedActions(),
		},
		{Name: "virtualMachineScaleSets/virtualMachines/instanceView", Versions: v, List: p.instanceView},
		{Name: "virtualMachineScaleSets/virtualMachines/networkInterfaces", Versions: v, Get: p.instanceInterface, List: p.instanceInterfaces},
		{
			Name: "virtualMachines", Versions: v, ReadOnly: readOnlyVM(), Model: modelVM,
			// (Identities, of which only those that come take a right, are the hooks' matter.)
			Links: []arm.Link{{Path: "properties.networkProfile.networkInterfaces[].id", Action: "Microsoft.Network/networkInterfaces/join/action"}},
			Put:   p.putVM, Patch: p.patchVM, Delete: p.deleteVM, View: p.viewVM,
			Actions: map[string]arm.Hook{
				"start": p.power(running), "powerOff": p.power(stopped), "deallocate": p.power(deallocated),
				"restart": p.restart, "reimage": p.reimage,
			},
		},
		{Name: "virtualMachines/instanceView", Versions: v, List: p.vmInstanceView},
		{Name: "locations/vmSizes", Scope: arm.InSubscription, Versions: v, List: p.sizes},
		{Name: "skus", Scope: arm.InSubscription, Versions: append(v, "2021-07-01", "2019-04-01"), List: p.skus},
	}}
}
