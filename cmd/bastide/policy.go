// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"regexp"

	"github.com/spf13/cobra"

	"bastide.dev/netpolicy"
)

func newPolicy() *cobra.Command {
	cmd := &cobra.Command{Use: "policy", Short: "Network policies to begin with"}
	cmd.AddCommand(newZeroTrust())
	return cmd
}

// namespaceForm is a Kubernetes namespace's name (RFC 1123 label).
var namespaceForm = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

func newZeroTrust() *cobra.Command {
	within := false
	cmd := &cobra.Command{
		Use: "zero-trust NAMESPACE", Short: "Print network policies that deny all but DNS in a namespace",
		Example: "  bastide policy zero-trust shop | kubectl apply -f -\n  bastide policy zero-trust shop --allow-within",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !namespaceForm.MatchString(args[0]) {
				return usageError{fmt.Errorf("%q isn't a namespace's name: small letters, digits and -, at most 63", args[0])}
			}
			_, err := fmt.Fprint(cmd.OutOrStdout(), netpolicy.ZeroTrust(args[0], within))
			return err
		},
	}
	cmd.Flags().BoolVar(&within, "allow-within", false, "let the namespace's pods reach each other")
	return cmd
}
