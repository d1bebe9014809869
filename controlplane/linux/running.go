// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"time"

	"bastide.dev/controlplane"
	"bastide.dev/supervise"
)

// runningFile is root's, and says which slot is in charge. It is written before
// clients are led there and needs no fsync: after a power loss nothing runs that
// it could be wrong about.
const runningFile = "running.json"

// running is what a control plane runs, which isn't always what its spec asks for.
type running struct {
	Slot controlplane.Slot `json:"slot"`
	// Launched is how programs were started last, by their names; none: nothing
	// was, and what is asked for is started as it is.
	Launched map[string]supervise.Process `json:"launched,omitempty"`
	// Holding: clients are held back, since etcd is being started anew.
	Holding bool     `json:"holding,omitempty"`
	Refused *refusal `json:"refused,omitempty"`
}

// refusal is why what was asked for isn't tried again for a while.
type refusal struct {
	Key string    `json:"key"` // of what was asked for
	Why string    `json:"why"`
	At  time.Time `json:"at"`
}

// refusedFor is how long what didn't become ready isn't tried again.
const refusedFor = time.Hour

// readRunning returns a zero value when there is nothing that can be read.
func (p *Plane) readRunning(id string) running {
	data, err := os.ReadFile(p.dir(id, runningFile))
	if err != nil {
		return running{}
	}
	var r running
	if json.Unmarshal(data, &r) != nil || !r.Slot.Valid() {
		return running{}
	}
	return r
}

func (p *Plane) writeRunning(id string, r running) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode what %s runs: %w", id, err)
	}
	path := p.dir(id, runningFile)
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, data) {
		return nil
	}
	return writeFile(path, data, 0)
}

// launched is r with other definitions, those of programs that aren't there any
// more left out.
func (r running) launched(now map[string]supervise.Process) running {
	r.Launched = maps.Clone(now)
	return r
}

// inOrder are the processes of the programs that a spec has, in the order in
// which they are started.
func (r running) inOrder(spec controlplane.Spec) []supervise.Process {
	var all []supervise.Process
	for _, name := range spec.Programs() {
		if name == controlplane.APIServer {
			name = r.Slot.Program()
		}
		if process, ok := r.Launched[name]; ok {
			all = append(all, process)
		}
	}
	return all
}
