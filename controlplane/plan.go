// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"bastide.dev/fault"
	"bastide.dev/pki"
)

// The programs of a control plane.
const (
	Etcd              = "etcd"
	APIServer         = "kube-apiserver"
	ControllerManager = "kube-controller-manager"
	Scheduler         = "kube-scheduler"
	CloudController   = "cloud-controller-manager"
)

// Programs are all that a control plane may have, in the order in which they are named.
func Programs() []string {
	return []string{Etcd, APIServer, ControllerManager, Scheduler, CloudController}
}

// Programs are those that this one has.
func (s *Spec) Programs() []string {
	all := Programs()
	if s.Cloud == nil {
		all = slices.DeleteFunc(all, func(name string) bool { return name == CloudController })
	}
	return all
}

// leafLife is how long the certificates last that the host issues.
const leafLife = 365 * 24 * time.Hour

// Dirs is where a control plane's files are on the host, absolute. The programs
// see them under the same paths.
type Dirs struct {
	Config string // one directory a program, which that program alone sees
	Etcd   string // etcd's data
	Audit  string // the API server's audit.log
	Slot   Slot   // of the API server
}

// Plan is a control plane as files, certificates and programs.
type Plan struct {
	Files    []File
	Leaves   []Leaf
	Programs []Program
}

// File is a configuration file.
type File struct {
	Program string // who reads it
	Name    string
	Data    []byte
}

// Leaf is a certificate that the host issues and renews: Name.crt and Name.key.
type Leaf struct {
	Program string
	Name    string
	CA      KeyPair
	Request pki.Request
	Pinned  bool // the program reads it at its start only
}

// Program is one process.
type Program struct {
	Name          string
	Binary        string // in its bundle
	Bundle        string
	Version       string
	Args          []string
	Env           []string
	Config, Write string // the directories it reads and, unless empty, writes
}

var idForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)

// Validate tells what is missing in a spec.
func (s *Spec) Validate() error {
	var problems []*fault.Error
	need := func(ok bool, target string) {
		if !ok {
			problems = append(problems, fault.New(fault.Invalid, "", "The control plane's %s is missing or malformed.", target).At(target))
		}
	}
	need(idForm.MatchString(s.ID) && len(s.ID) <= 63, "id")
	need(s.Version != "", "version")
	need(s.Etcd != "", "etcd")
	need(s.Namespace != "", "namespace")
	need(s.Address.IsValid(), "address")
	need(s.Endpoint != "", "endpoint")
	s.validateIssuers(need)
	need(s.ServiceCIDR.IsValid(), "serviceCIDR")
	need(s.DNSServiceIP.IsValid() && s.ServiceCIDR.IsValid() && s.ServiceCIDR.Contains(s.DNSServiceIP), "dnsServiceIP")
	need(s.ClusterDomain != "", "clusterDomain")
	need(len(s.Keys.SecretsEncryption) == 32, "keys.secretsEncryption")
	need(len(s.Keys.ServiceAccounts) > 0, "keys.serviceAccounts")
	for name, pair := range map[string]KeyPair{"keys.ca": s.Keys.CA, "keys.frontProxy": s.Keys.FrontProxyCA, "keys.etcd": s.Keys.EtcdCA} {
		_, err := pki.OpenCA(pki.Pair(pair))
		need(err == nil, name)
	}
	if len(s.Keys.LocalCA.Certificate) > 0 {
		_, err := pki.OpenCA(pki.Pair(s.Keys.LocalCA))
		need(err == nil, "keys.local")
	}
	s.Keys.validateFormer(need)
	s.Cloud.validate(need)
	s.Directory.validate(need)
	s.Backups.validate(need)
	s.Restore.validate(need)
	return fault.Join(problems...)
}

// Compile says what a control plane is made of. It is pure.
func Compile(s Spec, d Dirs) (Plan, error) {
	if err := s.Validate(); err != nil {
		return Plan{}, err
	}
	c := compiler{Spec: s, Dirs: d}
	files, err := c.files()
	if err != nil {
		return Plan{}, err
	}
	programs := []Program{c.etcd(), c.apiServer(), c.controllerManager(), c.scheduler()}
	if c.Cloud != nil {
		programs = append(programs, c.cloudController())
	}
	return d.Slot.placed(Plan{Files: files, Leaves: c.leaves(), Programs: programs}), nil
}

// Inputs is a digest of what a program reads at its start only: when it changes,
// the program is to be started anew. Certificates that it reads again by itself
// don't count; pinned gives those that do, as they are on disk.
func (p *Plan) Inputs(program string, pinned map[string][]byte) (string, error) {
	content := map[string][]byte{}
	for _, f := range p.Files {
		if f.Program == program {
			content[f.Name] = f.Data
		}
	}
	for name, data := range pinned {
		content["leaf/"+name] = data
	}
	data, err := json.Marshal(content) // a map's keys are sorted
	if err != nil {
		return "", fmt.Errorf("digest inputs of %s: %w", program, err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

// ServiceAddress is the address of the service "kubernetes".
func (s *Spec) ServiceAddress() netip.Addr { return s.ServiceCIDR.Masked().Addr().Next() }

type compiler struct {
	Spec
	Dirs
}

// file is the path of a program's file.
func (c *compiler) file(program, name string) string {
	if program == APIServer {
		program = c.Slot.Program()
	}
	return filepath.Join(c.Config, program, name)
}

func (c *compiler) program(name, bundle, version, write string, env []string, args ...string) Program {
	binary := name
	if name == APIServer {
		name = c.Slot.Program()
	}
	return Program{Name: name, Binary: binary, Bundle: bundle, Version: version, Args: args, Env: env, Config: filepath.Join(c.Config, name), Write: write}
}

func (c *compiler) leaves() []Leaf {
	loopback := netip.MustParseAddr("127.0.0.1")
	local := pki.Request{CommonName: "localhost", DNS: []string{"localhost"}, IPs: []netip.Addr{loopback}, Server: true, Lifetime: leafLife}
	client := func(name string, groups ...string) pki.Request {
		return pki.Request{CommonName: name, Organizations: groups, Client: true, Lifetime: leafLife}
	}
	member := local
	member.Client = true // etcd also calls itself
	server := pki.Request{CommonName: "kube-apiserver", Server: true, Lifetime: leafLife,
		DNS: []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + c.ClusterDomain, "localhost", c.Endpoint},
		IPs: []netip.Addr{c.ServiceAddress(), c.Address, loopback}}
	server.DNS = append(server.DNS, c.Names...)
	if c.Public.IsValid() {
		server.IPs = append(server.IPs, c.Public)
	}
	k := &c.Keys
	leaves := []Leaf{
		{Program: Etcd, Name: "server", CA: k.EtcdCA, Request: member},
		{Program: APIServer, Name: "server", CA: k.CA, Request: server},
		{Program: APIServer, Name: "etcd-client", CA: k.EtcdCA, Request: client("kube-apiserver")},
		{Program: APIServer, Name: "kubelet-client", CA: k.CA, Request: client(KubeletClient), Pinned: true},
		{Program: APIServer, Name: "front-proxy-client", CA: k.FrontProxyCA, Request: client("front-proxy-client")},
		{Program: ControllerManager, Name: "server", CA: k.CA, Request: local},
		{Program: ControllerManager, Name: "client", CA: k.CA, Request: client("system:kube-controller-manager"), Pinned: true},
		{Program: Scheduler, Name: "server", CA: k.CA, Request: local},
		{Program: Scheduler, Name: "client", CA: k.CA, Request: client("system:kube-scheduler"), Pinned: true},
	}
	if c.Cloud != nil {
		leaves = append(leaves,
			Leaf{Program: CloudController, Name: "server", CA: k.CA, Request: local},
			Leaf{Program: CloudController, Name: "client", CA: k.CA, Request: client(CloudControllerUser), Pinned: true})
	}
	return leaves
}

// KubeletClient is who the API server is to kubelets; CloudControllerUser is
// who the cloud-controller-manager is to the API server.
const (
	KubeletClient       = "system:kube-apiserver"
	CloudControllerUser = "system:cloud-controller-manager"
)
