// SPDX-License-Identifier: Apache-2.0

// Command bastide-node is the agent inside a machine: stage 1 of its boot, and
// then its PID 1. It holds those two commands of bastide and nothing else, as
// every machine pays for what its PID 1 carries, and a tenant has it in hand.
// See docs/decisions/0007-an-agent-of-its-own.md.
package main

import (
	"fmt"
	"io"
	"os"

	machine "bastide.dev/machine/linux"
	node "bastide.dev/node/linux"
)

func main() { os.Exit(run(os.Args, os.Stderr)) }

func run(args []string, stderr io.Writer) int {
	command := ""
	if len(args) > 1 {
		command = args[1]
	}
	err := fmt.Errorf("it is no command of a person's: machines start it as %s and %s", machine.InitCommand, machine.NodeCommand)
	switch command {
	case machine.InitCommand:
		err = machine.Init()
	case machine.NodeCommand:
		err = node.Main(args[2:])
	}
	if err != nil {
		fmt.Fprintln(stderr, "bastide-node:", err)
		return 1
	}
	return 0
}
