// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	controlplane "bastide.dev/controlplane/linux"
	dataplane "bastide.dev/dataplane/linux"
	"bastide.dev/host"
	hostlinux "bastide.dev/host/linux"
	"bastide.dev/instance"
	machine "bastide.dev/machine/linux"
	"bastide.dev/metadata"
	"bastide.dev/netpolicy"
	"bastide.dev/reconcile"
)

func newHost(g *global) *cobra.Command {
	return &cobra.Command{
		Use:    "host",
		Hidden: true,
		Short:  "Keep networks, control planes and machines of this machine (what the daemon runs)",
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := mustBeRoot("bastide host"); err != nil {
				return err
			}
			in, err := g.load()
			if err != nil {
				return err
			}
			return runHost(cmd.Context(), in)
		},
	}
}

// mechanism is what acts on this machine: host drives it, `bastide down` stops it.
type mechanism struct {
	plane  *dataplane.Plane
	planes *controlplane.Plane
	boxes  *machine.Provider
}

// newMechanism opens it. answers are for machines at the metadata address; nil: nobody answers.
func newMechanism(in *instance.Instance, answers dataplane.Metadata, log *slog.Logger) (*mechanism, error) {
	self, _, err := ownBinary(in)
	if err != nil {
		return nil, err
	}
	plane, err := dataplane.New(dataplane.Config{Instance: in.Name, RunDir: in.RunDir(), LogDir: in.Dir("host"), Metadata: answers, Logger: log})
	if err != nil {
		return nil, fmt.Errorf("data plane: %w", err)
	}
	planes, err := controlplane.New(controlplane.Config{
		Instance: in.Name, StateDir: in.Dir("host"), RunDir: in.RunDir(), CacheDir: in.CacheDir,
		UIDBase: int(in.ControlPlaneUIDs()), UIDCount: instance.ControlPlanes, Netns: plane.NetnsPath, Logger: log,
	})
	if err != nil {
		return nil, fmt.Errorf("control planes: %w", err)
	}
	boxes, err := machine.New(machine.Config{
		Instance: in.Name, StateDir: in.Dir("host", "machines"), RunDir: in.RunDir(), CacheDir: in.CacheDir,
		UIDBase: in.MachineUIDs(), Agent: self + agentSuffix, Logger: log,
		Programs: map[string]string{netpolicy.ProgramPath: self + policySuffix},
	})
	if err != nil {
		return nil, fmt.Errorf("machines: %w", err)
	}
	return &mechanism{plane, planes, boxes}, nil
}

func runHost(ctx context.Context, in *instance.Instance) error {
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	keys := newKeyring(in)
	config, err := keys.client("ca", "host")
	if err != nil {
		return err
	}
	answers, err := metadata.New(metadata.Config{TLS: keys.trust("ca").config(""), Log: log})
	if err != nil {
		return err
	}
	m, err := newMechanism(in, answers, log)
	if err != nil {
		return err
	}
	defer func() {
		if err := errors.Join(m.boxes.Close(), m.plane.Close()); err != nil {
			log.Error("closing", "error", err)
		}
	}()
	agent := host.NewAgent(host.Config{
		Link: host.NewLink("https://"+in.HostAPI(), hostName, config), Network: m.plane, ControlPlanes: m.planes, Machines: m.boxes, Metadata: answers, Log: log,
		Queries: host.Queries{Rules: m.plane, Objects: m.planes, Prober: &hostlinux.Prober{PolicySocket: netpolicy.SocketPath}},
	})
	group := &reconcile.Group{}
	group.Add("control planes", m.planes.Run)
	group.Add("units", agent.Run)
	return group.Run(ctx)
}
