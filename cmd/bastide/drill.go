// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bastide.dev/client"
	"bastide.dev/drill"
	"bastide.dev/netpolicy"
	"bastide.dev/nodeimage"
)

// labCloses is how long removing what drills made may take.
const labCloses = 5 * time.Minute

func newDrill(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "drill",
		Short: "Attack the instance's security controls, and see whether they hold",
		Long: `Each drill attacks one control of the network, of identity or of a cluster's life: it
shows that the attack works without the control, switches the control on through the
API that AKS or Microsoft Entra ID has for it, shows that the attack fails, and takes
the control away again. What was tried, from where, how long it took and which rule
decided is kept as evidence.

Drills make a resource group of their own, with clusters, machines and people, and
remove all of it at the end. Nothing of yours is touched.`,
		Example: "  bastide drill list\n  sudo bastide drill run\n  sudo bastide drill run nsg-source-range --report /tmp/drills",
	}
	cmd.AddCommand(newDrillList(g), newDrillRun(g))
	return cmd
}

func newDrillList(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the drills and the controls that they prove", Args: cobra.NoArgs,
		Example: "  bastide drill list\n  bastide drill list --output json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if g.output == "json" {
				type row struct {
					ID       string `json:"id"`
					Title    string `json:"title"`
					Control  string `json:"control"`
					Explains string `json:"explains"`
				}
				rows := []row{}
				for _, d := range drill.All() {
					rows = append(rows, row{d.ID, d.Title, d.Control, d.Explains})
				}
				return printJSON(cmd, rows)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "DRILL\tCONTROL")
			for _, d := range drill.All() {
				fmt.Fprintf(w, "%s\t%s\n", d.ID, d.Control)
			}
			return w.Flush()
		},
	}
}

type drillOptions struct {
	all      bool
	keep     bool
	report   string
	busybox  string
	parallel int
}

func newDrillRun(g *global) *cobra.Command {
	o := drillOptions{}
	cmd := &cobra.Command{
		Use: "run [DRILL…]", Short: "Run drills, all of them when none is named",
		Long: `Runs drills and prints whether each control held. The report, report.json and
report.html, has the evidence. The exit code is 1 when a drill failed; a drill
also fails when its attack didn't work without the control, since then it has
proved nothing.

Needs root on the instance's machine: attacks are sent from the network
namespaces of terminals on the instance's Internet. Needs ssh, and a static
busybox for the pods that attack (Debian: openssh-client, busybox-static).`,
		Example: `  sudo bastide drill run                              # all, about four minutes
  sudo bastide drill run api-server-authorized-ranges
  sudo bastide drill run --report ./evidence --output json
  sudo bastide drill run policy-zero-trust --keep     # leave the cluster to look at`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.all && len(args) > 0 {
				return usageError{errors.New("name drills or say --all, not both")}
			}
			if err := mustBeRoot("drill run"); err != nil {
				return err
			}
			return runDrills(cmd, g, o, args)
		},
	}
	cmd.Flags().BoolVar(&o.all, "all", false, "run all drills, as when none is named")
	cmd.Flags().BoolVar(&o.keep, "keep", false, "leave the drills' resource group there")
	cmd.Flags().StringVar(&o.report, "report", "", "`directory` for report.json and report.html (default: a new one under the state directory)")
	cmd.Flags().StringVar(&o.busybox, "busybox", "/bin/busybox", "static busybox that attacking pods are made of")
	cmd.Flags().IntVar(&o.parallel, "parallel", 3, "how many drills run at once")
	return cmd
}

func runDrills(cmd *cobra.Command, g *global, o drillOptions, ids []string) error {
	chosen, err := drill.Select(ids)
	if err != nil {
		return err
	}
	if _, err := exec.LookPath("ssh"); err != nil {
		return usageError{errors.New("drills need ssh: install Debian's package openssh-client")}
	}
	in, err := g.load()
	if err != nil {
		return err
	}
	view, err := client.LoadInstance(in.StateDir)
	if err != nil {
		return err
	}
	secrets, err := client.LoadSecrets(in.StateDir)
	if err != nil {
		return err
	}
	c, err := client.New(client.Config{Instance: view, Secrets: secrets})
	if err != nil {
		return err
	}
	lab, err := drill.NewLab(drill.LabConfig{Instance: view, Secrets: secrets, Client: c, ZeroTrust: netpolicy.ZeroTrust,
		WebImage: nodeimage.WebImage, Busybox: o.busybox, BreakGlass: breakGlass(in), Unpatched: unpatched(in.CacheDir)})
	if err != nil {
		return err
	}
	p := newProgress(cmd.ErrOrStderr())
	p.say("Running %d drills in resource group %s", len(chosen), lab.Group())
	report := drill.Run(cmd.Context(), drill.Config{Lab: lab, Drills: chosen, Parallel: o.parallel, Progress: func(r *drill.Record) { told(p, r) }})
	report.Instance, report.Versions["bastide"] = in.Name, version()
	closing, cancel := context.WithTimeout(context.WithoutCancel(cmd.Context()), labCloses)
	defer cancel()
	closed := p.step("Removing what the drills made", func() error { return lab.Close(closing, o.keep) })
	if o.keep {
		p.say("Kept: resource group %s; keys and kubeconfigs in %s", lab.Group(), lab.Dir())
	}
	dir := o.report
	if dir == "" {
		dir = in.Dir("drills", report.Started.UTC().Format("20060102-150405"))
	}
	if err := report.Write(dir); err != nil {
		return errors.Join(err, closed)
	}
	if g.output == "json" {
		err = printJSON(cmd, report)
	} else {
		fmt.Fprintf(cmd.OutOrStdout(), "\n%d passed, %d failed in %s; the evidence: %s/report.html\n", report.Passed, report.Failed,
			seconds(time.Duration(report.Seconds*float64(time.Second))), dir)
	}
	if report.Failed > 0 {
		err = errors.Join(err, fmt.Errorf("%d of %d drills failed", report.Failed, len(report.Drills)))
	}
	return errors.Join(err, closed)
}

// unpatched is the newest node image without security updates. It is built when
// there is none, which takes a minute and Debian's archive.
func unpatched(cacheDir string) func(ctx context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		have, err := nodeimage.ListVariant(cacheDir, nodeimage.Unpatched)
		if err != nil {
			return "", err
		}
		if len(have) > 0 {
			return have[0].Version, nil
		}
		image, err := nodeimage.Build(ctx, nodeimage.Config{Cache: cacheDir, Variant: nodeimage.Unpatched})
		if err != nil {
			return "", err
		}
		return image.Version, nil
	}
}

// told shows how a drill ended, and how fast its control came and went.
func told(p *progress, r *drill.Record) {
	mark := "✓"
	if r.Outcome != drill.Passed {
		mark = "✗"
	}
	held := ""
	if r.EnforcedMillis > 0 {
		held = fmt.Sprintf("   held after %5.0f ms, open again after %5.0f ms", r.EnforcedMillis, r.ReleasedMillis)
	}
	p.say("%s %-32s %8s%s", mark, r.ID, seconds(time.Duration(r.Seconds*float64(time.Second))), held)
	if r.Reason != "" {
		p.say("    %s", r.Reason)
	}
}
