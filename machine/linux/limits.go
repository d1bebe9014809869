// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// limits are the kernel's bounds on what all machines of a computer may have
// together: it charges a user namespace's use to who made the namespace, too.
// The defaults end at the eleventh node, whose kubelet finds no inotify instance
// left, and at a node's two-hundredth container, which finds no keyring.
var limits = []struct {
	name  string
	least int64
}{
	{"fs/inotify/max_user_instances", 1 << 16},
	{"fs/inotify/max_user_watches", 1 << 22},
	{"kernel/keys/maxkeys", 20_000},
	{"kernel/keys/maxbytes", 2_000_000},
	{"kernel/pid_max", 1 << 22},
}

// raiseLimits raises the bounds that are lower. They stay: to lower them again
// could stop another's work, and a bound that isn't reached costs nothing.
func raiseLimits(dir string) error {
	var failed []error
	for _, l := range limits {
		path := filepath.Join(dir, l.name)
		data, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			continue // not in every kernel
		}
		now, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
		if err == nil && now < l.least {
			err = os.WriteFile(path, []byte(strconv.FormatInt(l.least, 10)), 0)
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("raise %s to %d: %w", l.name, l.least, err))
		}
	}
	return errors.Join(failed...)
}
