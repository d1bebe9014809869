// SPDX-License-Identifier: Apache-2.0

package reboots

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// LockAnnotation holds the lock, in kured's JSON. A person who takes it stops all reboots:
// kubectl -n kube-system annotate configmap bastide-reboots weave.works/kured-node-lock='{"nodeID":"manual"}'
const LockAnnotation = "weave.works/kured-node-lock"

// maxLocks bounds what is read of the annotation.
const maxLocks = 1000

// by is how our own locks are known from those that people and kured write.
const by = "bastide"

// Held is one lock in the annotation.
type Held struct {
	NodeID   string        `json:"nodeID"`
	Metadata meta          `json:"metadata"`
	Created  time.Time     `json:"created"`
	TTL      time.Duration `json:"TTL"`
}

type meta struct {
	Unschedulable bool   `json:"unschedulable"`
	By            string `json:"by,omitempty"`
}

// several is the annotation's form with a concurrency above 1.
type several struct {
	MaxOwners int    `json:"maxOwners"`
	Locks     []Held `json:"locks"`
}

func (h Held) expired(now time.Time) bool { return h.TTL > 0 && now.Sub(h.Created) >= h.TTL }

func (h Held) ours() bool { return h.Metadata.By == by }

// parseLocks reads the annotation in either form.
func parseLocks(text string) ([]Held, error) {
	if text == "" {
		return nil, nil
	}
	var many several
	var one Held
	if err := errors.Join(json.Unmarshal([]byte(text), &many), json.Unmarshal([]byte(text), &one)); err != nil {
		return nil, fmt.Errorf("the lock can't be read: %w", err)
	}
	if one.NodeID != "" {
		many.Locks = append(many.Locks, one)
	}
	if len(many.Locks) > maxLocks {
		return nil, fmt.Errorf("the lock has more than %d holders", maxLocks)
	}
	return many.Locks, nil
}

// Locked is how the annotation stands.
type Locked struct {
	Granted []string // nodes of ours that hold it, sorted
	Other   string   // who else does; nobody of ours gets it then
}

// Lock is the annotation that should be, and what it means: ours that aren't
// wanted any more are gone, and those that are wanted are in it as far as
// allowed. An annotation that can't be read stays, and blocks.
func Lock(text string, wanted []string, allowed func(node string) bool, s Settings, now time.Time) (string, Locked) {
	all, err := parseLocks(text)
	if err != nil {
		return text, Locked{Other: err.Error()}
	}
	var locked Locked
	kept := all[:0:0]
	for _, h := range all {
		switch {
		case h.ours() && slices.Contains(wanted, h.NodeID):
			locked.Granted = append(locked.Granted, h.NodeID)
			kept = append(kept, h)
		case !h.ours() && !h.expired(now):
			locked.Other = "the lock is held by " + short(h.NodeID)
			kept = append(kept, h)
		}
	}
	for _, node := range wanted {
		if locked.Other == "" && len(kept) < s.Concurrency && !slices.Contains(locked.Granted, node) && allowed(node) {
			locked.Granted = append(locked.Granted, node)
			kept = append(kept, Held{NodeID: node, Metadata: meta{By: by}, Created: now.UTC().Truncate(time.Second), TTL: s.LockTTL})
		}
	}
	slices.Sort(locked.Granted)
	if slices.Equal(all, kept) {
		return text, locked
	}
	return format(kept, s.Concurrency), locked
}

func format(held []Held, concurrency int) string {
	var value any = several{MaxOwners: concurrency, Locks: held}
	switch {
	case len(held) == 0:
		return ""
	case len(held) == 1 && concurrency == 1:
		value = held[0]
	}
	text, err := json.Marshal(value)
	if err != nil {
		return "" // there is nothing in it that can't be written
	}
	return string(text)
}

// short bounds a foreign text in a message.
func short(text string) string {
	if len(text) > 100 {
		text = text[:100]
	}
	return fmt.Sprintf("%q", text)
}
