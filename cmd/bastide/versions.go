// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"bastide.dev/cluster"
	"bastide.dev/instance"
)

func newVersions(g *global) *cobra.Command {
	var cacheDir string
	cmd := &cobra.Command{
		Use: "versions", Short: "List the Kubernetes releases that clusters can have, and how long they are supported", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			versions, err := cluster.NewVersions((&catalogue{cacheDir: cacheDir}).Kubernetes())
			if err != nil {
				return err
			}
			if g.output == "json" {
				return printJSON(cmd, versions.Releases())
			}
			return printReleases(cmd, versions.Releases())
		},
	}
	cmd.Flags().StringVar(&cacheDir, "cache-dir", instance.DefaultCache, "`directory` of bundles and node images")
	return cmd
}

func printReleases(cmd *cobra.Command, releases []cluster.Release) error {
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "VERSION\tSTATE\tEND OF LIFE ON AKS\tUPGRADES")
	for _, r := range releases {
		state := "supported"
		switch {
		case r.Default:
			state = "default"
		case !r.Supported:
			state = "out of support"
		}
		end := r.End
		if end == "" {
			end = "not published"
		}
		upgrades := strings.Join(r.Upgrades, ", ")
		if upgrades == "" {
			upgrades = "none"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.Version, state, end, upgrades)
	}
	return w.Flush()
}
