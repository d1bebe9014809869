// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"bastide.dev/bundle"
	"bastide.dev/instance"
	"bastide.dev/pki"
	"bastide.dev/reconcile"
	"bastide.dev/store/etcd"
	"bastide.dev/supervise"
)

// The instance's own processes, by the names that their logs and records have.
const (
	etcdProcess  = "etcd"
	serveProcess = "serve"
	hostProcess  = "host"
)

func newDaemon(g *global) *cobra.Command {
	return &cobra.Command{
		Use:    "daemon",
		Hidden: true,
		Short:  "Keep the instance's etcd, serve and host running (what `bastide up` starts)",
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := mustBeRoot("bastide daemon"); err != nil {
				return err
			}
			in, err := g.load()
			if err != nil {
				return err
			}
			return runDaemon(cmd.Context(), in)
		},
	}
}

// runDaemon keeps the three processes running until ctx ends. They go on without
// it; the next daemon adopts them, or replaces those whose binary changed.
func runDaemon(ctx context.Context, in *instance.Instance) error {
	unlock, err := lockDaemon(in)
	if err != nil {
		return err
	}
	defer unlock()
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	keys := newKeyring(in)
	if err := keys.ensure(); err != nil {
		return err
	}
	supervisor, err := supervise.New(supervise.Config{RunDir: serviceRunDir(in), Logger: log})
	if err != nil {
		return fmt.Errorf("daemon: %w", err)
	}
	processes, err := serviceProcesses(in, keys)
	if err != nil {
		return err
	}
	for _, p := range processes {
		if err := supervisor.Set(p); err != nil {
			return fmt.Errorf("daemon: %s: %w", p.Name, err)
		}
	}
	group := &reconcile.Group{}
	group.Add("processes", supervisor.Run)
	group.Add("certificates", func(ctx context.Context) error { return renew(ctx, keys, log) })
	group.Add("whom the store believes", func(ctx context.Context) error {
		return keys.trust("etcd-ca").changed(ctx, log, func() {
			store, err := etcdDefinition(in, keys)
			if err == nil {
				err = supervisor.Set(store)
			}
			if err != nil {
				log.Error("the store goes on with whom it believed", "error", err)
			}
		})
	})
	return group.Run(ctx)
}

// renew looks now and then whether a certificate is due: its readers take the new
// one from disk. It goes on with a rotation of authorities that was killed.
func renew(ctx context.Context, keys keyring, log *slog.Logger) error {
	for hourly := time.NewTicker(time.Hour); ; {
		if err := keys.resume(ctx); err != nil && ctx.Err() == nil {
			log.Error("rotating authorities", "error", err)
		}
		select {
		case <-ctx.Done():
			hourly.Stop()
			return nil
		case <-hourly.C:
			if err := keys.ensure(); err != nil {
				log.Error("renewing certificates", "error", err)
			}
		}
	}
}

func serviceRunDir(in *instance.Instance) string { return filepath.Join(in.RunDir(), "service") }

func serviceProcesses(in *instance.Instance, keys keyring) ([]supervise.Process, error) {
	for dir, uid := range map[string]uint32{in.Dir("logs"): 0, in.Dir("etcd"): in.EtcdUID(), in.Dir("registry"): in.ServeUID(), in.Dir("packages"): in.ServeUID()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("daemon: %w", err)
		}
		if err := os.Chown(dir, int(uid), int(uid)); err != nil {
			return nil, fmt.Errorf("daemon: %w", err)
		}
	}
	store, err := etcdDefinition(in, keys)
	if err != nil {
		return nil, err
	}
	self, digest, err := ownBinary(in)
	if err != nil {
		return nil, err
	}
	daemon := func(name, command string, env ...string) supervise.Process {
		return supervise.Process{
			Name: name, Path: self, Inputs: digest, Keep: true, Dir: "/",
			Args:    []string{command, "--instance", in.Name, "--state-dir", in.StateDir},
			Env:     append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "GOGC=50"}, env...),
			Cgroup:  serviceGroup(in, name),
			LogFile: in.Dir("logs", name+".log"),
			Backoff: supervise.Backoff{Min: 20 * time.Millisecond, Max: 5 * time.Second},
		}
	}
	return []supervise.Process{store, daemon(serveProcess, "serve"), daemon(hostProcess, "host")}, nil
}

func serviceGroup(in *instance.Instance, name string) string {
	return "bastide-" + in.Name + "/service/" + name
}

// etcdDefinition is the service's own etcd: one member, TLS both ways, its own user.
func etcdDefinition(in *instance.Instance, keys keyring) (supervise.Process, error) {
	parts, err := bundle.Open(in.CacheDir, "etcd", bundle.EtcdVersion)
	if err != nil {
		return supervise.Process{}, err
	}
	// etcd reads only at its start whom it believes. It needn't know of a new
	// authority, for which the one before vouches; it must know when that is no more.
	believed, err := keys.trust("etcd-ca").get()
	if err != nil {
		return supervise.Process{}, err
	}
	oldest, err := pki.Certificates(believed.all)
	if err != nil {
		return supervise.Process{}, fmt.Errorf("keyring: %w", err)
	}
	uid := int(in.EtcdUID())
	data, pair := in.Dir("etcd"), keys.leafPath("etcd")
	client, peer := "https://"+in.EtcdClient(), "https://"+in.EtcdPeer()
	return supervise.Process{
		Name: etcdProcess, Path: parts.Path("etcd"), UID: uid, GID: uid, Dir: data,
		Inputs: oldest[len(oldest)-1].Subject.CommonName,
		// Asked to end, etcd waits five seconds for those who watch, and answers nobody.
		// What it acknowledged is on disk: it needn't end by itself.
		StopTimeout: 100 * time.Millisecond,
		Args: []string{
			"--name=" + in.Name, "--data-dir=" + data,
			"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
			"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=" + in.Name + "=" + peer,
			"--cert-file=" + pair, "--key-file=" + pair,
			"--trusted-ca-file=" + keys.path("etcd-ca.crt"), "--client-cert-auth=true",
			"--peer-cert-file=" + pair, "--peer-key-file=" + pair,
			"--peer-trusted-ca-file=" + keys.path("etcd-ca.crt"), "--peer-client-cert-auth=true",
			// A small store: keep little history in memory, and compact by the hour.
			"--snapshot-count=5000", "--auto-compaction-mode=periodic", "--auto-compaction-retention=1h",
			"--heartbeat-interval=50", "--election-timeout=250", "--log-level=warn",
			"--max-request-bytes=67108864", // answers to questions about a whole cluster
			"--max-txn-ops=1024",           // the end of an operation touches all documents below a resource
		},
		Env:     []string{"GOGC=40", "GOMEMLIMIT=64MiB", "GOMAXPROCS=2"},
		Cgroup:  serviceGroup(in, etcdProcess),
		LogFile: in.Dir("logs", "etcd.log"),
		Backoff: supervise.Backoff{Min: 20 * time.Millisecond, Max: 5 * time.Second},
	}, nil
}

func lockPath(in *instance.Instance) string { return filepath.Join(in.RunDir(), "daemon.lock") }

// lockDaemon lets one daemon run per instance; the lock's file names its pid.
func lockDaemon(in *instance.Instance) (unlock func(), err error) {
	if err := os.MkdirAll(in.RunDir(), 0o711); err != nil {
		return nil, fmt.Errorf("daemon: %w", err)
	}
	f, err := os.OpenFile(lockPath(in), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("daemon: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("daemon: another one runs for instance %q", in.Name), f.Close())
	}
	if err := f.Truncate(0); err != nil {
		return nil, errors.Join(fmt.Errorf("daemon: %w", err), f.Close())
	}
	if _, err := fmt.Fprintf(f, "%d\n", os.Getpid()); err != nil {
		return nil, errors.Join(fmt.Errorf("daemon: %w", err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// daemonPID is the pid of the daemon that holds the lock; 0 when none does.
func daemonPID(in *instance.Instance) int {
	f, err := os.OpenFile(lockPath(in), os.O_RDWR, 0)
	if err != nil {
		return 0
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err == nil {
		return 0 // nobody holds it
	}
	text, err := io.ReadAll(f)
	if err != nil {
		return 0
	}
	var pid int
	_, _ = fmt.Sscan(strings.TrimSpace(string(text)), &pid)
	return pid
}

func stopOrder(name string) int {
	return slices.Index([]string{hostProcess, serveProcess, etcdProcess}, name)
}

// stopDaemon ends the daemon, and then the three processes that outlive it.
func stopDaemon(ctx context.Context, in *instance.Instance) error {
	if pid := daemonPID(in); pid > 1 {
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stop daemon: %w", err)
		}
		for daemonPID(in) != 0 {
			select {
			case <-ctx.Done():
				return fmt.Errorf("stop daemon %d: %w", pid, ctx.Err())
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
	if _, err := os.Stat(serviceRunDir(in)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	supervisor, err := supervise.New(supervise.Config{RunDir: serviceRunDir(in), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return fmt.Errorf("stop service: %w", err)
	}
	names, err := supervisor.Recorded()
	if err != nil {
		return fmt.Errorf("stop service: %w", err)
	}
	// The store goes last: it waits for whoever still watches it.
	slices.SortFunc(names, func(a, b string) int { return stopOrder(a) - stopOrder(b) })
	var failed []error
	for _, name := range names {
		failed = append(failed, supervisor.Stop(ctx, name))
	}
	return errors.Join(failed...)
}

// openStore connects to the instance's etcd with the certificate of user.
func openStore(ctx context.Context, in *instance.Instance, user string) (*etcd.Store, error) {
	config, err := newKeyring(in).client("etcd-ca", user)
	if err != nil {
		return nil, err
	}
	return etcd.New(ctx, etcd.Config{Endpoints: []string{"https://" + in.EtcdClient()}, TLS: config, Prefix: "/bastide/"})
}
