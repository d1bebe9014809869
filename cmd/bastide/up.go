// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"bastide.dev/bundle"
	"bastide.dev/client"
	"bastide.dev/fault"
	"bastide.dev/identity"
	"bastide.dev/instance"
	"bastide.dev/mirror"
	"bastide.dev/nodeimage"
)

type upOptions struct {
	domain, pool, location, cacheDir string
	mirror, nodeImage                string
	demo, anonymousPull              bool
	pullChosen                       bool // anonymousPull was said
	repairAfter                      time.Duration
}

func newUp(g *global) *cobra.Command {
	o := &upOptions{}
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start the instance on this machine",
		Long: `Starts the instance, or makes sure that it runs: its store, the service, the host
daemon, and every cluster that it has. The first time it makes a tenant, a
subscription, an administrator and a service principal; the administrator's
password is shown once. It is safe to repeat.`,
		Example: "  bastide up\n  bastide up --instance dev --public-pool 192.88.99.192/27",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := mustBeRoot("bastide up"); err != nil {
				return err
			}
			o.pullChosen = cmd.Flags().Changed("registry-anonymous-pull")
			return runUp(cmd.Context(), g, o, newProgress(cmd.OutOrStdout()))
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.domain, "domain", "", "`name` under which the instance's hosts live (default bastide.internal, or NAME.bastide.internal)")
	flags.StringVar(&o.pool, "public-pool", "", "`network` of the instance's public addresses (default: a part of 192.88.99.0/24)")
	flags.StringVar(&o.location, "location", "", "Azure `region` that the instance is (default eastus)")
	flags.StringVar(&o.cacheDir, "cache-dir", "", "`directory` of bundles and node images (default /var/cache/bastide)")
	flags.StringVar(&o.mirror, "mirror", "", "`archive` that nodes get Debian's updates from: a URL, or a directory with debian and debian-security (default "+nodeimage.DefaultMirror+")")
	flags.StringVar(&o.nodeImage, "node-image", "", "`version` of the image that new nodes are made of; \"latest\" is the newest, and the default")
	flags.DurationVar(&o.repairAfter, "repair-after", 0, "how long a node may be not ready before it is repaired (default 10m, AKS's)")
	flags.BoolVar(&o.anonymousPull, "registry-anonymous-pull", true, "whether anybody may pull from the instance's registry; else who has a role such as AcrPull")
	flags.BoolVar(&o.demo, "demo", false, "also make the cluster `demo` with two nodes and a web app, and show it answering")
	return cmd
}

func runUp(ctx context.Context, g *global, o *upOptions, p *progress) error {
	started := time.Now()
	in, changed, err := prepare(g, o)
	if err != nil {
		return err
	}
	if changed && daemonPID(in) != 0 {
		p.say("! The service runs with the settings of before. `bastide down` and then `bastide up` make it take on these.")
	}
	if err := p.step("Checking this machine", func() error { return errors.Join(preflight(), openToAll(in.CacheDir), partsThere(in)) }); err != nil {
		return err
	}
	if warning := fullDisk(in.StateDir); warning != "" {
		p.say("%s", warning)
	}
	var first identity.Bootstrapped
	err = p.step("Starting the service's store", func() error {
		if err := newKeyring(in).ensure(); err != nil {
			return err
		}
		if err := startDaemon(in); err != nil {
			return err
		}
		first, err = bootstrap(ctx, in)
		return err
	})
	if err != nil {
		return err
	}
	view, err := describe(in, first)
	if err != nil {
		return err
	}
	if err := p.step("Starting the service and the host", func() error { return waitHealthy(ctx, in, view) }); err != nil {
		return err
	}
	if err := bringBack(ctx, in, p); err != nil {
		return err
	}
	if o.demo {
		if err := runDemo(ctx, in, view, p); err != nil {
			return err
		}
	}
	p.say("\nInstance %q is up after %s: %s", in.Name, seconds(time.Since(started)), view.ResourceManager())
	if first.Password != "" {
		p.say("\nThe administrator signs in with (the password is shown this once, keep it):\n  az login -u %s -p %s --allow-no-subscriptions", first.Administrator, client.Quote(client.Sh, first.Password))
	}
	p.say("%s", whatNext(in, o.demo))
	return nil
}

func whatNext(in *instance.Instance, demo bool) string {
	flag := ""
	if in.Name != instance.DefaultName {
		flag = " --instance " + in.Name
	}
	text := fmt.Sprintf(`
What to type next:
  eval "$(bin/bastide%s env)"      # points az, the SDKs and kubectl at the instance
  az login --service-principal -u "$AZURE_CLIENT_ID" -p "$AZURE_CLIENT_SECRET" --tenant "$AZURE_TENANT_ID"
`, flag)
	if demo {
		return text + `  az aks get-credentials -g demo -n demo && kubectl get nodes -o wide`
	}
	return text + `  az group create -n rg1 -l ` + in.Location + ` && az aks create -g rg1 -n c1 --node-count 2 --generate-ssh-keys`
}

// prepare loads the instance or makes its description. Settings that are kept
// can't be changed by a later up: everything made so far bears them. It tells
// whether any of the others is another than before.
func prepare(g *global, o *upOptions) (in *instance.Instance, changed bool, err error) {
	asked := instance.Settings{Name: g.name, StateDir: g.stateDir, Domain: o.domain, Location: o.location, CacheDir: o.cacheDir}
	if o.pool != "" {
		pool, err := netip.ParsePrefix(o.pool)
		if err != nil {
			return nil, false, fault.New(fault.Invalid, "InvalidSetting", "The public pool %q is no network such as 192.88.99.192/27.", o.pool).At("--public-pool")
		}
		asked.PublicPool = pool
	}
	in, err = g.load()
	if err == nil {
		before := *in
		if o.pullChosen {
			in.RegistryClosed = !o.anonymousPull
		}
		if err = choose(in, o); err == nil && *in != before {
			changed, err = true, in.Save() // in force when the service starts again
		}
		return in, changed, errors.Join(sameSettings(in.Settings, asked), err)
	}
	if !fault.Is(err, fault.NotFound) {
		return nil, false, err
	}
	if in, err = instance.Place(asked); err != nil {
		return nil, false, err
	}
	in.Tenant, in.Subscription, in.RegistryClosed = uuid.NewString(), uuid.NewString(), !o.anonymousPull
	if err := choose(in, o); err != nil {
		return nil, false, err
	}
	return in, false, in.Save()
}

// choose takes on what a later up may choose otherwise.
func choose(in *instance.Instance, o *upOptions) error {
	if o.mirror != "" {
		if err := mirror.CheckUpstream(o.mirror); err != nil {
			return err
		}
		in.Mirror = o.mirror
	}
	if o.repairAfter != 0 {
		if o.repairAfter < time.Second {
			return fault.New(fault.Invalid, "InvalidSetting", "A node isn't repaired after less than a second: %s.", o.repairAfter).At("--repair-after")
		}
		in.RepairAfter = o.repairAfter
	}
	switch o.nodeImage {
	case "":
	case nodeimage.Latest:
		in.NodeImage = ""
	default:
		if _, err := nodeimage.Open(in.CacheDir, o.nodeImage); err != nil {
			return err
		}
		in.NodeImage = o.nodeImage
	}
	return nil
}

func sameSettings(kept, asked instance.Settings) error {
	var problems []*fault.Error
	differs := func(flag, old, now string) {
		if now != "" && now != old {
			problems = append(problems, fault.New(fault.Invalid, "SettingIsFixed", "The instance was made with %q; `bastide clean` removes it, then it can be made anew.", old).At(flag))
		}
	}
	differs("--domain", kept.Domain, asked.Domain)
	differs("--location", kept.Location, asked.Location)
	differs("--cache-dir", kept.CacheDir, asked.CacheDir)
	if asked.PublicPool.IsValid() {
		differs("--public-pool", kept.PublicPool.String(), asked.PublicPool.String())
	}
	return fault.Join(problems...)
}

// partsThere tells which upstream parts are missing, and how to get them.
func partsThere(in *instance.Instance) error {
	kubernetes := 0
	for _, version := range bundle.KubernetesVersions() {
		if _, err := bundle.Open(in.CacheDir, "kubernetes", version); err == nil {
			kubernetes++
		}
	}
	var missing []error
	if kubernetes == 0 {
		missing = append(missing, errors.New("no Kubernetes release is built"))
	}
	for name, version := range map[string]string{"etcd": bundle.EtcdVersion, "runtime": bundle.RuntimeVersion, "cloud-controller-manager": bundle.CloudControllerVersion} {
		if _, err := bundle.Open(in.CacheDir, name, version); err != nil {
			missing = append(missing, err)
		}
	}
	if _, err := nodeimage.Open(in.CacheDir, nodeimage.Latest); err != nil {
		missing = append(missing, err)
	}
	if len(missing) > 0 {
		return fmt.Errorf("%w\nbuild what is missing with `make bundles image`, or `bastide bundle build` and `bastide image build` in the checkout", errors.Join(missing...))
	}
	return nil
}

// startDaemon starts `bastide daemon` as a process of its own, unless it runs.
func startDaemon(in *instance.Instance) error {
	if daemonPID(in) != 0 {
		return nil
	}
	self, _, err := ownBinary(in)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(in.Dir("logs"), 0o700); err != nil {
		return fmt.Errorf("start daemon: %w", err)
	}
	out, err := os.OpenFile(in.Dir("logs", "daemon.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("start daemon: %w", err)
	}
	defer out.Close()
	cmd := exec.Command(self, "daemon", "--instance", in.Name, "--state-dir", in.StateDir)
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", out, out
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "GOGC=50", "GOMAXPROCS=1"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start daemon: %w", err)
	}
	go func() { _ = cmd.Wait() }() // reaped while we live; init does it afterwards
	return nil
}

// bootstrap makes the tenant and its first principals, straight in the store:
// only root can, and the password goes to this terminal and nowhere else.
func bootstrap(ctx context.Context, in *instance.Instance) (identity.Bootstrapped, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	s, err := openSealed(ctx, in, "etcd-root")
	if err != nil {
		return identity.Bootstrapped{}, daemonTrouble(in, err)
	}
	defer s.close()
	directory, err := identity.New(identity.Config{Store: s.store, Endpoints: endpoints(in), Log: quiet()})
	if err != nil {
		return identity.Bootstrapped{}, fmt.Errorf("directory: %w", err)
	}
	first, err := directory.Bootstrap(ctx, identity.BootstrapOptions{
		Domain: in.Domain, DisplayName: "Bastide " + in.Name, TenantID: in.Tenant, SubscriptionID: in.Subscription})
	if err != nil {
		return first, fmt.Errorf("directory: %w", err)
	}
	if err := bootstrapRoles(ctx, in, s.store, directory, first); err != nil {
		return first, fmt.Errorf("roles: %w", err)
	}
	if _, err := client.LoadSecrets(in.StateDir); err != nil && first.Secret == "" {
		// An earlier up was killed before it could keep what only it knew.
		if first, err = directory.ResetOwner(ctx); err != nil {
			return first, fmt.Errorf("directory: %w", err)
		}
	}
	if first.Secret != "" {
		if err := (client.Secrets{ClientSecret: first.Secret}).Save(in.StateDir); err != nil {
			return first, err
		}
	}
	return first, nil
}

// describe writes what clients read: the description, az's files, kubectl's place.
func describe(in *instance.Instance, first identity.Bootstrapped) (client.Instance, error) {
	view := client.Instance{
		Name: in.Name, Domain: in.Domain, Location: in.Location, Address: in.FrontDoor(), Port: 443,
		TenantID: in.Tenant, SubscriptionID: in.Subscription, Administrator: first.Administrator, ClientID: first.ClientID,
		StateDir: in.StateDir, RunDir: in.RunDir(), BinDir: in.Dir("bin"), CAFile: newKeyring(in).path("ca.crt"),
	}
	if err := errors.Join(view.Save(), view.WriteToolFiles(), linkTools(in)); err != nil {
		return view, err
	}
	return view, nil
}

// linkTools makes kubectl of the newest release that is built reachable by PATH,
// and kubelogin where it is built.
func linkTools(in *instance.Instance) error {
	version, err := (&catalogue{cacheDir: in.CacheDir, image: in.NodeImage}).newest()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(in.Dir("bin"), 0o755); err != nil {
		return fmt.Errorf("tools: %w", err)
	}
	kubectl, err := bundle.Open(in.CacheDir, "kubernetes", version)
	if err != nil {
		return err
	}
	if err := linkTool(in, kubectl, "kubectl"); err != nil {
		return err
	}
	kubelogin, err := bundle.Open(in.CacheDir, "kubelogin", bundle.KubeloginVersion)
	if fault.Is(err, fault.NotFound) {
		return nil // only clusters that are integrated with the directory need it
	}
	if err != nil {
		return err
	}
	return linkTool(in, kubelogin, "kubelogin")
}

func linkTool(in *instance.Instance, parts *bundle.Bundle, name string) error {
	link := in.Dir("bin", name)
	temp := link + ".new"
	_ = os.Remove(temp) // of an earlier up that was killed here
	if err := os.Symlink(parts.Path(name), temp); err != nil {
		return fmt.Errorf("tools: %w", err)
	}
	return os.Rename(temp, link)
}

// subscriptionVersion is the API version that the subscription is read in.
const subscriptionVersion = "2022-12-01"

// waitHealthy waits until the front door answers on its own address: serve runs,
// the host applied the edge, and the names resolve.
func waitHealthy(ctx context.Context, in *instance.Instance, view client.Instance) error {
	secrets, err := client.LoadSecrets(in.StateDir)
	if err != nil {
		return err
	}
	c, err := client.New(client.Config{Instance: view, Secrets: secrets})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		attempt, done := context.WithTimeout(ctx, time.Second)
		err := c.Health(attempt)
		done()
		if err == nil {
			err = named(in)
		}
		if err == nil {
			// The directory and its roles follow the store, where the first ones were
			// written a moment ago.
			_, err = client.Get[map[string]any](ctx, c, "/subscriptions/"+in.Subscription, subscriptionVersion)
		}
		if err == nil {
			// What was killed a moment ago still held its lock, and its processes answer without it.
			return startDaemon(in)
		}
		select {
		case <-ctx.Done():
			return daemonTrouble(in, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// named is nil when other programs find the front door by its name too: the
// hosts file is the last that the data plane writes. It is read here, since a
// resolver may remember for seconds that there was no such name.
func named(in *instance.Instance) error {
	text, err := os.ReadFile("/etc/hosts")
	if err != nil {
		return fmt.Errorf("hosts file: %w", err)
	}
	if !slices.Contains(strings.Fields(string(text)), in.Host("management")) {
		return fmt.Errorf("the hosts file doesn't have %s", in.Host("management"))
	}
	return nil
}

// bringBack waits until the clusters that should run answer again.
func bringBack(ctx context.Context, in *instance.Instance, p *progress) error {
	all, _, err := readClusters(ctx, in)
	if err != nil {
		return daemonTrouble(in, err)
	}
	all = slices.DeleteFunc(all, func(c clusterView) bool {
		return c.Properties.PowerState.Code != "Running" || c.Properties.ProvisioningState != "Succeeded"
	})
	if len(all) == 0 {
		return nil
	}
	return p.step(fmt.Sprintf("Bringing back %d clusters", len(all)), func() error {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
		defer cancel()
		for _, c := range all {
			if err := answers(ctx, net.JoinHostPort(c.Properties.FQDN, "443")); err != nil {
				return daemonTrouble(in, fmt.Errorf("cluster %s isn't back: %w", c.Name, err))
			}
		}
		return nil
	})
}

// answers waits until an address takes connections.
func answers(ctx context.Context, address string) error {
	dialer := net.Dialer{Timeout: time.Second}
	for {
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// daemonTrouble says where to look.
func daemonTrouble(in *instance.Instance, err error) error {
	return fmt.Errorf("%w\nthe logs are in %s", err, filepath.Join(in.StateDir, "logs"))
}
