// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"time"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/host"
	"bastide.dev/instance"
	"bastide.dev/network"
	"bastide.dev/resource"
	"bastide.dev/ruleset"
	"bastide.dev/store"
	"bastide.dev/why"
)

const (
	terminalType = network.OwnNamespace + "/terminals"
	ownVersion   = "2026-11-01" // of Bastide's own types
	tableTime    = 3 * time.Second
)

// diagnostics answers questions about packets: POST
// /subscriptions/{s}/providers/Bastide.Network/diagnostics/default/why.
type diagnostics struct {
	store    store.Store
	provider *network.Provider
	ask      func(context.Context, host.Query) (json.RawMessage, error)
	instance string
	host     string
}

// whyRequest is the action's body.
type whyRequest struct {
	why.Question
	Probe bool `json:"probe,omitempty"`
}

// newDiagnostics is the row for the front door.
func newDiagnostics(in *instance.Instance, s store.Store, networks *network.Provider) arm.Provider {
	d := &diagnostics{store: s, provider: networks, ask: networks.Ask, instance: in.Name, host: hostName}
	return arm.Provider{Namespace: network.OwnNamespace, Types: []arm.Type{{
		Name: "diagnostics", Scope: arm.InSubscription, Versions: []resource.APIVersion{ownVersion}, Untracked: true,
		Get: d.get,
		List: func(ctx context.Context, r *arm.Request) (any, error) {
			one := *r
			one.ID = r.ID.Resource(network.OwnNamespace, "diagnostics", "default")
			view, err := d.get(ctx, &one)
			return map[string]any{"value": []any{view}}, err
		},
		Actions: map[string]arm.Hook{"why": d.why},
	}}}
}

func (*diagnostics) get(_ context.Context, r *arm.Request) (any, error) {
	if !strings.EqualFold(r.ID.Name(), "default") {
		return nil, noDiagnostics(r.ID)
	}
	return map[string]any{"id": r.ID.String(), "name": "default", "type": network.OwnNamespace + "/diagnostics", "properties": map[string]any{}}, nil
}

func noDiagnostics(id resource.ID) *fault.Error {
	return fault.New(fault.NotFound, "ResourceNotFound", "There are no diagnostics '%s': they are named 'default'.", id.Name())
}

// why explains, and with probe also sends real packets.
func (d *diagnostics) why(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	if !strings.EqualFold(r.ID.Name(), "default") {
		return nil, noDiagnostics(r.ID)
	}
	asked, err := readWhy(r.Body)
	if err != nil {
		return nil, err
	}
	w, err := d.world(ctx)
	if err != nil {
		return nil, err
	}
	var notes []string
	if asked.Probe {
		if notes, err = sendable(w, &asked.Question); err != nil {
			return nil, err
		}
	}
	answer, err := d.explain(ctx, w, asked.Question)
	if err != nil {
		return nil, err
	}
	d.compareTables(ctx, &answer)
	if asked.Probe {
		if err := d.probe(ctx, &answer); err != nil {
			return nil, err
		}
	}
	answer.Notes = append(answer.Notes, notes...)
	return &arm.Plan{Answer: answer}, nil
}

func readWhy(body map[string]any) (whyRequest, error) {
	var asked whyRequest
	raw, err := json.Marshal(body)
	if err != nil {
		return asked, err
	}
	decoder := json.NewDecoder(strings.NewReader(string(raw)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&asked); err != nil {
		return asked, fault.New(fault.Invalid, "InvalidRequestContent", "The body must have from and to, and may have protocol, port and probe: %s.", err)
	}
	return asked, nil
}

// explain asks for the objects of the clusters that the way leads into, of no others.
func (d *diagnostics) explain(ctx context.Context, w *why.World, q why.Question) (why.Answer, error) {
	for {
		answer, err := why.Explain(w, q)
		var need *why.NeedObjects
		if !errors.As(err, &need) {
			return answer, err
		}
		if err := d.objects(ctx, w, need.ControlPlane); err != nil {
			return answer, err
		}
	}
}

// compareTables asks the nodes on the way for the policies that their kernels
// have. A node that doesn't answer is said, and doesn't keep from an answer.
func (d *diagnostics) compareTables(ctx context.Context, a *why.Answer) {
	ctx, cancel := context.WithTimeout(ctx, tableTime)
	defer cancel()
	same, failed := make([]bool, len(a.Tables)), make([]error, len(a.Tables))
	var all sync.WaitGroup
	for i := range a.Tables {
		all.Go(func() {
			var has ruleset.Table
			raw, err := d.ask(ctx, host.Query{Policies: &host.PoliciesQuery{Machine: a.Tables[i].Machine}})
			if err == nil {
				err = json.Unmarshal(raw, &has)
			}
			same[i], failed[i] = a.Tables[i].Is(&has), err
		})
	}
	all.Wait()
	for i, t := range a.Tables {
		switch {
		case failed[i] != nil:
			a.Notes = append(a.Notes, "The policy agent of node "+t.Node+" doesn't answer: what its kernel has isn't known.")
		case !same[i]:
			a.StaleIn("node " + t.Node)
		}
	}
}

// sendable puts a terminal in the Internet's place: only from there packets can
// be sent.
func sendable(w *why.World, q *why.Question) ([]string, error) {
	rest, ok := strings.CutPrefix(q.From, "internet")
	if !ok || rest != "" && rest[0] != ':' {
		return nil, nil
	}
	address, err := netip.ParseAddr(strings.TrimPrefix(rest, ":"))
	if rest != "" && err != nil {
		return nil, nil // the question is refused anyway
	}
	t, found := terminalAt(w, address)
	if !found {
		return nil, fault.New(fault.Invalid, "ProbeNeedsTerminal", "Packets can be sent from the Internet only where a terminal is: "+
			"make one with `bastide outside create NAME`, and ask from terminal/NAME.").At("from")
	}
	q.From = "terminal/" + t.Group + "/" + t.Name
	return []string{"The packets were sent from the terminal " + t.Name + ": it stands for the Internet."}, nil
}
