// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bastide.dev/identity"
	"bastide.dev/store"
)

func newDirectory(g *global) *cobra.Command {
	cmd := &cobra.Command{Use: "directory", Short: "Show what was written to the directory (az ad reads and writes it)"}
	var since time.Duration
	log := &cobra.Command{
		Use:   "log",
		Short: "Show who changed what in the directory, before and after",
		Long: `Shows the audit log of the directory, the oldest first: each write of users, groups,
applications, roles and consents, with who made it and what changed. Of secrets it
says only that they changed. Entries are kept for 30 days.

The log is also Microsoft Graph's auditLogs/directoryAudits.`,
		Example: `  bastide directory log --since 1h
  bastide directory log -o json`,
		Args: cobra.NoArgs,
		RunE: g.inStore("bastide directory log", func(cmd *cobra.Command, _ []string, s store.Store) error {
			all, err := identity.ReadAudit(cmd.Context(), s)
			if err != nil {
				return err
			}
			return printAudit(cmd, g.output, since, all)
		}),
	}
	log.Flags().DurationVar(&since, "since", 24*time.Hour, "how far to look back")
	cmd.AddCommand(log)
	return cmd
}

// printAudit prints entries, which are newest first, the oldest first.
func printAudit(cmd *cobra.Command, output string, since time.Duration, all []identity.AuditEntry) error {
	from := time.Now().Add(-since)
	all = slices.DeleteFunc(all, func(e identity.AuditEntry) bool { return e.Time.Before(from) })
	slices.Reverse(all)
	if output == "json" {
		return printJSON(cmd, all)
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	for _, e := range all {
		by := cmp.Or(e.By.Name, e.By.ID)
		if e.By.Service {
			by = "bastide"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", e.Time.Local().Format(time.DateTime), by, cmp.Or(e.By.Address, "-"), e.Activity, auditTargets(e.Targets))
	}
	return w.Flush()
}

func auditTargets(targets []identity.AuditTarget) string {
	var found []string
	for _, t := range targets {
		text := cmp.Or(t.Name, t.ID)
		var changed []string
		for _, p := range t.Changed {
			switch {
			case p.Before == nil && p.After == nil:
				changed = append(changed, p.Name)
			default:
				changed = append(changed, fmt.Sprintf("%s: %s → %s", p.Name, auditValue(p.Before), auditValue(p.After)))
			}
		}
		if len(changed) > 0 {
			text += " (" + strings.Join(changed, ", ") + ")"
		}
		found = append(found, text)
	}
	return strings.Join(found, "; ")
}

func auditValue(v json.RawMessage) string {
	if v == nil {
		return "-"
	}
	return string(v)
}
