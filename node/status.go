// SPDX-License-Identifier: Apache-2.0

package node

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"
)

// Status is what a node says of itself, in machine.GuestPath. Whoever reads it
// remembers that the machine's tenant may have written it.
type Status struct {
	// Config is the Digest of the Config file that is in effect, but for what
	// only a reboot brings (Config.Live).
	Config string `json:"config"`
	// Services are those that run, with the config that they were started with.
	Ready bool         `json:"ready"` // all of them run
	Error string       `json:"error,omitempty"`
	Patch *PatchStatus `json:"patch,omitempty"`
	// RebootRequired is /var/run/reboot-required, with its list of packages.
	RebootRequired bool      `json:"rebootRequired,omitempty"`
	RebootPackages []string  `json:"rebootPackages,omitempty"`
	RebootSince    time.Time `json:"rebootSince,omitzero"`
	// Upgradable are the security updates that weren't installed when Looked was.
	Upgradable []Update  `json:"upgradable,omitempty"`
	Looked     time.Time `json:"looked,omitzero"`
	LookError  string    `json:"lookError,omitempty"` // why it isn't known
}

// Digest is how a Status names a Config file.
func Digest(file []byte) string {
	sum := sha256.Sum256(file)
	return hex.EncodeToString(sum[:])
}

// PatchStatus is what became of the newest Patch.
type PatchStatus struct {
	Token     string    `json:"token"`
	Begun     time.Time `json:"begun,omitzero"`
	Ended     time.Time `json:"ended,omitzero"` // zero as long as it runs
	Installed []Update  `json:"installed,omitempty"`
	// Partial: the window ended before everything was installed.
	Partial bool   `json:"partial,omitempty"`
	Error   string `json:"error,omitempty"`
}

// Update is one package that was brought up to date.
type Update struct {
	Package string `json:"package"`
	From    string `json:"from"`
	To      string `json:"to"`
}

// Bounds of a status: what is longer is cut.
const (
	maxUpdates = 90
	maxText    = 80
	maxError   = 1024
)

// Bounded is the status as far as one is told and believed: a package's name
// or a version that is longer than any of Debian's is cut, and so are lists.
func (s Status) Bounded() Status {
	s.Config, s.Error, s.LookError = cut(s.Config, maxText), cut(s.Error, maxError), cut(s.LookError, maxError)
	s.Upgradable = boundedUpdates(s.Upgradable)
	s.RebootPackages = append([]string(nil), s.RebootPackages[:min(len(s.RebootPackages), maxUpdates)]...)
	for i, name := range s.RebootPackages {
		s.RebootPackages[i] = cut(name, maxText)
	}
	if s.Patch != nil {
		patch := *s.Patch
		patch.Token, patch.Error = cut(patch.Token, maxText), cut(patch.Error, maxError)
		patch.Installed = boundedUpdates(patch.Installed)
		s.Patch = &patch
	}
	return s
}

func boundedUpdates(list []Update) []Update {
	var kept []Update
	for _, u := range list[:min(len(list), maxUpdates)] {
		kept = append(kept, Update{cut(u.Package, maxText), cut(u.From, maxText), cut(u.To, maxText)})
	}
	return kept
}

// cut shortens a text to at most limit printable characters that JSON needn't
// escape: more is in no name that Debian allows, and it may reach a terminal.
func cut(text string, limit int) string {
	kept := make([]byte, 0, min(len(text), limit))
	for _, r := range text {
		if len(kept) == limit {
			break
		}
		if r < ' ' || r > '~' || strings.ContainsRune("<>&\"\\", r) {
			r = '?'
		}
		kept = append(kept, byte(r))
	}
	return string(kept)
}
