// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"
)

func newIdentity(g *global) *cobra.Command {
	cmd := &cobra.Command{Use: "identity", Short: "Identities and credentials that nobody needs any more"}
	cmd.AddCommand(newDangling(g))
	return cmd
}

func newDangling(g *global) *cobra.Command {
	var unused string
	cmd := &cobra.Command{
		Use:   "dangling",
		Short: "List identities without a purpose, and credentials that ended or aren't used",
		Long: `Lists managed identities whose resource is gone or that nothing has, applications
without a credential that is good, credentials that expired, expire within 30
days, or weren't used for long, clusters whose service principal is no good any
more, and role assignments of principals that are gone.

It asks Resource Manager and Graph with your rights, and deletes nothing: each line
ends with the command that would. What you may not read isn't listed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			limit, err := parseDays(unused)
			if err != nil {
				return usageError{fmt.Errorf("--unused: %w", err)}
			}
			c, in, err := g.connect()
			if err != nil {
				return err
			}
			d, err := readDirectory(cmd.Context(), c, in.Subscription)
			if err != nil {
				return answered(err)
			}
			if d.blind {
				fmt.Fprintln(cmd.ErrOrStderr(), "When credentials were last used isn't known: you may not read the directory's logs.")
			}
			found := d.dangling(time.Now(), limit)
			if g.output == "json" {
				return printJSON(cmd, found)
			}
			return printDangling(cmd, found)
		},
	}
	cmd.Flags().StringVar(&unused, "unused", "90d", "how long a credential or identity may go unused, such as 90d or 12h")
	return cmd
}

// parseDays reads a duration, in days too.
func parseDays(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.Atoi(days)
		if err != nil || n < 0 || n > 36500 {
			return 0, fmt.Errorf("%q is no number of days", text)
		}
		return time.Duration(n) * 24 * time.Hour, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is no duration such as 90d or 12h", text)
	}
	return d, nil
}

func printDangling(cmd *cobra.Command, found []dangling) error {
	if len(found) == 0 {
		fmt.Fprintln(cmd.OutOrStdout(), "Nothing dangles.")
		return nil
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KIND\tNAME\tPROBLEM\tTO END IT")
	for _, d := range found {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", d.Kind, shown(d.Name), shown(d.Problem), shown(d.Command))
	}
	return w.Flush()
}

// shown is a text that others chose, fit for a terminal.
func shown(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}

// principalWarnings are warnings of clusters whose service principal is no good
// any more, or has no secret that is good for long. Which of several secrets a
// cluster has, the directory doesn't show.
func principalWarnings(clusters []clusterView, applications []applicationView, now time.Time) []string {
	var warnings []string
	for _, c := range clusters {
		if problem := c.Properties.Status.ProvisioningError.Message; problem != "" {
			warnings = append(warnings, fmt.Sprintf("cluster %s: %s", c.Name, problem))
			continue
		}
		for _, a := range applications {
			if !strings.EqualFold(a.AppID, c.Properties.Principal.ClientID) {
				continue
			}
			var end time.Time
			for _, s := range a.Secrets {
				if s.End.After(end) {
					end = s.End
				}
			}
			if !end.IsZero() && end.Sub(now) < soonEnds {
				warnings = append(warnings, fmt.Sprintf("cluster %s: the secrets of its service principal %s expire, the last on %s. Give it another: az aks update-credentials -g %s -n %s --reset-service-principal",
					c.Name, a.AppID, day(end), groupOf(c.ID), c.Name))
			}
		}
	}
	return warnings
}

// withPrincipals tells whether any cluster acts as a service principal.
func withPrincipals(clusters []clusterView) bool {
	return slices.ContainsFunc(clusters, func(c clusterView) bool {
		id := c.Properties.Principal.ClientID
		return id != "" && id != "msi"
	})
}
