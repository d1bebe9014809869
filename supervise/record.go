// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// record is what a supervisor leaves for the next one.
type record struct {
	Name     string    `json:"name"`
	PID      int       `json:"pid"`
	Start    uint64    `json:"start"` // of /proc/PID/stat: tells a process from a later one with the same pid
	Started  time.Time `json:"started"`
	Hash     string    `json:"hash"`
	Restarts int       `json:"restarts"`
	Cgroup   string    `json:"cgroup,omitempty"`
}

func recordPath(dir, name string) string { return filepath.Join(dir, name+".json") }

func writeRecord(dir string, r record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("record %s: %w", r.Name, err)
	}
	path := recordPath(dir, r.Name)
	// Run directories are gone after a power loss, as the processes are: no fsync.
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return fmt.Errorf("record %s: %w", r.Name, err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("record %s: %w", r.Name, err)
	}
	return nil
}

// readRecord returns a zero record when there is none that can be read.
func readRecord(dir, name string) record {
	data, err := os.ReadFile(recordPath(dir, name))
	if err != nil {
		return record{}
	}
	var r record
	if json.Unmarshal(data, &r) != nil || r.Name != name {
		return record{}
	}
	return r
}

func removeRecord(dir, name string) error {
	if err := os.Remove(recordPath(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Recorded lists the processes that this or an earlier supervisor left records of.
func Recorded(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".json"); ok {
			names = append(names, name)
		}
	}
	return names, nil
}

// open returns a pidfd of the recorded process, or false when it doesn't live.
func (r record) open() (int, bool) {
	if r.PID <= 0 {
		return -1, false
	}
	fd, err := unix.PidfdOpen(r.PID, unix.PIDFD_NONBLOCK)
	if err != nil {
		return -1, false
	}
	// Compared after the pidfd is open: from then on the pid can't change hands.
	if start, err := startTime(r.PID); err != nil || start != r.Start {
		unix.Close(fd)
		return -1, false
	}
	return fd, true
}

// startTime is when a process started, in ticks since the machine did. A
// process that only waits to be reaped counts as none.
func startTime(pid int) (uint64, error) {
	begin, zombie, err := stat(pid)
	if err == nil && zombie {
		return 0, fs.ErrNotExist
	}
	return begin, err
}

// stat reads when a process started, and whether it only waits to be reaped.
func stat(pid int) (start uint64, zombie bool, err error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, false, err
	}
	// The name, in parentheses, may hold anything; fields count from after it.
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	if len(fields) < 20 {
		return 0, false, fmt.Errorf("stat of %d is short", pid)
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	return start, fields[0] == "Z" || fields[0] == "X", err
}
