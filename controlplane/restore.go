// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"strconv"
	"strings"
)

// revisionsAhead is by how much a restored store counts on from its snapshot:
// farther than it can have counted since, so that who remembers a later
// revision reads everything anew and isn't told that nothing happened.
const revisionsAhead = 1_000_000_000

// RestoreArgs are the arguments by which etcdutl makes a data directory, which
// mustn't exist yet, of a snapshot.
func RestoreArgs(snapshot, dir string) []string { return RestoreArgsAfter(snapshot, dir, 0) }

// RestoreArgsAfter is RestoreArgs for a store that clients saw at a revision:
// it may have been restored before, and so be far ahead of any snapshot.
func RestoreArgsAfter(snapshot, dir string, seen int64) []string {
	return []string{"snapshot", "restore", snapshot, "--data-dir=" + dir, "--name=default", "--initial-cluster=default=" + peerURL,
		"--initial-advertise-peer-urls=" + peerURL, "--bump-revision=" + strconv.FormatInt(RevisionAfter(0, seen), 10), "--mark-compacted"}
}

// RevisionAfter is where a store counts on that is restored so from a snapshot of
// a revision.
func RevisionAfter(snapshot, seen int64) int64 { return snapshot + max(seen, 0) + revisionsAhead }

// TrialEtcd is the etcd that looks at restored data before that is in charge,
// beside the etcd that is; TrialEtcdURL is where it serves.
const (
	TrialEtcd    = "etcd-restore"
	TrialEtcdURL = "https://127.0.0.1:2479"
	trialPeerURL = "https://127.0.0.1:2480"
)

// Trial is a plan's etcd over another directory.
func (p *Plan) Trial(dir string) (Program, bool) {
	for _, program := range p.Programs {
		if program.Name != Etcd {
			continue
		}
		trial := program
		trial.Name, trial.Write, trial.Args = TrialEtcd, dir, nil
		for _, arg := range program.Args {
			switch name, _, _ := strings.Cut(arg, "="); name {
			case "--data-dir":
				arg = name + "=" + dir
			case "--listen-client-urls", "--advertise-client-urls":
				arg = name + "=" + TrialEtcdURL
			case "--listen-peer-urls":
				arg = name + "=" + trialPeerURL
			}
			trial.Args = append(trial.Args, arg)
		}
		return trial, true
	}
	return Program{}, false
}
