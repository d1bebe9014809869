// SPDX-License-Identifier: Apache-2.0

// Command bastide-netpolicy keeps network policies in a node's kernel: as
// `agent` it is the node's policy agent, and called as CNI does, it is the
// plugin that holds pods back until the agent is done. As `pull-credentials` it is
// kubelet's way in to the instance's registry. One binary for all of it, as each
// of a machine's files is in its memory.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"bastide.dev/netpolicy"
	"bastide.dev/netpolicy/agent"
	"bastide.dev/netpolicy/cni"
	"bastide.dev/netpolicy/linux"
	"bastide.dev/pull"
)

func main() { os.Exit(run(os.Args, os.Stderr)) }

func run(args []string, stderr io.Writer) int {
	if os.Getenv("CNI_COMMAND") != "" {
		cni.Main() // it exits itself after an error
		return 0
	}
	if len(args) > 1 && args[1] == pull.Command {
		if err := pull.Run(context.Background(), args[2:], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(stderr, "bastide-netpolicy:", err)
			return 1
		}
		return 0
	}
	if len(args) != 2 || args[1] != "agent" {
		fmt.Fprintln(stderr, "bastide-netpolicy: it is no command of a person's: nodes start it as `agent`, container runtimes as a CNI plugin")
		return 2
	}
	if err := runAgent(stderr); err != nil {
		fmt.Fprintln(stderr, "bastide-netpolicy:", err)
		return 1
	}
	return 0
}

func runAgent(stderr io.Writer) error {
	syscall.Umask(0o077)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	data, err := os.ReadFile(netpolicy.ConfigPath)
	if err != nil {
		return err
	}
	config := agent.Config{Logger: slog.New(slog.NewTextHandler(stderr, nil))}
	if err := json.Unmarshal(data, &config.AgentConfig); err != nil {
		return fmt.Errorf("%s: %w", netpolicy.ConfigPath, err)
	}
	kernel, err := linux.New()
	if err != nil {
		return err
	}
	config.Kernel = kernel
	a, err := agent.New(config)
	if err != nil {
		return err
	}
	return a.Run(ctx)
}
