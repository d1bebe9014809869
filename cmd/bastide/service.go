// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"

	"bastide.dev/arm"
	"bastide.dev/authorization"
	"bastide.dev/bundle"
	"bastide.dev/cluster"
	"bastide.dev/compute"
	"bastide.dev/controlplane"
	"bastide.dev/dataplane"
	"bastide.dev/fault"
	"bastide.dev/guard"
	"bastide.dev/identity"
	"bastide.dev/identity/graph"
	"bastide.dev/identity/login"
	"bastide.dev/identity/signin"
	"bastide.dev/instance"
	"bastide.dev/managedidentity"
	"bastide.dev/mirror"
	"bastide.dev/network"
	"bastide.dev/nodeimage"
	"bastide.dev/oidc"
	"bastide.dev/pim"
	"bastide.dev/rbac"
	"bastide.dev/reconcile"
	"bastide.dev/registry"
	"bastide.dev/store"
	"bastide.dev/store/cache"
	"bastide.dev/store/etcd"
)

// sealedStore is the instance's store with its secrets sealed.
type sealedStore struct {
	store store.Store
	etcd  *etcd.Store
}

func (s *sealedStore) close() { _ = s.etcd.Close() } // nothing is lost: each write was acknowledged

// openSealed connects as user and seals what must not be read from etcd's disk:
// keys and hosts' units, which hold keys too.
func openSealed(ctx context.Context, in *instance.Instance, user string) (*sealedStore, error) {
	key, err := os.ReadFile(newKeyring(in).path("seal.key"))
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	base, err := openStore(ctx, in, user)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	sealed, err := store.NewSealed(base, []string{"secrets/", "hosts/"}, store.SealKey{ID: "1", Key: key})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("store: %w", err), base.Close())
	}
	return &sealedStore{store: sealed, etcd: base}, nil
}

// service is serve's parts, wired by hand.
type service struct {
	*sealedStore
	in        *instance.Instance
	cache     *cache.Store
	directory *identity.Directory
	roles     *authorization.Provider
	pim       *pim.Provider
	signIns   *signin.Service
	login     *login.Service
	issuers   *oidc.Service
	graph     *graph.Service
	networks  *network.Provider
	machines  *compute.Provider
	clusters  *cluster.Provider
	guard     *guard.Service
	managed   *managedidentity.Provider
	front     *arm.Handler
	registry  *registry.Registry
	packages  *mirror.Mirror
	// authority watches whom the instance's certificates are signed by.
	authority func(context.Context) error
}

func endpoints(in *instance.Instance) identity.Endpoints {
	return identity.Endpoints{Authority: in.URL("login"), ResourceManager: in.URL("management"), Graph: in.URL("graph"), Registry: in.URL("registry")}
}

func newService(ctx context.Context, in *instance.Instance, keys keyring, log *slog.Logger) (*service, error) {
	sealed, err := openSealed(ctx, in, "etcd-serve")
	if err != nil {
		return nil, err
	}
	// Reads come from memory, kept fresh by one watch.
	s := &service{sealedStore: sealed, in: in, cache: cache.New(sealed.store, log)}
	s.store = s.cache
	if err := s.wire(keys, log); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *service) wire(keys keyring, log *slog.Logger) (err error) {
	in := s.in
	if s.directory, err = identity.New(identity.Config{Store: s.store, Endpoints: endpoints(in), Log: log}); err != nil {
		return fmt.Errorf("directory: %w", err)
	}
	if s.roles, err = newRoles(s, log); err != nil {
		return fmt.Errorf("roles: %w", err)
	}
	if s.pim, err = newPIM(s, log); err != nil {
		return fmt.Errorf("privileged identities: %w", err)
	}
	issuers, federation, err := newFederation(s, keys, log)
	if err != nil {
		return fmt.Errorf("federation: %w", err)
	}
	s.issuers = issuers
	if s.signIns, err = signin.New(signin.Config{Store: s.store, Directory: s.directory, Log: log}); err != nil {
		return fmt.Errorf("sign-ins: %w", err)
	}
	if s.login, err = login.New(login.Config{Directory: s.directory, Store: s.store, Federation: federation, Gate: s.signIns, Journal: s.signIns, Log: log}); err != nil {
		return fmt.Errorf("login: %w", err)
	}
	if s.graph, err = graph.New(graph.Config{Directory: s.directory, SignIns: s.signIns, Gone: resourceGone(s.store), Log: log}); err != nil {
		return fmt.Errorf("graph: %w", err)
	}
	if s.networks, err = newNetworks(s, log); err != nil {
		return fmt.Errorf("networks: %w", err)
	}
	if s.machines, err = newMachines(s, log); err != nil {
		return fmt.Errorf("machines: %w", err)
	}
	if s.clusters, err = newClusters(s, keys, log); err != nil {
		return fmt.Errorf("clusters: %w", err)
	}
	if s.guard, err = newGuard(s, log); err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	if s.managed, err = newIdentities(s); err != nil {
		return fmt.Errorf("managed identities: %w", err)
	}
	if s.front, err = newFront(s, log); err != nil {
		return fmt.Errorf("front door: %w", err)
	}
	if s.registry, err = newRegistry(s, log); err != nil {
		return fmt.Errorf("registry: %w", err)
	}
	if s.packages, err = newPackages(s, log); err != nil {
		return fmt.Errorf("packages: %w", err)
	}
	return nil
}

func (s *service) addTo(g *reconcile.Group) {
	g.Add("read cache", s.cache.Run)
	g.Add("directory", s.directory.Run)
	g.Add("roles", s.roles.Run)
	g.Add("privileged identities", s.pim.Run)
	g.Add("sign-ins", s.signIns.Run)
	g.Add("login", s.login.Run)
	g.Add("networks", s.networks.Run)
	g.Add("machines", s.machines.Run)
	g.Add("clusters", s.clusters.Run)
	g.Add("front door's background work", s.front.Run)
	g.Add("registry", s.registry.Run)
	g.Add("the instance's authority", s.authority)
}

func (s *service) frontDoor() http.Handler {
	return byHost(map[string]http.Handler{
		s.in.Host("management"): s.front,
		s.in.Host("login"):      s.login,
		s.in.Host("graph"):      s.graph,
		s.in.Host("registry"):   s.registry,
		s.in.Host("oidc"):       s.issuers,
		s.in.Host("guard"):      s.guard,
		s.in.Host("packages"):   s.packages,
	})
}

func newClusters(s *service, keys keyring, log *slog.Logger) (*cluster.Provider, error) {
	in := s.in
	believed := keys.trust("ca")
	if _, err := believed.get(); err != nil {
		return nil, err
	}
	renewed := make(chan struct{}, 1)
	s.authority = func(ctx context.Context) error {
		return believed.changed(ctx, log, func() {
			select {
			case renewed <- struct{}{}:
			default: // it is known
			}
		})
	}
	return cluster.New(cluster.Config{
		Store: s.store, Catalogue: &catalogue{cacheDir: in.CacheDir, image: in.NodeImage}, Directory: clusterDirectory{s.directory, s.roles}, Network: clusterNetwork{s.networks}, Log: log,
		CheckSecret: func(ctx context.Context, clientID, secret string) error {
			_, _, err := s.directory.CheckSecret(ctx, clientID, secret, "")
			return err
		},
		SecretEnd: s.directory.SecretEnd, Roles: s.roles, Authorizer: armAccess{s.roles},
		Host: hostName, Location: in.Location, Domain: in.Domain, Tenant: in.Tenant,
		ResourceManager: in.URL("management"), Login: in.URL("login"), Guard: in.URL("guard"), Cloud: bundle.CloudControllerVersion,
		Addons:   controlplane.Addons{CoreDNS: nodeimage.CoreDNSImage, MetricsServer: nodeimage.MetricsServerImage},
		Registry: in.Host("registry"), Mirror: in.URL("packages"), InstanceCA: believed.signs, Renewed: renewed, PauseImage: nodeimage.PauseImage,
		Repair: cluster.RepairTimes{Unready: in.RepairAfter, Between: in.RepairAfter},
	})
}

func newNetworks(s *service, log *slog.Logger) (*network.Provider, error) {
	in := s.in
	var names []dataplane.Name
	for _, n := range instance.Services() {
		names = append(names, dataplane.Name{Name: in.Host(n), Addresses: []netip.Addr{in.FrontDoor()}})
	}
	return network.New(network.Config{Store: s.store, Log: log, Host: hostName, Location: in.Location, Domain: in.Domain,
		PublicPool: in.PublicPool, FrontDoor: in.FrontDoor(), Names: names})
}

func newMachines(s *service, log *slog.Logger) (*compute.Provider, error) {
	in := s.in
	return compute.New(compute.Config{Store: s.store, Catalogue: &catalogue{cacheDir: in.CacheDir, image: in.NodeImage}, Network: computeNetwork{s.networks},
		Directory: s.directory, Nodes: poolNodes{s}, Authorizer: armAccess{s.roles}, Tenant: in.Tenant, Login: in.URL("login"),
		Log: log, Host: hostName, Location: in.Location})
}

// catalogue is what stands in the cache, asked anew each time: a bundle that was
// built meanwhile is there without a restart.
type catalogue struct{ cacheDir, image string }

func (c *catalogue) Kubernetes() []string {
	all, err := bundle.List(c.cacheDir)
	if err != nil {
		slog.Warn("bundles that can't be read", "error", err)
	}
	var versions []string
	for _, m := range all {
		if _, err := cluster.ParseVersion(m.Version); err == nil && m.Name == "kubernetes" {
			versions = append(versions, m.Version)
		}
	}
	return versions
}

func (c *catalogue) Parts(version string) (cluster.Parts, error) {
	image, err := nodeimage.Open(c.cacheDir, cmp.Or(c.image, nodeimage.Latest))
	if err != nil {
		return cluster.Parts{}, err
	}
	return cluster.Parts{Etcd: bundle.EtcdVersion, Image: image.Version,
		Layers: []string{"runtime@" + bundle.RuntimeVersion, "kubernetes@" + version}}, nil
}

func (c *catalogue) HasImage(version string) bool {
	_, err := nodeimage.Open(c.cacheDir, version)
	return err == nil && version != nodeimage.Latest
}

// Machine is what a virtual machine is made of: the node image, and kubectl of
// the newest release.
func (c *catalogue) Machine() (string, []string, error) {
	image, err := nodeimage.Open(c.cacheDir, cmp.Or(c.image, nodeimage.Latest))
	if err != nil {
		return "", nil, err
	}
	version, err := c.newest()
	if err != nil {
		return "", nil, err
	}
	return image.Version, []string{"kubernetes@" + version}, nil
}

func (c *catalogue) newest() (string, error) {
	versions, err := cluster.NewVersions(c.Kubernetes())
	if err != nil {
		return "", err
	}
	if len(versions) == 0 {
		return "", fault.New(fault.NotFound, "NoKubernetes", "No Kubernetes release is built: run `bastide bundle build`.")
	}
	return versions[len(versions)-1].String(), nil
}

// armIdentity lets the front door ask the directory: the two name principals in
// types of their own, since neither imports the other.
type armIdentity struct{ directory *identity.Directory }

func (a armIdentity) Authenticate(ctx context.Context, bearer string) (arm.Principal, error) {
	p, err := a.directory.Authenticate(ctx, bearer)
	if err != nil {
		return arm.Principal{}, err
	}
	return arm.Principal{ID: p.ID, Kind: string(p.Kind), Name: p.Name, AppID: p.AppID, Tenant: p.TenantID, Groups: p.Groups, Methods: p.Methods}, nil
}

// registryIdentity lets the registry ask the directory.
type registryIdentity struct {
	directory *identity.Directory
	roles     *authorization.Provider
	scope     string
}

func (r registryIdentity) Basic(ctx context.Context, name, password, address string) (registry.Subject, error) {
	p, err := r.directory.AuthenticateBasic(ctx, name, password, address)
	return registry.Subject{ID: p.ID, Kind: string(p.Kind), Name: p.Name}, err
}

func (r registryIdentity) Bearer(ctx context.Context, token string) (registry.Subject, error) {
	p, err := r.directory.AuthenticateRegistry(ctx, token)
	return registry.Subject{ID: p.ID, Kind: string(p.Kind), Name: p.Name}, err
}

func (r registryIdentity) MayWrite(ctx context.Context, who registry.Subject) error {
	p := identity.Principal{ID: who.ID, Kind: identity.PrincipalKind(who.Kind), Name: who.Name}
	if err := r.directory.Standing(ctx, p); err != nil {
		return err
	}
	return r.roles.Authorize(ctx, rbac.Subject{ID: who.ID, Groups: r.directory.GroupsOf(who.ID)}, who.Name, "Microsoft.ContainerRegistry/registries/push/write", r.scope)
}

func newFront(s *service, log *slog.Logger) (*arm.Handler, error) {
	in := s.in
	providers := append(s.networks.ARM(), s.machines.ARM(), s.clusters.ARM(), s.managed.ARM(), newDiagnostics(in, s.store, s.networks),
		arm.Provider{Namespace: pim.Namespace, Types: s.pim.Types()})
	return arm.New(arm.Config{
		Store: s.store, Authenticator: armIdentity{s.directory}, Authorizer: armAccess{s.roles}, Committed: s.roles.Committed, Logger: log,
		Providers:     append(providers, s.roles.ARM(providers)...),
		Tenant:        arm.Tenant{ID: in.Tenant, DisplayName: "Bastide " + in.Name, Domain: in.Domain},
		Subscriptions: []arm.Subscription{{ID: in.Subscription, DisplayName: "Bastide " + in.Name}},
		Endpoints:     arm.Endpoints{ResourceManager: in.URL("management"), Login: in.URL("login"), Graph: in.URL("graph")},
	})
}

func newRegistry(s *service, log *slog.Logger) (*registry.Registry, error) {
	return registry.New(registry.Config{Dir: s.in.Dir("registry"), URL: s.in.URL("registry"), Log: log, AnonymousPull: !s.in.RegistryClosed,
		Directory: registryIdentity{s.directory, s.roles, "/subscriptions/" + s.in.Subscription}})
}
