// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"bastide.dev/fault"
	"bastide.dev/host"
	"bastide.dev/ruleset"
	"bastide.dev/why"
)

const (
	probeMillis = 1500
	// maxProbes is how many connections are tried when there are several ways.
	maxProbes = 8
)

// probe sends real packets from where the answer's packet begins, and compares.
func (d *diagnostics) probe(ctx context.Context, a *why.Answer) error {
	s := a.Sender
	if s.Outside || s.Machine == "" && s.Namespace == "" {
		return fault.New(fault.Invalid, "ProbeNeedsTerminal", "Packets can be sent from pods, nodes, machines, API servers and terminals only.").At("from")
	}
	query := host.ProbeQuery{Machine: s.Machine, PodUID: s.PodUID, Namespace: s.Namespace, Protocol: a.Target.Protocol,
		Address: a.Target.Address, Port: a.Target.Port, Timeout: probeMillis}
	if s.Namespace != "" {
		query.Machine = ""
	}
	n := 1
	if len(a.Paths) > 1 {
		n = min(maxProbes, 2*len(a.Paths))
	}
	answers, err := d.send(ctx, query, n)
	if err != nil {
		return err
	}
	a.Probe = judge(a, answers)
	return nil
}

// send asks the host n times at once.
func (d *diagnostics) send(ctx context.Context, query host.ProbeQuery, n int) ([]host.ProbeAnswer, error) {
	answers, failed := make([]host.ProbeAnswer, n), make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			raw, err := d.ask(ctx, host.Query{Probe: &query})
			if err == nil {
				err = json.Unmarshal(raw, &answers[i])
			}
			failed[i] = err
		})
	}
	all.Wait()
	return answers, errors.Join(failed...)
}

// judge compares what was measured with what was expected of each way.
func judge(a *why.Answer, answers []host.ProbeAnswer) *why.Probe {
	possible := map[string]bool{}
	var expected []string
	for i := range a.Paths {
		for _, result := range expect(&a.Paths[i], a.Target.Protocol) {
			if !possible[result] {
				possible[result], expected = true, append(expected, result)
			}
		}
	}
	p := &why.Probe{Sent: len(answers), Agrees: true, Expected: strings.Join(expected, " or ")}
	counts, details := map[string]int{}, map[string]bool{}
	for _, answer := range answers {
		counts[answer.Result]++
		p.Agrees = p.Agrees && possible[answer.Result]
		p.From = answer.Source
		if answer.Detail != "" {
			details[answer.Detail] = true
		}
	}
	var measured []string
	for _, result := range slices.Sorted(maps.Keys(counts)) {
		if counts[result] == len(answers) {
			measured = append(measured, result)
		} else {
			measured = append(measured, fmt.Sprintf("%s (%d of %d)", result, counts[result], len(answers)))
		}
	}
	p.Measured, p.Details = strings.Join(measured, ", "), slices.Sorted(maps.Keys(details))
	return p
}

// expect is what a probe may find on one way. What is let through is answered,
// or refused by whoever is there without a listener; what is dropped is never answered.
func expect(p *why.Path, protocol uint8) []string {
	const connected, refused, timeout, unreachable = "connected", "refused", "timeout", "unreachable"
	if p.Reachable {
		switch {
		case p.Listener == why.ListenerBeyond:
			return []string{connected, refused, timeout, unreachable}
		case protocol == ruleset.UDP && p.Listener == why.ListenerUnknown:
			return []string{connected, timeout, refused} // a datagram needs no answer
		case protocol == ruleset.UDP:
			return []string{connected, timeout}
		case p.Listener == why.ListenerUnknown || p.Listener == why.ListenerDeclared:
			return []string{connected, refused}
		}
		return []string{connected}
	}
	last := why.Hop{}
	if len(p.Hops) > 0 {
		last = p.Hops[len(p.Hops)-1]
	}
	if last.Verdict == "reset" {
		return []string{refused, unreachable, timeout} // an ICMP error from inside doesn't get to everybody
	}
	return []string{timeout, unreachable}
}
