// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"bastide.dev/cgroup"
	"bastide.dev/machine"
	machinelinux "bastide.dev/machine/linux"
	"bastide.dev/netpolicy"
	"bastide.dev/node"
	"bastide.dev/pki"
)

const (
	cacheDir   = "/var/cache/bastide"
	kubernetes = "kubernetes@1.36.3"
	nodeName   = "node-test"
	token      = "abcdef.0123456789abcdef"
)

// The test binary is the agent of its machine.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case machinelinux.InitCommand:
			fmt.Fprintln(os.Stderr, machinelinux.Init())
			os.Exit(1)
		case machinelinux.NodeCommand:
			if err := Main(os.Args[2:]); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	syscall.Umask(0o077) // as strict as the host's: what a machine gets mustn't depend on it
	os.Exit(m.Run())
}

// world is a bare control plane beside the machine of one node, joined by a wire.
type world struct {
	t        *testing.T
	dir      string
	provider *machinelinux.Provider
	spec     machine.Spec
	server   netip.Addr // our end of the wire, where the API server listens
	address  netip.Addr // the node's
	ca       *pki.CA
}

func newWorld(t *testing.T) *world { return newWorldWith(t, "") }

// newWorldWith has a policy agent in its machine, and policies hold.
func newWorldWith(t *testing.T, policyAgent string) *world {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("machines need root")
	}
	images, err := filepath.Glob(cacheDir + "/images/bastide-debian12-*/rootfs")
	if err != nil || len(images) == 0 {
		t.Fatalf("no node image in %s: run make", cacheDir)
	}
	w := &world{t: t, dir: t.TempDir(), server: netip.MustParseAddr("10.231.77.1"), address: netip.MustParseAddr("10.231.77.2")}
	pair, err := pki.NewCA("node test", time.Hour)
	w.check(err)
	w.ca, err = pki.OpenCA(pair)
	w.check(err)
	w.file("ca.crt", pair.Certificate)
	w.file("ca.key", pair.Key)
	self, err := os.Executable()
	if p := os.Getenv("N7_AGENT"); p != "" {
		self = p
	}
	w.check(err)
	instance := "nodetest" + strconv.Itoa(os.Getpid())
	programs := map[string]string{}
	if policyAgent != "" {
		programs[netpolicy.ProgramPath] = policyAgent
	}
	w.provider, err = machinelinux.New(machinelinux.Config{
		Instance: instance, StateDir: w.dir + "/state", RunDir: w.dir + "/run",
		CacheDir: cacheDir, UIDBase: 3_100_000_000, Agent: self, Programs: programs,
	})
	w.check(err)
	t.Cleanup(func() {
		if t.Failed() {
			w.tellLogs()
		}
		if err := w.provider.Delete(context.Background(), nodeName); err != nil {
			t.Error(err)
		}
		if err := w.provider.Close(); err != nil {
			t.Error(err)
		}
		if err := cgroup.Delete("bastide-" + instance); err != nil {
			t.Error(err)
		}
	})
	w.spec = machine.Spec{ID: nodeName, Hostname: nodeName, Image: filepath.Base(filepath.Dir(images[len(images)-1])),
		Layers: []string{"runtime@2.4.2", kubernetes}, CPUs: 4, Memory: 2 << 30}
	w.spec.Files = []machine.File{{Path: node.ConfigPath, Mode: 0o600, Data: w.config(policyAgent != "")}}
	return w
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) file(name string, data []byte) string {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	w.check(os.WriteFile(path, data, 0o600))
	return path
}

// issue writes NAME.crt and NAME.key.
func (w *world) issue(name string, r pki.Request) pki.Pair {
	w.t.Helper()
	r.Lifetime = time.Hour
	pair, err := w.ca.Issue(r)
	w.check(err)
	w.file(name+".crt", pair.Certificate)
	w.file(name+".key", pair.Key)
	return pair
}

func (w *world) config(policies bool) []byte {
	proxy := w.issue("proxy", pki.Request{CommonName: "system:kube-proxy", Client: true})
	config := node.Config{
		Hostname: nodeName, Address: w.address, KubernetesVersion: "1.36.3",
		Server: fmt.Sprintf("https://%s:6443", w.server), CA: w.ca.Certificate(), BootstrapToken: token,
		Proxy:         node.Credential{Certificate: proxy.Certificate, Key: proxy.Key},
		ClusterDomain: "cluster.local", ClusterDNS: netip.MustParseAddr("10.0.0.10"), ServiceCIDR: netip.MustParsePrefix("10.0.0.0/16"),
		ClusterCIDR: []netip.Prefix{netip.MustParsePrefix("10.231.78.0/24")},
		Network: node.PodNetwork{Plugin: "kubenet", Pods: []netip.Prefix{netip.MustParsePrefix("10.231.78.0/24")},
			VNet: []netip.Prefix{netip.MustParsePrefix("10.231.77.0/24")}},
		MaxPods: 110, Labels: map[string]string{"kubernetes.azure.com/mode": "system"}, ProviderID: "azure:///node-test",
		CPUs: 4, Memory: 2 << 30, PauseImage: "bastide.local/pause:3.10",
		AuthorizedKeys: []string{w.sshKey("admin")}, AdminUser: adminUser,
	}
	if policies {
		pair := w.issue("policy", pki.Request{CommonName: node.PolicyUser, Client: true})
		config.Policy = &node.Policy{Credential: node.Credential{Certificate: pair.Certificate, Key: pair.Key}}
	}
	data, err := json.Marshal(config)
	w.check(err)
	return data
}

// run starts a process that ends with the test.
func (w *world) run(name, path string, args ...string) {
	w.t.Helper()
	log, err := os.Create(filepath.Join(w.dir, name+".log"))
	w.check(err)
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = w.dir, log, log
	w.check(cmd.Start())
	w.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = log.Close()
	})
}

// startServer starts etcd, API server and controller manager and waits for the first two.
func (w *world) startServer() {
	w.t.Helper()
	w.issue("apiserver", pki.Request{CommonName: "apiserver", IPs: []netip.Addr{w.server}, Server: true})
	w.issue("admin", pki.Request{CommonName: "admin", Organizations: []string{"system:masters"}, Client: true})
	key, err := pki.NewSigningKey()
	w.check(err)
	sa := w.file("sa.key", key)
	tokens := w.file("tokens.csv", []byte(token+",joiner,1,system:bootstrappers\nadmintoken,admin,2,system:masters\n"))
	p := func(name string) string { return filepath.Join(w.dir, name) }
	admin := w.file("admin.kubeconfig", fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Config","current-context":"a",
		"clusters":[{"name":"a","cluster":{"server":"https://%s:6443","certificate-authority":%q}}],
		"users":[{"name":"a","user":{"token":"admintoken"}}],"contexts":[{"name":"a","context":{"cluster":"a","user":"a"}}]}`, w.server, p("ca.crt")))
	etcd := fmt.Sprintf("http://%s:12379", w.server)
	peer := fmt.Sprintf("http://%s:12380", w.server)
	w.run("etcd", cacheDir+"/bundles/etcd@3.6.16/root/usr/local/bin/etcd", "--data-dir="+p("etcd"), "--unsafe-no-fsync",
		"--listen-client-urls="+etcd, "--advertise-client-urls="+etcd, "--listen-peer-urls="+peer,
		"--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer)
	w.run("apiserver", w.kube("kube-apiserver"), "--etcd-servers="+etcd, "--bind-address="+w.server.String(), "--secure-port=6443",
		"--tls-cert-file="+p("apiserver.crt"), "--tls-private-key-file="+p("apiserver.key"), "--client-ca-file="+p("ca.crt"),
		"--token-auth-file="+tokens, "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--service-account-key-file="+sa, "--service-account-signing-key-file="+sa, "--service-account-issuer=https://node.test",
		"--service-cluster-ip-range=10.0.0.0/16", "--kubelet-client-certificate="+p("admin.crt"), "--kubelet-client-key="+p("admin.key"),
		"--allow-privileged=true", "--kubelet-certificate-authority="+p("ca.crt"), "--kubelet-preferred-address-types=InternalIP")
	w.eventually("the API server is ready", time.Minute, func() bool {
		_, err := w.kubectl("", "get", "--raw", "/readyz")
		return err == nil
	})
	w.run("controller-manager", w.kube("kube-controller-manager"), "--kubeconfig="+admin, "--leader-elect=false",
		"--cluster-signing-cert-file="+p("ca.crt"), "--cluster-signing-key-file="+p("ca.key"), "--root-ca-file="+p("ca.crt"),
		"--service-account-private-key-file="+sa, "--use-service-account-credentials=false")
	w.run("scheduler", w.kube("kube-scheduler"), "--kubeconfig="+admin, "--leader-elect=false")
	for _, binding := range [][]string{
		{"join", "--clusterrole=system:node-bootstrapper", "--group=system:bootstrappers"},
		{"approve", "--clusterrole=system:certificates.k8s.io:certificatesigningrequests:nodeclient", "--group=system:bootstrappers"},
	} {
		w.must("", append([]string{"create", "clusterrolebinding"}, binding...)...)
	}
}

func (w *world) kube(name string) string {
	return cacheDir + "/bundles/" + kubernetes + "/root/usr/local/bin/" + name
}

func (w *world) kubectl(stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(w.t.Context(), w.kube("kubectl"), append([]string{"--kubeconfig=" + w.dir + "/admin.kubeconfig"}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (w *world) must(stdin string, args ...string) string {
	w.t.Helper()
	out, err := w.kubectl(stdin, args...)
	if err != nil {
		w.t.Fatalf("kubectl %v: %v\n%s", args, err, out)
	}
	return out
}

// up creates the machine, wires it, and boots it.
func (w *world) up() machine.Status {
	w.t.Helper()
	begin := time.Now()
	w.check(w.provider.Create(w.t.Context(), w.spec))
	w.t.Logf("created in %v", time.Since(begin))
	w.wire()
	w.t.Logf("wired after %v", time.Since(begin))
	w.check(w.provider.Boot(w.t.Context(), w.spec))
	all, err := w.provider.Status(w.t.Context())
	w.check(err)
	return all[0]
}

// cut removes the wire, and with it our address.
func (w *world) cut() {
	if link, err := netlink.LinkByName("nodetest0"); err == nil {
		w.check(netlink.LinkDel(link))
	}
}

// wire makes our end of the wire with the API server's address; the node's end
// goes to its machine once there is one.
func (w *world) wire() {
	w.t.Helper()
	netnsPath := w.provider.Netns(nodeName)
	target, err := netns.GetFromPath(netnsPath)
	w.check(err)
	defer target.Close()
	peer := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "nodetest1"}, PeerName: "nodetest2"}
	w.check(netlink.LinkAdd(peer))
	bridge, err := netlink.LinkByName("nodetest0")
	w.check(err)
	w.check(netlink.LinkSetMaster(peer, bridge))
	w.check(netlink.LinkSetUp(peer))
	inner, err := netlink.LinkByName("nodetest2")
	w.check(err)
	w.check(netlink.LinkSetNsFd(inner, int(target)))
	inside, err := netlink.NewHandleAt(target)
	w.check(err)
	defer inside.Close()
	link, err := inside.LinkByName("nodetest2")
	w.check(err)
	w.check(inside.LinkSetName(link, uplink)) // as the data plane calls it
	w.check(inside.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: w.address.AsSlice(), Mask: net.CIDRMask(24, 32)}}))
	w.check(inside.LinkSetUp(link))
	w.check(inside.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: w.server.AsSlice()}))
}

// prepareWire makes the bridge that holds the API server's address.
func (w *world) prepareWire() {
	w.t.Helper()
	w.cut()
	w.t.Cleanup(w.cut)
	w.check(netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "nodetest0"}}))
	bridge, err := netlink.LinkByName("nodetest0")
	w.check(err)
	w.check(netlink.AddrAdd(bridge, &netlink.Addr{IPNet: &net.IPNet{IP: w.server.AsSlice(), Mask: net.CIDRMask(24, 32)}}))
	w.check(netlink.LinkSetUp(bridge))
}

// approveServing signs what kubelet asks for, as the control plane will.
func (w *world) approveServing() {
	w.t.Helper()
	w.eventually("the serving certificate's request is there", time.Minute, w.approve)
}

// approve tells whether there was something to sign.
func (w *world) approve() bool {
	out, err := w.kubectl("", "get", "csr", "-o", `jsonpath={range .items[?(@.spec.signerName=="kubernetes.io/kubelet-serving")]}{.metadata.name} {end}`)
	if err != nil || out == "" {
		return false
	}
	w.must("", append([]string{"certificate", "approve"}, strings.Fields(out)...)...)
	return true
}

func (w *world) eventually(what string, limit time.Duration, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("never: %s", what)
		}
	}
}

func (w *world) ready() {
	w.t.Helper()
	w.eventually("the node is Ready", time.Minute, func() bool {
		out, err := w.kubectl("", "get", "node", nodeName, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
		return err == nil && out == "True"
	})
}

// in runs a command in the machine.
func (w *world) in(args ...string) (string, error) {
	w.t.Helper()
	cmd, err := w.provider.Command(w.t.Context(), nodeName, args...)
	if err != nil {
		return "", err
	}
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (w *world) tellLogs() {
	machineDir := filepath.Join(w.dir, "state/machines", nodeName)
	for _, path := range []string{w.dir + "/apiserver.log", w.dir + "/controller-manager.log", machineDir + "/console.log",
		machineDir + "/data/log/containerd.log", machineDir + "/data/log/kubelet.log", machineDir + "/data/log/kube-proxy.log",
		machineDir + "/data/log/netpolicy.log"} {
		f, err := os.Open(path)
		if err != nil {
			w.t.Log(err)
			continue
		}
		data, _ := io.ReadAll(f)
		_ = f.Close()
		lines := bytes.Split(data, []byte("\n"))
		w.t.Logf("%s:\n%s", path, bytes.Join(lines[max(0, len(lines)-40):], []byte("\n")))
	}
}
