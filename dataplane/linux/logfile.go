// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// logFile is appended to until it is full; then it becomes the old one, in
// place of an older one. It is for one goroutine.
type logFile struct {
	path string
	open *os.File
	size int64
}

func (l *logFile) write(lines []byte) error {
	if len(lines) == 0 {
		return nil
	}
	if l.open != nil && l.size+int64(len(lines)) > maxFlowLog {
		if err := errors.Join(l.close(), os.Rename(l.path, l.path+".1")); err != nil {
			return fmt.Errorf("rotate log: %w", err)
		}
	}
	if l.open == nil {
		if err := l.reopen(); err != nil {
			return err
		}
	}
	n, err := l.open.Write(lines)
	l.size += int64(n)
	if err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	return nil
}

func (l *logFile) reopen() error {
	if err := os.MkdirAll(filepath.Dir(l.path), 0o700); err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	file, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	info, err := file.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("open log: %w", err), file.Close())
	}
	l.open, l.size = file, info.Size()
	return nil
}

func (l *logFile) close() error {
	if l.open == nil {
		return nil
	}
	err := l.open.Close()
	l.open = nil
	if err != nil {
		return fmt.Errorf("close log: %w", err)
	}
	return nil
}
