// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bastide.dev/client"
	"bastide.dev/fault"
	"bastide.dev/instance"
)

const (
	networkVersion = "2024-05-01"
	groupType      = "/providers/Microsoft.Network/networkSecurityGroups"
	watchEvery     = time.Second
)

// groupView is a network security group, as far as it is shown.
type groupView struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Properties struct {
		Rules      []ruleView `json:"securityRules"`
		Defaults   []ruleView `json:"defaultSecurityRules"`
		Interfaces []linkView `json:"networkInterfaces"`
		Subnets    []linkView `json:"subnets"`
	} `json:"properties"`
}

type linkView struct {
	ID string `json:"id"`
}

type ruleView struct {
	Name       string `json:"name"`
	Properties struct {
		Priority         int        `json:"priority"`
		Direction        string     `json:"direction"`
		Access           string     `json:"access"`
		Protocol         string     `json:"protocol"`
		Source           string     `json:"sourceAddressPrefix"`
		Sources          []string   `json:"sourceAddressPrefixes"`
		SourceGroups     []linkView `json:"sourceApplicationSecurityGroups"`
		Destination      string     `json:"destinationAddressPrefix"`
		Destinations     []string   `json:"destinationAddressPrefixes"`
		DestinationGroup []linkView `json:"destinationApplicationSecurityGroups"`
		Port             string     `json:"destinationPortRange"`
		Ports            []string   `json:"destinationPortRanges"`
	} `json:"properties"`
}

// countedRule is a rule with what the kernel counted for it.
type countedRule struct {
	Name        string   `json:"name"`
	Priority    int      `json:"priority"`
	Direction   string   `json:"direction"`
	Access      string   `json:"access"`
	Protocol    string   `json:"protocol"`
	Source      []string `json:"source"`
	Destination []string `json:"destination"`
	Ports       []string `json:"ports"`
	Default     bool     `json:"default,omitempty"`
	Packets     uint64   `json:"packets"`
	Bytes       uint64   `json:"bytes"`
}

// groupCounts is what `bastide nsg show` tells.
type groupCounts struct {
	ID         string        `json:"id"`
	Subnets    []string      `json:"subnets"`
	Interfaces []string      `json:"interfaces"`
	Rules      []countedRule `json:"rules"`
}

func newNSG(g *global) *cobra.Command {
	cmd := &cobra.Command{Use: "nsg", Short: "Network security groups as the kernel has them"}
	cmd.AddCommand(newNSGShow(g), newNSGLog(g))
	return cmd
}

func newNSGShow(g *global) *cobra.Command {
	watch := false
	cmd := &cobra.Command{
		Use:   "show NAME | GROUP/NAME | ID",
		Short: "Show a security group's rules by priority, with packets and bytes of each",
		Long: `Shows where a network security group applies and its rules, its default ones
among them, in the order in which they are asked, with what each has decided: the
packets that began a connection, and their bytes, since the group is in the kernel.

With --watch the counters are shown anew every second until it is interrupted; with
-o json each time as a document of its own.`,
		Example: `  bastide nsg show jump-nsg
  bastide nsg show MC_rg_prod_westeurope/aks-agentpool-12345678-nsg --watch
  bastide nsg show jump-nsg -o json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return showNSG(cmd, g, args[0], watch) },
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "go on until interrupted")
	return cmd
}

func showNSG(cmd *cobra.Command, g *global, name string, watch bool) error {
	c, in, err := g.connect()
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	id, err := findGroup(ctx, c, in, name)
	if err != nil {
		return err
	}
	for {
		counts, err := readGroup(ctx, c, id)
		switch {
		case err != nil:
			return answered(err)
		case g.output == "json":
			err = printJSON(cmd, counts)
		default:
			err = printGroup(cmd.OutOrStdout(), &counts)
		}
		if err != nil || !watch {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(watchEvery):
			fmt.Fprintln(cmd.OutOrStdout())
		}
	}
}

// findGroup finds a group by its id, its name, or group and name.
func findGroup(ctx context.Context, c *client.Client, in *instance.Instance, name string) (string, error) {
	if strings.HasPrefix(name, "/") {
		return name, nil
	}
	if group, own, both := strings.Cut(name, "/"); both {
		return "/subscriptions/" + in.Subscription + "/resourceGroups/" + group + groupType + "/" + own, nil
	}
	all, err := client.List[groupView](ctx, c, "/subscriptions/"+in.Subscription+groupType, networkVersion)
	if err != nil {
		return "", answered(err)
	}
	var found []string
	for _, one := range all {
		if strings.EqualFold(one.Name, name) {
			found = append(found, one.ID)
		}
	}
	switch len(found) {
	case 0:
		return "", fault.New(fault.NotFound, "ResourceNotFound", "There is no network security group %s.", name)
	case 1:
		return found[0], nil
	}
	return "", usageError{fmt.Errorf("several network security groups are named %s: say GROUP/NAME or an id: %s", name, strings.Join(found, ", "))}
}

func readGroup(ctx context.Context, c *client.Client, id string) (groupCounts, error) {
	view, err := client.Get[groupView](ctx, c, id, networkVersion)
	if err != nil {
		return groupCounts{}, err
	}
	counted, err := client.Post[struct {
		Value []struct {
			Name    string `json:"name"`
			Packets uint64 `json:"packets"`
			Bytes   uint64 `json:"bytes"`
		} `json:"value"`
	}](ctx, c, id+"/counters", networkVersion, nil)
	if err != nil {
		return groupCounts{}, err
	}
	counts := groupCounts{ID: view.ID, Subnets: ids(view.Properties.Subnets), Interfaces: ids(view.Properties.Interfaces)}
	for i, list := range [][]ruleView{view.Properties.Rules, view.Properties.Defaults} {
		for _, r := range list {
			one := r.counted()
			one.Default = i == 1
			for _, n := range counted.Value {
				if strings.EqualFold(n.Name, r.Name) {
					one.Packets, one.Bytes = n.Packets, n.Bytes
				}
			}
			counts.Rules = append(counts.Rules, one)
		}
	}
	slices.SortStableFunc(counts.Rules, func(a, b countedRule) int {
		return cmp.Or(strings.Compare(a.Direction, b.Direction), cmp.Compare(a.Priority, b.Priority))
	})
	return counts, nil
}

func (r *ruleView) counted() countedRule {
	p := &r.Properties
	return countedRule{Name: r.Name, Priority: p.Priority, Direction: p.Direction, Access: p.Access, Protocol: p.Protocol,
		Source: either(p.Source, p.Sources, p.SourceGroups), Destination: either(p.Destination, p.Destinations, p.DestinationGroup),
		Ports: either(p.Port, p.Ports, nil)}
}

// either is what a rule says in one of several properties.
func either(one string, many []string, groups []linkView) []string {
	list := slices.Clone(many)
	if one != "" {
		list = append(list, one)
	}
	for _, g := range groups {
		list = append(list, g.ID[strings.LastIndex(g.ID, "/")+1:])
	}
	return list
}

func ids(links []linkView) []string {
	list := make([]string, len(links))
	for i, l := range links {
		list[i] = l.ID
	}
	return list
}

func printGroup(out io.Writer, counts *groupCounts) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, counts.ID)
	for _, s := range append(slices.Clone(counts.Subnets), counts.Interfaces...) {
		fmt.Fprintf(w, "  on %s\n", s)
	}
	if len(counts.Subnets)+len(counts.Interfaces) == 0 {
		fmt.Fprintln(w, "  on no subnet and no interface: it decides nothing")
	}
	direction := ""
	for _, r := range counts.Rules {
		if r.Direction != direction {
			direction = r.Direction
			fmt.Fprintf(w, "\n%s\tNAME\tACCESS\tPROTOCOL\tSOURCE\tDESTINATION\tPORTS\tPACKETS\tBYTES\n", strings.ToUpper(direction))
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\n", r.Priority, r.Name, r.Access, r.Protocol,
			shortList(r.Source), shortList(r.Destination), shortList(r.Ports), r.Packets, r.Bytes)
	}
	return w.Flush()
}

// shortList keeps a line readable; JSON has all.
func shortList(all []string) string {
	const most = 3
	if len(all) > most {
		return strings.Join(all[:most], ",") + fmt.Sprintf(",… (%d)", len(all))
	}
	return strings.Join(all, ",")
}
