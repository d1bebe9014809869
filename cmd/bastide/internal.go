// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"

	machine "bastide.dev/machine/linux"
	node "bastide.dev/node/linux"
)

// runInternal handles the two commands that Bastide itself calls inside
// machines, before anything of the command line is set up.
func runInternal(args []string, stderr io.Writer) (code int, ran bool) {
	if len(args) < 2 {
		return 0, false
	}
	var err error
	switch args[1] {
	case machine.InitCommand:
		err = machine.Init()
	case machine.NodeCommand:
		err = node.Main(args[2:])
	default:
		return 0, false
	}
	if err != nil {
		fmt.Fprintln(stderr, "bastide:", err)
		return exitFailed, true
	}
	return exitOK, true
}
