// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"

	"bastide.dev/controlplane"
	"bastide.dev/pki"
	"bastide.dev/supervise"
)

// draft is a control plane as its spec has it, with the API server in one slot.
// Nothing of it is on disk before write.
type draft struct {
	*Plane
	id    string
	slot  controlplane.Slot
	plan  controlplane.Plan
	found []program
	netns string
	owner int
	// attempt is the spec's.
	attempt int64
}

func (p *Plane) draft(spec controlplane.Spec, slot controlplane.Slot, owner int) (*draft, error) {
	dirs := p.dirs(spec.ID)
	dirs.Slot = slot
	plan, err := controlplane.Compile(spec, dirs)
	if err != nil {
		return nil, err
	}
	found, err := p.programs(plan)
	if err != nil {
		return nil, err
	}
	return &draft{Plane: p, id: spec.ID, slot: slot, plan: plan, found: found, netns: p.Netns(spec.Namespace), owner: owner, attempt: spec.Attempt}, nil
}

// names are the programs.
func (d *draft) names() []string {
	var all []string
	for _, p := range d.plan.Programs {
		all = append(all, p.Name)
	}
	return all
}

// write brings the files of some programs up to date, and returns their processes.
func (d *draft) write(programs ...string) (map[string]supervise.Process, error) {
	part := controlplane.Plan{}
	for _, f := range d.plan.Files {
		if slices.Contains(programs, f.Program) {
			part.Files = append(part.Files, f)
		}
	}
	for _, l := range d.plan.Leaves {
		if slices.Contains(programs, l.Program) {
			part.Leaves = append(part.Leaves, l)
		}
	}
	for _, p := range d.plan.Programs {
		if slices.Contains(programs, p.Name) {
			part.Programs = append(part.Programs, p)
		}
	}
	pinned, err := d.writeFiles(d.id, part, d.owner)
	if err != nil {
		return nil, err
	}
	processes := map[string]supervise.Process{}
	for _, name := range programs {
		if processes[name], err = d.define(name, pinned[name]); err != nil {
			return nil, err
		}
	}
	return processes, nil
}

// standing is a program's process with the certificates that are on disk. When
// one of them is to be made anew, it is a process that never ran.
func (d *draft) standing(name string) (supervise.Process, error) {
	pinned := map[string][]byte{}
	for _, leaf := range d.plan.Leaves {
		if leaf.Program != name || !leaf.Pinned {
			continue
		}
		certificate, ok, err := d.currentLeaf(d.id, leaf)
		if err != nil {
			return supervise.Process{}, err
		}
		if !ok {
			certificate = []byte("due")
		}
		pinned[leaf.Name] = certificate
	}
	return d.define(name, pinned)
}

func (d *draft) define(name string, pinned map[string][]byte) (supervise.Process, error) {
	i := slices.IndexFunc(d.plan.Programs, func(p controlplane.Program) bool { return p.Name == name })
	if i < 0 {
		return supervise.Process{}, fmt.Errorf("%s has no program %s", d.id, name)
	}
	inputs, err := d.plan.Inputs(name, pinned)
	if err != nil {
		return supervise.Process{}, err
	}
	return d.process(d.id, d.plan.Programs[i], d.found[i], d.netns, d.owner, inputs), nil
}

// differs lists which of etcd and the API server aren't what runs. They alone
// can't just be started anew: clients would notice. The key tells one change
// from another.
func (d *draft) differs(now running) (programs []string, key string, err error) {
	wanted := map[string]supervise.Process{}
	for _, name := range []string{controlplane.Etcd, d.slot.Program()} {
		process, err := d.standing(name)
		if err != nil {
			return nil, "", err
		}
		if launched, ok := now.Launched[name]; !ok || !same(launched, process) {
			programs = append(programs, name)
		}
		wanted[name] = process
	}
	data, err := json.Marshal(map[string]any{"programs": wanted, "attempt": d.attempt})
	if err != nil {
		return nil, "", fmt.Errorf("digest what %s should run: %w", d.id, err)
	}
	sum := sha256.Sum256(data)
	return programs, hex.EncodeToString(sum[:]), nil
}

func same(a, b supervise.Process) bool {
	one, err1 := json.Marshal(a)
	two, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && string(one) == string(two)
}

// currentLeaf is a certificate on disk that is as it should be, and not due.
func (p *Plane) currentLeaf(id string, leaf controlplane.Leaf) ([]byte, bool, error) {
	ca, err := pki.OpenCA(pki.Pair(leaf.CA))
	if err != nil {
		return nil, false, err
	}
	base := p.dir(id, configDir, leaf.Program, leaf.Name)
	certificate, err1 := os.ReadFile(base + ".crt")
	key, err2 := os.ReadFile(base + ".key")
	ok := err1 == nil && err2 == nil && ca.Current(pki.Pair{Certificate: certificate, Key: key}, leaf.Request, time.Now())
	return certificate, ok, nil
}
