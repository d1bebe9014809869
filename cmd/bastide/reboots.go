// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bastide.dev/client"
)

// pendingView is a node that needs a reboot, or has it now.
type pendingView struct {
	Properties struct {
		Node  string     `json:"node"`
		Since *time.Time `json:"since,omitempty"`
		State string     `json:"state"`
		For   string     `json:"for"`
		Why   string     `json:"why,omitempty"`
		Until *time.Time `json:"until,omitempty"`
	} `json:"properties"`
}

func newReboots(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "reboots GROUP/CLUSTER | ID",
		Short: "List the nodes that need a reboot, and why they don't have it yet",
		Long: `Lists the nodes of a cluster that need a reboot for the updates they have installed,
and what each of them waits for. One reboots at a time, cordoned and drained, unless
the ConfigMap bastide-reboots in kube-system says otherwise; its keys are kured's
options (concurrency, reboot-days, start-time, end-time, time-zone,
blocking-pod-selector, prometheus-url, …).

Whoever takes the lock stops all reboots:

  kubectl -n kube-system annotate configmap bastide-reboots \
    weave.works/kured-node-lock='{"nodeID":"manual"}'

Times are UTC.`,
		Example: `  bastide reboots shop/prod`,
		Args:    cobra.ExactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return showReboots(cmd, g, args[0]) },
	}
}

func showReboots(cmd *cobra.Command, g *global, name string) error {
	c, id, err := clusterAt(g, name)
	if err != nil {
		return err
	}
	found, err := client.Query[pendingView](cmd.Context(), c, id.String()+"/pendingReboots", maintenanceVersion, nil)
	if err != nil {
		return answered(err)
	}
	if g.output == "json" {
		return printJSON(cmd, found)
	}
	return printReboots(cmd.OutOrStdout(), found)
}

func printReboots(out io.Writer, nodes []pendingView) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tSTATE\tSINCE\tFOR\tUNTIL\tWHY")
	for _, entry := range nodes {
		p := entry.Properties
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", p.Node, p.State, minuteOf(p.Since), p.For, minuteOf(p.Until), cmp.Or(p.Why, "-"))
	}
	return w.Flush()
}
