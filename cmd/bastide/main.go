// SPDX-License-Identifier: Apache-2.0

// Command bastide is an AKS that you run yourself: the service, its host
// daemon, the agent inside machines and the command line, in one binary.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"bastide.dev/fault"
	"bastide.dev/instance"
)

// Exit codes, as `bastide help` documents them.
const (
	exitOK       = 0
	exitFailed   = 1 // it was tried and failed
	exitUsage    = 2 // the call or a setting is wrong; nothing was done
	exitNotFound = 3 // what was named isn't there
)

func main() { os.Exit(run(os.Args, os.Stdin, os.Stdout, os.Stderr)) }

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	root := newRoot()
	root.SetArgs(args[1:])
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return exitCode(root.ExecuteContext(ctx), stderr)
}

func exitCode(err error, stderr io.Writer) int {
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errUnreachable), errors.Is(err, errDenied):
		return exitFailed // an answer, not an error
	}
	printError(stderr, err)
	var usage usageError
	switch {
	case errors.As(err, &usage), fault.Is(err, fault.Invalid):
		return exitUsage
	case fault.Is(err, fault.NotFound):
		return exitNotFound
	}
	return exitFailed
}

func printError(w io.Writer, err error) {
	var f *fault.Error
	if errors.As(err, &f) && len(f.Details) > 0 {
		fmt.Fprintln(w, "bastide: several things are wrong:")
		for _, d := range f.Details {
			fmt.Fprintf(w, "  %s: %s\n", d.Target, d.Message)
		}
		return
	}
	if errors.As(err, &f) && f.Cause == nil && err.Error() == f.Error() {
		fmt.Fprintln(w, "bastide:", f.Message)
		return
	}
	fmt.Fprintln(w, "bastide:", err)
}

// usageError is a wrong call, as cobra found it.
type usageError struct{ error }

// global are the flags that every command has.
type global struct {
	name     string
	stateDir string
	output   string
}

func (g *global) load() (*instance.Instance, error) { return instance.Load(g.name, g.stateDir) }

func newRoot() *cobra.Command {
	g := &global{}
	root := &cobra.Command{
		Use:   "bastide",
		Short: "An AKS that you run yourself",
		Long: `Bastide is a managed-Kubernetes service with the API and the security of Azure
Kubernetes Service, on your own Linux machine. az, the Azure SDKs, kubectl and
helm work unchanged; underneath stands real Kubernetes.

  bastide up                  start the instance on this machine
  eval "$(bastide env)"       point az, the SDKs and kubectl at it
  az aks create -g rg -n c1   make a cluster
  bastide status              see what runs
  bastide why --from A --to B say which rule decides about a connection
  bastide down                stop all; state stays

Exit codes: 0 done; 1 failed; 2 wrong call or setting, nothing was done; 3 not found.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version(),
	}
	root.PersistentFlags().StringVar(&g.name, "instance", envOr("BASTIDE_INSTANCE", instance.DefaultName), "`name` of the instance")
	root.PersistentFlags().StringVar(&g.stateDir, "state-dir", os.Getenv("BASTIDE_STATE_DIR"), "`directory` of the instance's state (default /var/lib/bastide/NAME)")
	root.PersistentFlags().StringVarP(&g.output, "output", "o", "text", "`form` of what is printed: text or json")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(
		newUp(g), newDown(g), newClean(g), newStatus(g), newEnv(g),
		newWhy(g), newWhoCan(g), newAccess(g), newNSG(g), newTags(g), newOutside(g), newIdentity(g),
		newSignIns(g), newDirectory(g), newConditionalAccess(g), newPIMCommand(g), newMaintenance(g), newReboots(g), newPatches(g), newCertificates(g), newRotateCA(g), newKubeconfig(g),
		newBundle(g), newImage(g), newVersions(g), newPolicy(), newDrill(g), newBackup(g), newRestore(g), newBackups(g),
		newDaemon(g), newServe(g), newHost(g),
	)
	wrongArgs(root)
	return root
}

// wrongArgs makes wrong arguments of every command a usageError.
func wrongArgs(cmd *cobra.Command) {
	check := cmd.Args
	if check == nil && !cmd.Runnable() {
		check = func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("unknown command %q for %q: `%s --help` lists them", args[0], cmd.CommandPath(), cmd.CommandPath())
			}
			return nil
		}
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
	if check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usageError{err}
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		wrongArgs(sub)
	}
}

func envOr(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// mustBeRoot explains what root is needed for, before anything is touched.
func mustBeRoot(what string) error {
	if os.Geteuid() != 0 {
		return usageError{fmt.Errorf("%s needs root (namespaces, cgroups, nftables): run it with sudo", what)}
	}
	return nil
}
