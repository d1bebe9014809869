// SPDX-License-Identifier: Apache-2.0

package drill

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"bastide.dev/client"
)

// API versions that the drills speak.
const (
	groupVersion   = "2021-04-01"
	networkVersion = "2024-05-01"
	computeVersion = "2024-07-01"
	clusterVersion = "2025-02-01"
	zoneVersion    = "2020-06-01"
	ownVersion     = "2026-11-01"
)

type object = map[string]any

// LabConfig is what a lab needs. All of it is required but for Busybox.
type LabConfig struct {
	Instance client.Instance
	Secrets  client.Secrets
	Client   *client.Client
	// ZeroTrust is what `bastide policy zero-trust NAMESPACE` prints.
	ZeroTrust func(namespace string, within bool) string
	WebImage  string // the demonstration app's
	// BreakGlass is what `bastide kubeconfig` prints for the cluster of an id.
	BreakGlass func(ctx context.Context, cluster string, lifetime time.Duration) ([]byte, error)
	// Unpatched is the version of a node image without security updates, made if needed.
	Unpatched func(ctx context.Context) (string, error)
	Busybox   string // a static busybox, /bin/busybox when empty
}

// Lab is what drills share: a resource group, a virtual network, a cluster, a
// jump host. Each is made when it is first asked for.
type Lab struct {
	LabConfig
	group string // the resource group's name
	dir   string // keys, kubeconfigs: root's alone

	ready      once[struct{}] // the resource group and the keys
	vnet       once[struct{}]
	image      once[string]
	cluster    once[*Cluster]
	private    once[*Cluster]
	integrated once[*Cluster]
	living     once[*Life]
	mu         sync.Mutex // guards what follows
	points     map[string]*once[*Terminal]
	hosts      map[string]*once[*Machine]
	servers    map[string]*once[*Server]
	closers    []func()
}

// NewLab makes a lab; it sends nothing yet.
func NewLab(c LabConfig) (*Lab, error) {
	if c.Client == nil || c.ZeroTrust == nil || c.WebImage == "" || c.BreakGlass == nil || c.Unpatched == nil {
		return nil, errors.New("lab: client, web image, zero-trust starter, kubeconfigs or node image is missing")
	}
	if c.Busybox == "" {
		c.Busybox = "/bin/busybox"
	}
	dir, err := os.MkdirTemp("", "bastide-drill-*")
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	return &Lab{LabConfig: c, group: "drill-" + strings.ToLower(rand.Text()[:6]), dir: dir, points: map[string]*once[*Terminal]{},
		hosts: map[string]*once[*Machine]{}, servers: map[string]*once[*Server]{}}, nil
}

// Group is the resource group that holds all that the drills make.
func (l *Lab) Group() string { return l.group }

// Close removes all that the lab made, but the resource group when it is to be kept.
func (l *Lab) Close(ctx context.Context, keep bool) error {
	l.mu.Lock()
	closers := l.closers
	l.mu.Unlock()
	for _, done := range closers {
		done()
	}
	if keep {
		return nil
	}
	err := os.RemoveAll(l.dir)
	if !l.ready.tried() {
		return err
	}
	return errors.Join(err, l.Client.Delete(ctx, l.groupID(), groupVersion))
}

// Dir is where a kept lab's SSH keys and kubeconfigs are.
func (l *Lab) Dir() string { return l.dir }

func (l *Lab) closing(do func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closers = append(l.closers, do)
}

func (l *Lab) file(name string) string { return filepath.Join(l.dir, name) }

func (l *Lab) groupID() string {
	return "/subscriptions/" + l.Instance.SubscriptionID + "/resourceGroups/" + l.group
}

// id is a resource's in the lab's group; a child's parts follow.
func (l *Lab) id(typ, name string, child ...string) string {
	return strings.Join(append([]string{l.groupID(), "providers", typ, name}, child...), "/")
}

func (l *Lab) network(typ, name string, child ...string) string {
	return l.id("Microsoft.Network/"+typ, name, child...)
}

func ref(id string) object { return object{"id": id} }

func (l *Lab) put(ctx context.Context, id, version string, body object) (object, error) {
	answer, err := client.Put[object](ctx, l.Client, id, version, body)
	if err != nil {
		return nil, fmt.Errorf("PUT %s: %w", short(id), err)
	}
	return answer, nil
}

// Put creates or replaces a resource, on record.
func (s *Stage) Put(ctx context.Context, id, version string, body object) (map[string]any, error) {
	began := time.Now()
	answer, err := s.put(ctx, id, version, body)
	s.did("PUT", id+"?api-version="+version, body, began, err)
	return answer, err
}

// Delete removes a resource, on record.
func (s *Stage) Delete(ctx context.Context, id, version string) error {
	began := time.Now()
	err := s.Client.Delete(ctx, id, version)
	s.did("DELETE", id+"?api-version="+version, nil, began, err)
	if err != nil {
		return fmt.Errorf("DELETE %s: %w", short(id), err)
	}
	return nil
}

// short is an ID without subscription and provider, for people.
func short(id string) string {
	_, after, found := strings.Cut(id, "/providers/")
	if !found {
		return id
	}
	return after
}

// begin makes the resource group, the keys and ssh's configuration.
func (l *Lab) begin(ctx context.Context) error {
	_, err := l.ready.get(func() (struct{}, error) {
		if err := l.makeKeys(); err != nil {
			return struct{}{}, err
		}
		_, err := l.put(ctx, l.groupID(), groupVersion, object{"location": l.Instance.Location, "tags": object{"made-by": "bastide drill"}})
		return struct{}{}, err
	})
	return err
}

// The lab's virtual network. Every subnet has a security group of its own that
// allows everything late, so that a drill only adds a rule before.
var (
	labSubnets = map[string]string{"aks": "10.80.1.0/24", "jump": "10.80.2.0/24", "app": "10.80.3.0/24", "out": "10.80.4.0/24", "private": "10.80.5.0/24", "routed": "10.80.6.0/24", "people": "10.80.7.0/24", "life": "10.80.8.0/24"}
	labPrefix  = "10.80.0.0/16"
)

const everything = 4000 // the priority of the rule that allows all

func (l *Lab) subnet(name string) string { return l.network("virtualNetworks", "lab", "subnets", name) }
func (l *Lab) nsg(name string) string    { return l.network("networkSecurityGroups", name+"-nsg") }

func (l *Lab) base(ctx context.Context) error {
	_, err := l.vnet.get(func() (struct{}, error) {
		if err := l.begin(ctx); err != nil {
			return struct{}{}, err
		}
		return struct{}{}, l.makeVNet(ctx, "lab", labPrefix, labSubnets)
	})
	return err
}

// makeVNet makes a network whose subnets have security groups that allow all.
func (l *Lab) makeVNet(ctx context.Context, name, prefix string, subnets map[string]string) error {
	var list []any
	for subnet, p := range subnets {
		group := l.nsg(subnet)
		if _, err := l.put(ctx, group, networkVersion, object{"location": l.Instance.Location, "properties": object{"securityRules": []any{
			object{"name": "allow-everything", "properties": rule(everything, "Inbound", "Allow", "*", "*", "*", "*")}}}}); err != nil {
			return err
		}
		list = append(list, object{"name": subnet, "properties": object{"addressPrefix": p, "networkSecurityGroup": ref(group)}})
	}
	_, err := l.put(ctx, l.network("virtualNetworks", name), networkVersion, object{"location": l.Instance.Location,
		"properties": object{"addressSpace": object{"addressPrefixes": []any{prefix}}, "subnets": list}})
	return err
}

// rule is a security rule's properties.
func rule(priority int, direction, access, protocol, from, to, port string) object {
	return object{"priority": priority, "direction": direction, "access": access, "protocol": protocol,
		"sourceAddressPrefix": from, "sourcePortRange": "*", "destinationAddressPrefix": to, "destinationPortRange": port}
}

// ruleSwitch is a switch of one security rule.
func (s *Stage) ruleSwitch(group, name string, properties object) (on, off func(context.Context) error) {
	id := group + "/securityRules/" + name
	on = func(ctx context.Context) error {
		s.Undo("remove rule "+name, func(ctx context.Context) error { return s.Client.Delete(ctx, id, networkVersion) })
		_, err := s.Put(ctx, id, networkVersion, object{"properties": properties})
		return err
	}
	return on, func(ctx context.Context) error { return s.Delete(ctx, id, networkVersion) }
}

// once makes a value at the first call; those that come meanwhile wait. A failure stays.
type once[T any] struct {
	mu    sync.Mutex
	done  bool
	value T
	err   error
}

func (o *once[T]) get(make func() (T, error)) (T, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.done {
		o.value, o.err = make()
		o.done = true
	}
	return o.value, o.err
}

// keyed returns the one of a name, made if needed.
func keyed[T any](mu *sync.Mutex, all map[string]*once[T], name string) *once[T] {
	mu.Lock()
	defer mu.Unlock()
	if all[name] == nil {
		all[name] = &once[T]{}
	}
	return all[name]
}

func (o *once[T]) tried() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.done
}

// dig reads a string out of an answer: dig(o, "properties", "ipAddress").
func dig(o any, path ...string) string {
	for _, p := range path {
		m, ok := o.(object)
		if !ok {
			return ""
		}
		o = m[p]
	}
	text, _ := o.(string)
	return text
}

func parseAddr(text, what string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err != nil {
		return a, fmt.Errorf("%s: %w", what, err)
	}
	return a, nil
}
