// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"bastide.dev/cluster"
	"bastide.dev/controlplane"
	"bastide.dev/instance"
	"bastide.dev/resource"
	"bastide.dev/store"
)

func newKubeconfig(g *global) *cobra.Command {
	ask := cluster.BreakGlass{User: "break-glass", Lifetime: time.Hour}
	cmd := &cobra.Command{
		Use:   "kubeconfig GROUP/CLUSTER | ID",
		Short: "Print a kubeconfig for an emergency, which ends by itself",
		Long: `Prints a kubeconfig with a client certificate that lasts for a while and then ends by
itself: for when nobody can sign in. Needs root on the instance's machine, and asks
neither the service nor the directory, so that it works when those don't.

Without --group the user is an administrator (system:masters); with it, what RBAC in
the cluster says of the user and the groups counts. The activity log tells that it was
given out. Clusters that disable local accounts refuse it. Whoever wants it to end
sooner rotates the cluster's certificates.`,
		Example: `  sudo bastide kubeconfig shop/prod --lifetime 15m >incident.kubeconfig
  sudo bastide kubeconfig shop/prod --user anna --group on-call`,
		Args: cobra.ExactArgs(1),
		RunE: g.inStore("bastide kubeconfig", func(cmd *cobra.Command, args []string, s store.Store) error {
			in, err := g.load()
			if err != nil {
				return err
			}
			id, err := clusterID(in, args[0])
			if err != nil {
				return err
			}
			asked := ask
			if asked.Cluster = id; len(asked.Groups) == 0 && !cmd.Flags().Changed("group") {
				asked.Groups = []string{controlplane.MastersGroup}
			}
			config, err := asked.Issue(cmd.Context(), s, time.Now())
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(config)
			return err
		}),
	}
	cmd.Flags().DurationVar(&ask.Lifetime, "lifetime", ask.Lifetime, "`time` until it ends, at most 24h")
	cmd.Flags().StringVar(&ask.User, "user", ask.User, "`name` of the user, as the cluster's own log has it")
	cmd.Flags().StringArrayVar(&ask.Groups, "group", nil, "`group` of the user, instead of system:masters; may be repeated")
	return cmd
}

// breakGlass issues such a kubeconfig for drills, which know a cluster by its id.
func breakGlass(in *instance.Instance) func(ctx context.Context, id string, lifetime time.Duration) ([]byte, error) {
	return func(ctx context.Context, text string, lifetime time.Duration) ([]byte, error) {
		id, err := resource.ParseID(text)
		if err != nil {
			return nil, fmt.Errorf("kubeconfig of %s: %w", text, err)
		}
		sealed, err := openSealed(ctx, in, "etcd-root")
		if err != nil {
			return nil, err
		}
		defer sealed.close()
		ask := cluster.BreakGlass{Cluster: id, User: "drill", Groups: []string{controlplane.MastersGroup}, Lifetime: lifetime}
		return ask.Issue(ctx, sealed.store, time.Now())
	}
}
