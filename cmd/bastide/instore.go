// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"bastide.dev/store"
)

// inStore makes a command of what root does straight in the instance's store.
func (g *global) inStore(what string, run func(*cobra.Command, []string, store.Store) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := mustBeRoot(what); err != nil {
			return err
		}
		in, err := g.load()
		if err != nil {
			return err
		}
		sealed, err := openSealed(cmd.Context(), in, "etcd-root")
		if err != nil {
			return err
		}
		defer sealed.close()
		return run(cmd, args, sealed.store)
	}
}
