// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"bastide.dev/client"
	"bastide.dev/fault"
	"bastide.dev/instance"
)

const (
	pimVersion   = "2020-10-01"
	stageVersion = "2021-01-01-preview"
	pimProvider  = "/providers/Microsoft.Authorization/"
)

// pimItem is what people are shown of schedules and requests.
type pimItem struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Properties struct {
		Scope            string     `json:"scope"`
		PrincipalID      string     `json:"principalId"`
		RoleDefinitionID string     `json:"roleDefinitionId"`
		RequestType      string     `json:"requestType,omitempty"`
		Status           string     `json:"status"`
		Justification    string     `json:"justification,omitempty"`
		ApprovalID       string     `json:"approvalId,omitempty"`
		AssignmentType   string     `json:"assignmentType,omitempty"`
		EndDateTime      *time.Time `json:"endDateTime,omitempty"`
		CreatedOn        *time.Time `json:"createdOn,omitempty"`
		Expanded         struct {
			Principal struct {
				DisplayName string `json:"displayName"`
			} `json:"principal"`
			Role struct {
				DisplayName string `json:"displayName"`
			} `json:"roleDefinition"`
		} `json:"expandedProperties"`
	} `json:"properties"`
}

// pimCaller is somebody signed in to az: roles are activated by people.
type pimCaller struct {
	*client.Client
	in *instance.Instance
	id string // object id
}

func newPIMCommand(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pim",
		Short: "Roles you are eligible for: activate them for a while, approve, end",
		Long: `Privileged Identity Management of Azure roles, as whoever is signed in to az
(eval "$(bastide env)", then az login). Administrators make principals eligible and set
policies through Resource Manager's API (az rest, the Azure SDKs, OpenTofu).`,
		Example: `  bastide pim eligible
  bastide pim activate Contributor shop --for 2h --because "incident 7"
  bastide pim requests
  bastide pim approve 3f0c… --because "on call"
  bastide pim end Contributor shop`,
	}
	cmd.AddCommand(newPIMList(g, "eligible", "List the roles that you may activate", "roleEligibilityScheduleInstances"),
		newPIMList(g, "active", "List the roles that are active for a while", "roleAssignmentScheduleInstances"),
		newPIMList(g, "requests", "List requests: yours, and those that you may approve or read", "roleAssignmentScheduleRequests"),
		newPIMActivate(g), newPIMEnd(g), newPIMReview(g, "approve", "Approve"), newPIMReview(g, "deny", "Deny"))
	return cmd
}

// pimCaller connects with az's sign-in.
func (g *global) pimCaller(cmd *cobra.Command) (*pimCaller, error) {
	in, err := g.load()
	if err != nil {
		return nil, err
	}
	view, err := client.LoadInstance(in.StateDir)
	if err != nil {
		return nil, err
	}
	credential, err := azidentity.NewAzureCLICredential(nil)
	if err != nil {
		return nil, fmt.Errorf("az: %w", err)
	}
	c, err := client.New(client.Config{Instance: view, Credential: credential})
	if err != nil {
		return nil, err
	}
	token, err := c.Token(cmd.Context(), view.ResourceManager())
	if err != nil {
		return nil, fault.New(fault.Unauthorized, "", "az isn't signed in to this instance: eval \"$(bastide env)\", then az login.").Because(err)
	}
	id, err := callerOf(token)
	return &pimCaller{Client: c, in: in, id: id}, err
}

// callerOf reads who a token is about. Nothing is decided by it: the front door checks the token.
func callerOf(token string) (string, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "", errors.New("the token of az isn't one of this instance")
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct{ OID string }
	if err == nil {
		err = json.Unmarshal(raw, &claims)
	}
	if err != nil || claims.OID == "" {
		return "", errors.New("the token of az isn't one of this instance")
	}
	return claims.OID, nil
}

func newPIMList(g *global, use, short, collection string) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		c, err := g.pimCaller(cmd)
		if err != nil {
			return err
		}
		found, err := client.List[pimItem](cmd.Context(), c.Client, "/subscriptions/"+c.in.Subscription+pimProvider+collection, pimVersion)
		if err != nil {
			return answered(err)
		}
		if g.output == "json" {
			return printJSON(cmd, found)
		}
		return printPIM(cmd.OutOrStdout(), found)
	}}
}

func printPIM(out io.Writer, found []pimItem) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ROLE\tSCOPE\tPRINCIPAL\tSTATUS\tUNTIL\tREQUEST\tJUSTIFICATION")
	for _, i := range found {
		p := i.Properties
		until, request := "-", "-"
		if p.EndDateTime != nil {
			until = p.EndDateTime.Local().Format(time.DateTime)
		}
		if p.RequestType != "" {
			request = p.RequestType + " " + i.Name
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", cmp.Or(p.Expanded.Role.DisplayName, p.RoleDefinitionID), p.Scope,
			cmp.Or(p.Expanded.Principal.DisplayName, p.PrincipalID), cmp.Or(p.Status, p.AssignmentType, "-"), until, request, cmp.Or(p.Justification, "-"))
	}
	return w.Flush()
}

func newPIMActivate(g *global) *cobra.Command {
	var length time.Duration
	var because, ticket string
	cmd := &cobra.Command{
		Use: "activate ROLE SCOPE", Short: "Activate a role that you are eligible for", Args: cobra.ExactArgs(2),
		Long: "Activates a role, by its name or GUID, for a while.\n\n" + scopeHelp,
		RunE: func(cmd *cobra.Command, args []string) error {
			if length < 5*time.Minute {
				return usageError{errors.New("--for: a role is activated for 5 minutes at least")}
			}
			return runPIM(cmd, g, args, "SelfActivate", map[string]any{"justification": because, "ticketInfo": map[string]any{"ticketNumber": ticket},
				"scheduleInfo": map[string]any{"expiration": map[string]any{"type": "AfterDuration", "duration": fmt.Sprintf("PT%dM", int(length.Minutes()))}}})
		},
	}
	cmd.Flags().DurationVar(&length, "for", time.Hour, "how long")
	cmd.Flags().StringVar(&because, "because", "", "the `reason`, which the activity log keeps")
	cmd.Flags().StringVar(&ticket, "ticket", "", "the `number` of a ticket")
	return cmd
}

func newPIMEnd(g *global) *cobra.Command {
	return &cobra.Command{Use: "end ROLE SCOPE", Short: "End an activation before its time", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runPIM(cmd, g, args, "SelfDeactivate", map[string]any{})
		}}
}

// runPIM sends a request about a role of one's own and says how it stands.
func runPIM(cmd *cobra.Command, g *global, args []string, kind string, properties map[string]any) error {
	c, err := g.pimCaller(cmd)
	if err != nil {
		return err
	}
	scope, err := accessScope(c.in, args[1])
	if err != nil {
		return err
	}
	role, err := c.roleNamed(cmd, args[0])
	if err != nil {
		return err
	}
	properties["requestType"], properties["principalId"], properties["roleDefinitionId"] = kind, c.id, role
	made, err := client.Put[pimItem](cmd.Context(), c.Client, strings.TrimSuffix(scope, "/")+pimProvider+"roleAssignmentScheduleRequests/"+uuid.NewString(), pimVersion, map[string]any{"properties": properties})
	if err != nil {
		return answered(err)
	}
	if g.output == "json" {
		return printJSON(cmd, made)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s: %s (request %s)\n", args[0], made.Properties.Status, made.Name)
	return nil
}

// roleNamed finds a role's id by its GUID, or by its name among those that the caller is eligible for.
func (c *pimCaller) roleNamed(cmd *cobra.Command, name string) (string, error) {
	prefix := "/subscriptions/" + c.in.Subscription + pimProvider + "roleDefinitions/"
	if uuid.Validate(name) == nil {
		return prefix + name, nil
	}
	found, err := client.List[pimItem](cmd.Context(), c.Client, "/subscriptions/"+c.in.Subscription+pimProvider+"roleEligibilityScheduleInstances", pimVersion)
	if err != nil {
		return "", answered(err)
	}
	for _, i := range found {
		if strings.EqualFold(i.Properties.Expanded.Role.DisplayName, name) {
			return i.Properties.RoleDefinitionID, nil
		}
	}
	return "", fault.New(fault.NotFound, "", "You are eligible for no role %q: see bastide pim eligible.", name)
}

func newPIMReview(g *global, use, result string) *cobra.Command {
	var because string
	cmd := &cobra.Command{Use: use + " REQUEST", Short: result + " another's request", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		c, err := g.pimCaller(cmd)
		if err != nil {
			return err
		}
		found, err := client.List[pimItem](cmd.Context(), c.Client, "/subscriptions/"+c.in.Subscription+pimProvider+"roleAssignmentScheduleRequests", pimVersion)
		if err != nil {
			return answered(err)
		}
		for _, i := range found {
			if !strings.EqualFold(i.Name, args[0]) || i.Properties.ApprovalID == "" {
				continue
			}
			stage := i.Properties.ApprovalID + "/stages/" + i.Name
			body := map[string]any{"properties": map[string]any{"reviewResult": result, "justification": because}}
			if _, err := client.Put[pimItem](cmd.Context(), c.Client, stage, stageVersion, body); err != nil {
				return answered(err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %s for %s\n", result, i.Properties.Expanded.Role.DisplayName, cmp.Or(i.Properties.Expanded.Principal.DisplayName, i.Properties.PrincipalID))
			return nil
		}
		return fault.New(fault.NotFound, "", "There is no request %q that waits for an approval of yours: see bastide pim requests.", args[0])
	}}
	cmd.Flags().StringVar(&because, "because", "", "the `reason`, which is needed")
	return cmd
}
