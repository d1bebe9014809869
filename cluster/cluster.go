// SPDX-License-Identifier: Apache-2.0

// Package cluster is Microsoft.ContainerService: managed clusters and their
// agent pools. It decides what a request means (validation, defaults,
// allocation of names, addresses and keys), compiles a cluster purely into the
// units of a host, and ends an operation when the host's reports say that all
// of it is true.
//
// Its rows fill arm's table; what it needs of other providers it declares as
// small interfaces here. Only cmd and testcloud import it.
package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"bastide.dev/arm"
	"bastide.dev/controlplane"
	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// Namespace is the provider's.
const Namespace = "Microsoft.ContainerService"

// Full names of the types with documents.
const (
	clusterType = Namespace + "/managedClusters"
	poolType    = clusterType + "/agentPools"
)

// Catalogue knows the bundles and images that the instance has. It is safe for
// concurrent use and answers from what is on disk now.
type Catalogue interface {
	// Kubernetes lists the releases that are built, such as "1.36.3".
	Kubernetes() []string
	// Parts says what a new control plane or node of a release is made of.
	Parts(version string) (Parts, error)
	// HasImage tells whether nodes can be made of a node image.
	HasImage(version string) bool
}

// Parts are the pieces of a cluster; they are kept with what was made of them,
// so that a newer catalogue changes nothing that runs.
type Parts struct {
	Etcd   string   `json:"etcd"`   // bundle version
	Image  string   `json:"image"`  // version of the node image
	Layers []string `json:"layers"` // bundles of a node, "name@version", the first lowest
}

// Directory makes the identities that clusters act as. Its methods are idempotent.
type Directory interface {
	// CreateManagedIdentity returns the identity of a resource, made when it is missing.
	CreateManagedIdentity(ctx context.Context, name, resourceID string) (principalID, clientID string, err error)
	// DeletePrincipal removes an identity; what isn't there is no error.
	DeletePrincipal(ctx context.Context, principalID string) error
	// PlatformSecret returns a credential of an identity that only the service uses.
	PlatformSecret(ctx context.Context, principalID string) (clientID, secret string, err error)
	// Assign gives an identity a role at a scope.
	Assign(ctx context.Context, principalID, roleID, scope string) error
	// PrincipalOf is the object id of an application's service principal.
	PrincipalOf(ctx context.Context, clientID string) (string, error)
}

// Config is what a Provider needs. All is required but what says otherwise.
type Config struct {
	Store     store.Store // its documents under "secrets/" are sealed
	Catalogue Catalogue
	Directory Directory
	Network   Network
	// CheckSecret tells whether a service principal's secret is right; a wrong one is a fault.
	CheckSecret func(ctx context.Context, clientID, secret string) error
	// SecretEnd is when a service principal's secret expires; fault.NotFound when it is gone.
	SecretEnd func(ctx context.Context, clientID, secret string) (time.Time, error)
	Roles     Roles
	// Authorizer tells whether a caller may give a cluster an identity.
	Authorizer arm.Authorizer
	Log        *slog.Logger

	Host     string // the machine that clusters are placed on
	Location string
	Domain   string
	Tenant   string

	// ResourceManager and Login are the service's own, for what acts on it from
	// inside clusters; Cloud is the bundle of that: the cloud-controller-manager's version.
	ResourceManager, Login string
	// Guard is where the service answers API servers' webhooks; empty: no cluster
	// can be integrated with the directory.
	Guard string
	Cloud string

	Addons   controlplane.Addons
	Registry string // host name of the instance's registry
	Mirror   string // URL of the instance's mirror of Debian's packages; may be empty
	// InstanceCA is what signs for the registry and the front door, PEM, asked
	// anew each time; Renewed receives when it is another. Nil: there is none, and
	// it never is.
	InstanceCA func() []byte
	Renewed    <-chan struct{}
	PauseImage string

	// CreateDeadline and DeleteDeadline bound operations; zero is 10 and 5 minutes.
	CreateDeadline, DeleteDeadline time.Duration
	// Repair are the times of node auto-repair; zero is AKS's.
	Repair RepairTimes
	// Patience is how long a unit's error may last before its operation fails; zero is 1 minute.
	Patience time.Duration
	Now      func() time.Time // nil is time.Now
}

// Provider is the resource provider.
type Provider struct {
	Config
	ops *arm.Operations
}

// New checks the config and returns a provider that keeps nothing but it.
func New(config Config) (*Provider, error) {
	switch {
	case config.Store == nil, config.Catalogue == nil, config.Directory == nil, config.Network == nil, config.CheckSecret == nil, config.SecretEnd == nil, config.Roles == nil, config.Authorizer == nil, config.Log == nil:
		return nil, fmt.Errorf("cluster: a dependency is missing in the config")
	case config.Host == "", config.Location == "", config.Domain == "":
		return nil, fmt.Errorf("cluster: host, location and domain are required")
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.InstanceCA == nil {
		config.InstanceCA = func() []byte { return nil }
	}
	if config.CreateDeadline == 0 {
		config.CreateDeadline = 10 * time.Minute
	}
	if config.DeleteDeadline == 0 {
		config.DeleteDeadline = 5 * time.Minute
	}
	if config.Patience == 0 {
		config.Patience = time.Minute
	}
	config.Repair.complete()
	return &Provider{Config: config, ops: arm.NewOperations(config.Store, config.Now)}, nil
}

// versions are the releases of the catalogue, as far as they are releases.
func (p *Provider) versions() (Versions, error) { return NewVersions(p.Catalogue.Kubernetes()) }

// clusterState is the private part of a cluster's document.
type clusterState struct {
	UID     string  `json:"uid"` // drawn at creation; every name derives from it
	ID      string  `json:"id"`  // of the control plane, the VNet, and before all its machines' ids
	Host    string  `json:"host"`
	Desired Desired `json:"desired"`
	Stopped bool    `json:"stopped,omitempty"`
	// Running is what the control plane reported last to run; Desired.Version may be ahead of it.
	Running Version  `json:"running,omitzero"`
	Refusal *refusal `json:"refusal,omitempty"` // of the last upgrade that was

	FQDN   string     `json:"fqdn"`
	Domain string     `json:"domain"` // of the instance, as it was
	Public netip.Addr `json:"public"` // of the API server
	Etcd   string     `json:"etcd"`

	Server       netip.Addr  `json:"server,omitzero"` // of the API server, in ServerSubnet
	ServerSubnet resource.ID `json:"serverSubnet"`
	Outbound     []egressIP  `json:"outbound,omitempty"` // the managed addresses that nodes leave by

	PrincipalID      string   `json:"principalID,omitempty"`
	Granted          bool     `json:"granted,omitempty"` // the identity has its roles
	Former           []former `json:"former,omitempty"`
	KubeletPrincipal string   `json:"kubeletPrincipal,omitempty"`
	KubeletClient    string   `json:"kubeletClient,omitempty"`

	// Authority counts the rotations of its certificates; new nodes are of it.
	Authority int64 `json:"authority,omitempty"`
	// Patch is the last night's order to install security updates; zero: none yet.
	Patch patchNight `json:"patch,omitzero"`
	// Look is the last token with which the nodes were asked what updates there are.
	Look string `json:"look,omitempty"`
	// Reboots is what the reboot coordinator remembers, while there is anything.
	Reboots *rebooting `json:"reboots,omitempty"`
	// Restore is the backup that it is being restored from; BackedUp is when the
	// last backup was begun that its policy wants.
	Restore  *restoring `json:"restore,omitempty"`
	BackedUp time.Time  `json:"backedUp,omitzero"`
	// Maintained is what was begun in maintenance windows, the newest last.
	Maintained []maintained `json:"maintained,omitempty"`
}

// patchNight orders the nodes to install the security updates there are. A node
// that carried out the token's order once doesn't so again.
type patchNight struct {
	Token string    `json:"token"` // another one each night
	Until time.Time `json:"until"` // nothing is begun any more then
	// Over: a user asked, and all nodes there were have carried it out.
	Over bool `json:"over,omitempty"`
}

// poolState is the private part of an agent pool's document.
type poolState struct {
	Pool Pool  `json:"pool"`
	Next int64 `json:"next"` // number of the next node: none is used twice
	// Target is what the pool's nodes are made of, new ones too; those that are of
	// something else are brought to it one batch after another. Empty in documents
	// of before: then it is what the newest node is made of.
	Target Parts      `json:"target,omitzero"`
	Nodes  []allotted `json:"nodes,omitempty"`
	// Repairs is how many nodes were replaced since all of the pool's were ready.
	Repairs  int       `json:"repairs,omitempty"`
	Replaced time.Time `json:"replaced,omitzero"`
	// Roll is how works on the nodes go on. Force: when the pool is deleted,
	// disruption budgets don't count.
	Roll  *rolling `json:"roll,omitempty"`
	Force bool     `json:"force,omitempty"`
}

// allotted is what a node was given, for as long as anything of it is left.
type allotted struct {
	Name    string         `json:"name"`
	Machine string         `json:"machine"`
	Number  int64          `json:"number"`
	Address netip.Addr     `json:"address"`
	Pods    []netip.Prefix `json:"pods"`
	Parts   Parts          `json:"parts"`
	Removed bool           `json:"removed,omitempty"`

	// Version is the kubelet's that Parts hold; Boots and Images are machine.Spec's.
	Version Version `json:"version,omitzero"`
	Boots   int64   `json:"boots,omitempty"`
	Images  int64   `json:"images,omitempty"`
	// Authority is the generation of the authorities that its credentials are of.
	Authority int64 `json:"authority,omitempty"`
	// Surge is a node more than the pool's count, for as long as its roll lasts.
	Surge bool  `json:"surge,omitempty"`
	Work  *work `json:"work,omitempty"`
	// Repair is what was tried since it stopped being ready; Note is told as an event.
	Repair *repair            `json:"repair,omitempty"`
	Note   *controlplane.Note `json:"note,omitempty"`
	// Off: its machine was switched off by a user.
	Off bool `json:"off,omitempty"`
}

// poolDoc is a pool's document with its state read.
type poolDoc struct {
	*arm.Document
	poolState
}

// whole is a cluster with its pools, as read.
type whole struct {
	doc   *arm.Document
	state clusterState
	pools []*poolDoc
	// subnets are those that the cluster's nodes are in and that there are, by
	// key; only the reconciler reads them.
	subnets map[string]Subnet
	reboots *controlplane.Reboots // what the control plane is to look at for the coordinator
	tended  time.Duration         // when a look at the nodes is due that no report asks for
	grown   bool                  // a pool follows its autoscaler to more nodes, in this look
	inside  []*arm.Document       // what is in its node resource group
	// backups are those that the host is asked for; unrestored is why a restore failed.
	backups    *controlplane.Backups
	unrestored *fault.Error
	// engines is what works found out in this look, by pool; again is when they
	// want to be looked at next.
	engines map[string]engine
	again   time.Duration
}

// desired is the cluster's desired state with the pools that aren't being deleted.
func (w *whole) desired() *Desired {
	d := w.state.Desired
	d.Pools = nil
	for _, pool := range w.pools {
		if pool.ProvisioningState != resource.Deleting {
			d.Pools = append(d.Pools, pool.Pool)
		}
	}
	return &d
}

func (w *whole) pool(name string) *poolDoc {
	for _, pool := range w.pools {
		if pool.Pool.Name == name {
			return pool
		}
	}
	return nil
}

// load reads the state of a cluster's document and its pools.
func (p *Provider) load(ctx context.Context, doc *arm.Document) (*whole, error) {
	w := &whole{doc: doc}
	if err := json.Unmarshal(doc.State, &w.state); err != nil {
		return nil, fmt.Errorf("cluster %s: state: %w", doc.ID, err)
	}
	documents, _, err := arm.ListDocuments(ctx, p.Store, doc.ID, poolType)
	if err != nil {
		return nil, fmt.Errorf("cluster %s: pools: %w", doc.ID, err)
	}
	for _, d := range documents {
		pool := &poolDoc{Document: d}
		if err := json.Unmarshal(d.State, &pool.poolState); err != nil {
			return nil, fmt.Errorf("pool %s: state: %w", d.ID, err)
		}
		pool.adopt()
		w.pools = append(w.pools, pool)
	}
	return w, nil
}

// setState stores a state in a document.
func setState(d *arm.Document, state any) error {
	raw, err := json.Marshal(state)
	if err != nil {
		return fmt.Errorf("state of %s: %w", d.ID, err)
	}
	d.State = raw
	return nil
}
