// SPDX-License-Identifier: Apache-2.0

package drill

import (
	"context"
	"errors"
	"fmt"
	"time"

	"bastide.dev/client"
)

// patchesVersion is the API version that nodes' updates are asked for in.
const patchesVersion = "2026-03-01"

// patches is what is known of a node's security updates.
type patches struct {
	Name       string
	Properties struct {
		Upgradable     []struct{ Package, From, To string }
		Looked         time.Time
		LookError      string
		RebootRequired bool
		Running        bool
		Runs           []struct {
			Token     string
			Ended     time.Time
			Installed []struct{ Package string }
			Error     string
			Partial   bool
		}
	}
}

func (l *Life) patches(ctx context.Context) ([]patches, error) {
	found, err := client.List[patches](ctx, l.lab.Client, l.ID+"/nodePatches", patchesVersion)
	if err != nil {
		return nil, fmt.Errorf("patches of %s: %w", l.Name, err)
	}
	if len(found) == 0 {
		err = fmt.Errorf("patches of %s: there are no nodes", l.Name)
	}
	return found, err
}

// search has all nodes look for the updates that they haven't, and says what was
// found: what an attacker who is in looks for first.
func (s *Stage) search(ctx context.Context, l *Life) (Result, error) {
	before := map[string]time.Time{}
	known, err := l.patches(ctx)
	if err != nil {
		return Result{}, err
	}
	for _, n := range known {
		before[n.Name] = n.Properties.Looked
	}
	if _, err := client.Post[object](ctx, s.Client, l.ID+"/lookForPatches", patchesVersion, object{}); err != nil {
		return Result{}, fmt.Errorf("look for patches: %w", err)
	}
	err = l.until(ctx, "all nodes have looked for updates", func(ctx context.Context) error {
		if known, err = l.patches(ctx); err != nil {
			return err
		}
		for _, n := range known {
			switch p := &n.Properties; {
			case !p.Looked.After(before[n.Name]):
				return fmt.Errorf("node %s hasn't: %s", n.Name, p.LookError)
			case p.LookError != "":
				return fmt.Errorf("node %s couldn't look: %s", n.Name, p.LookError)
			}
		}
		return nil
	})
	return vulnerable(known), err
}

// vulnerable says what nodes lack, the cryptographic library by name.
func vulnerable(known []patches) Result {
	missing, example := 0, ""
	for _, n := range known {
		for _, u := range n.Properties.Upgradable {
			missing++
			if example == "" || u.Package == "libssl3" {
				example = fmt.Sprintf("%s %s in place of %s on %s", u.Package, u.From, u.To, n.Name)
			}
		}
	}
	if missing == 0 {
		return Result{Got: fmt.Sprintf("nothing on %d nodes", len(known))}
	}
	return Result{Worked: true, Got: fmt.Sprintf("%d packages, such as %s", missing, example)}
}

func unpatched(ctx context.Context, s *Stage) (*Scene, error) {
	l, err := s.Living(ctx)
	if err != nil {
		return nil, err
	}
	return &Scene{
		Tries:   1,
		Attacks: []Attack{{From: "who is on the nodes", To: "find a package with a known hole", Try: func(ctx context.Context) (Result, error) { return s.search(ctx, l) }}},
		Wanted:  []Attack{{From: "the nodes", To: "stay Ready", Try: func(ctx context.Context) (Result, error) { return s.nodesReady(ctx, l.Cluster) }}},
		On: func(ctx context.Context) error {
			return s.unnoticed(ctx, l, "the night's updates", nil, func(ctx context.Context) error { return s.night(ctx, l) })
		},
		Off: func(ctx context.Context) error { return s.reimage(ctx, l) },
	}, nil
}

// night has the nodes install what there is, and waits until those that need a
// reboot had it.
func (s *Stage) night(ctx context.Context, l *Life) error {
	began := time.Now()
	order, err := client.Post[struct{ Token string }](ctx, s.Client, l.ID+"/patchNodes", patchesVersion, object{})
	s.did("POST", l.ID+"/patchNodes?api-version="+patchesVersion, nil, began, err)
	if err != nil {
		return fmt.Errorf("patch nodes: %w", err)
	}
	reboots := map[string]bool{}
	var known []patches
	err = l.until(ctx, "the night is over", func(ctx context.Context) error {
		if known, err = l.patches(ctx); err != nil {
			return err
		}
		for _, n := range known {
			if n.Properties.RebootRequired {
				reboots[n.Name] = true
			}
		}
		for _, n := range known {
			if err := n.done(order.Token); err != nil {
				return err
			}
		}
		pending, err := client.List[object](ctx, s.Client, l.ID+"/pendingReboots", patchesVersion)
		if err == nil && len(pending) > 0 {
			err = fmt.Errorf("%d nodes are to reboot: %v", len(pending), pending[0]["properties"])
		}
		return err
	})
	if err != nil {
		return err
	}
	installed := 0
	for _, n := range known {
		installed += len(n.Properties.Runs[0].Installed)
		if e := n.Properties.Runs[0].Error; e != "" || n.Properties.Runs[0].Partial {
			err = errors.Join(err, fmt.Errorf("node %s wasn't patched to the end: %s", n.Name, e))
		}
	}
	s.note(fmt.Sprintf("The night took %.0f s: %d nodes installed %d updates, and %d of them rebooted.", time.Since(began).Seconds(), len(known), installed, len(reboots)))
	return errors.Join(err, l.whole(ctx))
}

// done tells whether a node carried out an order, and needs no reboot any more.
func (n *patches) done(token string) error {
	p := &n.Properties
	switch {
	case len(p.Runs) == 0 || p.Runs[0].Token != token || p.Running:
		return fmt.Errorf("node %s installs updates", n.Name)
	case p.RebootRequired:
		return fmt.Errorf("node %s needs a reboot", n.Name)
	}
	return nil
}

// reimage makes a node anew of its image, which is as old as it was.
func (s *Stage) reimage(ctx context.Context, l *Life) error {
	name, boot, err := l.busiest(ctx)
	if err != nil {
		return err
	}
	machine, err := l.machineOf(ctx, name)
	if err != nil {
		return err
	}
	return errors.Join(s.Post(ctx, machine+"/reimage", computeVersion), l.rebooted(ctx, name, boot), l.whole(ctx))
}
