// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"sync"

	"bastide.dev/controlplane"
	"bastide.dev/controlplane/agent"
	"bastide.dev/supervise"
)

// instance is one control plane, as far as this process knows it.
type instance struct {
	id     string
	apply  lock // held by Apply and Remove, never for long
	second lock // held by who has the slot that isn't in charge; taken without apply, or with no attempt left

	surveying sync.Mutex            // held by a survey; guards counts
	counts    map[[4]string]float64 // of deprecated APIs, as they were last

	mu         sync.Mutex // guards what follows
	spec       controlplane.Spec
	known      bool  // spec was applied, or tried
	err        error // why Apply failed last
	agent      *agent.Agent
	endsAgent  func()              // ends the agent and waits for it
	slot       controlplane.Slot   // that is in charge
	apiServer  int                 // pid
	late       []supervise.Process // wait for the API server to be ready
	attempt    *attempt            // under way, or nil
	refused    string              // why the last one ended
	accident   accident            // by which the last ones ended
	deprecated []controlplane.DeprecatedUse
	// parting: the former API server is there still, and answers those who are with it
	// as it was told to.
	parting bool
	leaving bool // clients are kept from the slot that isn't in charge

	job job // has a lock of its own
}

func (in *instance) set(spec controlplane.Spec, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.spec, in.known, in.err = spec, true, err
}

func (in *instance) failed(spec controlplane.Spec, err error) { in.set(spec, err) }

func (in *instance) current() (controlplane.Spec, bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.spec, in.known
}

// apiServerIs has the agent begin anew when the API server is another process.
func (in *instance) apiServerIs(pid int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if pid == in.apiServer {
		return
	}
	if in.apiServer != 0 && in.agent != nil {
		in.agent.Lost()
	}
	in.apiServer = pid
}

// takenOver has the agent begin anew, with the API server of another slot.
func (in *instance) takenOver(slot controlplane.Slot, pid int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.slot, in.apiServer, in.parting = slot, pid, true
	if in.agent != nil {
		in.agent.Lost()
	}
}

func (in *instance) inCharge(slot controlplane.Slot, deprecated []controlplane.DeprecatedUse) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.slot, in.deprecated = slot, deprecated
}

func (in *instance) slotInCharge() controlplane.Slot {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.slot
}

// is tells whether an attempt is the one that is under way.
func (in *instance) is(a *attempt) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.attempt == a
}

func (in *instance) endAgent() {
	in.mu.Lock()
	end := in.endsAgent
	in.agent, in.endsAgent, in.apiServer, in.late = nil, nil, 0, nil
	in.mu.Unlock()
	if end != nil {
		end()
	}
}

// keepObjects starts the control plane's agent, or hands it the new spec.
func (p *Plane) keepObjects(in *instance, spec controlplane.Spec, netns string) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.spec, in.known, in.err = spec, true, nil
	if in.agent != nil {
		in.agent.Set(spec)
		return nil
	}
	policy, err := p.policy(spec.Version)
	if err != nil || p.ctx.Err() != nil {
		return err
	}
	a := agent.New(agent.Config{
		Spec: spec, Policy: policy, Dial: Dialer(netns), Listen: Listener(netns), Logger: p.Logger.With("controlplane", in.id),
		Notify: func() { p.changes.add(in.id) },
		Progress: func() {
			if err := p.launchLate(in); err != nil {
				p.Logger.Error("controllers not started", "controlplane", in.id, "error", err)
			}
		},
	})
	ctx, cancel := context.WithCancel(p.ctx)
	ended := make(chan struct{})
	p.agents.Go(func() {
		defer close(ended)
		a.Run(ctx)
	})
	in.agent = a
	in.endsAgent = func() { cancel(); <-ended }
	return nil
}

// Status tells of one control plane; of one that isn't known only the ID.
func (p *Plane) Status(id string) controlplane.Status {
	status := controlplane.Status{ID: id, Phase: controlplane.Starting}
	p.mu.Lock()
	in := p.byID[id]
	p.mu.Unlock()
	if in == nil {
		return status
	}
	in.mu.Lock()
	spec, known, err, a := in.spec, in.known, in.err, in.agent
	slot, changing, refused, deprecated := in.slot, in.attempt != nil || in.parting || in.accident.untold(), in.refused, in.deprecated
	in.mu.Unlock()
	if !known {
		return status
	}
	p.tellBackups(&status, &spec, in)
	trouble := p.processes(id, slot, &status)
	switch {
	case err != nil:
		status.Phase, status.Error = controlplane.Failed, err.Error()
		return status
	case spec.Stopped:
		status.Phase = controlplane.Stopped
		return status
	}
	if a != nil {
		state := a.State()
		status.Version, status.Nodes, status.CoreDNS, status.Metrics, status.Error = state.Version, state.Nodes, state.CoreDNS, state.Metrics, state.Error
		status.Issuer, status.SigningKeys, status.WorkloadIdentity = state.Issuer, state.SigningKeys, state.WorkloadIdentity
		status.Scaling = state.Scaling
		status.Reboots = state.Reboots
		status.Refused, status.Deprecated = refused, deprecated
		if state.Ready && !changing {
			status.Phase = controlplane.Ready
		}
	}
	if trouble != "" && !changing && status.Phase != controlplane.Ready {
		status.Phase, status.Error = controlplane.Failed, trouble
	}
	if a != nil {
		p.tellCertificates(&status, &spec, slot, a.State().Authorities)
	}
	return status
}

// processes fills in the processes, and says which can't be kept running and why.
func (p *Plane) processes(id string, slot controlplane.Slot, status *controlplane.Status) string {
	var trouble []string
	for _, program := range controlplane.Programs() {
		of := program
		if program == controlplane.APIServer {
			of = slot.Program() // it is known by one name, wherever it is
		}
		s, ok := p.supervisor.Status(processName(id, of))
		if !ok {
			continue
		}
		status.Processes = append(status.Processes, controlplane.Process{Name: program, PID: s.PID, Started: s.Started, Restarts: s.Restarts})
		switch {
		case program == controlplane.CloudController:
			// A cluster lives without it, and it ends whenever the cloud doesn't answer.
		case s.Error != "":
			trouble = append(trouble, s.Error)
		case s.PID == 0 && s.Restarts >= 2: // once or twice is an accident
			trouble = append(trouble, fmt.Sprintf("%s ended %d times, last by %s: %s", program, s.Restarts+1, s.Exit, lastLine(s.Log)))
		}
	}
	return strings.Join(trouble, "; ")
}

func lastLine(log string) string {
	return log[strings.LastIndexByte(log, '\n')+1:]
}

func compare(a, b string) int { return cmp.Compare(a, b) }

// changes hands IDs to one reader: each once, however often it was added, and
// none lost when the reader is slow.
type changes struct {
	out  chan string
	wake chan struct{}

	mu      sync.Mutex // guards pending
	pending map[string]bool
}

func newChanges() *changes {
	return &changes{out: make(chan string), wake: make(chan struct{}, 1), pending: map[string]bool{}}
}

func (c *changes) add(id string) {
	c.mu.Lock()
	c.pending[id] = true
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *changes) take() (string, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.pending {
		delete(c.pending, id)
		return id, true
	}
	return "", false
}

func (c *changes) deliver(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		}
		for id, ok := c.take(); ok; id, ok = c.take() {
			select {
			case <-ctx.Done():
				return
			case c.out <- id:
			}
		}
	}
}
