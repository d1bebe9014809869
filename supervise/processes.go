// SPDX-License-Identifier: Apache-2.0

package supervise

import "golang.org/x/sys/unix"

// Processes tells which of the processes with a record in dir live, by name,
// without supervising them.
func Processes(dir string) (map[string]int, error) {
	names, err := Recorded(dir)
	if err != nil {
		return nil, err
	}
	alive := map[string]int{}
	for _, name := range names {
		r := readRecord(dir, name)
		if fd, ok := r.open(); ok {
			alive[name] = r.PID
			_ = unix.Close(fd) // only looked
		}
	}
	return alive, nil
}
