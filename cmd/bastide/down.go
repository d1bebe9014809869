// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bastide.dev/cgroup"
	"bastide.dev/fault"
	"bastide.dev/instance"
)

// downDeadline bounds a stop: what doesn't end by itself is killed long before.
const downDeadline = 2 * time.Minute

func newDown(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Stop the instance; its state stays",
		Long: `Stops the service, the host daemon, every control plane and every machine, and
takes away what they had in the kernel: processes, namespaces, mounts, cgroups,
links, nftables tables, hosts entries. State stays on disk, and ` + "`bastide up`" + `
brings the same clusters back. It is safe to repeat.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := mustBeRoot("bastide down"); err != nil {
				return err
			}
			in, err := g.load()
			if fault.Is(err, fault.NotFound) {
				newProgress(cmd.OutOrStdout()).say("There is no instance %q: nothing to stop.", g.name)
				return nil
			}
			if err != nil {
				return err
			}
			return runDown(cmd.Context(), in, newProgress(cmd.OutOrStdout()))
		},
	}
}

func runDown(ctx context.Context, in *instance.Instance, p *progress) error {
	ctx, cancel := context.WithTimeout(ctx, downDeadline)
	defer cancel()
	if err := p.step("Stopping the service and the host", func() error { return stopDaemon(ctx, in) }); err != nil {
		return err
	}
	return p.step("Stopping clusters and their network", func() error { return stopMechanism(ctx, in) })
}

// stopMechanism stops all that a host started; the host itself has ended.
func stopMechanism(ctx context.Context, in *instance.Instance) error {
	m, err := newMechanism(in, nil, quiet())
	if err != nil {
		return err
	}
	all, err := m.boxes.Status(ctx)
	if err != nil {
		return err
	}
	results := make(chan error)
	for _, machine := range all {
		go func() { results <- m.boxes.Stop(ctx, machine.ID) }()
	}
	go func() { results <- m.planes.Halt(ctx) }()
	var failed []error
	for range len(all) + 1 {
		failed = append(failed, <-results)
	}
	failed = append(failed, m.boxes.Close(), m.plane.Down(ctx), m.plane.Close(), cgroup.Delete("bastide-"+in.Name))
	if err := errors.Join(failed...); err != nil {
		return err
	}
	return os.RemoveAll(in.RunDir())
}

func newClean(g *global) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "clean",
		Short: "Stop the instance and remove all of its state",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := mustBeRoot("bastide clean"); err != nil {
				return err
			}
			p := newProgress(cmd.OutOrStdout())
			in, err := g.load()
			if fault.Is(err, fault.NotFound) {
				p.say("There is no instance %q: nothing to remove.", g.name)
				return nil
			}
			if err != nil {
				return err
			}
			if !yes {
				p.say("This removes instance %q with all its clusters and data in %s. Type its name to go on:", in.Name, in.StateDir)
				answer, _ := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
				if strings.TrimSpace(answer) != in.Name {
					return usageError{errors.New("not confirmed, nothing was removed (--yes goes without asking)")}
				}
			}
			if err := runDown(cmd.Context(), in, p); err != nil {
				return err
			}
			return p.step("Removing its state", func() error { return removeState(in) })
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "don't ask")
	return cmd
}

func removeState(in *instance.Instance) error {
	// A mount that is still there would be emptied with the directory.
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return fmt.Errorf("remove state: %w", err)
	}
	if strings.Contains(string(mounts), " "+in.StateDir+"/") {
		return fmt.Errorf("remove state: something is still mounted below %s: run `bastide down` again", in.StateDir)
	}
	if err := os.RemoveAll(in.StateDir); err != nil {
		return fmt.Errorf("remove state: %w", err)
	}
	return instance.Leave(in.Name)
}
