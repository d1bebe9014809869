// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"

	"github.com/spf13/cobra"

	"bastide.dev/client"
)

func newEnv(g *global) *cobra.Command {
	var shell string
	cmd := &cobra.Command{
		Use:   "env",
		Short: "Print the environment that points az, the SDKs and kubectl at the instance",
		Long: `Prints shell commands: a private AZURE_CONFIG_DIR whose cloud is the instance, the
bundle of certificate authorities, AZURE_* and ARM_* variables of its service
principal, KUBECONFIG and PATH. The output holds a secret.`,
		Example: "  eval \"$(bastide env)\"\n  bastide env --shell fish | source\n  bastide env -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			in, err := g.load()
			if err != nil {
				return err
			}
			view, err := client.LoadInstance(in.StateDir)
			if err != nil {
				return err
			}
			secrets, err := client.LoadSecrets(in.StateDir)
			if err != nil {
				return err
			}
			variables := append(view.Environment(secrets, os.Getenv),
				client.Variable{Name: "BASTIDE_INSTANCE", Value: in.Name},
				client.Variable{Name: "BASTIDE_STATE_DIR", Value: in.StateDir},
				client.Variable{Name: "BASTIDE_DOMAIN", Value: in.Domain},
				client.Variable{Name: "BASTIDE_REGISTRY", Value: in.Host("registry")})
			if g.output == "json" {
				all := map[string]string{}
				for _, v := range variables {
					all[v.Name] = v.Value
				}
				out := json.NewEncoder(cmd.OutOrStdout())
				out.SetIndent("", "  ")
				return out.Encode(all)
			}
			text, err := client.Render(client.Shell(shell), variables)
			if err != nil {
				return usageError{err}
			}
			_, err = cmd.OutOrStdout().Write([]byte(text + client.RenderCommand(client.Shell(shell), view.Login(secrets))))
			return err
		},
	}
	cmd.Flags().StringVar(&shell, "shell", string(client.Sh), "`syntax` of the output: sh or fish")
	return cmd
}
