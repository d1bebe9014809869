// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"time"

	"bastide.dev/fault"
	"bastide.dev/machine"
	"bastide.dev/ruleset"
)

// queryTime is how long an answer may take: longer than the longest probe.
const queryTime = 20 * time.Second

// Queries is what answers queries; a host without one of its fields refuses them.
type Queries struct {
	Rules   Rules
	Objects ObjectLister
	Prober  Prober
}

// Rules is the data plane, as far as queries go.
type Rules interface {
	Counters(vnet string) ([]ruleset.Counter, error)
	// NetnsPath is where the data plane keeps a namespace that it made.
	NetnsPath(name string) string
}

// ObjectLister lists a cluster's objects through its control plane, by the
// names that Objects has in JSON.
type ObjectLister interface {
	Objects(ctx context.Context, controlPlane string) (map[string]json.RawMessage, error)
}

// Place is where a probe begins: a kept namespace, or a machine's process and
// perhaps a pod on it.
type Place struct {
	Netns  string // a path
	PID    int    // of the machine's PID 1
	PodUID string
}

// Prober does what a query needs the kernel for. Machines are hostile: it
// believes nothing that it finds in one, and reads only so much.
type Prober interface {
	Probe(ctx context.Context, from Place, q ProbeQuery) (ProbeAnswer, error)
	// Policies asks the policy agent of the machine whose PID 1 is given.
	Policies(ctx context.Context, pid int) (ruleset.Table, error)
}

// queryMaker answers one query. The answer stays the same when serve sends the
// unit again.
type queryMaker struct {
	queries  Queries
	machines Machines
	answered int64 // the generation
	answer   Report
}

func (m *queryMaker) make(ctx context.Context, u Unit, report *Report) error {
	if u.Generation != m.answered {
		ctx, cancel := context.WithTimeout(ctx, queryTime)
		defer cancel()
		answer, err := m.ask(ctx, u)
		if err == nil {
			m.answer.Answer, err = json.Marshal(answer)
		}
		m.answer.Error = ""
		if err != nil { // an answer, too: asking again is up to who asked
			m.answer.Answer, m.answer.Error = nil, err.Error()
		}
		m.answered = u.Generation
	}
	report.Answer, report.Error = m.answer.Answer, m.answer.Error
	return nil
}

func (*queryMaker) remove(context.Context, string) error { return nil }

func (m *queryMaker) ask(ctx context.Context, u Unit) (any, error) {
	var q Query
	if err := json.Unmarshal(u.Spec, &q); err != nil {
		return nil, fmt.Errorf("query: %w", err)
	}
	switch {
	case m.queries.Rules == nil || m.queries.Objects == nil || m.queries.Prober == nil:
		return nil, fault.New(fault.Unavailable, "", "This host answers no queries.")
	case q.Counters != nil:
		return m.queries.Rules.Counters(q.Counters.VNet)
	case q.Objects != nil:
		return m.objects(ctx, q.Objects.ControlPlane)
	case q.Probe != nil:
		from, err := m.place(ctx, *q.Probe)
		if err != nil {
			return nil, err
		}
		return m.queries.Prober.Probe(ctx, from, *q.Probe)
	case q.Policies != nil:
		pid, err := m.pid(ctx, q.Policies.Machine)
		if err != nil {
			return nil, err
		}
		return m.queries.Prober.Policies(ctx, pid)
	}
	return nil, fault.New(fault.Invalid, "", "The query asks nothing that this host knows.")
}

// objects brings lists into their contract's form; names it doesn't know are left out.
func (m *queryMaker) objects(ctx context.Context, controlPlane string) (Objects, error) {
	var objects Objects
	lists, err := m.queries.Objects.Objects(ctx, controlPlane)
	if err != nil {
		return objects, err
	}
	text, err := json.Marshal(lists)
	if err == nil {
		err = json.Unmarshal(text, &objects)
	}
	if err != nil {
		return objects, fmt.Errorf("objects of %s: %w", controlPlane, err)
	}
	return objects, nil
}

func (m *queryMaker) place(ctx context.Context, q ProbeQuery) (Place, error) {
	if (q.Machine == "") == (q.Namespace == "") {
		return Place{}, fault.New(fault.Invalid, "", "A probe begins at a machine or in a namespace.")
	}
	if q.Namespace != "" {
		if q.PodUID != "" || filepath.Base(q.Namespace) != q.Namespace || q.Namespace == ".." {
			return Place{}, fault.New(fault.Invalid, "", "%q is no namespace to probe from.", q.Namespace)
		}
		return Place{Netns: m.queries.Rules.NetnsPath(q.Namespace)}, nil
	}
	pid, err := m.pid(ctx, q.Machine)
	return Place{PID: pid, PodUID: q.PodUID}, err
}

// pid is the process that a machine's namespaces are found by.
func (m *queryMaker) pid(ctx context.Context, id string) (int, error) {
	all, err := m.machines.Status(ctx)
	if err != nil {
		return 0, fmt.Errorf("machine status: %w", err)
	}
	for _, s := range all {
		if s.ID == id && s.Phase == machine.Running && s.PID > 0 {
			return s.PID, nil
		}
	}
	return 0, fault.New(fault.NotFound, "", "Machine %s doesn't run on this host.", id)
}
