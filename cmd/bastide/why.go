// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"bastide.dev/client"
	"bastide.dev/network"
	"bastide.dev/why"
)

// errUnreachable is the exit code of `bastide why` alone: all was said already.
var errUnreachable = errors.New("not reachable")

type whyOptions struct {
	from, to  string
	udp, icmp bool
	probe     bool
	all       bool
}

func newWhy(g *global) *cobra.Command {
	var o whyOptions
	cmd := &cobra.Command{
		Use:   "why --from END --to END[:PORT]",
		Short: "Say whether a connection gets through, hop by hop, and which rule decides",
		Long: `Walks the first packet of a connection, and its answer, through the tables that
the kernel has: network policies, Services, nodes, network security groups, routes,
peerings, load balancers, authorised ranges and ways out. The first line says
whether it gets there, and the one rule that decides.

An END is one of:

  pod/NAMESPACE/NAME                a pod
  service/NAMESPACE/NAME[:PORT]     a Service; PORT is a number or a port's name
  node/NAME                         a node itself
  vm/NAME or vm/GROUP/NAME          a virtual machine
  terminal/NAME                     a client outside (see "bastide outside")
  apiserver/CLUSTER                 a cluster's API server
  internet or internet:ADDRESS      any public address outside, or this one
  ADDRESS or a DNS name             whatever has it

With several clusters, @CLUSTER or @GROUP/CLUSTER behind a pod or Service says which.
Connections are TCP unless --udp or --icmp is given.

--probe also sends real packets from where the connection begins, and says whether
they agree. From "internet" that needs a terminal: "bastide outside create".

What listens in a virtual machine isn't known without --probe: then the answer is
about the network alone. Where a balancer or a Service has several back ends, each
is a way of its own; "some" means that not all of them are open.

Exit codes: 0 reachable; 1 not, or not by all ways; 2 wrong call; 3 no such end.`,
		Example: `  bastide why --from pod/shop/front-7d9 --to service/shop/cart:80
  bastide why --from internet --to service/shop/web@prod --probe
  bastide why --from vm/jump --to apiserver/prod
  bastide why --from pod/shop/front-7d9 --to internet:443
  bastide why --from terminal/me --to vm/jump:22 -o json
  bastide why --from node/aks-nodepool1-12345678-vmss000000 --to 168.63.129.16:53 --udp`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runWhy(cmd, g, o) },
	}
	cmd.Flags().StringVar(&o.from, "from", "", "`end` where the connection begins")
	cmd.Flags().StringVar(&o.to, "to", "", "`end` that it goes to, with a port")
	cmd.Flags().BoolVar(&o.udp, "udp", false, "a UDP datagram")
	cmd.Flags().BoolVar(&o.icmp, "icmp", false, "an echo request")
	cmd.Flags().BoolVar(&o.probe, "probe", false, "send real packets, too, and compare")
	cmd.Flags().BoolVar(&o.all, "all", false, "show every way hop by hop, not one of each kind")
	cmd.MarkFlagsMutuallyExclusive("udp", "icmp")
	for _, flag := range []string{"from", "to"} {
		if err := cmd.RegisterFlagCompletionFunc(flag, completeEnd); err != nil {
			panic(err) // the flag is defined above
		}
	}
	return cmd
}

// completeEnd offers the kinds of ends; their names are the instance's to know.
func completeEnd(_ *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	var kinds []cobra.Completion
	for _, kind := range []string{"pod/", "service/", "node/", "vm/", "terminal/", "apiserver/", "internet"} {
		if strings.HasPrefix(kind, typed) {
			kinds = append(kinds, kind)
		}
	}
	return kinds, cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
}

func (o whyOptions) request() (whyRequest, error) {
	r := whyRequest{Question: why.Question{From: o.from, To: o.to, Protocol: "TCP"}, Probe: o.probe}
	if o.from == "" || o.to == "" {
		return r, usageError{errors.New("say both ends: bastide why --from END --to END:PORT")}
	}
	if o.udp {
		r.Protocol = "UDP"
	}
	if o.icmp {
		r.Protocol = "ICMP"
	}
	return r, nil
}

func runWhy(cmd *cobra.Command, g *global, o whyOptions) error {
	request, err := o.request()
	if err != nil {
		return err
	}
	c, in, err := g.connect()
	if err != nil {
		return err
	}
	id := "/subscriptions/" + in.Subscription + "/providers/" + network.OwnNamespace + "/diagnostics/default/why"
	answer, err := client.Post[why.Answer](cmd.Context(), c, id, ownVersion, request)
	if err != nil {
		return answered(err)
	}
	if g.output == "json" {
		err = printJSON(cmd, answer)
	} else {
		err = printWhy(cmd.OutOrStdout(), &answer, o.all)
	}
	if err == nil && answer.Reachable != why.Yes {
		return errUnreachable
	}
	return err
}

// printWhy puts the verdict first, then the ways: unless all are wanted, those
// that end as an earlier one did take a line each.
func printWhy(out io.Writer, a *why.Answer, all bool) error {
	verdict := map[why.Reachable]string{why.Yes: "REACHABLE", why.No: "NOT REACHABLE", why.Some: "PARTLY REACHABLE"}[a.Reachable]
	port := ""
	if a.Port != 0 {
		port = fmt.Sprintf(":%d", a.Port)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%s: %s\n", verdict, a.By)
	if a.Rule != "" {
		fmt.Fprintf(w, "Decided by %s\n", a.Rule)
	}
	fmt.Fprintf(w, "%s from %s to %s%s\n", a.Protocol, a.From, a.To, port)
	shown := map[string]bool{}
	for i := range a.Paths {
		p := &a.Paths[i]
		kind := "open" // which of several allowing rules was the last tells little
		if !p.Reachable {
			kind = "closed by " + p.Rule
		}
		printPath(w, p, i+1, len(a.Paths), all || !shown[kind])
		shown[kind] = true
	}
	printRemarks(w, a)
	return w.Flush()
}

func printPath(w io.Writer, p *why.Path, n, of int, hops bool) {
	if hops {
		fmt.Fprintln(w)
	}
	if of > 1 {
		state := "open"
		if !p.Reachable {
			state = "closed. " + p.By
		}
		fmt.Fprintf(w, "Way %d of %d, to %s: %s\n", n, of, p.To, state)
	}
	if !hops {
		return
	}
	where := ""
	for _, h := range p.Hops {
		shown := h.Where
		if shown == where {
			shown = ""
		}
		where = h.Where
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s\n", shown, h.What, h.Verdict, h.Rule)
	}
}

func printRemarks(w io.Writer, a *why.Answer) {
	if len(a.Notes) > 0 || a.Stale || a.Probe != nil {
		fmt.Fprintln(w)
	}
	for _, note := range a.Notes {
		fmt.Fprintln(w, "Note: "+note)
	}
	for _, at := range a.StaleAt {
		fmt.Fprintf(w, "Note: the kernel doesn't have the newest state of %s yet: the answer is what will hold then.\n", at)
	}
	if p := a.Probe; p != nil {
		agrees := "agrees"
		if !p.Agrees {
			agrees = "DOESN'T AGREE"
		}
		fmt.Fprintf(w, "Probe: %s; expected: %s; %s (%d sent)\n", p.Measured, p.Expected, agrees, p.Sent)
		for _, d := range p.Details {
			fmt.Fprintln(w, "  "+d)
		}
	}
}
