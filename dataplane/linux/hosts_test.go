// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"bastide.dev/dataplane"
)

var hostNames = []dataplane.Name{
	{Name: "a.test", Addresses: []netip.Addr{netip.MustParseAddr("198.19.99.241")}},
	{Name: "*.b.test", Addresses: []netip.Addr{netip.MustParseAddr("198.19.99.241")}},
}

const hostBlock = "# bastide one begin\n198.19.99.241 a.test\n# bastide one end\n"

func TestHostsCompose(t *testing.T) {
	h := hostsFile{instance: "one"}
	cases := []struct{ name, old, with, without string }{
		{"empty", "", hostBlock, ""},
		{"others", "127.0.0.1 localhost\n", "127.0.0.1 localhost\n" + hostBlock, "127.0.0.1 localhost\n"},
		{"no newline", "127.0.0.1 x", "127.0.0.1 x\n" + hostBlock, "127.0.0.1 x"},
		{"in the middle", "a\n# bastide one begin\n1.1.1.1 old\n# bastide one end\nb\n", "a\n" + hostBlock + "b\n", "a\nb\n"},
		{"twice", hostBlock + "a\n" + hostBlock, hostBlock + "a\n", "a\n"},
		{"another's", "# bastide one-2 begin\nx\n# bastide one-2 end\n", "# bastide one-2 begin\nx\n# bastide one-2 end\n" + hostBlock, "# bastide one-2 begin\nx\n# bastide one-2 end\n"},
		{"end is missing", "# bastide one begin\n1.1.1.1 mine\n", hostBlock + "1.1.1.1 mine\n", "1.1.1.1 mine\n"},
		{"begin is missing", "x\n# bastide one end\ny\n", "x\ny\n" + hostBlock, "x\ny\n"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := string(h.compose([]byte(c.old), hostNames)); got != c.with {
				t.Errorf("with names: %q, want %q", got, c.with)
			}
			if got := string(h.compose([]byte(c.old), nil)); got != c.without {
				t.Errorf("without: %q, want %q", got, c.without)
			}
		})
	}
}

func FuzzHostsCompose(f *testing.F) {
	f.Add("127.0.0.1 localhost\n")
	f.Add(hostBlock + "x")
	f.Add("# bastide one begin\n# bastide one begin\n# bastide one end")
	h := hostsFile{instance: "one"}
	f.Fuzz(func(t *testing.T, old string) {
		once := h.compose([]byte(old), hostNames)
		if twice := h.compose(once, hostNames); string(twice) != string(once) {
			t.Errorf("not stable: %q, then %q", once, twice)
		}
		gone := h.compose(once, nil)
		if again := h.compose(gone, nil); string(again) != string(gone) {
			t.Errorf("not stable without: %q, then %q", gone, again)
		}
	})
}

func TestHostsFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "hosts")
	write(t, path, "127.0.0.1 localhost\n")
	must(t, os.Chmod(path, 0o640))
	link := filepath.Join(dir, "link")
	must(t, os.Symlink(path, link))
	var all sync.WaitGroup
	for _, instance := range []string{"one", "two", "three", "four", "five"} {
		all.Go(func() {
			h := hostsFile{path: link, instance: instance, shared: filepath.Join(dir, "shared")}
			for range 20 {
				if err := h.write(hostNames); err != nil {
					t.Error(err)
				}
				if err := h.write(nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	got, err := os.ReadFile(path)
	must(t, err)
	info, err := os.Stat(path)
	must(t, err)
	if string(got) != "127.0.0.1 localhost\n" || info.Mode().Perm() != 0o640 {
		t.Errorf("%q, mode %v", got, info.Mode())
	}
	if target, err := os.Readlink(link); err != nil || target != path {
		t.Errorf("the link was replaced: %v %v", target, err)
	}
}
