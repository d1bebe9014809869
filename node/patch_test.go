// SPDX-License-Identifier: Apache-2.0

package node

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParsePlan(t *testing.T) {
	got := ParsePlan([]byte(`Reading package lists...
Inst libssl3 [3.0.17-1~deb12u2] (3.0.18-1~deb12u2 Debian:12.13/oldstable, Debian-Security:12/oldstable-security [amd64])
Inst openssl [3.0.17-1~deb12u2] (3.0.18-1~deb12u2 Debian-Security:12/oldstable-security [amd64]) []
Inst tzdata [2025b-0+deb12u1] (2025b-0+deb12u2 Debian:12-updates/oldstable-updates [all])
Inst libnew (1.0 Debian-Security:12/oldstable-security [amd64])
Conf libssl3 (3.0.18-1~deb12u2 Debian:12.13/oldstable [amd64])
Inst
Inst x
Inst ` + strings.Repeat("x", maxAptLine) + ` [1] (2 Debian-Security:x)
`))
	want := []Planned{
		{Update{"libssl3", "3.0.17-1~deb12u2", "3.0.18-1~deb12u2"}, true},
		{Update{"openssl", "3.0.17-1~deb12u2", "3.0.18-1~deb12u2"}, true},
		{Update{"tzdata", "2025b-0+deb12u1", "2025b-0+deb12u2"}, false},
		{Update{"libnew", "", "1.0"}, true},
		{Update{"x", "", ""}, false},
	}
	if !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
}

func FuzzParsePlan(f *testing.F) {
	f.Add([]byte("Inst a [1] (2 Debian-Security:12 [amd64]) []\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, p := range ParsePlan(text) {
			if strings.ContainsAny(p.Package, " \n") {
				t.Errorf("%q", p.Package)
			}
		}
	})
}

func TestSecuritySources(t *testing.T) {
	got := string(SecuritySources([]byte("# deb x/debian-security bookworm-security main\ndeb http://m/debian bookworm main\n" +
		"deb http://m/debian bookworm-updates main\ndeb [signed-by=/x] http://m/debian-security bookworm-security main")))
	if got != "deb [signed-by=/x] http://m/debian-security bookworm-security main" {
		t.Errorf("%q", got)
	}
}

func TestWantRestart(t *testing.T) {
	var updates []Update
	for _, name := range []string{"libssl3", "libssl-dev", "openssl", "openssl-provider-legacy", "libc6", "libc6-dev", "libgnutls30", "linux-image-6.1.0-40-amd64", "tzdata", "zlib1g", "libcrypt1", "libssl1.1", "libpam0g", "bash", "libssl3t64"} {
		updates = append(updates, Update{Package: name})
	}
	want := []string{"libssl3", "openssl", "libc6", "libgnutls30", "linux-image-6.1.0-40-amd64", "zlib1g", "libcrypt1", "libssl1.1", "libpam0g", "libssl3t64"}
	if got := WantRestart(updates); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestBySource(t *testing.T) {
	groups := BySource([]string{"bash", "libssl3", "openssl", "odd"}, map[string]string{"libssl3": "openssl", "openssl": "openssl", "bash": "bash"})
	if len(groups) != 3 || !slices.Equal(groups[1], []string{"libssl3", "openssl"}) || groups[2][0] != "odd" {
		t.Errorf("%q", groups)
	}
}

func TestChanges(t *testing.T) {
	got := Changes(map[string]string{"a": "1", "b": "1", "gone": "1"}, map[string]string{"a": "1", "b": "2", "new": "1"})
	if !slices.Equal(got, []Update{{"b", "1", "2"}, {"new", "", "1"}}) {
		t.Errorf("%+v", got)
	}
}

func TestOver(t *testing.T) {
	now := time.Now()
	for until, want := range map[time.Time]bool{{}: false, now: true, now.Add(1): false, now.Add(-1): true} {
		if got := (Patch{Until: until}).Over(now); got != want {
			t.Errorf("%v: %v", until, got)
		}
	}
}

// TestMirrorSaysNoMoreThanWhere: a mirror's name can't bring further options or
// sources into apt's files.
func TestMirrorSaysNoMoreThanWhere(t *testing.T) {
	c := Config{Role: RoleVM, Hostname: "n", Address: netip.MustParseAddr("10.0.0.4"), CPUs: 1, Memory: 1, InstanceCA: []byte("CA")}
	for _, bad := range []string{"deb.debian.org", "ftp://x", "file:///etc", "http://x y", "http://x\ndeb http://evil/ a main", "https://x\"; Evil \"", "http://[x", "http://x/;", "http://u:p@x", "http://x?y"} {
		c.Mirror = bad
		if _, err := Files(c); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	c.Mirror = "https://packages.bastide.internal/"
	files, err := Files(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.Path == SourcesPath && !strings.Contains(string(f.Data), "\ndeb https://packages.bastide.internal/debian-security bookworm-security main\n") ||
			f.Path == aptConfigPath && !strings.Contains(string(f.Data), `Acquire::https::packages.bastide.internal::CaInfo "/etc/bastide/mirror.crt";`) {
			t.Errorf("%s: %s", f.Path, f.Data)
		}
	}
}
