// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/modfile"
)

// A recipe is what a bundle is made of. Versions come from the module files: to
// move to another release is to change the pin there, nothing here.
type recipe struct {
	name     string
	steps    []step
	onDemand bool // built when it is named, and not with all the others
}

// A step makes one program.
type step struct {
	Component string
	Module    string   // whose version is the component's; "" for our own
	Version   string   // of our own
	Dir       string   // the nested module, relative to the checkout
	Modfile   string   // in Dir
	Package   string   // import path or "."; "*.c" is compiled with the C compiler
	Output    string   // relative to the bundle's root
	Links     []string // further names, each a component
	Tags      string
	LDFlags   string // {version} stands for the component's
	CGO       bool
	NewerGo   bool `json:",omitempty"` // Modfile may ask for a newer Go than is here: the go tool gets it as it gets modules
	Test      bool `json:",omitempty"` // the program is the package's tests
}

// pins are the module versions of a module file, without the leading v.
type pins map[string]string

const (
	bin = "usr/local/bin/"
	cni = "opt/cni/bin/"

	kubernetesModule = "k8s.io/kubernetes"
	containerdModule = "github.com/containerd/containerd/v2"
	runcModule       = "github.com/opencontainers/runc"
	pluginsModule    = "github.com/containernetworking/plugins"
	etcdModule       = "go.etcd.io/etcd/server/v3"
	corednsModule    = "github.com/coredns/coredns"
	metricsModule    = "sigs.k8s.io/metrics-server"
	cloudModule      = "sigs.k8s.io/cloud-provider-azure"
	kubeloginModule  = "github.com/Azure/kubelogin"
	ginkgoModule     = "github.com/onsi/ginkgo/v2"
)

// kubernetesNames are the components of a release, all one binary when built here.
func kubernetesNames() []string {
	return []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"}
}

// recipes are all bundles there are, the ones that a first cluster needs first.
func recipes() []recipe {
	return []recipe{
		kubernetesRecipe("go.mod"), etcdRecipe(), runtimeRecipe(),
		addonRecipe("coredns", corednsModule, step{Dir: "addons/coredns", Package: ".", LDFlags: "-X " + corednsModule + "/coremain.GitCommit=v{version}"}),
		addonRecipe("metrics-server", metricsModule, step{Dir: "addons/metrics-server", Package: metricsModule + "/cmd/metrics-server",
			LDFlags: "-X k8s.io/client-go/pkg/version.gitVersion=v{version}"}),
		addonRecipe("cloud-controller-manager", cloudModule, step{Dir: "addons/cloud-controller-manager", Package: cloudModule + "/cmd/cloud-controller-manager",
			Tags: "grpcnotrace", LDFlags: "-X " + cloudModule + "/pkg/version.gitVersion=v{version} -X k8s.io/client-go/pkg/version.gitVersion=v{version}" +
				" -X k8s.io/component-base/version.gitVersion=v{version}"}),
		addonRecipe("kubelogin", kubeloginModule, step{Dir: "addons/kubelogin", Package: kubeloginModule, NewerGo: true,
			LDFlags: "-X main.gitTag=v{version}"}),
		addonRecipe("pause", "", step{Dir: "addons/pause", Package: "pause.c", Version: PauseVersion}),
		addonRecipe("web", "", step{Dir: "addons", Package: "./web", Version: WebVersion}),
		kubernetesRecipe("v1.35.mod"),
		kubernetesRecipe("v1.34.mod"),
		e2eRecipe(),
	}
}

func kubernetesRecipe(mod string) recipe {
	const v = "k8s.io/component-base/version."
	return recipe{name: "kubernetes", steps: []step{{
		Component: "kube", Module: kubernetesModule, Dir: "kube", Modfile: mod, Package: ".", Output: bin + "kube",
		Links: kubernetesNames(), Tags: "grpcnotrace",
		LDFlags: "-X " + v + "gitVersion=v{version} -X " + v + "gitMajor={major} -X " + v + "gitMinor={minor} -X " + v + "gitTreeState=clean",
	}}}
}

// e2eRecipe makes the tests that a Kubernetes release has for clusters, what runs
// them side by side, and the programs of their pods. No instance needs them:
// `make conformance` does.
func e2eRecipe() recipe {
	const v = "k8s.io/component-base/version."
	upstream := func(name, module, pkg string) step {
		return step{Component: name, Module: module, Dir: "kube/e2e", Package: module + pkg, Output: bin + name}
	}
	tests := upstream("e2e.test", kubernetesModule, "/test/e2e")
	tests.Test = true
	tests.LDFlags = "-X " + v + "gitVersion=v{version} -X " + v + "gitMajor={major} -X " + v + "gitMinor={minor} -X " + v + "gitTreeState=clean"
	return recipe{name: "e2e", onDemand: true, steps: []step{
		tests, upstream("ginkgo", ginkgoModule, "/ginkgo"), upstream("agnhost", kubernetesModule, "/test/images/agnhost"),
		upstream("regression-issue-74839", kubernetesModule, "/test/images/regression-issue-74839"),
	}}
}

func etcdRecipe() recipe {
	return recipe{name: "etcd", steps: []step{
		{Component: "etcd", Module: etcdModule, Dir: "runtime/etcd", Package: etcdModule, Output: bin + "etcd", Tags: "grpcnotrace"},
		{Component: "etcdctl", Module: "go.etcd.io/etcd/etcdctl/v3", Dir: "runtime/etcd", Package: "go.etcd.io/etcd/etcdctl/v3", Output: bin + "etcdctl", Tags: "grpcnotrace"},
		{Component: "etcdutl", Module: "go.etcd.io/etcd/etcdutl/v3", Dir: "runtime/etcd", Package: "go.etcd.io/etcd/etcdutl/v3", Output: bin + "etcdutl", Tags: "grpcnotrace"},
	}}
}

func runtimeRecipe() recipe {
	containerd := func(name, pkg, tags string) step {
		return step{Component: name, Module: containerdModule, Dir: "runtime/containerd", Package: pkg, Output: bin + name,
			Tags: tags, LDFlags: "-X " + containerdModule + "/version.Version=v{version}"}
	}
	r := recipe{name: "runtime", steps: []step{
		containerd("containerd", ".", "urfave_cli_no_docs grpcnotrace"),
		containerd("containerd-shim-runc-v2", containerdModule+"/cmd/containerd-shim-runc-v2", "urfave_cli_no_docs no_grpc"),
		containerd("ctr", containerdModule+"/cmd/ctr", "urfave_cli_no_docs grpcnotrace"),
		{Component: "runc", Module: runcModule, Dir: "runtime/runc", Package: runcModule, Output: bin + "runc", CGO: true,
			Tags: "seccomp urfave_cli_no_docs netgo osusergo", LDFlags: "-linkmode external -extldflags -static"},
	}}
	for _, plugin := range []string{"main/ptp", "main/bridge", "main/loopback", "ipam/host-local", "meta/portmap", "meta/bandwidth", "meta/firewall"} {
		name := filepath.Base(plugin)
		r.steps = append(r.steps, step{Component: name, Module: pluginsModule, Dir: "runtime/cni", Package: pluginsModule + "/plugins/" + plugin,
			Output: cni + name, LDFlags: "-X " + pluginsModule + "/pkg/utils/buildversion.BuildVersion=v{version}"})
	}
	return r
}

// addonRecipe makes a bundle of one program.
func addonRecipe(name, module string, s step) recipe {
	s.Component, s.Module, s.Output = name, module, bin+name
	return recipe{name: name, steps: []step{s}}
}

// resolve fills in a recipe's versions from the checkout's module files; the
// first step's version is the bundle's.
func (r recipe) resolve(source string) (Manifest, []step, error) {
	m := Manifest{Name: r.name}
	steps := make([]step, 0, len(r.steps))
	for _, s := range r.steps {
		if s.Modfile == "" && !s.compilesC() {
			s.Modfile = "go.mod"
		}
		if s.Module != "" {
			p, err := readPins(filepath.Join(source, s.Dir, s.Modfile))
			if err != nil {
				return m, nil, err
			}
			if s.Version = p[s.Module]; s.Version == "" {
				return m, nil, fmt.Errorf("%s/%s pins no %s", s.Dir, s.Modfile, s.Module)
			}
		}
		s.LDFlags = withVersion(s.LDFlags, s.Version)
		steps = append(steps, s)
		names := s.Links
		if len(names) == 0 {
			names = []string{s.Component}
		}
		for _, name := range names {
			m.Components = append(m.Components, Component{Name: name, Version: s.Version, Path: filepath.Join(filepath.Dir(s.Output), name)})
		}
	}
	m.Version = steps[0].Version
	return m, steps, nil
}

func (s step) compilesC() bool { return strings.HasSuffix(s.Package, ".c") }

func withVersion(flags, version string) string {
	major, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	return strings.NewReplacer("{version}", version, "{major}", major, "{minor}", minor).Replace(flags)
}

func readPins(path string) (pins, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read pinned versions: %w", err)
	}
	f, err := modfile.ParseLax(path, data, nil)
	if err != nil {
		return nil, fmt.Errorf("read pinned versions: %w", err)
	}
	p := make(pins, len(f.Require))
	for _, r := range f.Require {
		p[r.Mod.Path] = strings.TrimPrefix(r.Mod.Version, "v")
	}
	return p, nil
}
