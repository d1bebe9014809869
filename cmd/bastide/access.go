// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bastide.dev/authorization"
	"bastide.dev/client"
	"bastide.dev/instance"
	"bastide.dev/rbac"
	"bastide.dev/resource"
)

// errDenied is the exit code of `bastide access explain` alone: all was said already.
var errDenied = errors.New("denied")

const scopeHelp = `A SCOPE is a resource id of any depth ("/" is everything), or shorter:

  subscription              the instance's subscription
  GROUP                     a resource group of it
  GROUP/CLUSTER             a cluster
  GROUP/CLUSTER/NAMESPACE   a namespace in it`

func newWhoCan(g *global) *cobra.Command {
	var data bool
	cmd := &cobra.Command{
		Use:   "who-can ACTION SCOPE",
		Short: "List who may do something, and by which role assignment",
		Long: `Lists the principals whose role assignments grant an action on a scope, near
scopes first, and the members of groups among them.

An ACTION is one of Azure's, such as Microsoft.ContainerService/managedClusters/write.
With --data it is one on data: inside of a cluster, such as
Microsoft.ContainerService/managedClusters/pods/read.

` + scopeHelp + `

A role assignment with a condition is listed, with the condition: whether it is met
depends on the request. It takes the right to read role assignments on the scope.`,
		Example: `  bastide who-can Microsoft.ContainerService/managedClusters/delete shop/prod
  bastide who-can Microsoft.ContainerService/managedClusters/secrets/read shop/prod/payments --data
  bastide who-can Microsoft.Authorization/roleAssignments/write subscription -o json`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: completeAccess(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			answer, err := askAccess[authorization.WhoCan](cmd, g, "whoCan", args[1], authorization.Question{Action: args[0], Data: data})
			if err != nil {
				return err
			}
			if g.output == "json" {
				return printJSON(cmd, answer)
			}
			return printWhoCan(cmd.OutOrStdout(), &answer)
		},
	}
	cmd.Flags().BoolVar(&data, "data", false, "the action is one on data, such as inside of a cluster")
	return cmd
}

func newAccess(g *global) *cobra.Command {
	cmd := &cobra.Command{Use: "access", Short: "Role assignments, and what they grant"}
	cmd.AddCommand(newExplain(g))
	return cmd
}

func newExplain(g *global) *cobra.Command {
	var data bool
	cmd := &cobra.Command{
		Use:   "explain PRINCIPAL ACTION SCOPE",
		Short: "Say whether somebody may do something, and which role assignment decides",
		Long: `Says whether a principal may do an action on a scope, by which role assignment and
through which group; or else what keeps them from it.

A PRINCIPAL is a user's name, an application's id, or the object id of a user,
group or service principal. For ACTION and --data see "bastide who-can".

` + scopeHelp + `

Exit codes: 0 allowed; 1 denied; 2 wrong call; 3 no such principal.`,
		Example: `  bastide access explain alice@bastide.test Microsoft.ContainerService/managedClusters/write shop/prod
  bastide access explain alice@bastide.test Microsoft.ContainerService/managedClusters/pods/read shop/prod/web --data`,
		Args:              cobra.ExactArgs(3),
		ValidArgsFunction: completeAccess(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			answer, err := askAccess[authorization.Explanation](cmd, g, "explain", args[2], authorization.Question{Principal: args[0], Action: args[1], Data: data})
			if err != nil {
				return err
			}
			if g.output == "json" {
				err = printJSON(cmd, answer)
			} else {
				err = printExplanation(cmd.OutOrStdout(), &answer)
			}
			if err == nil && !answer.Allowed {
				return errDenied
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&data, "data", false, "the action is one on data, such as inside of a cluster")
	return cmd
}

// completeAccess offers the actions that built-in roles name one by one.
func completeAccess(at int) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) != at {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var found []cobra.Completion
		for _, d := range rbac.Builtin() {
			for _, p := range d.Permissions {
				for _, action := range slices.Concat(p.Actions, p.DataActions) {
					if !strings.Contains(action, "*") && strings.HasPrefix(strings.ToLower(action), strings.ToLower(typed)) {
						found = append(found, action)
					}
				}
			}
		}
		slices.Sort(found)
		return slices.Compact(found), cobra.ShellCompDirectiveNoFileComp
	}
}

// accessScope is the resource id that a scope on the command line means.
func accessScope(in *instance.Instance, text string) (string, error) {
	subscription := resource.SubscriptionID(in.Subscription)
	scope := text
	if !strings.HasPrefix(text, "/") {
		parts := strings.Split(text, "/")
		id := resource.GroupID(in.Subscription, parts[0])
		switch {
		case strings.EqualFold(text, "subscription"):
			id = subscription
		case len(parts) == 2:
			id = id.Resource("Microsoft.ContainerService", "managedClusters", parts[1])
		case len(parts) == 3:
			id = id.Resource("Microsoft.ContainerService", "managedClusters", parts[1]).Child("namespaces", parts[2])
		case len(parts) > 3:
			return "", usageError{fmt.Errorf("scope %q: say GROUP, GROUP/CLUSTER, GROUP/CLUSTER/NAMESPACE or a resource id, which begins with a slash", text)}
		}
		scope = id.String()
	}
	if _, err := resource.ParseID(scope); err != nil {
		return "", usageError{fmt.Errorf("scope %q isn't a resource id: %w", text, err)}
	}
	return strings.TrimSuffix(scope, "/"), nil
}

func askAccess[T any](cmd *cobra.Command, g *global, action, scope string, q authorization.Question) (T, error) {
	var none T
	c, in, err := g.connect()
	if err != nil {
		return none, err
	}
	at, err := accessScope(in, scope)
	if err != nil {
		return none, err
	}
	answer, err := client.Post[T](cmd.Context(), c, at+"/providers/"+authorization.OwnNamespace+"/questions/default/"+action, authorization.QuestionsVersion, q)
	return answer, answered(err)
}

func printWhoCan(out io.Writer, a *authorization.WhoCan) error {
	if len(a.Grants) == 0 {
		_, err := fmt.Fprintf(out, "Nobody may do %s on %s.\n", a.Action, a.Scope)
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WHO\tTYPE\tROLE\tON")
	for _, h := range a.Grants {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", holderName(h.Name, h.PrincipalID), h.PrincipalType, h.Role, h.Scope)
		for _, m := range h.Members {
			fmt.Fprintf(w, "  %s\t%s\tthrough %s\t\n", holderName(m.Name, m.ID), m.Type, holderName(h.Name, h.PrincipalID))
		}
		if h.Condition != "" {
			fmt.Fprintf(w, "  if %s\t\t\t\n", strings.Join(strings.Fields(h.Condition), " "))
		}
		if !h.Expires.IsZero() {
			fmt.Fprintf(w, "  until %s\t\t\t\n", h.Expires.Local().Format(time.DateTime))
		}
	}
	return w.Flush()
}

func holderName(name, id string) string {
	if name == "" {
		return id + " (gone)"
	}
	return name
}

func printExplanation(out io.Writer, a *authorization.Explanation) error {
	verdict := "DENIED"
	if a.Allowed {
		verdict = "ALLOWED"
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%s: %s\n", verdict, a.Reason)
	fmt.Fprintf(w, "%s\t%s\n%s\t%s\n%s\t%s\n", "Principal", a.Principal.Name+" ("+a.Principal.ID+")", "Action", a.Action, "Scope", a.Scope)
	if a.Grant != nil {
		fmt.Fprintf(w, "Role\t%s\nAssignment\t%s\n", a.Grant.Role, a.Grant.Assignment)
	}
	if a.Through != nil {
		fmt.Fprintf(w, "Through group\t%s (%s)\n", a.Through.Name, a.Through.ID)
	}
	return w.Flush()
}
