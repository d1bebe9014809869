// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"bastide.dev/backup"
	"bastide.dev/controlplane"
	planes "bastide.dev/controlplane/linux"
	"bastide.dev/fault"
	"bastide.dev/host"
	"bastide.dev/instance"
)

// Names in an archive.
const (
	settingsEntry = "settings.json"
	serviceEntry  = "service.db"
	tlsEntry      = "tls"
	filesEntry    = "files"
	registryEntry = "registry"
	clustersEntry = "clusters"
)

// largestFile of those beside the settings is far above what any of them needs.
const largestFile = 16 << 20

type backupOptions struct {
	recipients []string
	passphrase string
	noRegistry bool
}

func newBackup(g *global) *cobra.Command {
	o := backupOptions{}
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Write the instance's whole state to an encrypted file",
		Long: `Writes what can't be made again to one file, encrypted with age: the service's
store, the authorities and keys, the registry, and the etcd of every cluster.
The instance goes on meanwhile. Disks of nodes aren't in it: ` + "`bastide restore`" + ` and
` + "`bastide up`" + ` make the same nodes anew.

Who has the file and its key has every secret of the instance. Keep them apart.`,
		Example: `  bastide backup new-key backup.key                     # once; prints the recipient
  bastide backup --recipient age1… /mnt/backups/today.age
  bastide backup --passphrase-file pass.txt today.age`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := mustBeRoot("bastide backup"); err != nil {
				return err
			}
			to, err := o.age()
			if err != nil {
				return err
			}
			in, err := g.load()
			if err != nil {
				return err
			}
			return runBackup(cmd.Context(), in, o, to, args[0], newProgress(cmd.OutOrStdout()))
		},
	}
	cmd.Flags().StringArrayVar(&o.recipients, "recipient", nil, "age `recipient` (age1…) who can open the file; may be repeated")
	cmd.Flags().StringVar(&o.passphrase, "passphrase-file", "", "`file` with the passphrase that opens it instead")
	cmd.Flags().BoolVar(&o.noRegistry, "no-registry", false, "leave out the images of the instance's registry")
	cmd.AddCommand(newBackupKey())
	return cmd
}

func newBackupKey() *cobra.Command {
	return &cobra.Command{
		Use: "new-key FILE", Short: "Make a key that opens backups, and print its recipient", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := age.GenerateX25519Identity()
			if err != nil {
				return fmt.Errorf("new key: %w", err)
			}
			f, err := os.OpenFile(args[0], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				return fmt.Errorf("new key: %w", err)
			}
			_, err = fmt.Fprintf(f, "# recipient: %s\n%s\n", key.Recipient(), key)
			if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
				return fmt.Errorf("new key: %w", err)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), key.Recipient())
			return err
		},
	}
}

// age are the recipients that were chosen.
func (o backupOptions) age() ([]age.Recipient, error) {
	if (len(o.recipients) == 0) == (o.passphrase == "") {
		return nil, usageError{errors.New("say who can open the backup: --recipient age1… (bastide backup new-key makes one), or --passphrase-file")}
	}
	if o.passphrase != "" {
		text, err := readPassphrase(o.passphrase)
		if err != nil {
			return nil, err
		}
		r, err := age.NewScryptRecipient(text)
		return []age.Recipient{r}, err
	}
	var all []age.Recipient
	var problems []error
	for _, text := range o.recipients {
		r, err := age.ParseX25519Recipient(text)
		if err != nil {
			problems = append(problems, fmt.Errorf("--recipient %s is none: it begins with age1", text))
			continue
		}
		all = append(all, r)
	}
	if err := errors.Join(problems...); err != nil {
		return nil, usageError{err}
	}
	return all, nil
}

// shortest passphrase: what it protects may be tried offline.
const shortest = 12

func readPassphrase(file string) (string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("passphrase: %w", err)
	}
	text := strings.TrimRight(string(data), "\r\n")
	if len(text) < shortest {
		return "", usageError{fmt.Errorf("the passphrase in %s is shorter than %d characters", file, shortest)}
	}
	return text, nil
}

// runBackup writes beside the file's place and renames: it is whole or not there.
func runBackup(ctx context.Context, in *instance.Instance, o backupOptions, to []age.Recipient, path string, p *progress) (err error) {
	if daemonPID(in) == 0 {
		return fault.New(fault.Unavailable, "InstanceIsDown", "Instance %q doesn't run: `bastide up` first, its store has to answer.", in.Name)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".bastide-backup-*")
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}()
	w := &backupWriter{in: in}
	if w.scratch, err = os.MkdirTemp(in.StateDir, ".backup-*"); err != nil { // 0700
		return fmt.Errorf("backup: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(w.scratch)) }()
	if err := w.write(ctx, f, o, to, p); err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Chmod(0o600)); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	if err := errors.Join(f.Close(), os.Rename(f.Name(), path)); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	p.say("\n%s: %.1f MiB, instance %q with %d clusters", path, float64(info.Size())/(1<<20), in.Name, len(w.specs))
	return nil
}

// backupWriter fills one archive.
type backupWriter struct {
	in      *instance.Instance
	scratch string // root's alone
	specs   []controlplane.Spec
	archive *backup.Writer
}

func (w *backupWriter) write(ctx context.Context, f io.Writer, o backupOptions, to []age.Recipient, p *progress) error {
	sealed, err := openSealed(ctx, w.in, "etcd-root")
	if err != nil {
		return daemonTrouble(w.in, err)
	}
	defer sealed.close()
	// The service's store first: a cluster that is made later isn't in it, and
	// one that is in it may go meanwhile, which its own copy then tells.
	err = p.step("Copying the service's store", func() error {
		if err := w.begin(ctx, sealed, f, to); err != nil {
			return err
		}
		return w.settings()
	})
	if err != nil {
		return err
	}
	for _, spec := range w.specs {
		if err := p.step("Copying the etcd of "+spec.Endpoint, func() error { return w.cluster(ctx, spec) }); err != nil {
			return err
		}
	}
	if !o.noRegistry {
		if err := p.step("Copying the registry", func() error { return w.archive.AddTree(registryEntry, w.in.Dir("registry")) }); err != nil {
			return err
		}
	}
	return w.archive.Close()
}

func (w *backupWriter) begin(ctx context.Context, sealed *sealedStore, f io.Writer, to []age.Recipient) error {
	copied := filepath.Join(w.scratch, serviceEntry)
	if err := toFile(copied, func(out io.Writer) error { return sealed.etcd.Snapshot(ctx, out) }); err != nil {
		return fmt.Errorf("service's store: %w", err)
	}
	records, _, err := sealed.store.List(ctx, host.UnitKey(hostName, host.ControlPlaneUnit, ""))
	if err != nil {
		return fmt.Errorf("clusters: %w", err)
	}
	m := backup.Manifest{Instance: w.in.Name, Domain: w.in.Domain, Made: time.Now().UTC(), Program: version()}
	for _, record := range records {
		var spec controlplane.Spec
		if string(record.Value) == string(host.Tombstone) {
			continue
		}
		if err := json.Unmarshal(record.Value, &spec); err != nil {
			return errors.New("clusters: a unit is unreadable") // no cause: it could quote a secret
		}
		w.specs, m.Clusters = append(w.specs, spec), append(m.Clusters, spec.ID)
	}
	if w.archive, err = backup.NewWriter(f, m, to...); err != nil {
		return err
	}
	return w.archive.AddFile(serviceEntry, copied)
}

// settings are the description, the authorities and keys, and the small files beside them.
func (w *backupWriter) settings() error {
	if err := w.archive.AddFile(settingsEntry, w.in.Dir(settingsEntry)); err != nil {
		return err
	}
	if err := w.archive.AddTree(tlsEntry, w.in.Dir(tlsEntry)); err != nil {
		return err
	}
	entries, err := os.ReadDir(w.in.StateDir)
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || !info.Mode().IsRegular() || entry.Name() == settingsEntry || info.Size() > largestFile {
			continue // gone again, or nothing of ours
		}
		if err := w.archive.AddFile(filesEntry+"/"+entry.Name(), w.in.Dir(entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

// cluster adds a running cluster's snapshot, or the files of one that is stopped.
func (w *backupWriter) cluster(ctx context.Context, spec controlplane.Spec) error {
	name := clustersEntry + "/" + spec.ID
	if spec.Stopped {
		return w.archive.AddTree(name+"/etcd", w.in.Dir("host", "controlplanes", spec.ID, "etcd"))
	}
	netns := func(name string) string { return filepath.Join(w.in.RunDir(), "netns", name) }
	copied := filepath.Join(w.scratch, spec.ID)
	err := toFile(copied, func(out io.Writer) error {
		_, err := planes.TakeSnapshot(ctx, netns, spec, out)
		return err
	})
	if err != nil {
		return err
	}
	if err := w.archive.Add(name+"/etcd.version", int64(len(spec.Etcd)), strings.NewReader(spec.Etcd)); err != nil {
		return err
	}
	return errors.Join(w.archive.AddFile(name+"/etcd.db", copied), os.Remove(copied))
}

func toFile(path string, write func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}
