// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// kernelLimits are what many nodes on one kernel need. User namespaces have
// counts of their own, but the kernel charges each to the owner of the
// namespace too: what all machines use is root's.
var kernelLimits = []struct {
	name  string
	least int
}{
	{"fs/inotify/max_user_instances", 16384}, // kubelet, containerd and kube-proxy hold about ten a node
	{"fs/inotify/max_user_watches", 1 << 20},
	{"kernel/pid_max", 1 << 20},
	{"kernel/keys/maxkeys", 20000}, // a session keyring for each container
	{"kernel/keys/maxbytes", 1 << 21},
	{"kernel/keys/root_maxkeys", 1 << 20},
	{"user/max_user_namespaces", 10000},
	{"net/netfilter/nf_conntrack_max", 1 << 20},
}

// raiseKernelLimits raises what is lower than needed, and never lowers
// anything: others on the machine may rely on it by the time we go. What this
// kernel doesn't have, or doesn't let us raise, is told and left.
func raiseKernelLimits(root string, log *slog.Logger) {
	for _, limit := range kernelLimits {
		path := filepath.Join(root, limit.name)
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		now, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil || now >= limit.least {
			continue
		}
		if err := os.WriteFile(path, []byte(strconv.Itoa(limit.least)), 0); err != nil {
			log.Warn("kernel limit stays low", "sysctl", limit.name, "is", now, "wanted", limit.least, "error", err)
			continue
		}
		log.Info("kernel limit raised", "sysctl", limit.name, "was", fmt.Sprint(now), "is", limit.least)
	}
}
