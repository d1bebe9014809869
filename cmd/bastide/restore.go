// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"bastide.dev/backup"
	"bastide.dev/bundle"
	planes "bastide.dev/controlplane/linux"
	"bastide.dev/fault"
	"bastide.dev/instance"
)

type restoreOptions struct {
	keyFile    string
	passphrase string
	replace    bool
}

func newRestore(g *global) *cobra.Command {
	o := restoreOptions{}
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Bring an instance back from a backup",
		Long: `Reads a file that ` + "`bastide backup`" + ` wrote and makes the instance that it is of, on
this machine: same name, authorities, secrets and clusters. The whole file is
read and verified before anything is changed. ` + "`bastide up`" + ` then starts it, and
makes the clusters' nodes anew.

An instance of that name that is there already has to be down, and is replaced
only with --replace: its state is moved aside, and nothing of it is removed.`,
		Example: "  bastide restore --key-file backup.key /mnt/backups/today.age && bastide up",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := mustBeRoot("bastide restore"); err != nil {
				return err
			}
			keys, err := o.age()
			if err != nil {
				return err
			}
			r := &restorer{stateDir: g.stateDir, replace: o.replace, p: newProgress(cmd.OutOrStdout())}
			if cmd.Flags().Changed("instance") {
				r.name = g.name
			}
			return r.run(cmd.Context(), args[0], keys)
		},
	}
	cmd.Flags().StringVar(&o.keyFile, "key-file", "", "`file` with the key that opens the backup")
	cmd.Flags().StringVar(&o.passphrase, "passphrase-file", "", "`file` with the passphrase that opens it instead")
	cmd.Flags().BoolVar(&o.replace, "replace", false, "move the state of an instance that is there aside")
	return cmd
}

func (o restoreOptions) age() ([]age.Identity, error) {
	if (o.keyFile == "") == (o.passphrase == "") {
		return nil, usageError{errors.New("say what opens the backup: --key-file or --passphrase-file")}
	}
	if o.passphrase != "" {
		text, err := readPassphrase(o.passphrase)
		if err != nil {
			return nil, err
		}
		key, err := age.NewScryptIdentity(text)
		return []age.Identity{key}, err
	}
	f, err := os.Open(o.keyFile)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	defer f.Close()
	keys, err := age.ParseIdentities(f)
	if err != nil {
		return nil, usageError{fmt.Errorf("%s holds no key of a backup: `bastide backup new-key` makes one", o.keyFile)}
	}
	return keys, nil
}

// restorer makes an instance's state of an archive: unpacked in one directory,
// built in a second, and put in its place by a rename. A kill leaves the first
// two behind, which the next restore removes.
type restorer struct {
	name, stateDir string // when they were chosen
	replace        bool
	p              *progress

	in       *instance.Instance
	unpacked string
	built    string
}

func (r *restorer) run(ctx context.Context, path string, keys []age.Identity) error {
	parent := filepath.Dir(instance.Settings{Name: r.name, StateDir: r.stateDir}.Complete(0).StateDir)
	if err := os.MkdirAll(parent, 0o711); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	r.unpacked, r.built = filepath.Join(parent, ".restore-unpacked"), filepath.Join(parent, ".restore-built")
	clear := func() error { return errors.Join(os.RemoveAll(r.unpacked), os.RemoveAll(r.built)) }
	if err := clear(); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	err := r.steps(ctx, path, keys)
	if cleared := clear(); cleared != nil {
		err = errors.Join(err, fmt.Errorf("restore: %w", cleared))
	}
	return err
}

func (r *restorer) steps(ctx context.Context, path string, keys []age.Identity) error {
	var m backup.Manifest
	err := r.p.step("Reading and verifying the backup", func() (err error) {
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("restore: %w", err)
		}
		defer f.Close()
		if m, err = backup.Unpack(f, r.unpacked, keys...); err != nil {
			return err
		}
		return r.verify(m)
	})
	if err != nil {
		return err
	}
	if err := r.settle(m); err != nil {
		return err
	}
	if err := r.p.step("Restoring the service's store", func() error { return r.service(ctx) }); err != nil {
		return err
	}
	for _, id := range m.Clusters {
		if err := r.p.step("Restoring the etcd of cluster "+id, func() error { return r.cluster(ctx, id) }); err != nil {
			return err
		}
	}
	aside, err := r.place()
	if err != nil {
		return err
	}
	if aside != "" {
		r.p.say("\nThe state of before is in %s", aside)
	}
	r.p.say("\nInstance %q is as it was on %s: `bastide up` starts it", r.in.Name, m.Made.Local().Format(time.RFC1123))
	return nil
}

// verify compares each snapshot with its checksum.
func (r *restorer) verify(m backup.Manifest) error {
	files := []string{serviceEntry}
	for _, id := range m.Clusters {
		file := filepath.Join(clustersEntry, id, "etcd.db")
		if _, err := os.Stat(filepath.Join(r.unpacked, file)); err == nil { // a stopped cluster's has none
			files = append(files, file)
		}
	}
	for _, file := range files {
		f, err := os.Open(filepath.Join(r.unpacked, file))
		if err != nil {
			return fmt.Errorf("restore: %w", err)
		}
		_, _, err = planes.VerifySnapshot(f)
		if err := errors.Join(err, f.Close()); err != nil {
			return fault.New(fault.Invalid, "BackupDamaged", "The snapshot %s in the backup is damaged.", file).Because(err)
		}
	}
	return nil
}

// settle finds the instance's place on this machine.
func (r *restorer) settle(m backup.Manifest) error {
	text, err := os.ReadFile(filepath.Join(r.unpacked, settingsEntry))
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	var was instance.Instance
	if err := json.Unmarshal(text, &was); err != nil {
		return fmt.Errorf("restore: settings: %w", err)
	}
	if r.name != "" && r.name != was.Name {
		return fault.New(fault.Invalid, "InvalidSetting", "The backup is of instance %q: an instance keeps its name, its domain and certificates bear it.", m.Instance).At("--instance")
	}
	asked := was.Settings
	if r.stateDir != "" {
		asked.StateDir = r.stateDir
	}
	if err := r.free(asked); err != nil {
		return err
	}
	if r.in, err = instance.Place(asked); err != nil {
		return err
	}
	r.in.Tenant, r.in.Subscription = was.Tenant, was.Subscription
	_, err = bundle.Open(r.in.CacheDir, "etcd", bundle.EtcdVersion)
	return err
}

// free tells whether an instance is in the way.
func (r *restorer) free(asked instance.Settings) error {
	there, err := instance.Load(asked.Name, asked.StateDir)
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := os.Stat(there.RunDir()); err == nil {
		return fault.New(fault.Conflict, "InstanceRuns", "Instance %q isn't down: `bastide down --instance %s` stops it.", asked.Name, asked.Name)
	}
	if !r.replace {
		return fault.New(fault.Conflict, "InstanceExists", "Instance %q is here already, in %s: --replace moves its state aside.", asked.Name, asked.StateDir)
	}
	return nil
}

// service builds the state directory, but for the clusters. Leaves aren't
// restored: the daemon issues them for the uids and addresses of this machine.
func (r *restorer) service(ctx context.Context) error {
	in := *r.in
	in.StateDir = r.built
	if err := os.Mkdir(r.built, 0o711); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	described := *r.in
	text, err := json.MarshalIndent(described, "", "  ")
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if err := os.WriteFile(in.Dir(settingsEntry), append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if err := r.keys(&in); err != nil {
		return err
	}
	if err := copyTree(filepath.Join(r.unpacked, filesEntry), r.built, 0); err != nil {
		return err
	}
	if err := copyTree(filepath.Join(r.unpacked, registryEntry), in.Dir("registry"), int(in.ServeUID())); err != nil {
		return err
	}
	return r.store(ctx, &in)
}

// keys restores the authorities and the key that seals the store.
func (r *restorer) keys(in *instance.Instance) error {
	dir := in.Dir(tlsEntry)
	if err := copyTree(filepath.Join(r.unpacked, tlsEntry), dir, 0); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	for _, entry := range entries {
		name := entry.Name()
		if strings.HasPrefix(name, "ca") || strings.HasPrefix(name, "etcd-ca") {
			continue
		}
		if name == "seal.key" {
			if err := os.Lchown(filepath.Join(dir, name), int(in.ServeUID()), int(in.ServeUID())); err != nil {
				return fmt.Errorf("restore: %w", err)
			}
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("restore: %w", err)
		}
	}
	return os.Chmod(dir, 0o711)
}

// store makes the data directory of the service's etcd.
func (r *restorer) store(ctx context.Context, in *instance.Instance) error {
	uid := int(in.EtcdUID())
	data := in.Dir("etcd")
	if err := errors.Join(os.Mkdir(data, 0o700), os.Chown(data, uid, uid)); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	snapshot, made := filepath.Join(data, ".snapshot"), filepath.Join(data, ".made")
	if err := copyFile(filepath.Join(r.unpacked, serviceEntry), snapshot, uid); err != nil {
		return err
	}
	peer := "https://" + in.EtcdPeer()
	err := planes.RestoreAs(ctx, in.CacheDir, bundle.EtcdVersion, uid, []string{"snapshot", "restore", snapshot, "--data-dir=" + made,
		"--name=" + in.Name, "--initial-cluster=" + in.Name + "=" + peer, "--initial-advertise-peer-urls=" + peer})
	if err != nil {
		return err
	}
	if err := errors.Join(os.Rename(filepath.Join(made, "member"), filepath.Join(data, "member")), os.RemoveAll(made), os.Remove(snapshot)); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	return nil
}

// cluster gives a control plane its data, in the state that is being built.
func (r *restorer) cluster(ctx context.Context, id string) error {
	from := filepath.Join(r.unpacked, clustersEntry, id)
	plane, err := planes.New(planes.Config{
		Instance: r.in.Name, StateDir: filepath.Join(r.built, "host"), RunDir: filepath.Join(r.unpacked, ".run"), CacheDir: r.in.CacheDir,
		UIDBase: int(r.in.ControlPlaneUIDs()), UIDCount: instance.ControlPlanes, Netns: func(string) string { return "" }, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	f, err := os.Open(filepath.Join(from, "etcd.db"))
	if errors.Is(err, fs.ErrNotExist) {
		return plane.PlantFiles(id, filepath.Join(from, "etcd")) // of a stopped one
	}
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	defer f.Close()
	etcd, err := os.ReadFile(filepath.Join(from, "etcd.version"))
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	return plane.Plant(ctx, id, string(etcd), f)
}

// place puts what was built where the instance's state is, and tells where that
// which was there is now.
func (r *restorer) place() (aside string, err error) {
	dir := r.in.StateDir
	if _, err := os.Stat(dir); err == nil {
		aside = dir + ".before-" + time.Now().UTC().Format("20060102-150405")
		if err := os.Rename(dir, aside); err != nil {
			return "", fmt.Errorf("restore: %w", err)
		}
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o711); err != nil {
		return aside, fmt.Errorf("restore: %w", err)
	}
	if err := os.Rename(r.built, dir); err != nil {
		return aside, fmt.Errorf("restore: %w", err)
	}
	return aside, nil
}

// copyTree copies regular files, which then belong to uid; what isn't there is nothing.
func copyTree(from, to string, uid int) error {
	if _, err := os.Stat(from); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("restore: %w", err)
		}
		below, err := filepath.Rel(from, path)
		if err != nil {
			return fmt.Errorf("restore: %w", err)
		}
		target := filepath.Join(to, below)
		if !entry.IsDir() {
			return copyFile(path, target, uid)
		}
		if err := os.MkdirAll(target, 0o700); err != nil {
			return fmt.Errorf("restore: %w", err)
		}
		if below == "." && uid == 0 {
			return nil // a directory that others pass has its mode already
		}
		return os.Lchown(target, uid, uid)
	})
}

func copyFile(from, to string, uid int) error {
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Chown(uid, uid), out.Sync(), out.Close()); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	return nil
}
