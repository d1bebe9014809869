// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// shelf keeps objects on disk, each as its content and a record beside it, and
// forgets those that nobody asked for longest when there are too many.
type shelf struct {
	dir   string
	limit int64

	mu   sync.Mutex // guards what follows, and names in dir
	size int64
	// sound are the objects that were read and compared since the start.
	sound map[string]bool
}

const (
	contentEnd = ".data"
	recordEnd  = ".json"
)

func newShelf(dir string, limit int64) (*shelf, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s := &shelf{dir: dir, limit: limit, sound: map[string]bool{}}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), ".new-") { // of a process that was killed
			if err := os.Remove(filepath.Join(dir, entry.Name())); err != nil {
				return nil, err
			}
			continue
		}
		if info, err := entry.Info(); err == nil {
			s.size += info.Size()
		}
	}
	return s, nil
}

// item is an object that is open for reading.
type item struct {
	record
	file *os.File
}

func (i *item) close() {
	if i != nil {
		_ = i.file.Close()
	}
}

func (i *item) orNone() record {
	if i == nil {
		return record{}
	}
	return i.record
}

// path is where an object is kept, but for the ending.
func (s *shelf) path(name string) string {
	sum := sha256.Sum256([]byte(name))
	return filepath.Join(s.dir, hex.EncodeToString(sum[:]))
}

// open gives nil for what isn't there, or isn't there as it was recorded.
func (s *shelf) open(name string) (*item, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	base := s.path(name)
	data, err := os.ReadFile(base + recordEnd)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	i := &item{}
	if json.Unmarshal(data, &i.record) != nil || i.Name != name {
		return nil, nil
	}
	if i.file, err = os.Open(base + contentEnd); err != nil {
		return nil, ignoreMissing(err)
	}
	if !s.isSound(i) {
		i.close()
		return nil, nil
	}
	now := time.Now()
	_ = os.Chtimes(base+contentEnd, now, now) // when it was asked for last; only eviction reads it
	return i, nil
}

// isSound compares the content with its record, all of it the first time.
func (s *shelf) isSound(i *item) bool {
	info, err := i.file.Stat()
	if err != nil || info.Size() != i.Size {
		return false
	}
	if s.sound[i.Digest] {
		return true
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, i.file); err != nil || hex.EncodeToString(sum.Sum(nil)) != i.Digest {
		return false
	}
	if _, err := i.file.Seek(0, io.SeekStart); err != nil {
		return false
	}
	s.sound[i.Digest] = true
	return true
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// confirm records that an object still holds.
func (s *shelf) confirm(name string, r record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.Name = name
	return s.write(name, r)
}

// put keeps what content gives, when it is whole and is what its name says.
func (s *shelf) put(name string, r, before record, content io.Reader) error {
	file, err := os.CreateTemp(s.dir, ".new-")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) // it isn't there any more when all went well
	sum := sha256.New()
	r.Size, err = io.Copy(io.MultiWriter(file, sum), content)
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	r.Name, r.Digest = name, hex.EncodeToString(sum.Sum(nil))
	if want, said := hashOf(name); said && want != r.Digest {
		return fmt.Errorf("the archive gives something else: its digest is %s", r.Digest)
	}
	if r.Digest == before.Digest && r.Stamp == "" {
		r.Modified = before.Modified // the archive doesn't say, but it didn't change
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.makeRoom(r.Size); err != nil {
		return err
	}
	base := s.path(name)
	if info, err := os.Stat(base + contentEnd); err == nil {
		s.size -= info.Size()
	}
	if err := os.Rename(file.Name(), base+contentEnd); err != nil {
		return err
	}
	s.size += r.Size
	return s.write(name, r)
}

func (s *shelf) write(name string, r record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	base := s.path(name)
	temporary := filepath.Join(s.dir, ".new-"+filepath.Base(base))
	if err := os.WriteFile(temporary, data, 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, base+recordEnd)
}

// makeRoom removes what wasn't asked for longest until more fits, and a tenth
// of the shelf beside it.
func (s *shelf) makeRoom(more int64) error {
	if s.size+more <= s.limit {
		return nil
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	var contents []fs.FileInfo
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil && strings.HasSuffix(info.Name(), contentEnd) {
			contents = append(contents, info)
		}
	}
	slices.SortFunc(contents, func(a, b fs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	for _, info := range contents {
		if s.size+more <= s.limit*9/10 {
			break
		}
		path := filepath.Join(s.dir, info.Name())
		// The record first: content without one is nothing.
		if err := errors.Join(ignoreMissing(os.Remove(strings.TrimSuffix(path, contentEnd)+recordEnd)), os.Remove(path)); err != nil {
			return err
		}
		s.size -= info.Size()
	}
	return nil
}
