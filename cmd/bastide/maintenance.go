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

// maintenanceVersion is the API version that plans are asked for in.
const maintenanceVersion = "2026-03-01"

// maxPlanDays is how far a plan looks ahead, as the service bounds it.
const maxPlanDays = 366

// plannedView is one entry of a cluster's maintenance plan.
type plannedView struct {
	Properties struct {
		Kind          string     `json:"kind"`
		Channel       string     `json:"channel"`
		Configuration string     `json:"configuration,omitempty"`
		Start         *time.Time `json:"start,omitempty"`
		End           *time.Time `json:"end,omitempty"`
		Action        string     `json:"action"`
		Text          string     `json:"text"`
		Blocked       string     `json:"blocked,omitempty"`
	} `json:"properties"`
}

func newMaintenance(g *global) *cobra.Command {
	cmd := &cobra.Command{Use: "maintenance", Short: "What clusters do by themselves to stay current, and when"}
	cmd.AddCommand(newMaintenancePlan(g))
	return cmd
}

func newMaintenancePlan(g *global) *cobra.Command {
	days := 30
	cmd := &cobra.Command{
		Use:   "plan GROUP/CLUSTER | ID",
		Short: "List what a cluster's next maintenance windows would bring",
		Long: `Lists the maintenance windows of a cluster in the next days and what would be done
in each, were everything as it is now: by its upgrade channel, its node OS channel,
and its maintenance configurations. Where nothing would be done it says why.

Times are UTC. A window without a configuration's name is the cluster's own choice.`,
		Example: `  bastide maintenance plan shop/prod
  bastide maintenance plan shop/prod --days 90 -o json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if days < 1 || days > maxPlanDays {
				return usageError{fmt.Errorf("--days %d isn't from 1 to %d", days, maxPlanDays)}
			}
			return showMaintenancePlan(cmd, g, args[0], days)
		},
	}
	cmd.Flags().IntVar(&days, "days", days, "how many `days` ahead")
	return cmd
}

func showMaintenancePlan(cmd *cobra.Command, g *global, name string, days int) error {
	c, id, err := clusterAt(g, name)
	if err != nil {
		return err
	}
	found, err := client.Query[plannedView](cmd.Context(), c, id.String()+"/maintenancePlans", maintenanceVersion, map[string]string{"days": fmt.Sprint(days)})
	if err != nil {
		return answered(err)
	}
	if g.output == "json" {
		return printJSON(cmd, found)
	}
	return printMaintenancePlan(cmd.OutOrStdout(), found)
}

func printMaintenancePlan(out io.Writer, plan []plannedView) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "FROM\tTO\tCHANNEL\tCONFIGURATION\tACTION\tWHAT")
	for _, entry := range plan {
		p := entry.Properties
		what := p.Text
		if p.Blocked != "" {
			what += " (waits: " + p.Blocked + ")"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", minuteOf(p.Start), minuteOf(p.End), p.Channel, cmp.Or(p.Configuration, "-"), p.Action, what)
	}
	return w.Flush()
}

func minuteOf(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.UTC().Format("Mon 2006-01-02 15:04")
}
