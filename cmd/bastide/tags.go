// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"bastide.dev/client"
	"bastide.dev/fault"
	"bastide.dev/instance"
	"bastide.dev/network"
)

const (
	tagType = network.OwnNamespace + "/serviceTags"
	// tagWriters is how many tags are written at a time.
	tagWriters = 8
)

// tagView is a service tag, as the front door shows it: the operator's, and in
// the list of all.
type tagView struct {
	Name       string `json:"name"`
	Properties struct {
		Prefixes []string `json:"addressPrefixes"`
	} `json:"properties"`
}

func newTags(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tags",
		Short: "Service tags of your own, for rules of network security groups",
		Long: `A service tag is a name for address prefixes that rules of network security groups
can use. Beside the built-in ones there are those that you load: the resources
Bastide.Network/serviceTags. A rule that names one follows its changes.`,
		Example: `  bastide tags load office.json
  bastide tags load ServiceTags_Public_20261116.json Storage.WestEurope AzureMonitor
  bastide tags list
  bastide tags delete Office`,
	}
	cmd.AddCommand(newTagsLoad(g), newTagsList(g), newTagsDelete(g))
	return cmd
}

func newTagsLoad(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "load FILE [NAME…]",
		Short: "Make, or change, service tags from a file: all of its tags, or those named",
		Long: `Reads a file of service tags: Azure's own download ("ServiceTags_Public_….json",
{"values": [{"name": …, "properties": {"addressPrefixes": […]}}]}), or simply
{"Office": ["198.51.100.0/24", …], …}. IPv6 prefixes are left out, and so are tags
that are built in here; it says how many.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			raw, err := os.ReadFile(args[0])
			if err != nil {
				return usageError{err}
			}
			tags, err := readTags(raw, args[1:])
			if err != nil {
				return usageError{fmt.Errorf("%s: %w", args[0], err)}
			}
			c, in, err := g.connect()
			if err != nil {
				return err
			}
			loaded, err := loadTags(cmd.Context(), c, in, tags)
			if g.output == "json" {
				return errors.Join(err, printJSON(cmd, loaded))
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "%d service tags loaded\n", len(loaded.Loaded))
			if loaded.IPv6 > 0 {
				fmt.Fprintf(out, "%d IPv6 prefixes left out: networks have IPv4 here\n", loaded.IPv6)
			}
			if len(loaded.Empty) > 0 {
				fmt.Fprintf(out, "%d tags left out that have no IPv4 prefix: %s\n", len(loaded.Empty), shortList(loaded.Empty))
			}
			if len(loaded.BuiltIn) > 0 {
				fmt.Fprintf(out, "%d tags left out that are built in: %s\n", len(loaded.BuiltIn), shortList(loaded.BuiltIn))
			}
			return err
		},
	}
}

// tagFile is what a file has, but for IPv6.
type tagFile struct {
	tags map[string][]string
	ipv6 int
}

// readTags reads either form of a file, of which only the names given count, if any.
func readTags(raw []byte, names []string) (tagFile, error) {
	var azure struct {
		Values []tagView `json:"values"`
	}
	lists := map[string][]string{}
	if err := json.Unmarshal(raw, &azure); err == nil && azure.Values != nil {
		for _, v := range azure.Values {
			lists[v.Name] = v.Properties.Prefixes
		}
	} else if err := json.Unmarshal(raw, &lists); err != nil {
		return tagFile{}, fmt.Errorf("neither Azure's form of service tags nor {\"Name\": [\"prefix\", …]}: %w", err)
	}
	file := tagFile{tags: map[string][]string{}}
	for _, name := range names {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(lists)), func(has string) bool { return strings.EqualFold(has, name) }) {
			return file, fault.New(fault.NotFound, "ServiceTagNotFound", "there is no service tag %s in it", name)
		}
	}
	for name, prefixes := range lists {
		if len(names) > 0 && !slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) }) {
			continue
		}
		kept := []string{}
		for _, text := range prefixes {
			if isIPv6(text) {
				file.ipv6++
				continue
			}
			kept = append(kept, text)
		}
		file.tags[name] = kept
	}
	return file, nil
}

func isIPv6(text string) bool {
	if p, err := netip.ParsePrefix(text); err == nil {
		return p.Addr().Is6()
	}
	a, err := netip.ParseAddr(text)
	return err == nil && a.Is6()
}

// loadedTags is what became of a file.
type loadedTags struct {
	Loaded  []string `json:"loaded"`
	BuiltIn []string `json:"builtIn"`          // left out
	Empty   []string `json:"withoutIPv4"`      // left out
	IPv6    int      `json:"ipv6PrefixesLeft"` // left out
}

// loadTags writes all tags, and tells what it did also when some were refused.
func loadTags(ctx context.Context, c *client.Client, in *instance.Instance, file tagFile) (loadedTags, error) {
	done := loadedTags{Loaded: []string{}, BuiltIn: []string{}, Empty: []string{}, IPv6: file.ipv6}
	names := slices.Sorted(maps.Keys(file.tags))
	results := make([]error, len(names))
	var writers sync.WaitGroup
	turns := make(chan struct{}, tagWriters)
	for i, name := range names {
		if len(file.tags[name]) == 0 {
			continue
		}
		turns <- struct{}{}
		writers.Go(func() {
			defer func() { <-turns }()
			body := map[string]any{"properties": map[string]any{"addressPrefixes": file.tags[name]}}
			_, err := client.Put[any](ctx, c, tagID(in, name), ownVersion, body)
			results[i] = answered(err)
		})
	}
	writers.Wait()
	var refused []error
	for i, name := range names {
		var f *fault.Error
		switch err := results[i]; {
		case len(file.tags[name]) == 0:
			done.Empty = append(done.Empty, name)
		case err == nil:
			done.Loaded = append(done.Loaded, name)
		case errors.As(err, &f) && f.Code == "ServiceTagNameTaken":
			done.BuiltIn = append(done.BuiltIn, name)
		default:
			refused = append(refused, fmt.Errorf("service tag %s: %w", name, err))
		}
	}
	return done, errors.Join(refused...)
}

func tagID(in *instance.Instance, name string) string {
	return "/subscriptions/" + in.Subscription + "/providers/" + tagType + "/" + name
}

func newTagsList(g *global) *cobra.Command {
	all := false
	cmd := &cobra.Command{
		Use: "list", Short: "List the service tags that were loaded", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, in, err := g.connect()
			if err != nil {
				return err
			}
			tags, err := listTags(cmd.Context(), c, in, all)
			if err != nil {
				return answered(err)
			}
			if g.output == "json" {
				return printJSON(cmd, tags)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tPREFIXES\tADDRESSES")
			for _, t := range tags {
				fmt.Fprintf(w, "%s\t%d\t%s\n", t.Name, len(t.Properties.Prefixes), shortList(t.Properties.Prefixes))
			}
			return w.Flush()
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "also the built-in ones")
	return cmd
}

func listTags(ctx context.Context, c *client.Client, in *instance.Instance, all bool) ([]tagView, error) {
	if !all {
		return client.List[tagView](ctx, c, "/subscriptions/"+in.Subscription+"/providers/"+tagType, ownVersion)
	}
	found, err := client.Get[struct {
		Values []tagView `json:"values"`
	}](ctx, c, "/subscriptions/"+in.Subscription+"/providers/"+network.Namespace+"/locations/"+in.Location+"/serviceTags", networkVersion)
	return found.Values, err
}

func newTagsDelete(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME", Short: "Remove a service tag that no rule names", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, in, err := g.connect()
			if err != nil {
				return err
			}
			return answered(c.Delete(cmd.Context(), tagID(in, args[0]), ownVersion))
		},
	}
}
