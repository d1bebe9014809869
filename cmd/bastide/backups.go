// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bastide.dev/client"
	"bastide.dev/fault"
	"bastide.dev/resource"
)

// clusterVersion is the API version that backups of clusters are asked for in.
const clusterVersion = "2026-03-01"

// backupView is a cluster's backup as the service shows it.
type backupView struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Properties struct {
		State     string    `json:"provisioningState"`
		Available bool      `json:"available"`
		Scheduled bool      `json:"scheduled"`
		Taken     time.Time `json:"takenAt,omitzero"`
		Version   string    `json:"kubernetesVersion"`
		Objects   int64     `json:"objects"`
		Size      int64     `json:"sizeBytes"`
		SHA256    string    `json:"sha256,omitempty"`
		Revision  int64     `json:"etcdRevision,omitempty"`
		Error     string    `json:"error,omitempty"`
	} `json:"properties"`
}

// policyView is a cluster's backup policy.
type policyView struct {
	Properties struct {
		Hours int `json:"intervalHours"`
		Keep  int `json:"retentionCount"`
	} `json:"properties"`
}

func newBackups(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use: "backups", Short: "Back up clusters, and restore them",
		Long: `A cluster's backup holds all objects in it: what its etcd has. It is kept on the
host, sealed with a key of the cluster's own, and goes with the cluster. What is on
volumes isn't in it. "bastide backup" is for the whole instance instead.

AKS has no such commands; the same is at …/managedClusters/NAME/backups in ARM.`,
	}
	cmd.AddCommand(newBackupsList(g), newBackupsCreate(g), newBackupsDelete(g), newBackupsPolicy(g), newBackupsRestore(g))
	return cmd
}

func newBackupsList(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "list GROUP/CLUSTER | ID", Short: "List a cluster's backups, the newest first", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, id, err := clusterAt(g, args[0])
			if err != nil {
				return err
			}
			all, err := client.List[backupView](cmd.Context(), c, id.String()+"/backups", clusterVersion)
			if err != nil {
				return answered(err)
			}
			slices.SortFunc(all, func(a, b backupView) int {
				return cmp.Or(b.Properties.Taken.Compare(a.Properties.Taken), cmp.Compare(a.Name, b.Name))
			})
			if g.output == "json" {
				return printJSON(cmd, all)
			}
			return printBackups(cmd, all)
		},
	}
}

func printBackups(cmd *cobra.Command, all []backupView) error {
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tTAKEN\tKUBERNETES\tOBJECTS\tSIZE\tSTATE")
	for _, b := range all {
		p, taken, state := b.Properties, "-", "available"
		if !p.Taken.IsZero() {
			taken = p.Taken.UTC().Format(time.RFC3339)
		}
		if !p.Available {
			state = strings.ToLower(p.State)
			if p.Error != "" {
				state = "unavailable: " + p.Error
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%.1f MiB\t%s\n", b.Name, taken, p.Version, p.Objects, float64(p.Size)/(1<<20), state)
	}
	return w.Flush()
}

func newBackupsCreate(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "create GROUP/CLUSTER | ID [NAME]", Short: "Back a cluster up now", Args: cobra.RangeArgs(1, 2),
		Example: "  bastide backups create shop/prod before-the-migration",
		RunE: func(cmd *cobra.Command, args []string) error {
			name := "backup-" + time.Now().UTC().Format("20060102-150405")
			if len(args) == 2 {
				name = args[1]
			}
			c, id, err := clusterAt(g, args[0])
			if err != nil {
				return err
			}
			at := id.Child("backups", name).String()
			err = g.shown(cmd).step("Backing up "+id.Name(), func() error {
				_, err := client.Put[any](cmd.Context(), c, at, clusterVersion, struct{}{})
				return answered(err)
			})
			if err != nil {
				return err
			}
			made, err := client.Get[backupView](cmd.Context(), c, at, clusterVersion)
			if err != nil {
				return answered(err)
			}
			if g.output == "json" {
				return printJSON(cmd, made)
			}
			return printBackups(cmd, []backupView{made})
		},
	}
}

// shown shows progress to people, and not to who reads JSON.
func (g *global) shown(cmd *cobra.Command) *progress {
	if g.output == "json" {
		return newProgress(io.Discard)
	}
	return newProgress(cmd.OutOrStdout())
}

func newBackupsDelete(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "delete GROUP/CLUSTER | ID NAME", Short: "Remove a backup", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, id, err := clusterAt(g, args[0])
			if err != nil {
				return err
			}
			return answered(c.Delete(cmd.Context(), id.Child("backups", args[1]).String(), clusterVersion))
		},
	}
}

func newBackupsPolicy(g *global) *cobra.Command {
	every, keep, off := 0, 0, false
	cmd := &cobra.Command{
		Use: "policy GROUP/CLUSTER | ID", Short: "Show or change how often a cluster is backed up by itself",
		Long: `Without flags shows the policy. A backup that was missed, because the instance was
down or the cluster stopped, is made up for once. Only backups that the policy made
are removed by it.`,
		Example: "  bastide backups policy shop/prod --every 6 --keep 28\n  bastide backups policy shop/prod --off",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			set := cmd.Flags().Changed("every") || cmd.Flags().Changed("keep")
			if set && (off || every == 0 || keep == 0) {
				return usageError{errors.New("say --every and --keep, or --off alone")}
			}
			c, id, err := clusterAt(g, args[0])
			if err != nil {
				return err
			}
			at := id.Child("backupPolicies", "default").String()
			if off {
				return answered(c.Delete(cmd.Context(), at, clusterVersion))
			}
			if set {
				body := policyView{}
				body.Properties.Hours, body.Properties.Keep = every, keep
				if _, err := client.Put[any](cmd.Context(), c, at, clusterVersion, body); err != nil {
					return answered(err)
				}
			}
			return showPolicy(cmd, g, c, at)
		},
	}
	cmd.Flags().IntVar(&every, "every", 0, "`hours` between two backups, 1 to 168")
	cmd.Flags().IntVar(&keep, "keep", 0, "`number` of backups that are kept, 1 to 100")
	cmd.Flags().BoolVar(&off, "off", false, "make none by itself any more")
	return cmd
}

func showPolicy(cmd *cobra.Command, g *global, c *client.Client, at string) error {
	policy, err := client.Get[policyView](cmd.Context(), c, at, clusterVersion)
	if err := answered(err); fault.Is(err, fault.NotFound) && g.output != "json" {
		_, err := fmt.Fprintln(cmd.OutOrStdout(), "The cluster isn't backed up by itself.")
		return err
	} else if err != nil {
		return err
	}
	if g.output == "json" {
		return printJSON(cmd, policy.Properties)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "Every %d hours, the newest %d are kept.\n", policy.Properties.Hours, policy.Properties.Keep)
	return err
}

func newBackupsRestore(g *global) *cobra.Command {
	from, yes := "", false
	cmd := &cobra.Command{
		Use: "restore GROUP/CLUSTER | ID --from BACKUP", Short: "Make a cluster what a backup holds",
		Long: `Replaces everything in a cluster's API by what a backup holds: of the same cluster,
or of another one (GROUP/CLUSTER/BACKUP). The backup is verified beside the cluster,
which serves meanwhile; then clients wait a few seconds. If what was restored doesn't
become ready the cluster goes on as it was.

Nodes stay as they are. Objects that were made since the backup are gone; load
balancers and disks that belonged to them are left in the node resource group.`,
		Example: "  bastide backups restore shop/prod --from before-the-migration --yes\n  bastide backups restore shop/rehearsal --from shop/prod/nightly --yes",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if from == "" {
				return usageError{errors.New("say --from BACKUP: `bastide backups list` shows them")}
			}
			if !yes {
				return usageError{fmt.Errorf("everything in %s since the backup would be gone: add --yes", args[0])}
			}
			c, id, err := clusterAt(g, args[0])
			if err != nil {
				return err
			}
			backup, err := backupNamed(g, id, from)
			if err != nil {
				return err
			}
			return g.shown(cmd).step("Restoring "+id.Name(), func() error {
				_, err := client.Post[any](cmd.Context(), c, id.String()+"/restore", clusterVersion, map[string]string{"backupId": backup})
				return answered(err)
			})
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "`backup`: NAME, GROUP/CLUSTER/NAME or a resource id")
	cmd.Flags().BoolVar(&yes, "yes", false, "do it")
	return cmd
}

// backupNamed is the id of a backup: of the cluster itself when nothing else is said.
func backupNamed(g *global, cluster resource.ID, name string) (string, error) {
	switch parts := strings.Split(name, "/"); {
	case strings.HasPrefix(name, "/"):
		return name, nil
	case len(parts) == 1:
		return cluster.Child("backups", name).String(), nil
	case len(parts) == 3:
		in, err := g.load()
		if err != nil {
			return "", err
		}
		return resource.GroupID(in.Subscription, parts[0]).Resource("Microsoft.ContainerService", "managedClusters", parts[1]).Child("backups", parts[2]).String(), nil
	}
	return "", usageError{fmt.Errorf("--from %q: say NAME, GROUP/CLUSTER/NAME or a resource id", name)}
}
