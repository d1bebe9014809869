// SPDX-License-Identifier: Apache-2.0

package sealed

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const (
	keySize   = 32 // AES-256
	keyIDSize = 8
)

// Key is one sealing key.
type Key struct {
	ID     string // keyIDSize characters, written before each value that it sealed
	Secret []byte
}

// NewKey makes a random key.
func NewKey() Key {
	k := Key{ID: rand.Text()[:keyIDSize], Secret: make([]byte, keySize)}
	_, _ = rand.Read(k.Secret) // never fails: it ends the process instead
	return k
}

// LoadKeys reads a key file: a line "ID BASE64" for each key. The first seals;
// the others still open what they sealed. To rotate, put a new first line and Reseal.
func LoadKeys(path string) ([]Key, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("sealed: %w", err)
	}
	var keys []Key
	lines := bufio.NewScanner(bytes.NewReader(raw))
	for lines.Scan() {
		id, text, _ := strings.Cut(strings.TrimSpace(lines.Text()), " ")
		if id == "" {
			continue
		}
		secret, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(secret) != keySize || len(id) != keyIDSize {
			return nil, fmt.Errorf("sealed: %s: line %d isn't a key", path, len(keys)+1)
		}
		keys = append(keys, Key{ID: id, Secret: secret})
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("sealed: %s holds no key", path)
	}
	return keys, lines.Err()
}

// SaveKeys writes a key file that only its owner can read, all of it or nothing.
func SaveKeys(path string, keys []Key) (err error) {
	var b bytes.Buffer
	for _, k := range keys {
		fmt.Fprintf(&b, "%s %s\n", k.ID, base64.StdEncoding.EncodeToString(k.Secret))
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".keys-*") // 0600
	if err != nil {
		return fmt.Errorf("sealed: %w", err)
	}
	_, err = f.Write(b.Bytes())
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("sealed: write %s: %w", path, err), os.Remove(f.Name()))
	}
	return nil
}

// EnsureKeys is LoadKeys, after making the file with a new key when there is none.
func EnsureKeys(path string) ([]Key, error) {
	keys, err := LoadKeys(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return keys, err
	}
	keys = []Key{NewKey()}
	return keys, SaveKeys(path, keys)
}
