// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"

	machine "bastide.dev/machine/linux"
	node "bastide.dev/node/linux"
)

func main() {
	var err error
	switch os.Args[1] {
	case machine.InitCommand:
		err = machine.Init()
	case machine.NodeCommand:
		err = node.Main(os.Args[2:])
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
