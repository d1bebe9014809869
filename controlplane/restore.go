// SPDX-License-Identifier: Apache-2.0

package controlplane

// revisionsAhead is by how much a restored store counts on from its snapshot:
// farther than it can have counted since, so that who remembers a later
// revision reads everything anew and isn't told that nothing happened.
const revisionsAhead = "1000000000"

// RestoreArgs are the arguments by which etcdutl makes a data directory, which
// mustn't exist yet, of a snapshot.
func RestoreArgs(snapshot, dir string) []string {
	return []string{"snapshot", "restore", snapshot, "--data-dir=" + dir, "--name=default", "--initial-cluster=default=" + peerURL,
		"--initial-advertise-peer-urls=" + peerURL, "--bump-revision=" + revisionsAhead, "--mark-compacted"}
}
