// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Where apt finds what a node tells it.
const (
	SourcesPath      = "/etc/apt/sources.list"
	aptConfigPath    = "/etc/apt/apt.conf.d/90bastide"
	mirrorCAPath     = "/etc/bastide/mirror.crt"
	servicePolicy    = "/usr/sbin/policy-rc.d"
	debian           = "bookworm"
	securityArchive  = "Debian-Security:"
	securitySuite    = debian + "-security"
	maxAptLine       = 1 << 12
	neverStartedByIt = "#!/bin/sh\n# PID 1 starts what runs on a node; packages don't.\nexit 101\n"
)

// patchFiles are apt's, as far as the node has a mirror, and dpkg's.
func patchFiles(c Config) []File {
	files := []File{{servicePolicy, 0o755, []byte(neverStartedByIt)}}
	if c.Mirror == "" {
		return files
	}
	mirror := strings.TrimSuffix(c.Mirror, "/")
	files = append(files, File{SourcesPath, 0o644, fmt.Appendf(nil,
		"deb %[1]s/debian %[2]s main\ndeb %[1]s/debian %[2]s-updates main\ndeb %[1]s/debian-security %[3]s main\n", mirror, debian, securitySuite)})
	config := "Acquire::Languages \"none\";\n"
	if at, err := url.Parse(mirror); err == nil && at.Scheme == "https" && len(c.InstanceCA) > 0 {
		files = append(files, File{mirrorCAPath, 0o644, c.InstanceCA})
		config += fmt.Sprintf("Acquire::https::%s::CaInfo %q;\n", at.Hostname(), mirrorCAPath)
	}
	return append(files, File{aptConfigPath, 0o644, []byte(config)})
}

// mirrorForm is told apart from text that would say more in apt's files.
func mirrorForm(mirror string) bool {
	at, err := url.Parse(mirror)
	return err == nil && (at.Scheme == "http" || at.Scheme == "https") && at.Host != "" && at.User == nil && at.RawQuery == "" && at.Fragment == "" &&
		!strings.ContainsAny(mirror, " \t\r\n\"'[]{};#\\")
}

// SecuritySources are the lines of a list of sources that are of the security archive.
func SecuritySources(list []byte) []byte {
	var kept bytes.Buffer
	for line := range bytes.Lines(list) {
		fields := strings.Fields(string(line))
		if len(fields) > 0 && strings.HasPrefix(fields[0], "deb") && slices.ContainsFunc(fields, func(f string) bool { return strings.HasSuffix(f, "-security") }) {
			kept.Write(line)
		}
	}
	return kept.Bytes()
}

// Planned is what apt would install, read from what `apt-get -s` says: lines of
// the form "Inst NAME [OLD] (NEW ORIGIN, ORIGIN [ARCH])". Security tells that an
// origin is the security archive.
type Planned struct {
	Update
	Security bool
}

// ParsePlan reads the packages that would be upgraded; new ones have no From.
func ParsePlan(text []byte) []Planned {
	var plan []Planned
	for line := range bytes.Lines(text) {
		rest, found := strings.CutPrefix(strings.TrimSpace(string(line)), "Inst ")
		if !found || len(line) > maxAptLine {
			continue
		}
		name, rest, _ := strings.Cut(rest, " ")
		p := Planned{Update: Update{Package: name}}
		if old, after, ok := strings.Cut(rest, "] ("); ok && strings.HasPrefix(old, "[") {
			p.From, rest = old[1:], after
		} else {
			rest = strings.TrimPrefix(rest, "(")
		}
		p.To, rest, _ = strings.Cut(rest, " ")
		p.Security = strings.Contains(rest, securityArchive)
		plan = append(plan, p)
	}
	return plan
}

// ParseInstalled reads lines of NAME, VERSION and SOURCE, as dpkg-query gives them.
func ParseInstalled(text []byte) (versions, sources map[string]string) {
	versions, sources = map[string]string{}, map[string]string{}
	for line := range bytes.Lines(text) {
		if fields := strings.Fields(string(line)); len(fields) == 3 {
			versions[fields[0]], sources[fields[0]] = fields[1], fields[2]
		}
	}
	return versions, sources
}

// Changes are the packages whose version isn't what it was.
func Changes(before, after map[string]string) []Update {
	var list []Update
	for name, to := range after {
		if from := before[name]; from != to {
			list = append(list, Update{name, from, to})
		}
	}
	slices.SortFunc(list, func(a, b Update) int { return strings.Compare(a.Package, b.Package) })
	return list
}

// BySource groups packages that are made of the same source: one needs the
// other's very version. The order is that of the names.
func BySource(names []string, sources map[string]string) [][]string {
	at := map[string]int{}
	var groups [][]string
	for _, name := range names {
		source := sources[name]
		if source == "" {
			source = name
		}
		if _, known := at[source]; !known {
			at[source] = len(groups)
			groups = append(groups, nil)
		}
		groups[at[source]] = append(groups[at[source]], name)
	}
	return groups
}

// restarting are packages whose update is in effect everywhere only after a
// restart, by what Debian's and Ubuntu's own scripts say: libraries and daemons
// that everything has, or that nothing restarts. Names end where versions begin.
func restarting() []string {
	return []string{"libc6", "libssl", "openssl", "dbus", "systemd", "libgnutls", "linux-image-", "linux-base", "libcrypt", "libpam", "zlib1g"}
}

// WantRestart are those of the updates that want a restart of the machine.
func WantRestart(updates []Update) []string {
	var names []string
	for _, u := range updates {
		if slices.ContainsFunc(restarting(), func(prefix string) bool {
			rest, is := strings.CutPrefix(u.Package, prefix)
			return is && strings.Trim(rest, "0123456789.tg-") == "" || is && strings.HasSuffix(prefix, "-")
		}) {
			names = append(names, u.Package)
		}
	}
	return names
}

// Over tells whether no further package may be begun.
func (p Patch) Over(now time.Time) bool { return !p.Until.IsZero() && !now.Before(p.Until) }
