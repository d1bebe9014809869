// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"bastide.dev/node"
)

// patcher installs Debian's security updates when it is asked for, once per
// token. What it does is apt's and dpkg's work; it chooses, records, and says
// whether a restart is due.
type patcher struct {
	apt    *apt
	log    *slog.Logger
	teller *teller
	wishes chan node.Config // the newest, capacity 1
	done   chan struct{}    // nil as long as nothing was asked for
}

// patchState is what outlives a reboot.
type patchState struct {
	Patch      *node.PatchStatus `json:"patch,omitempty"`
	Look       string            `json:"look,omitempty"`
	LookError  string            `json:"lookError,omitempty"`
	Looked     time.Time         `json:"looked,omitzero"`
	Upgradable []node.Update     `json:"upgradable,omitempty"`
	// Before are the packages' versions when the order was begun, until it has ended.
	Before map[string]string `json:"before,omitempty"`
}

const patchStatePath = "/var/lib/bastide/patches.json"

func newPatcher(kids *reaper, log *slog.Logger, t *teller) *patcher {
	return &patcher{apt: &apt{kids: kids}, log: log, teller: t, wishes: make(chan node.Config, 1)}
}

// apply hands over what is wished now; what was begun goes on.
func (p *patcher) apply(ctx context.Context, config node.Config) {
	if p.done == nil {
		p.done = make(chan struct{})
		go func() {
			defer close(p.done)
			p.run(ctx)
		}()
	}
	select {
	case <-p.wishes:
	default:
	}
	p.wishes <- config
}

// wait returns when apply's context has ended and nothing runs any more.
func (p *patcher) wait() {
	if p.done != nil {
		<-p.done
	}
}

func (p *patcher) run(ctx context.Context) {
	state, fresh := p.load()
	p.tell(state)
	for {
		select {
		case <-ctx.Done():
			return
		case wish := <-p.wishes:
			if fresh { // the question was others': a node that boots has better to do
				state.Look, fresh = wish.Look, false
			}
			switch {
			case wish.Patch != nil && wish.Patch.Token != "" && !state.finished(wish.Patch.Token):
				state = p.patch(ctx, *wish.Patch, state)
				state.Look = wish.Look
			case wish.Look != "" && wish.Look != state.Look:
				state = p.look(ctx, wish.Look, state)
			default:
				continue
			}
			if ctx.Err() != nil {
				return // begun again after the boot, from what is on disk
			}
			p.keep(state)
		}
	}
}

// finished tells whether the token needs nothing more.
func (s patchState) finished(token string) bool {
	return s.Patch != nil && s.Patch.Token == token && !s.Patch.Ended.IsZero()
}

// load is fresh on a disk on which nothing was asked for yet.
func (p *patcher) load() (state patchState, fresh bool) {
	data, err := os.ReadFile(patchStatePath)
	if err == nil {
		err = json.Unmarshal(data, &state)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		p.log.Warn("what was patched before isn't known", "error", err)
	}
	return state, err != nil
}

func (p *patcher) keep(state patchState) {
	data, err := json.Marshal(state)
	if err == nil {
		err = writeFile(node.File{Path: patchStatePath, Mode: 0o600, Data: data})
	}
	if err != nil {
		p.log.Warn("what was patched isn't kept", "error", err)
	}
	p.tell(state)
}

func (p *patcher) tell(state patchState) {
	p.teller.tell(func(s *node.Status) {
		s.Patch, s.Looked, s.LookError, s.Upgradable = nil, state.Looked, state.LookError, state.Upgradable
		if state.Patch != nil {
			patch := *state.Patch
			s.Patch = &patch
		}
	})
}

// look finds out what could be installed.
func (p *patcher) look(ctx context.Context, token string, state patchState) patchState {
	ctx, cancel := context.WithTimeout(ctx, updateLimit)
	defer cancel()
	plan, err := p.apt.plan(ctx)
	if err != nil {
		p.log.Warn("looking for updates", "error", err)
		state.Look, state.LookError = token, err.Error() // asked for again, it is tried again
		return state
	}
	state.Look, state.LookError, state.Looked, state.Upgradable = token, "", time.Now().UTC(), updatesOf(plan)
	return state
}

func updatesOf(plan []node.Planned) []node.Update {
	var list []node.Update
	for _, planned := range plan {
		list = append(list, planned.Update)
	}
	return list
}

// patch installs what there is, as far as the window lets it.
func (p *patcher) patch(ctx context.Context, wish node.Patch, state patchState) patchState {
	status := &node.PatchStatus{Token: wish.Token, Begun: time.Now().UTC()}
	if state.Patch != nil && state.Patch.Token == wish.Token { // cut short by a reboot
		status.Begun = state.Patch.Begun
	} else {
		state.Before = nil
	}
	state.Patch = status
	if wish.Over(time.Now()) && state.Before == nil { // a node that is new since, perhaps
		status.Partial, status.Ended = true, time.Now().UTC()
		return state
	}
	p.log.Info("patching", "token", wish.Token, "until", wish.Until)
	err := p.install(ctx, wish, &state)
	if ctx.Err() != nil {
		return state
	}
	state.Before = nil
	if err != nil {
		status.Error = err.Error()
		p.log.Warn("patching failed", "error", err)
	}
	if packages := restartFor(status.Installed); len(packages) > 0 {
		if err := requireReboot(packages); err != nil {
			p.log.Warn("leaving the sign for a restart", "error", err)
		}
	}
	status.Ended = time.Now().UTC()
	p.log.Info("patched", "token", wish.Token, "installed", len(status.Installed), "left", len(state.Upgradable))
	return state
}

// install installs what the window lets it, and finds out what is left.
func (p *patcher) install(ctx context.Context, wish node.Patch, state *patchState) error {
	before, sources, err := p.apt.installed(ctx)
	if err != nil {
		return err
	}
	if state.Before == nil {
		state.Before = before
	}
	p.keep(*state)
	// What a killed run left half done comes first, whatever the time is.
	problems := []error{p.finish(ctx)}
	var plan []node.Planned
	if state.Patch.Partial = wish.Over(time.Now()); !state.Patch.Partial {
		if plan, err = p.fetch(ctx, wish); err != nil {
			problems = append(problems, err)
		} else {
			state.LookError, state.Looked = "", time.Now().UTC()
			problems = append(problems, p.installAll(ctx, wish, state.Patch, node.BySource(names(plan), sources)))
		}
	}
	after, _, err := p.apt.installed(ctx)
	if err != nil {
		return errors.Join(append(problems, err)...)
	}
	state.Patch.Installed = node.Changes(state.Before, after)
	if plan != nil {
		state.Upgradable = updatesOf(slices.DeleteFunc(plan, func(planned node.Planned) bool { return after[planned.Package] != planned.From }))
	}
	return errors.Join(append(problems, p.apt.clean(ctx))...)
}

func (p *patcher) finish(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, packageLimit)
	defer cancel()
	return p.apt.finish(ctx)
}

// fetch brings all packages here that there is something newer of.
func (p *patcher) fetch(ctx context.Context, wish node.Patch) ([]node.Planned, error) {
	ctx, cancel := untilWindow(ctx, wish, updateLimit)
	defer cancel()
	plan, err := p.apt.plan(ctx)
	if err != nil {
		return nil, err
	}
	if plan == nil {
		plan = []node.Planned{} // known to be nothing
	}
	return plan, p.apt.download(ctx, names(plan))
}

// installAll begins no group of packages after the window. One that was begun is
// finished, unless it hangs.
func (p *patcher) installAll(ctx context.Context, wish node.Patch, status *node.PatchStatus, groups [][]string) error {
	var problems []error
	for _, group := range groups {
		if status.Partial = wish.Over(time.Now()); status.Partial || ctx.Err() != nil {
			break
		}
		limited, cancel := context.WithTimeout(ctx, packageLimit)
		if err := p.apt.install(limited, group); err != nil {
			problems = append(problems, err)
		}
		cancel()
	}
	return errors.Join(problems...)
}

const (
	updateLimit  = 20 * time.Minute // for the lists and the packages to come
	packageLimit = 15 * time.Minute
)

// untilWindow ends when the window does, and with limit.
func untilWindow(ctx context.Context, wish node.Patch, limit time.Duration) (context.Context, context.CancelFunc) {
	deadline := time.Now().Add(limit)
	if !wish.Until.IsZero() && wish.Until.Before(deadline) {
		deadline = wish.Until
	}
	return context.WithDeadline(ctx, deadline)
}

func names(plan []node.Planned) []string {
	var list []string
	for _, planned := range plan {
		list = append(list, planned.Package)
	}
	return list
}

// restartFor are the packages for which a restart is due: by their kind, or
// because something that runs still has the files that they replaced.
func restartFor(installed []node.Update) []string {
	if len(installed) == 0 {
		return nil
	}
	list := node.WantRestart(installed)
	if stale := staleProcesses("/proc"); len(list) == 0 && len(stale) > 0 {
		list = []string{"processes-with-replaced-files:" + strings.Join(stale[:min(len(stale), 5)], ",")}
	}
	return list
}

// staleProcesses are the names of the node's own processes that have executable
// files mapped which are gone. Those of containers have their own files, and
// are none of an update's.
func staleProcesses(proc string) []string {
	root, err := os.Stat("/")
	if err != nil {
		return nil
	}
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil
	}
	var names []string
	for _, entry := range entries {
		dir := proc + "/" + entry.Name()
		own, err := os.Stat(dir + "/root")
		if err != nil || !os.SameFile(root, own) {
			continue
		}
		if maps, err := os.ReadFile(dir + "/maps"); err != nil || !mapsReplaced(string(maps)) {
			continue
		}
		name, err := os.ReadFile(dir + "/comm")
		if err == nil {
			names = append(names, strings.TrimSpace(string(name)))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// mapsReplaced looks for code of a file that has been removed or replaced.
func mapsReplaced(maps string) bool {
	for line := range strings.Lines(maps) {
		fields := strings.Fields(line)
		if len(fields) < 6 || !strings.Contains(fields[1], "x") || fields[len(fields)-1] != "(deleted)" {
			continue
		}
		if path := fields[5]; strings.HasPrefix(path, "/usr/") || strings.HasPrefix(path, "/lib") || strings.HasPrefix(path, "/bin/") || strings.HasPrefix(path, "/sbin/") {
			return true
		}
	}
	return false
}
