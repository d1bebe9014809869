// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"bastide.dev/client"
	"bastide.dev/nodeimage"
	"bastide.dev/registry"
)

// registryTarget is the instance's registry, with the service principal's sign-in.
func registryTarget(g *global) (registry.Target, error) {
	in, err := g.load()
	if err != nil {
		return registry.Target{}, err
	}
	view, err := client.LoadInstance(in.StateDir)
	if err != nil {
		return registry.Target{}, err
	}
	secrets, err := client.LoadSecrets(in.StateDir)
	if err != nil {
		return registry.Target{}, err
	}
	transport, err := view.Transport()
	if err != nil {
		return registry.Target{}, err
	}
	return registry.Target{Host: in.Host("registry"), Transport: transport, Username: view.ClientID, Password: secrets.ClientSecret}, nil
}

func loadImage(cmd *cobra.Command, g *global, args []string) error {
	target, err := registryTarget(g)
	if err != nil {
		return err
	}
	options := registry.LoadOptions{File: args[0]}
	if len(args) > 1 {
		options.Ref = args[1]
	}
	loaded, err := registry.Load(cmd.Context(), target, options)
	if err != nil {
		return err
	}
	if g.output == "json" {
		return printJSON(cmd, loaded)
	}
	for _, image := range loaded {
		fmt.Fprintf(cmd.OutOrStdout(), "%s  %s\n", image.Ref, image.Digest)
	}
	return nil
}

func listImages(cmd *cobra.Command, g *global, cacheDir string) error {
	images, err := nodeimage.List(cacheDir)
	if err != nil {
		return err
	}
	unpatched, err := nodeimage.ListVariant(cacheDir, nodeimage.Unpatched)
	if err != nil {
		return err
	}
	images = append(images, unpatched...)
	var repositories []registry.Repository
	if target, err := registryTarget(g); err == nil {
		if repositories, err = registry.List(cmd.Context(), target); err != nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "bastide: the registry doesn't answer: %v\n", err)
		}
	}
	if g.output == "json" {
		return printJSON(cmd, map[string]any{"nodeImages": images, "podImages": repositories})
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NODE IMAGE\tPACKAGES")
	for _, m := range images {
		fmt.Fprintf(w, "%s\t%d\n", m.Version, len(m.Packages))
	}
	if len(repositories) > 0 {
		fmt.Fprintln(w, "\nPOD IMAGE\tTAGS")
	}
	for _, r := range repositories {
		fmt.Fprintf(w, "%s\t%v\n", r.Name, r.Tags)
	}
	return w.Flush()
}
