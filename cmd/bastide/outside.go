// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"bastide.dev/client"
	"bastide.dev/instance"
)

// terminalView is a terminal, as the front door shows it.
type terminalView struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Properties struct {
		Address   string `json:"address"`
		Namespace string `json:"namespace"`
		Host      string `json:"host"`
	} `json:"properties"`
}

type outsideOptions struct{ group, address string }

func newOutside(g *global) *cobra.Command {
	o := &outsideOptions{}
	cmd := &cobra.Command{
		Use:   "outside",
		Short: "Clients on the instance's Internet, outside of every virtual network",
		Long: `A terminal is a client on the instance's Internet: a network namespace of this
machine with a public address of the instance, and its names. What runs in one reaches
load balancers, jump hosts and API servers as anybody on the Internet would, or is
refused as they would be. They are the resources Bastide.Network/terminals.`,
		Example: `  bastide outside create me
  bastide outside run me -- curl -s http://shop.westeurope.cloudapp.bastide.test
  bastide outside run me -- ssh azureuser@192.88.99.14
  bastide why --from terminal/me --to vm/jump:22 --probe
  bastide outside delete me`,
	}
	cmd.PersistentFlags().StringVarP(&o.group, "resource-group", "g", "outside", "`name` of the terminals' resource group")
	cmd.AddCommand(newOutsideCreate(g, o), newOutsideList(g), newOutsideDelete(g, o), newOutsideRun(g, o))
	return cmd
}

func (o *outsideOptions) groupID(in *instance.Instance) string {
	return "/subscriptions/" + in.Subscription + "/resourceGroups/" + o.group
}

func (o *outsideOptions) id(in *instance.Instance, name string) string {
	return o.groupID(in) + "/providers/" + terminalType + "/" + name
}

func newOutsideCreate(g *global, o *outsideOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Make a terminal, and its resource group if need be",
		Example: "  bastide outside create me\n  bastide outside create office --address 192.88.99.77",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, in, err := g.connect()
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			if _, err := client.Put[any](ctx, c, o.groupID(in), "2021-04-01", map[string]any{"location": in.Location}); err != nil {
				return answered(err)
			}
			properties := map[string]any{}
			if o.address != "" {
				properties["address"] = o.address
			}
			view, err := client.Put[terminalView](ctx, c, o.id(in, args[0]), ownVersion, map[string]any{"properties": properties})
			if err != nil {
				return answered(err)
			}
			if g.output == "json" {
				return printJSON(cmd, view)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s has %s: bastide outside run %[1]s -- COMMAND\n", view.Name, view.Properties.Address)
			return err
		},
	}
	cmd.Flags().StringVar(&o.address, "address", "", "`address` of the instance's public ones (default: any)")
	return cmd
}

func newOutsideList(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List all terminals", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, in, err := g.connect()
			if err != nil {
				return err
			}
			all, err := client.List[terminalView](cmd.Context(), c, "/subscriptions/"+in.Subscription+"/providers/"+terminalType, ownVersion)
			if err != nil {
				return answered(err)
			}
			if g.output == "json" {
				return printJSON(cmd, all)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tADDRESS\tNAMESPACE\tID")
			for _, t := range all {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", t.Name, t.Properties.Address, t.Properties.Namespace, t.ID)
			}
			return w.Flush()
		},
	}
}

func newOutsideDelete(g *global, o *outsideOptions) *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME", Short: "Remove a terminal, and end its address's use", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, in, err := g.connect()
			if err != nil {
				return err
			}
			return answered(c.Delete(cmd.Context(), o.id(in, args[0]), ownVersion))
		},
	}
}

func newOutsideRun(g *global, o *outsideOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run NAME -- COMMAND [ARGUMENT…]",
		Short: "Run a command in a terminal's network",
		Long: `Runs a command in a terminal's network namespace, with the instance's name server
as its resolver, in this directory and as root. Its exit code is the command's.`,
		Example: `  bastide outside run me -- curl -sk https://prod-1a2b3c4d.hcp.westeurope.bastide.test/version
  bastide outside run me -- kubectl get nodes
  bastide outside run me -- bash`,
		Args: func(_ *cobra.Command, args []string) error {
			if _, command := terminalCommand(args); len(command) == 0 {
				return errors.New("say what to run: bastide outside run NAME -- COMMAND")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := mustBeRoot("bastide outside run"); err != nil {
				return err
			}
			c, in, err := g.connect()
			if err != nil {
				return err
			}
			name, command := terminalCommand(args)
			view, err := client.Get[terminalView](cmd.Context(), c, o.id(in, name), ownVersion)
			if err != nil {
				return answered(err)
			}
			return execOutside(in, view.Properties.Namespace, command)
		},
	}
	cmd.Flags().SetInterspersed(false) // what follows the name is the command's
	return cmd
}

// terminalCommand takes the terminal's name and the -- from a command.
func terminalCommand(args []string) (name string, command []string) {
	if len(args) == 0 {
		return "", nil
	}
	command = args[1:]
	if len(command) > 0 && command[0] == "--" {
		command = command[1:]
	}
	return args[0], command
}
