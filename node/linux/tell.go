// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"bastide.dev/machine"
	"bastide.dev/node"
)

// teller writes what the node says of itself, each time that it changes.
type teller struct {
	log *slog.Logger

	mu     sync.Mutex // guards what follows, and the file
	status node.Status
	said   []byte
	parts  map[string]bool // the services there should be, and whether they run
}

func newTeller(log *slog.Logger) *teller { return &teller{log: log, parts: map[string]bool{}} }

// tell changes the status and writes it when that says something new.
func (t *teller) tell(change func(*node.Status)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	change(&t.status)
	t.write()
}

// part says that a service runs or doesn't; gone, that there shouldn't be one.
func (t *teller) part(name string, runs, gone bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.parts[name] = runs
	if gone {
		delete(t.parts, name)
	}
	t.write()
}

func (t *teller) write() {
	t.status.Ready = true
	for _, runs := range t.parts {
		t.status.Ready = t.status.Ready && runs
	}
	data, err := json.Marshal(t.status.Bounded())
	if err == nil && !bytes.Equal(data, t.said) {
		if err = writeFile(node.File{Path: machine.GuestPath, Mode: 0o600, Data: data}); err == nil {
			t.said = data
		}
	}
	if err != nil {
		t.log.Warn("telling of the node", "error", err)
	}
}

// The sentinel of Debian and Ubuntu for a restart that is due, as AKS's nodes
// and whoever looks after them know it. /var/run is /run, and new with each boot.
const (
	sentinel         = "/run/reboot-required"
	sentinelPackages = "/run/reboot-required.pkgs"
	sentinelBytes    = 16 << 10
)

// tellReboot looks whether a restart is due, whoever says so.
func (t *teller) tellReboot() {
	info, err := os.Lstat(sentinel)
	packages := sentinelList()
	t.tell(func(s *node.Status) {
		s.RebootRequired, s.RebootPackages = err == nil, nil
		if err != nil {
			s.RebootSince = time.Time{}
			return
		}
		s.RebootPackages = packages
		if s.RebootSince.IsZero() {
			s.RebootSince = info.ModTime().UTC()
		}
	})
}

// sentinelList are the packages that want the restart.
func sentinelList() []string {
	file, err := os.OpenFile(sentinelPackages, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil
	}
	data, err := io.ReadAll(io.LimitReader(file, sentinelBytes))
	if err != nil {
		return nil
	}
	list := strings.Fields(string(data))
	slices.Sort(list)
	return slices.Compact(list)
}

// requireReboot leaves the sentinel, with the packages beside those it has.
func requireReboot(packages []string) error {
	list := append(sentinelList(), packages...)
	slices.Sort(list)
	list = slices.Compact(list)
	err := writeFile(node.File{Path: sentinelPackages, Mode: 0o644, Data: []byte(strings.Join(list, "\n") + "\n")})
	if _, missing := os.Lstat(sentinel); errors.Is(missing, fs.ErrNotExist) {
		err = errors.Join(err, writeFile(node.File{Path: sentinel, Mode: 0o644, Data: []byte("*** System restart required ***\n")}))
	}
	return err
}
