// SPDX-License-Identifier: Apache-2.0

// Package instance derives from an instance's name and slot everything that
// must not meet another instance on the same machine: directories, addresses,
// ports, uid ranges and names. Only cmd and testcloud import it; other packages
// are handed what they need.
package instance

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"bastide.dev/fault"
)

// Default settings of an instance.
const (
	DefaultName     = "default"
	DefaultLocation = "eastus"
	DefaultCache    = "/var/cache/bastide"
	defaultRoot     = "/var/lib/bastide"
)

// Slots is how many instances fit on one machine: the uid space is cut in as many parts.
const Slots = 15

// ControlPlanes is how many control planes, with a uid each, an instance may have.
const ControlPlanes = 50000

const (
	uidsPerMachine  = 1 << 16
	machinesPerSlot = 4000
	firstRange      = 1000 // ranges below are left to the system and to subuid
)

// Settings are what the user may choose; they are kept from the first up on.
type Settings struct {
	Name       string       `json:"name"`
	StateDir   string       `json:"stateDir"`
	CacheDir   string       `json:"cacheDir"`
	Domain     string       `json:"domain"`
	PublicPool netip.Prefix `json:"publicPool"`
	Location   string       `json:"location"`
	// RegistryClosed lets nobody pull from the registry without a role.
	RegistryClosed bool `json:"registryClosed,omitempty"`
	// Mirror is the archive of Debian's packages that nodes get updates from, by
	// way of the front door: a URL, or a directory's path. Empty: Debian's own.
	Mirror string `json:"mirror,omitempty"`
	// NodeImage is what new nodes are made of instead of the latest image.
	NodeImage string `json:"nodeImage,omitempty"`
	// RepairAfter is how long a node may be not ready before something is done
	// about it, and each remedy has. Zero: as long as AKS waits.
	RepairAfter time.Duration `json:"repairAfter,omitempty"`
}

// Instance is an instance's settings and its slot on this machine.
type Instance struct {
	Settings
	Slot         int    `json:"slot"`
	Tenant       string `json:"tenant"`
	Subscription string `json:"subscription"`
}

var (
	nameForm   = regexp.MustCompile(`^[a-z][a-z0-9-]{0,19}$`)
	domainForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+$`)
)

// Complete fills the settings that weren't chosen, for an instance in slot.
func (s Settings) Complete(slot int) Settings {
	if s.Name == "" {
		s.Name = DefaultName
	}
	if s.StateDir == "" {
		s.StateDir = filepath.Join(defaultRoot, s.Name)
	}
	if s.CacheDir == "" {
		s.CacheDir = DefaultCache
	}
	if s.Location == "" {
		s.Location = DefaultLocation
	}
	if s.Domain == "" {
		s.Domain = "bastide.internal"
		if s.Name != DefaultName {
			s.Domain = s.Name + ".bastide.internal"
		}
	}
	if !s.PublicPool.IsValid() {
		s.PublicPool = defaultPool(slot)
	}
	return s
}

// defaultPool cuts the retired 6to4 anycast prefix (RFC 7526), which is routed
// nowhere and which clients take for a public one: half for the first instance,
// a smaller part for each further one.
func defaultPool(slot int) netip.Prefix {
	switch slot {
	case 0:
		return netip.MustParsePrefix("192.88.99.0/25")
	case 1:
		return netip.MustParsePrefix("192.88.99.128/26")
	case 2:
		return netip.MustParsePrefix("192.88.99.192/27")
	case 3:
		return netip.MustParsePrefix("192.88.99.224/28")
	case 4:
		return netip.MustParsePrefix("192.88.99.240/28")
	}
	return netip.Prefix{}
}

// Validate reports every problem of complete settings.
func (s Settings) Validate() error {
	var problems []*fault.Error
	bad := func(target, format string, args ...any) {
		problems = append(problems, fault.New(fault.Invalid, "InvalidSetting", format, args...).At(target))
	}
	if !nameForm.MatchString(s.Name) {
		bad("--instance", "The instance's name %q must be 1 to 20 of a-z, 0-9 and -, and begin with a letter.", s.Name)
	}
	if !domainForm.MatchString(s.Domain) || len(s.Domain) > 100 {
		bad("--domain", "The domain %q must be a DNS name of at least two labels, in lower case.", s.Domain)
	}
	if !filepath.IsAbs(s.StateDir) {
		bad("--state-dir", "The state directory %q must be an absolute path.", s.StateDir)
	}
	switch {
	case !s.PublicPool.IsValid():
		bad("--public-pool", "No default pool of public addresses is left for another instance: choose one with --public-pool.")
	case !s.PublicPool.Addr().Is4() || s.PublicPool.Bits() > 28 || s.PublicPool != s.PublicPool.Masked():
		bad("--public-pool", "The public pool %s must be an IPv4 network of /28 or larger, without host bits.", s.PublicPool)
	}
	return fault.Join(problems...)
}

// RunDir holds what doesn't outlive the machine's boot: pids, sockets, namespaces.
func (i *Instance) RunDir() string { return filepath.Join("/run/bastide", i.Name) }

// Dir is a directory of the instance's state.
func (i *Instance) Dir(parts ...string) string {
	return filepath.Join(append([]string{i.StateDir}, parts...)...)
}

// Loopback is the instance's own address on the loopback interface, where its
// etcd and the API for hosts listen.
func (i *Instance) Loopback() netip.Addr { return netip.AddrFrom4([4]byte{127, 83, byte(i.Slot), 1}) }

// FrontDoor is the first address of the public pool: ARM, login and registry.
func (i *Instance) FrontDoor() netip.Addr { return i.PublicPool.Addr().Next() }

// HostAPI is where hosts reach serve.
func (i *Instance) HostAPI() string { return netip.AddrPortFrom(i.Loopback(), 8443).String() }

// EtcdClient and EtcdPeer are where the service's own etcd listens.
func (i *Instance) EtcdClient() string { return netip.AddrPortFrom(i.Loopback(), 2379).String() }

// EtcdPeer is where the service's own etcd would meet its peers.
func (i *Instance) EtcdPeer() string { return netip.AddrPortFrom(i.Loopback(), 2380).String() }

// Host is the name of one of the front door's hosts: "management", "login", ….
func (i *Instance) Host(service string) string { return service + "." + i.Domain }

// URL is the https URL of one of the front door's hosts.
func (i *Instance) URL(service string) string { return "https://" + i.Host(service) }

// Services are the names under the instance's domain that the front door answers to.
func Services() []string {
	return []string{"management", "login", "graph", "registry", "oidc", "guard", "packages"}
}

// The uids of the instance: the first range of its part is the service's and
// the control planes', the others belong to machines.
func (i *Instance) uidBase() uint32 {
	return uint32(uidsPerMachine * (firstRange + i.Slot*machinesPerSlot))
}

// ServeUID is serve's own uid.
func (i *Instance) ServeUID() uint32 { return i.uidBase() + 1 }

// EtcdUID is the own uid of the service's etcd.
func (i *Instance) EtcdUID() uint32 { return i.uidBase() + 2 }

// ControlPlaneUIDs is where the control planes' uids begin.
func (i *Instance) ControlPlaneUIDs() uint32 { return i.uidBase() + 100 }

// MachineUIDs is where the machines' uid ranges begin.
func (i *Instance) MachineUIDs() uint32 { return i.uidBase() + uidsPerMachine }

// Path of an instance's own description in its state directory.
func path(stateDir string) string { return filepath.Join(stateDir, "settings.json") }

// Load reads an instance back. It is fault.NotFound when there is none.
func Load(name, stateDir string) (*Instance, error) {
	if stateDir == "" {
		stateDir = Settings{Name: name}.Complete(0).StateDir
	}
	text, err := os.ReadFile(path(stateDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "InstanceNotFound", "There is no instance %q in %s yet: `bastide up` makes it.", name, stateDir)
	}
	if err != nil {
		return nil, fmt.Errorf("instance: %w", err)
	}
	var i Instance
	if err := json.Unmarshal(text, &i); err != nil {
		return nil, fmt.Errorf("instance %s: %w", path(stateDir), err)
	}
	return &i, nil
}

// Save writes the description; it holds no secret, but the directory is root's.
func (i *Instance) Save() error {
	text, err := json.MarshalIndent(i, "", "  ")
	if err != nil {
		return fmt.Errorf("instance: %w", err)
	}
	if err := os.MkdirAll(i.StateDir, 0o711); err != nil {
		return fmt.Errorf("instance: %w", err)
	}
	temp := path(i.StateDir) + ".new"
	if err := os.WriteFile(temp, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("instance: %w", err)
	}
	return os.Rename(temp, path(i.StateDir))
}
