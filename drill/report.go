// SPDX-License-Identifier: Apache-2.0

package drill

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// Files of a report.
const (
	JSONFile = "report.json"
	HTMLFile = "report.html"
)

// Schema is the JSON schema of report.json.
//
//go:embed report.schema.json
var Schema []byte

// Write writes a report's files into a directory, which it makes.
func (r *Report) Write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	var page bytes.Buffer
	if err := r.HTML(&page); err != nil {
		return err
	}
	for name, data := range map[string][]byte{JSONFile: append(text, '\n'), HTMLFile: page.Bytes()} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return fmt.Errorf("report: %w", err)
		}
	}
	return nil
}
