// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"bastide.dev/machine"
)

// guestLook is how often machines are looked at for what they say of
// themselves. They are looked at, instead of being listened to, so that the
// pace is ours and not theirs.
const guestLook = 500 * time.Millisecond

// A machine may change what it says guestBurst times at once, and once more each guestPause.
const (
	guestBurst = 20
	guestPause = 5 * time.Second
)

// words are what a machine said of itself last.
type words struct {
	said   json.RawMessage
	stamp  stamp
	budget float64 // of further changes
	filled time.Time
}

// allow takes one change from the budget.
func (g *words) allow(now time.Time) bool {
	if g.filled.IsZero() {
		g.budget = guestBurst
	} else {
		g.budget = min(guestBurst, g.budget+now.Sub(g.filled).Seconds()/guestPause.Seconds())
	}
	g.filled = now
	if g.budget < 1 {
		return false
	}
	g.budget--
	return true
}

// hearGuests keeps every machine's own words until Close.
func (p *Provider) hearGuests() {
	ticker := time.NewTicker(guestLook)
	defer ticker.Stop()
	for {
		select {
		case <-p.closing:
			return
		case <-ticker.C:
			for _, id := range p.lookAtGuests() {
				p.changes.add(id)
			}
		}
	}
}

// lookAtGuests gives the machines that say something new.
func (p *Provider) lookAtGuests() []string {
	type look struct {
		box  *box
		proc *process
		root int
	}
	var looks []look
	p.mu.Lock()
	for _, b := range p.boxes {
		if b.proc == nil || !b.run.Booted {
			continue
		}
		if root, err := b.proc.root(); err == nil { // else it is ending
			looks = append(looks, look{b, b.proc, root})
		}
	}
	p.mu.Unlock()
	var changed []string
	for _, l := range looks {
		if p.lookAtGuest(l.box, l.proc, l.root) {
			changed = append(changed, l.box.id)
		}
		_ = unix.Close(l.root)
	}
	return changed
}

func (p *Provider) lookAtGuest(b *box, proc *process, root int) bool {
	dir, name := path.Split(path.Dir(machine.GuestPath))
	name = path.Join(name, path.Base(machine.GuestPath))
	dir = strings.Trim(dir, "/")
	now := stampIn(root, dir, name)
	p.mu.Lock()
	if b.proc != proc || b.guest.stamp == now || !b.guest.allow(time.Now()) {
		p.mu.Unlock()
		return false
	}
	p.mu.Unlock()
	said, err := readGuest(root, dir, name)
	if err != nil {
		p.cfg.Logger.Warn("what a machine says of itself isn't heard", "machine", b.id, "path", machine.GuestPath, "error", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if b.proc != proc {
		return false
	}
	before := b.guest.said
	b.guest.stamp, b.guest.said = now, said
	return !bytes.Equal(before, said)
}

// readGuest reads one JSON object.
func readGuest(root int, dir, name string) (json.RawMessage, error) {
	data, err := readIn(root, dir, name, machine.GuestBytes)
	if err != nil || data == nil {
		return nil, err
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, data); err != nil {
		return nil, fmt.Errorf("it isn't JSON: %w", err)
	}
	if !bytes.HasPrefix(compact.Bytes(), []byte("{")) {
		return nil, errors.New("it isn't a JSON object")
	}
	return compact.Bytes(), nil
}

// digestOf tells whether files are the same as others.
func digestOf(files []machine.File) string {
	data, err := json.Marshal(files)
	if err != nil {
		panic(err) // strings, numbers and bytes always encode
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// refresh brings a running machine's files to what the spec says.
func (p *Provider) refresh(b *box, spec machine.Spec) error {
	digest := digestOf(spec.Files)
	proc := p.running(b)
	if proc == nil || !b.run.Booted || b.run.Files == digest {
		return nil
	}
	p.mu.Lock()
	root, err := -1, error(nil)
	if b.proc == proc {
		root, err = proc.root()
	}
	p.mu.Unlock()
	if err != nil {
		return fmt.Errorf("deliver files: %w", err)
	}
	if root < 0 {
		return nil // it ended: its next boot gets them
	}
	defer unix.Close(root)
	if err := deliver(root, p.base(b.disk.Slot), spec.Files); err != nil {
		return fmt.Errorf("deliver files: %w", err)
	}
	// Recorded last: a host that is killed before delivers them again.
	record := b.run
	record.Files = digest
	if err := writeJSON(p.runFile(b.id), record); err != nil {
		return err
	}
	p.set(func() { b.run.Files = digest })
	return nil
}
