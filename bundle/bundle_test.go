// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bastide.dev/fault"
)

// sample publishes a bundle of one program and a link to it.
func sample(t *testing.T) (cache string, b *Bundle) {
	t.Helper()
	cache = t.TempDir()
	unlock, err := lock(t.Context(), cache, "sample@1.0")
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	m := Manifest{Name: "sample", Version: "1.0", Inputs: buildPrefix + strings.Repeat("ab", 32),
		Components: []Component{{Name: "tool", Version: "1.0", Path: bin + "tool"}}}
	b, err = publish(cache, m, func(root string) error {
		if err := os.MkdirAll(filepath.Join(root, bin), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(root, bin, "tool"), []byte("program"), 0o700); err != nil {
			return err
		}
		return os.Symlink("tool", filepath.Join(root, bin, "alias"))
	})
	if err != nil {
		t.Fatal(err)
	}
	return cache, b
}

func TestOpenGivesWhatWasPublished(t *testing.T) {
	cache, _ := sample(t)
	b, err := Open(cache, "sample", "1.0")
	if err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(b.Path("tool")); err != nil || string(data) != "program" {
		t.Errorf("component: %q, %v", data, err)
	}
	if b.Path("alias") != "" {
		t.Error("a file that is no component has a path")
	}
	for dir := filepath.Dir(b.Path("tool")); dir != cache; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%s: mode %v, %v: other uids can't reach the bundle", dir, info.Mode(), err)
		}
		if filepath.Base(dir) == rootDir {
			break
		}
	}
	list, err := List(cache)
	if err != nil || len(list) != 1 || list[0].ID() != "sample@1.0" {
		t.Errorf("List: %v, %v", list, err)
	}
}

func TestOpenFindsTampering(t *testing.T) {
	tests := map[string]func(t *testing.T, b *Bundle){
		"other content, same size and time": func(t *testing.T, b *Bundle) { rewrite(t, b.Path("tool"), "PROGRAM") },
		"another file in its place": func(t *testing.T, b *Bundle) {
			must(t, os.WriteFile(b.Path("tool")+".new", []byte("PROGRAM"), 0o755))
			must(t, os.Rename(b.Path("tool")+".new", b.Path("tool")))
		},
		"a forged stamp that others could write": func(t *testing.T, b *Bundle) {
			rewrite(t, b.Path("tool"), "PROGRAM")
			forgeStamp(t, b, 0o666)
		},
		"missing file":    func(t *testing.T, b *Bundle) { must(t, os.Remove(b.Path("tool"))) },
		"additional file": func(t *testing.T, b *Bundle) { must(t, os.WriteFile(b.Path("tool")+"2", nil, 0o755)) },
		"writable by all": func(t *testing.T, b *Bundle) { must(t, os.Chmod(b.Path("tool"), 0o777)) },
		"setuid":          func(t *testing.T, b *Bundle) { must(t, os.Chmod(b.Path("tool"), 0o755|os.ModeSetuid)) },
		"link elsewhere": func(t *testing.T, b *Bundle) {
			alias := filepath.Join(filepath.Dir(b.Path("tool")), "alias")
			must(t, os.Remove(alias))
			must(t, os.Symlink("/bin/sh", alias))
		},
		"program turned into a link": func(t *testing.T, b *Bundle) {
			must(t, os.Remove(b.Path("tool")))
			must(t, os.Symlink("/bin/sh", b.Path("tool")))
		},
		"manifest with a link out": func(t *testing.T, b *Bundle) {
			alias := filepath.Join(filepath.Dir(b.Path("tool")), "alias")
			must(t, os.Remove(alias))
			must(t, os.Symlink("../../../../x", alias))
			editManifest(t, b, func(m *Manifest) { m.Files[0].Link = "../../../../x" })
		},
		"manifest with a path out": func(t *testing.T, b *Bundle) {
			editManifest(t, b, func(m *Manifest) {
				m.Files = append(m.Files, File{Path: "../manifest.json", Mode: 0o644})
			})
		},
		"manifest of another bundle": func(t *testing.T, b *Bundle) { editManifest(t, b, func(m *Manifest) { m.Version = "2.0" }) },
		"half a manifest": func(t *testing.T, b *Bundle) {
			must(t, os.Truncate(filepath.Join(b.dir, manifestFile), 20))
		},
	}
	for name, tamper := range tests {
		t.Run(name, func(t *testing.T) {
			cache, b := sample(t)
			if _, err := Open(cache, "sample", "1.0"); err != nil {
				t.Fatalf("before: %v", err)
			}
			tamper(t, b)
			_, err := Open(cache, "sample", "1.0")
			if f := fault.From(err); f == nil || f.Code != "BundleDamaged" {
				t.Errorf("tampering wasn't found: %v", err)
			}
		})
	}
}

func TestOpenRemembersWhatItRead(t *testing.T) {
	cache, b := sample(t)
	rewrite(t, b.Path("tool"), "PROGRAM")
	forgeStamp(t, b, 0o600)
	if _, err := Open(cache, "sample", "1.0"); err != nil {
		t.Errorf("root's own stamp wasn't believed, so every Open reads all: %v", err)
	}
}

func TestOpenRefusesNames(t *testing.T) {
	for _, id := range [][2]string{{"../sample", "1.0"}, {"sample", "../1.0"}, {"sample", ""}, {"", "1"}, {"Sample", "1.0"}} {
		if _, err := Open(t.TempDir(), id[0], id[1]); !fault.Is(err, fault.Invalid) {
			t.Errorf("Open(%q, %q): %v", id[0], id[1], err)
		}
	}
	if _, err := Open(t.TempDir(), "sample", "1.0"); !fault.Is(err, fault.NotFound) {
		t.Errorf("a bundle that isn't there: %v", err)
	}
}

func TestRemoveAndPrune(t *testing.T) {
	cache, b := sample(t)
	must(t, Prune(cache))
	if _, err := Open(cache, "sample", "1.0"); err != nil {
		t.Fatalf("Prune took a current bundle: %v", err)
	}
	must(t, Remove(cache, "sample", "1.0"))
	if _, err := os.Stat(b.Path("tool")); err != nil {
		t.Errorf("Remove took the files from under what runs: %v", err)
	}
	must(t, Prune(cache))
	if _, err := os.Stat(b.dir); !os.IsNotExist(err) {
		t.Errorf("Prune left the files: %v", err)
	}
}

// rewrite changes a file in place and sets its time back.
func rewrite(t *testing.T, path, data string) {
	t.Helper()
	info, err := os.Stat(path)
	must(t, err)
	must(t, os.WriteFile(path, []byte(data), 0o755))
	must(t, os.Chtimes(path, time.Now(), info.ModTime()))
}

// forgeStamp says that the files as they are now have the manifest's digests.
func forgeStamp(t *testing.T, b *Bundle, mode os.FileMode) {
	t.Helper()
	forged := stamp{}
	for _, f := range b.Files {
		if f.Link == "" {
			id, err := identify(filepath.Join(b.Root(), f.Path))
			must(t, err)
			id.SHA256 = f.SHA256
			forged[f.Path] = id
		}
	}
	data, err := json.Marshal(forged)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(b.dir, stampFile), data, mode))
	must(t, os.Chmod(filepath.Join(b.dir, stampFile), mode))
}

func editManifest(t *testing.T, b *Bundle, edit func(*Manifest)) {
	t.Helper()
	m := b.Manifest
	edit(&m)
	data, err := json.Marshal(m)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(b.dir, manifestFile), data, 0o644))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
