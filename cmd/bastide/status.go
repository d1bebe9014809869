// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bastide.dev/client"
	"bastide.dev/cluster"
	"bastide.dev/instance"
	"bastide.dev/store"
	"bastide.dev/supervise"
)

// statusView is what `bastide status` tells.
type statusView struct {
	Instance  string        `json:"instance"`
	Running   bool          `json:"running"`
	FrontDoor string        `json:"frontDoor"`
	Problem   string        `json:"problem,omitempty"`
	Service   []processView `json:"service"`
	Clusters  []clusterView `json:"clusters"`
	// Operations run on clusters now.
	Operations []cluster.Progress `json:"operations"`
	SignIns    string             `json:"failedSignIns,omitempty"`
	Warnings   []string           `json:"warnings"`
}

type processView struct {
	Name    string `json:"name"`
	PID     int    `json:"pid"`
	Running bool   `json:"running"`
}

func newStatus(g *global) *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what runs: the service, every cluster, and operations",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if watch {
				return g.inStore("bastide status --watch", func(cmd *cobra.Command, _ []string, s store.Store) error {
					return watchStatus(cmd, g, s)
				})(cmd, args)
			}
			if err := mustBeRoot("bastide status"); err != nil {
				return err
			}
			in, err := g.load()
			if err != nil {
				return err
			}
			view := readStatus(cmd.Context(), in)
			if g.output == "json" {
				return printJSON(cmd, view)
			}
			return printStatus(cmd, view)
		},
	}
	cmd.Flags().BoolVar(&watch, "watch", false, "tell how operations on clusters go on, until interrupted")
	return cmd
}

func readStatus(ctx context.Context, in *instance.Instance) statusView {
	view := statusView{Instance: in.Name, FrontDoor: in.URL("management"), Service: serviceStatus(in), Clusters: []clusterView{}, Operations: []cluster.Progress{}, Warnings: []string{}}
	for _, p := range view.Service {
		view.Running = view.Running || p.Running
	}
	if !view.Running {
		return view
	}
	clusters, applications, err := readClusters(ctx, in)
	if err != nil {
		view.Problem = err.Error()
		return view
	}
	view.Clusters = clusters
	view.Warnings = append(view.Warnings, principalWarnings(clusters, applications, time.Now())...)
	view.Warnings = append(view.Warnings, lockedOut(in.FrontDoor(), clusters)...)
	if view.Operations, err = readProgress(ctx, in); err != nil {
		view.Problem = err.Error()
	}
	failed, err := failedSignIns(ctx, in)
	if err != nil {
		view.Problem = err.Error()
	}
	view.SignIns = failed
	return view
}

// readProgress lists the operations that run on clusters.
func readProgress(ctx context.Context, in *instance.Instance) ([]cluster.Progress, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	s, err := openStore(ctx, in, "etcd-root")
	if err != nil {
		return []cluster.Progress{}, err
	}
	progress, err := cluster.ReadProgress(ctx, s)
	return progress, errors.Join(err, s.Close())
}

// readClusters lists the clusters and, when any acts as one, the applications.
func readClusters(ctx context.Context, in *instance.Instance) ([]clusterView, []applicationView, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	description, err := client.LoadInstance(in.StateDir)
	if err != nil {
		return nil, nil, err
	}
	secrets, err := client.LoadSecrets(in.StateDir)
	if err != nil {
		return nil, nil, err
	}
	c, err := client.New(client.Config{Instance: description, Secrets: secrets})
	if err != nil {
		return nil, nil, err
	}
	clusters, err := client.List[clusterView](ctx, c, "/subscriptions/"+in.Subscription+"/providers/Microsoft.ContainerService/managedClusters", aksVersion)
	if err != nil || !withPrincipals(clusters) {
		return clusters, nil, err
	}
	applications, err := client.GraphList[applicationView](ctx, c, "/v1.0/applications")
	return clusters, applications, err
}

// serviceStatus looks at the processes themselves: it is right also when
// nothing answers.
func serviceStatus(in *instance.Instance) []processView {
	daemon := daemonPID(in)
	views := []processView{{"daemon", daemon, daemon != 0}}
	recorded, err := supervise.Processes(serviceRunDir(in))
	if err != nil {
		slog.Warn("status", "error", err)
	}
	for _, name := range []string{etcdProcess, serveProcess, hostProcess} {
		pid := recorded[name]
		views = append(views, processView{name, pid, pid != 0})
	}
	return views
}

func printStatus(cmd *cobra.Command, view statusView) error {
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	state := "down"
	if view.Running {
		state = "up, " + view.FrontDoor
	}
	fmt.Fprintf(w, "Instance %s is %s\n\n", view.Instance, state)
	fmt.Fprintln(w, "PROCESS\tPID\tSTATE")
	for _, p := range view.Service {
		state := "running"
		if !p.Running {
			state = "not running"
		}
		fmt.Fprintf(w, "%s\t%d\t%s\n", p.Name, p.PID, state)
	}
	if len(view.Clusters) > 0 {
		fmt.Fprintln(w, "\nCLUSTER\tVERSION\tSTATE\tPOWER\tNODES\tAPI SERVER")
	}
	for _, c := range view.Clusters {
		nodes := 0
		for _, p := range c.Properties.Pools {
			nodes += p.Count
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\n", c.Name, c.Properties.Version, c.Properties.ProvisioningState, c.Properties.PowerState.Code, nodes, c.Properties.FQDN)
	}
	if len(view.Operations) > 0 {
		fmt.Fprintln(w, "\nOPERATION ON\tSTATE\tNODES\tWAITS FOR")
	}
	for _, p := range view.Operations {
		fmt.Fprintf(w, "%s\t%s\t%d of %d\t%s\n", operationName(p.Resource), p.State, p.Done, p.Total, shown(p.Waits))
	}
	if view.SignIns != "" {
		fmt.Fprintf(w, "\n%s\n", view.SignIns)
	}
	for _, warning := range view.Warnings {
		fmt.Fprintf(w, "\nWarning: %s\n", warning)
	}
	if view.Problem != "" {
		fmt.Fprintf(w, "\nThe front door doesn't answer: %s\n", view.Problem)
	}
	return w.Flush()
}
