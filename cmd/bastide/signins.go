// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bastide.dev/fault"
	"bastide.dev/identity"
	"bastide.dev/identity/signin"
	"bastide.dev/instance"
	"bastide.dev/store"
)

// signInsFollow is how often the log is looked at for more.
const signInsFollow = time.Second

type signInsOptions struct {
	failed, follow, count bool
	since                 time.Duration
	filter                string
}

func newSignIns(g *global) *cobra.Command {
	var o signInsOptions
	cmd := &cobra.Command{
		Use:   "signins",
		Short: "Show who signed in, and who failed to",
		Long: `Shows the log of sign-ins, the oldest first: every attempt to get a token, with the
reason of those that failed, the address, the client, and what conditional access made
of it. Sign-ins of an application that are alike within a second are one line.

The log is also Microsoft Graph's auditLogs/signIns.`,
		Example: `  bastide signins --failed --since 1h
  bastide signins --failed --count
  bastide signins --follow
  bastide signins --filter "ipAddress eq '10.1.2.3' and status/errorCode eq 50126"`,
		Args: cobra.NoArgs,
		RunE: g.inStore("bastide signins", func(cmd *cobra.Command, _ []string, s store.Store) error {
			return runSignIns(cmd, s, g.output, o)
		}),
	}
	cmd.Flags().BoolVar(&o.failed, "failed", false, "only those that failed")
	cmd.Flags().BoolVar(&o.follow, "follow", false, "show those to come, too, until interrupted")
	cmd.Flags().BoolVar(&o.count, "count", false, "count the failed ones by name and address")
	cmd.Flags().DurationVar(&o.since, "since", 24*time.Hour, "how far to look back")
	cmd.Flags().StringVar(&o.filter, "filter", "", "an OData `filter`, as Graph's auditLogs/signIns takes it")
	return cmd
}

func runSignIns(cmd *cobra.Command, from store.Store, output string, o signInsOptions) error {
	filter, err := signin.ParseFilter(o.filter)
	if err != nil {
		return err
	}
	match := func(e *signin.Entry) bool { return (!o.failed && !o.count || e.Code != 0) && filter.Match(e) }
	found, err := signin.ReadSignIns(cmd.Context(), from, time.Now().Add(-o.since), match)
	if err != nil {
		return err
	}
	if o.count {
		return printFailures(cmd, output, signin.CountFailures(found))
	}
	if output == "json" && !o.follow {
		return printJSON(cmd, found)
	}
	out := cmd.OutOrStdout()
	emit := func(entries []signin.Entry) error { return printSignIns(out, output, entries) }
	if err := emit(found); err != nil || !o.follow {
		return err
	}
	return followSignIns(cmd.Context(), from, match, found, emit)
}

// followSignIns prints what comes, each entry once, until ctx ends. An entry is
// written a moment after it happened, so each look reaches back a little.
func followSignIns(ctx context.Context, from store.Store, match func(*signin.Entry) bool, found []signin.Entry, emit func([]signin.Entry) error) error {
	const back = time.Minute
	seen := map[string]time.Time{}
	for i := range found {
		seen[found[i].ID] = found[i].Time
	}
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(signInsFollow):
		}
		since := time.Now().Add(-back)
		next, err := signin.ReadSignIns(ctx, from, since, func(e *signin.Entry) bool {
			_, old := seen[e.ID]
			return !old && match(e)
		})
		if err != nil && ctx.Err() == nil {
			return err
		}
		for id, at := range seen {
			if at.Before(since) {
				delete(seen, id)
			}
		}
		for i := range next {
			seen[next[i].ID] = next[i].Time
		}
		if err := emit(next); err != nil {
			return err
		}
	}
	return nil
}

// printSignIns prints entries, which are newest first, the oldest first.
func printSignIns(out io.Writer, output string, entries []signin.Entry) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for i := len(entries) - 1; i >= 0; i-- {
		e := &entries[i]
		if output == "json" { // a line each, for --follow
			if err := json.NewEncoder(out).Encode(e); err != nil {
				return err
			}
			continue
		}
		result := "ok"
		if e.Code != 0 {
			result = fmt.Sprintf("AADSTS%d %s", e.Code, e.Reason)
		}
		if e.Count > 1 {
			result += fmt.Sprintf(" (%d times)", e.Count)
		}
		for _, p := range e.Policies {
			if p.Result == "failure" || strings.HasPrefix(p.Result, "reportOnly") && p.Result != "reportOnlyNotApplied" {
				result += fmt.Sprintf(" [%s: %s]", p.Name, p.Result)
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", e.Time.Local().Format(time.DateTime), cmp.Or(e.Name, e.ClientID, "?"), cmp.Or(e.Address, "-"),
			string(e.Flow), cmp.Or(strings.Join(e.Methods, "+"), "-"), result)
	}
	return w.Flush()
}

func printFailures(cmd *cobra.Command, output string, counted []signin.Failures) error {
	if output == "json" {
		return printJSON(cmd, counted)
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "FAILED\tNAME\tADDRESS\tLAST\tREASON")
	for _, f := range counted {
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\tAADSTS%d %s\n", f.Count, cmp.Or(f.Name, "?"), cmp.Or(f.Address, "-"), f.Last.Local().Format(time.DateTime), f.Code, f.Reason)
	}
	return w.Flush()
}

// failedSignIns is the line of `bastide status`: "" when nobody failed in the last day.
func failedSignIns(ctx context.Context, in *instance.Instance) (string, error) {
	sealed, err := openSealed(ctx, in, "etcd-root")
	if err != nil {
		return "", err
	}
	defer sealed.close()
	found, err := signin.ReadSignIns(ctx, sealed.store, time.Now().Add(-24*time.Hour), func(e *signin.Entry) bool { return e.Code != 0 })
	if err != nil || len(found) == 0 {
		return "", err
	}
	counted := signin.CountFailures(found)
	total := 0
	for _, f := range counted {
		total += f.Count
	}
	return fmt.Sprintf("%d failed sign-ins in the last day, most of them (%d) as %s from %s: bastide signins --failed",
		total, counted[0].Count, cmp.Or(counted[0].Name, "?"), cmp.Or(counted[0].Address, "-")), nil
}

func newConditionalAccess(g *global) *cobra.Command {
	cmd := &cobra.Command{Use: "conditional-access", Short: "Show conditional access policies; switch one off when nobody gets in"}
	cmd.AddCommand(&cobra.Command{
		Use: "list", Short: "List the policies", Args: cobra.NoArgs,
		RunE: g.inStore("bastide conditional-access list", func(cmd *cobra.Command, _ []string, s store.Store) error { return listPolicies(cmd, g.output, s) }),
	}, &cobra.Command{
		Use: "off POLICY", Short: "Disable a policy, by id or name", Args: cobra.ExactArgs(1),
		Long: `Disables a conditional access policy straight in the store: for when a policy keeps
out everybody who could change it. It holds from the next sign-in on, and is in the
directory's audit log. Otherwise policies are Microsoft Graph's to change:

  az rest -m patch -u $GRAPH/v1.0/identity/conditionalAccess/policies/ID -b '{"state":"disabled"}'`,
		RunE: g.inStore("bastide conditional-access off", func(cmd *cobra.Command, args []string, s store.Store) error {
			who := identity.AuditActor{Name: "root, with bastide conditional-access off"}
			if user := os.Getenv("SUDO_USER"); user != "" {
				who.Name = fmt.Sprintf("root (sudo by %.64q), with bastide conditional-access off", user)
			}
			off, err := signin.SwitchOff(identity.By(cmd.Context(), who), s, args[0], time.Now())
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "The policy %q (%s) is disabled.\n", off.Name, off.ID)
			return nil
		}),
	})
	return cmd
}

func listPolicies(cmd *cobra.Command, output string, from store.Store) error {
	found, err := signin.ReadPolicies(cmd.Context(), from)
	if err != nil {
		return err
	}
	directory, err := identity.New(identity.Config{Store: from, Endpoints: identity.Endpoints{Authority: "https://login", ResourceManager: "https://management", Graph: "https://graph"}})
	if err != nil {
		return err
	}
	service, err := signin.New(signin.Config{Store: from, Directory: directory})
	if err != nil {
		return err
	}
	guilty, err := service.LockedOut(cmd.Context())
	if err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	if output == "json" {
		return printJSON(cmd, found)
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tSTATE\tNAME")
	for _, p := range found {
		fmt.Fprintf(w, "%s\t%s\t%s\n", p.ID, p.State, p.Name)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, p := range guilty {
		fmt.Fprintf(cmd.OutOrStdout(), "\nWarning: %q keeps every Global Administrator from signing in. To switch it off: bastide conditional-access off %s\n", p.Name, p.ID)
	}
	return nil
}
