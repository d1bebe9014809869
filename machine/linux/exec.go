// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"context"
	"os/exec"
	"strconv"

	"bastide.dev/fault"
)

// Command prepares a command in all of a running machine's namespaces, as its
// root; for people who look after a machine, and for tests. It isn't bound by
// the machine's limits.
func (p *Provider) Command(ctx context.Context, id string, args ...string) (*exec.Cmd, error) {
	b := p.known(id)
	if b == nil {
		return nil, fault.New(fault.NotFound, "MachineNotFound", "There is no machine %s.", id)
	}
	proc := p.running(b)
	if proc == nil {
		return nil, fault.New(fault.Conflict, "MachineNotRunning", "Machine %s doesn't run.", id)
	}
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{
		"--target", strconv.Itoa(proc.pid), "--user", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd", "--",
	}, args...)...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}
	return cmd, nil
}
