// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bastide.dev/client"
	"bastide.dev/mirror"
	"bastide.dev/node"
	"bastide.dev/nodeimage"
)

// patchesVersion is the API version that nodes' updates are asked for in.
const patchesVersion = "2026-03-01"

func newPackages(s *service, log *slog.Logger) (*mirror.Mirror, error) {
	return mirror.New(mirror.Config{Upstream: cmp.Or(s.in.Mirror, nodeimage.DefaultMirror), Dir: s.in.Dir("packages"), Log: log})
}

// nodePatchView is what is known of a node's updates.
type nodePatchView struct {
	Name       string `json:"name"`
	Properties struct {
		Pool           string             `json:"pool"`
		Upgradable     []node.Update      `json:"upgradable"`
		Looked         *time.Time         `json:"looked,omitempty"`
		LookError      string             `json:"lookError,omitempty"`
		RebootRequired bool               `json:"rebootRequired"`
		RebootPackages []string           `json:"rebootPackages,omitempty"`
		RebootSince    *time.Time         `json:"rebootSince,omitempty"`
		Running        bool               `json:"running"`
		Runs           []node.PatchStatus `json:"runs"`
	} `json:"properties"`
}

func newPatches(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "patches GROUP/CLUSTER | ID",
		Short: "List the security updates of a cluster's nodes",
		Long: `Lists which security updates the nodes of a cluster installed, and when; which they
know of and don't have; and who has to reboot. Nodes look for updates when they are
patched, and when they are asked to by "bastide patches look".`,
		Example: "  bastide patches shop/prod\n  bastide patches look shop/prod\n  bastide patches install shop/prod",
		Args:    cobra.ExactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return showPatches(cmd, g, args[0]) },
	}
	for _, c := range []struct{ use, short, action string }{
		{"look GROUP/CLUSTER | ID", "Let the nodes find out which security updates there are", "lookForPatches"},
		{"install GROUP/CLUSTER | ID", "Let the nodes install the security updates there are, within an hour", "patchNodes"},
	} {
		cmd.AddCommand(&cobra.Command{Use: c.use, Short: c.short, Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
			to, id, err := clusterAt(g, args[0])
			if err != nil {
				return err
			}
			if _, err = client.Post[map[string]any](cmd.Context(), to, id.String()+"/"+c.action, patchesVersion, map[string]any{}); err != nil {
				return answered(err)
			}
			return nil
		}})
	}
	return cmd
}

func showPatches(cmd *cobra.Command, g *global, name string) error {
	c, id, err := clusterAt(g, name)
	if err != nil {
		return err
	}
	nodes, err := client.List[nodePatchView](cmd.Context(), c, id.String()+"/nodePatches", patchesVersion)
	if err != nil {
		return answered(err)
	}
	if g.output == "json" {
		return printJSON(cmd, nodes)
	}
	return printPatches(cmd.OutOrStdout(), nodes)
}

func printPatches(out io.Writer, nodes []nodePatchView) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tWHEN\tPACKAGE\tFROM\tTO")
	for _, n := range nodes {
		p := &n.Properties
		for _, run := range p.Runs {
			for _, u := range run.Installed {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", n.Name, minuteOf(&run.Ended), u.Package, cmp.Or(u.From, "-"), u.To)
			}
			if note := runNote(run); note != "" {
				fmt.Fprintf(w, "%s\t%s\t(%s)\t\t\n", n.Name, minuteOf(&run.Ended), note)
			}
		}
		for _, u := range p.Upgradable {
			fmt.Fprintf(w, "%s\tmissing\t%s\t%s\t%s\n", n.Name, u.Package, u.From, u.To)
		}
		for _, note := range notesOf(n) {
			fmt.Fprintf(w, "%s\tnow\t(%s)\t\t\n", n.Name, note)
		}
	}
	return w.Flush()
}

func runNote(run node.PatchStatus) string {
	switch {
	case run.Error != "":
		return "failed: " + run.Error
	case run.Partial:
		return "the window ended before all was installed"
	case len(run.Installed) == 0:
		return "nothing to install"
	}
	return ""
}

func notesOf(n nodePatchView) []string {
	var notes []string
	p := &n.Properties
	if p.Running {
		notes = append(notes, "being patched")
	}
	if p.LookError != "" {
		notes = append(notes, "which updates there are isn't known: "+p.LookError)
	}
	if p.Looked == nil && len(p.Runs) == 0 && p.LookError == "" {
		notes = append(notes, "never looked for updates")
	}
	if p.RebootRequired {
		notes = append(notes, "has to reboot for "+cmp.Or(strings.Join(p.RebootPackages, " "), "a user's sake"))
	}
	return notes
}
