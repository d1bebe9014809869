// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bastide.dev/arm"
	"bastide.dev/cluster"
	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// lookEvery is how often `status --watch` looks.
const lookEvery = time.Second / 2

// watched is one line of `status --watch`: how far an operation has come, or how it ended.
type watched struct {
	Time time.Time `json:"time"`
	cluster.Progress
	Ended resource.State `json:"ended,omitempty"`
	Took  string         `json:"took,omitempty"`
	Error string         `json:"error,omitempty"`
}

// watchProgress tells each change of the operations on clusters until ctx ends.
// A store that can't be reached for a while is waited for.
func watchProgress(ctx context.Context, s store.Store, tell func(watched)) error {
	operations := arm.NewOperations(s, nil)
	last := map[string]cluster.Progress{}
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		if err := lookOnce(ctx, s, operations, last, tell); err != nil && ctx.Err() == nil && !fault.Is(err, fault.Unavailable) {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// lookOnce tells what is other than last, and keeps it there.
func lookOnce(ctx context.Context, s store.Store, operations *arm.Operations, last map[string]cluster.Progress, tell func(watched)) error {
	all, err := cluster.ReadProgress(ctx, s)
	if err != nil {
		return err
	}
	running := map[string]bool{}
	for _, p := range all {
		running[p.Operation] = true
		if known, found := last[p.Operation]; !found || known != p {
			last[p.Operation] = p
			tell(watched{Time: time.Now(), Progress: p})
		}
	}
	for id, p := range last {
		if running[id] {
			continue
		}
		op, err := operations.Get(ctx, id)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
		if err == nil && !op.Done() {
			continue
		}
		delete(last, id)
		p.Waits = ""
		end := watched{Time: time.Now(), Progress: p, Ended: resource.Canceled}
		if err == nil {
			end.Ended, end.Took = op.Status, seconds(op.End.Sub(op.Start))
			if op.Error != nil {
				end.Error = op.Error.Message
			}
		}
		tell(end)
	}
	return nil
}

// watchStatus is `bastide status --watch`.
func watchStatus(cmd *cobra.Command, g *global, s store.Store) error {
	print := func(w watched) { fmt.Fprintln(cmd.OutOrStdout(), w.line()) }
	if g.output == "json" {
		print = func(w watched) { _ = printJSON(cmd, w) } // whoever reads it no longer ends the command
	}
	return watchProgress(cmd.Context(), s, print)
}

// line is the change for people: what, how far, and what it waits for. Reasons
// come from inside clusters, and may hold anything.
func (w watched) line() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s  ", w.Time.Format(time.TimeOnly), operationName(w.Resource))
	switch {
	case w.Ended != "":
		fmt.Fprintf(&b, "%s: %s", w.State, w.Ended)
		if w.Took != "" {
			fmt.Fprintf(&b, " after %s", w.Took)
		}
		if w.Error != "" {
			b.WriteString(": " + w.Error)
		}
	default:
		fmt.Fprintf(&b, "%s", w.State)
		if w.Total > 0 {
			fmt.Fprintf(&b, "  %d of %d nodes", w.Done, w.Total)
		}
		if w.Waits != "" {
			b.WriteString("  " + w.Waits)
		}
	}
	return shown(b.String())
}

// operationName is what an operation is on, in short: "c1" or "c1/nodepool1".
func operationName(id string) string {
	parsed, err := resource.ParseID(id)
	if err != nil {
		return id
	}
	if parsed.IsChild() {
		return parsed.Parent().Name() + "/" + parsed.Name()
	}
	return parsed.Name()
}
