// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bastide.dev/bundle"
	"bastide.dev/instance"
	"bastide.dev/nodeimage"
)

func newBundle(g *global) *cobra.Command {
	var cacheDir, source string
	cmd := &cobra.Command{Use: "bundle", Short: "Build, import and list the upstream parts"}
	cmd.PersistentFlags().StringVar(&cacheDir, "cache-dir", instance.DefaultCache, "`directory` of bundles and node images")
	list := &cobra.Command{
		Use: "list", Short: "List the bundles on this machine", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := bundle.List(cacheDir)
			if err != nil {
				return err
			}
			if g.output == "json" {
				return printJSON(cmd, all)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "BUNDLE\tVERSION\tCOMPONENT\tCOMPONENT VERSION\tORIGIN")
			for _, m := range all {
				origin := "built"
				if m.Imported() {
					origin = "imported"
				}
				for _, c := range m.Components {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", m.Name, m.Version, c.Name, c.Version, origin)
				}
			}
			return w.Flush()
		},
	}
	build := &cobra.Command{
		Use: "build [NAME[@VERSION]...]", Short: "Build the bundles that aren't current, from the checkout",
		Example: "  bastide bundle build\n  bastide bundle build kubernetes@1.36.3 runtime etcd",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := mustBeRoot("bastide bundle build"); err != nil {
				return err
			}
			_, err := bundle.Build(cmd.Context(), bundle.BuildConfig{Source: source, Cache: cacheDir, Progress: newProgress(cmd.OutOrStdout()).event}, args...)
			return err
		},
	}
	build.Flags().StringVar(&source, "source", ".", "`directory` of the checkout")
	imports := &cobra.Command{
		Use: "import DIR", Short: "Make a Kubernetes bundle of the official release binaries in a folder", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := mustBeRoot("bastide bundle import"); err != nil {
				return err
			}
			b, err := bundle.Import(cmd.Context(), cacheDir, args[0])
			if err != nil {
				return err
			}
			newProgress(cmd.OutOrStdout()).say("imported %s with %d components", b.ID(), len(b.Components))
			return nil
		},
	}
	cmd.AddCommand(list, build, imports)
	return cmd
}

// event shows the end of each step of a build; a step that only verified is quick and not shown.
func (p *progress) event(e bundle.Event) {
	if e.Done && e.Elapsed > time.Second/2 {
		fmt.Fprintf(p.out, "✓ %-48s %8s\n", e.Bundle+" "+e.Step, seconds(e.Elapsed))
	} else if !e.Done && e.Step != "verify" && e.Step != "wait" {
		fmt.Fprintf(p.out, "… %s %s\n", e.Bundle, e.Step)
	}
}

func printJSON(cmd *cobra.Command, v any) error {
	out := json.NewEncoder(cmd.OutOrStdout())
	out.SetIndent("", "  ")
	return out.Encode(v)
}

func newImage(g *global) *cobra.Command {
	var cacheDir, suites string
	var fresh bool
	cmd := &cobra.Command{Use: "image", Short: "Node images, and images for pods"}
	cmd.PersistentFlags().StringVar(&cacheDir, "cache-dir", instance.DefaultCache, "`directory` of bundles and node images")
	list := &cobra.Command{
		Use: "list", Short: "List node images, and the pod images in the instance's registry", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return listImages(cmd, g, cacheDir) },
	}
	build := &cobra.Command{
		Use: "build", Short: "Build a node image of Debian's packages, if the newest isn't current", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := mustBeRoot("bastide image build"); err != nil {
				return err
			}
			image, err := nodeimage.Build(cmd.Context(), nodeimage.Config{Cache: cacheDir, Fresh: fresh, Variant: suites, Progress: newProgress(cmd.OutOrStdout()).event})
			if err != nil {
				return err
			}
			newProgress(cmd.OutOrStdout()).say("node image %s", image.Version)
			return nil
		},
	}
	build.Flags().BoolVar(&fresh, "fresh", false, "take today's Debian packages, patches included, even if the recipe is unchanged")
	build.Flags().StringVar(&suites, "suites", "", "`main`: an image of the release alone, without its updates, to try patching with; it is never the latest")
	load := &cobra.Command{
		Use: "load FILE [NAME[:TAG]]", Short: "Put a pod image (docker archive or OCI layout) into the instance's registry",
		Example: "  docker save myapp:1 | bastide image load /dev/stdin myapp:1\n  bastide image load layout/ team/app:2",
		Args:    cobra.RangeArgs(1, 2),
		RunE:    func(cmd *cobra.Command, args []string) error { return loadImage(cmd, g, args) },
	}
	cmd.AddCommand(list, build, load)
	return cmd
}
