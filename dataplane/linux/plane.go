// SPDX-License-Identifier: Apache-2.0

// Package linux makes a dataplane.Config real on this machine: network
// namespaces as routers, veth pairs, routes, nftables, name servers, and a
// block in the hosts file.
//
// Everything it makes bears the instance's name or lies below its run
// directory, and nothing else is touched, but for the machine's forwarding
// switch. The kernel is its only memory: a Plane that starts anew adopts what
// stands. Host and cmd may import it; it needs root.
package linux

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"bastide.dev/dataplane"
	kernel "bastide.dev/ruleset/linux"
)

// Config is what a Plane needs.
type Config struct {
	Instance string // [a-z0-9-], in every name
	RunDir   string // the instance's own, on a file system that a reboot empties
	Logger   *slog.Logger

	// SharedDir is where instances of this machine meet; /run/bastide when empty.
	SharedDir string
	// HostsFile gets the instance's names; /etc/hosts when empty.
	HostsFile string
	// ResolvConf names the machine's own resolvers; /etc/resolv.conf when empty.
	ResolvConf string
	// LogDir gets the flow logs; RunDir when empty.
	LogDir string
	// Metadata answers at the metadata address of each network; nil: nobody does.
	Metadata Metadata
}

// Plane is one instance's network on this machine. Its methods are safe for
// concurrent use; one Apply or Down runs at a time.
type Plane struct {
	Config
	log      *slog.Logger
	hosts    hostsFile
	upstream *upstreams
	renew    *renewal
	changes  chan string
	stop     context.CancelFunc
	ended    sync.WaitGroup

	mu     sync.Mutex // guards the rest
	config *dataplane.Config
	mtu    int
	root   *space           // the machine's own namespace
	rootFW *kernel.Firewall // our table there
	edge   *router          // nil before the first Apply
	vnets  map[string]*vnet
	names  edgeNames
	warned bool // of other firewalls
}

// New opens an instance's network. Close gives up the process's part of it
// (name servers, probes, handles) and leaves the kernel's as it is.
func New(c Config) (*Plane, error) {
	if c.Instance == "" || !filepath.IsAbs(c.RunDir) {
		return nil, fmt.Errorf("data plane: an instance and an absolute run directory are needed, not %q and %q", c.Instance, c.RunDir)
	}
	c.SharedDir = orElse(c.SharedDir, "/run/bastide")
	c.HostsFile = orElse(c.HostsFile, "/etc/hosts")
	c.ResolvConf = orElse(c.ResolvConf, "/etc/resolv.conf")
	c.LogDir = orElse(c.LogDir, c.RunDir)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	root, err := openSpace("/proc/self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("data plane: %w", err)
	}
	fw, err := kernel.New(root.ns, dataplane.TableName(c.Instance))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("data plane: %w", err), root.close())
	}
	ctx, stop := context.WithCancel(context.Background())
	p := &Plane{Config: c, log: c.Logger, root: root, rootFW: fw, vnets: map[string]*vnet{},
		hosts:    hostsFile{path: c.HostsFile, instance: c.Instance, shared: c.SharedDir},
		upstream: &upstreams{path: c.ResolvConf}, renew: newRenewal(), changes: make(chan string), stop: stop}
	p.ended.Go(func() { p.refresh(ctx) })
	return p, nil
}

func orElse(value, other string) string {
	if value == "" {
		return other
	}
	return value
}

// NetnsPath is where the namespace is kept that the plane makes for NICs with
// this Namespace. It stands while an applied configuration has such a NIC.
func (p *Plane) NetnsPath(name string) string { return filepath.Join(p.RunDir, "netns", name) }

func (p *Plane) routerPath(name string) string { return filepath.Join(p.RunDir, "routers", name) }
func (p *Plane) vnetPath(id string) string     { return p.routerPath(vnetPrefix + id) }

// Names below RunDir/routers, and of links by kind, as package dataplane gives them.
const (
	edgeName       = "edge"
	vnetPrefix     = "vnet-"
	nicPrefix      = "n"
	peerPrefix     = "p"
	terminalPrefix = "t"
	loopback       = "lo"
)

// Apply makes the machine's network what the configuration says, and only
// then returns. It may be called again and again, also after a failure, a
// restart or damage by others: what is as it should be isn't touched. netns
// tells where a machine's network namespace is; a NIC whose machine has none
// ("") waits for a later Apply. A VNet that is wrong or fails doesn't keep the
// others from being applied: the status holds those that stand, and the error,
// a *dataplane.Trouble, says which don't.
//
// The Plane keeps the configuration, and compares later ones with it: nobody
// may change it any more.
func (p *Plane) Apply(ctx context.Context, c dataplane.Config, netns func(machineID string) string) (map[string]dataplane.VNetStatus, error) {
	if len(c.Edge.Pools) == 0 && len(c.VNets) == 0 {
		return nil, p.Down(ctx) // nothing is wanted
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	asked := c.VNets
	c, trouble := sound(&c, p.config)
	if trouble.Whole != nil {
		return nil, trouble.Err()
	}
	edge := dataplane.CompileEdge(p.Instance, &c)
	if err := p.prepare(&c, &edge); err != nil {
		return nil, err
	}
	p.config = &c
	// A VNet that is wrong stays as it stands, until it is right or gone.
	failed := []error{p.removeVNets(asked), p.adopt(&c)}
	passes := make([]*pass, 0, len(c.VNets))
	for i := range c.VNets {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		passes = append(passes, p.begin(&c, &c.VNets[i], netns))
	}
	failed = append(failed, p.applyPeers(passes))
	status := make(map[string]dataplane.VNetStatus, len(c.VNets))
	for _, one := range passes {
		if one.busy && one.safe {
			one.err = errors.Join(one.err, p.finish(one))
		}
		if one.err != nil {
			trouble.VNets[one.v.ID] = errors.Join(trouble.VNets[one.v.ID], one.err)
		}
		if trouble.VNets[one.v.ID] == nil {
			status[one.v.ID] = one.n.status(one.v.ID)
		}
	}
	failed = append(failed, p.finishEdge(&edge), p.removeSpaces(&c), p.hosts.write(c.Edge.Names))
	trouble.Whole = errors.Join(failed...)
	return status, trouble.Err()
}

// Close ends the name servers and probes, and gives up all handles. The network stays.
func (p *Plane) Close() error {
	p.stop()
	p.ended.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	failed := []error{p.forget(), p.rootFW.Close(), p.root.close()}
	return errors.Join(failed...)
}

// forget closes every router's handles.
func (p *Plane) forget() error {
	var failed []error
	for id, r := range p.vnets {
		failed = append(failed, r.close())
		delete(p.vnets, id)
	}
	if p.edge != nil {
		failed = append(failed, p.edge.close())
		p.edge = nil
	}
	return errors.Join(failed...)
}

// router is an open router namespace and what this process runs in it.
type router struct {
	*space
	fw   *kernel.Firewall
	dns  *nameServer // nil in an edge without terminals
	made bool        // by this process: nothing is in it that it didn't bring
}

// openRouter opens, or makes, the router kept at path and puts its settings right.
func (p *Plane) openRouter(path string, settings []setting) (*router, error) {
	if err := p.makeDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	s, err := openSpace(path)
	made := errors.Is(err, fs.ErrNotExist)
	if made {
		s, err = ensureSpace(path)
	}
	if err != nil {
		return nil, err
	}
	if err := within(s.ns, func() error { return errors.Join(apply(settings), trustTables()) }); err != nil {
		return nil, errors.Join(err, s.close())
	}
	fw, err := kernel.New(s.ns, dataplane.TableName(p.Instance))
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return &router{space: s, fw: fw, made: made}, nil
}

func (r *router) close() error {
	var failed []error
	if r.dns != nil {
		failed = append(failed, r.dns.close())
	}
	return errors.Join(append(failed, r.fw.Close(), r.space.close())...)
}

// Down removes everything the instance has on this machine's network, also
// what an earlier process left.
func (p *Plane) Down(_ context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.config = nil
	failed := []error{p.removeVNets(nil), p.removeSpaces(&dataplane.Config{})}
	link, err := findLink(p.root.nl, p.rootEnd())
	if err == nil && link != nil {
		err = p.root.nl.LinkDel(link)
		if errors.Is(err, unix.ENODEV) {
			err = nil
		}
	}
	failed = append(failed, err, p.forget(), removeNetns(p.routerPath(edgeName)), p.rootFW.Remove())
	failed = append(failed, releaseForwarding(p.SharedDir, p.Instance), p.hosts.write(nil))
	failed = append(failed, os.RemoveAll(filepath.Join(p.RunDir, terminals)))
	for _, dir := range []string{"routers", "netns"} {
		if err := os.Remove(filepath.Join(p.RunDir, dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// makeDir makes a directory that is root's alone, in the run directory, which
// isn't.
func (p *Plane) makeDir(dir string) error {
	err := os.MkdirAll(p.RunDir, 0o755)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return fmt.Errorf("run directory: %w", err)
	}
	return nil
}

// entries lists the names in a directory of the run directory.
func (p *Plane) entries(dir string) ([]string, error) {
	listed, err := os.ReadDir(filepath.Join(p.RunDir, dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("run directory: %w", err)
	}
	names := make([]string, len(listed))
	for i, e := range listed {
		names[i] = e.Name()
	}
	return names, nil
}

// loopbackUp brings lo up with exactly these addresses beside its own.
func loopbackUp(h *netlink.Handle, addresses []netip.Prefix) error {
	lo, err := mustLink(h, loopback)
	if err != nil {
		return err
	}
	if err := ready(h, lo, 0); err != nil {
		return err
	}
	return syncAddresses(h, lo, addresses)
}
