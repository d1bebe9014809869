// SPDX-License-Identifier: Apache-2.0

package nodeimage

import (
	"bufio"
	"fmt"
	"os"
	"strings"
)

// stanza is one paragraph of a Debian control file (deb822): field to first line.
type stanza map[string]string

func (s stanza) id() Package {
	return Package{Name: s["Package"], Version: s["Version"], Architecture: s["Architecture"]}
}

// readStanzas calls each with every paragraph of a control file.
func readStanzas(path string, each func(stanza)) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read packages: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	current := stanza{}
	for lines.Scan() {
		line := lines.Text()
		if line == "" {
			if len(current) > 0 {
				each(current)
			}
			current = stanza{}
			continue
		}
		if line[0] == ' ' || line[0] == '\t' {
			continue
		}
		if field, value, ok := strings.Cut(line, ":"); ok {
			current[field] = strings.TrimSpace(value)
		}
	}
	if len(current) > 0 {
		each(current)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read packages from %s: %w", path, err)
	}
	return nil
}
