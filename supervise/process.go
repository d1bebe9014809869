// SPDX-License-Identifier: Apache-2.0

// Package supervise runs operating-system processes and keeps them running:
// each in its own cgroup, under its own uid, in the namespaces it is given,
// without capabilities. The processes outlive their supervisor; the next one
// adopts those whose definition is unchanged and replaces the others.
//
// It knows no Kubernetes. Mechanism and cmd import it; it imports fault, cgroup
// and golang.org/x/sys.
package supervise

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"syscall"
	"time"
)

// Process says what should run. Everything but Ready is its definition: when
// that changes, the process is replaced.
type Process struct {
	Name string   // unique in the supervisor, [a-zA-Z0-9._-]
	Path string   // absolute
	Args []string // without the program's name
	Env  []string // the whole environment; nothing is inherited
	Dir  string   // working directory; empty: /

	UID, GID int // no supplementary groups
	// Keep leaves the process root's capabilities and lets it gain others: for
	// the instance's own host daemon. All else has none and can gain none.
	Keep bool

	Netns  string // path of the network namespace; empty: the supervisor's
	Cgroup string // a group of its own, for package cgroup; empty: the supervisor's
	// View, when not nil, is all that the process sees of the file system, besides
	// a few devices and its own uid's processes in /proc.
	View []Bind

	LogFile string // takes standard output and error
	LogMax  int64  // bytes, from where on the file is moved to LogFile.1; 0: 10 MiB

	// Inputs is a digest of the files that the process reads only at its start.
	Inputs string

	Backoff     Backoff
	StopSignal  syscall.Signal // 0: SIGTERM
	StopTimeout time.Duration  // then SIGKILL; 0: 10 s

	// Ready is called until it returns nil, again after each start; nil: ready
	// once started. It ends with its context.
	Ready func(ctx context.Context) error `json:"-"`
}

// Bind is a file or directory of the machine in a process's view.
type Bind struct {
	Source   string
	Target   string // empty: Source
	Writable bool
}

// Backoff is the wait before a restart: Min, doubled with each exit of a
// process that lived less than Max, up to Max. Zero: 50 ms up to 10 s.
type Backoff struct{ Min, Max time.Duration }

func (b Backoff) after(failures int) time.Duration {
	lowest, highest := b.Min, b.Max
	if lowest <= 0 {
		lowest = 50 * time.Millisecond
	}
	if highest <= 0 {
		highest = 10 * time.Second
	}
	for ; failures > 1 && lowest < highest; failures-- {
		lowest *= 2
	}
	return min(lowest, highest)
}

// Status is what a process is.
type Status struct {
	Name     string
	PID      int // 0: it doesn't run
	Started  time.Time
	Adopted  bool // it was started by an earlier supervisor
	Ready    bool
	Restarts int    // starts after the first
	Exit     string // how it ended last, "" when it never did
	Error    string // why it can't be started
	Log      string // the last lines before it ended last
}

func (p *Process) hash() (string, error) {
	data, err := json.Marshal(p)
	if err != nil {
		return "", fmt.Errorf("encode definition of %s: %w", p.Name, err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

func (p *Process) stopTimeout() time.Duration {
	if p.StopTimeout > 0 {
		return p.StopTimeout
	}
	return 10 * time.Second
}

func (p *Process) stopSignal() syscall.Signal {
	if p.StopSignal != 0 {
		return p.StopSignal
	}
	return syscall.SIGTERM
}

func (p *Process) logMax() int64 {
	if p.LogMax > 0 {
		return p.LogMax
	}
	return 10 << 20
}
