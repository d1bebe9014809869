// SPDX-License-Identifier: Apache-2.0

package backup_test

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"bastide.dev/backup"
	"bastide.dev/fault"
)

func key(t *testing.T) *age.X25519Identity {
	t.Helper()
	k, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// archive has two files, one of them long, and a link that isn't followed.
func archive(t *testing.T, to age.Recipient) []byte {
	t.Helper()
	dir := t.TempDir()
	for name, data := range map[string]string{"a": "small", "deep/b": strings.Repeat("long", 1<<16)} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w, err := backup.NewWriter(&out, backup.Manifest{Instance: "i", Made: time.Unix(1, 0).UTC(), Clusters: []string{"c"}}, to)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.AddTree("tree", dir); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestArchive(t *testing.T) {
	k := key(t)
	data := archive(t, k.Recipient())
	if bytes.Contains(data, []byte("small")) || bytes.Contains(data, []byte("manifest")) {
		t.Error("the archive can be read without its key")
	}
	dir := filepath.Join(t.TempDir(), "out")
	m, err := backup.Unpack(bytes.NewReader(data), dir, k)
	if err != nil {
		t.Fatal(err)
	}
	if m.Instance != "i" || len(m.Clusters) != 1 || !m.Made.Equal(time.Unix(1, 0)) {
		t.Errorf("manifest %+v", m)
	}
	long, err := os.ReadFile(filepath.Join(dir, "tree/deep/b"))
	if err != nil || string(long) != strings.Repeat("long", 1<<16) {
		t.Errorf("%d bytes: %v", len(long), err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "tree/link")); err == nil {
		t.Error("what a link leads to was taken")
	}
	info, err := os.Stat(filepath.Join(dir, "tree/a"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
}

// Whatever is wrong with an archive, it is an error, wherever it is wrong.
func TestDamage(t *testing.T) {
	k := key(t)
	data := archive(t, k.Recipient())
	unpack := func(data []byte, k age.Identity) error {
		_, err := backup.Unpack(bytes.NewReader(data), filepath.Join(t.TempDir(), "out"), k)
		return err
	}
	if err := unpack(data, key(t)); !fault.Is(err, fault.Invalid) {
		t.Errorf("another key: %v", err)
	}
	for n := 0; n < len(data); n += len(data)/40 + 1 {
		if err := unpack(data[:n], k); !fault.Is(err, fault.Invalid) {
			t.Errorf("cut at %d: %v", n, err)
		}
		flipped := bytes.Clone(data)
		flipped[n] ^= 1
		if err := unpack(flipped, k); !fault.Is(err, fault.Invalid) {
			t.Errorf("a bit at %d: %v", n, err)
		}
	}
}

// An archive of somebody who has the key, but means ill, stays in its directory.
func TestHostileNames(t *testing.T) {
	k := key(t)
	for _, h := range []tar.Header{
		{Name: "../out", Typeflag: tar.TypeReg}, {Name: "/etc/evil", Typeflag: tar.TypeReg}, {Name: "a/../../b", Typeflag: tar.TypeReg},
		{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "/etc"}, {Name: "dev", Typeflag: tar.TypeChar}, {Name: ".", Typeflag: tar.TypeReg},
	} {
		var out bytes.Buffer
		sealed, err := age.Encrypt(&out, k.Recipient())
		if err != nil {
			t.Fatal(err)
		}
		w := tar.NewWriter(sealed)
		manifest := `{"format":1}`
		for _, header := range []tar.Header{{Name: "manifest.json", Size: int64(len(manifest)), Mode: 0o600}, h} {
			if err := w.WriteHeader(&header); err != nil {
				t.Fatal(err)
			}
			if header.Size > 0 {
				if _, err := w.Write([]byte(manifest)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if err := sealed.Close(); err != nil {
			t.Fatal(err)
		}
		parent := t.TempDir()
		if _, err := backup.Unpack(&out, filepath.Join(parent, "in"), k); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", h.Name, err)
		}
		if entries, err := os.ReadDir(parent); err != nil || len(entries) != 1 {
			t.Errorf("%s: %d entries beside it, %v", h.Name, len(entries), err)
		}
	}
}
