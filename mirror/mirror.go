// SPDX-License-Identifier: Apache-2.0

// Package mirror hands Debian's packages to machines that have no way out: it
// reads through to the archive that the instance's owner chose, or to a
// directory, and keeps what it read. What it hands out is Debian's: apt checks
// Debian's signatures, so that nobody has to trust a mirror, this one included.
//
// It is a front door's handler; the wiring imports it.
package mirror

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"

	"bastide.dev/fault"
)

// Config is what a Mirror needs.
type Config struct {
	// Upstream is the archive: an http or https URL with "/debian" and
	// "/debian-security" below it, or the absolute path of a directory with both.
	Upstream string
	Dir      string // what was read is kept here; not needed for a directory
	Bytes    int64  // as much is kept at most; default 4 GiB
	Log      *slog.Logger
	// Transport is how the archive is reached; nil: as the environment says.
	Transport http.RoundTripper
	Now       func() time.Time // nil: the clock
}

// Bounds of what passes through.
const (
	maxObject   = 512 << 20
	defaultKept = 4 << 30
	fetchLimit  = 10 * time.Minute
	// fresh is how long what may change is taken for unchanged: apt asks for many
	// files of one release, which should be of one.
	fresh = 30 * time.Second
	// atOnce is how many objects are read at once, whoever asks for how many.
	atOnce = 8
)

// Mirror is an http.Handler.
type Mirror struct {
	Config
	upstream *url.URL // nil for a directory
	client   *http.Client
	fetches  singleflight.Group
	turns    chan struct{} // as many as may be asked for at once
	shelf    *shelf
}

// CheckUpstream tells what is wrong with a Config's Upstream.
func CheckUpstream(upstream string) error {
	_, err := parseUpstream(upstream)
	return err
}

// parseUpstream gives nil for a directory.
func parseUpstream(upstream string) (*url.URL, error) {
	if filepath.IsAbs(upstream) && filepath.Clean(upstream) == upstream {
		return nil, nil
	}
	u, err := url.Parse(upstream)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "" {
		return nil, fault.New(fault.Invalid, "InvalidMirror", "The mirror %q must be an http or https URL without user, query and fragment, or a directory's absolute path.", upstream)
	}
	u.Path, u.RawPath = strings.TrimRight(u.Path, "/"), ""
	return u, nil
}

// New checks the config; it reaches for nothing yet.
func New(c Config) (*Mirror, error) {
	upstream, err := parseUpstream(c.Upstream)
	if err != nil {
		return nil, err
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Bytes == 0 {
		c.Bytes = defaultKept
	}
	m := &Mirror{Config: c, upstream: upstream, turns: make(chan struct{}, atOnce)}
	if upstream == nil {
		return m, nil
	}
	if c.Transport == nil {
		m.Transport = http.DefaultTransport.(*http.Transport).Clone()
	}
	m.client = &http.Client{Transport: m.Transport, Timeout: fetchLimit, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse // to wherever it leads, nobody chose that
	}}
	if m.shelf, err = newShelf(c.Dir, c.Bytes); err != nil {
		return nil, fmt.Errorf("mirror: %w", err)
	}
	return m, nil
}

// pathForm is what the archives' own files are called.
var pathForm = regexp.MustCompile(`^/(debian|debian-security)/(dists|pool)(/[A-Za-z0-9_.+~:=@%-]+)+$`)

const maxPath = 512

// object checks a request's path: a file in one of the two archives, and no way out of it.
func object(p string) (string, bool) {
	if len(p) > maxPath || !pathForm.MatchString(p) || path.Clean(p) != p {
		return "", false
	}
	for part := range strings.SplitSeq(p, "/") {
		if strings.HasPrefix(part, "..") || strings.HasPrefix(part, ".") {
			return "", false
		}
	}
	return strings.TrimPrefix(p, "/"), true
}

func (m *Mirror) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "packages can only be read here", http.StatusMethodNotAllowed)
		return
	}
	name, ok := object(r.URL.Path)
	if !ok || r.URL.RawQuery != "" {
		http.Error(w, "only files of Debian's archives are here: /debian and /debian-security, in dists and pool", http.StatusNotFound)
		return
	}
	file, modified, err := m.open(r, name)
	if err != nil {
		status := http.StatusBadGateway
		if errors.Is(err, errNone) {
			status = http.StatusNotFound
		} else {
			m.Log.WarnContext(r.Context(), "a package or an index can't be had", "path", name, "error", err)
		}
		http.Error(w, http.StatusText(status), status)
		return
	}
	defer file.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", modified, file)
}

// errNone: the archive hasn't got it.
var errNone = errors.New("the archive has no such file")

func (m *Mirror) open(r *http.Request, name string) (*os.File, time.Time, error) {
	if m.upstream == nil {
		return m.openLocal(name)
	}
	have, err := m.shelf.open(name)
	if err != nil {
		return nil, time.Time{}, err
	}
	if have != nil && (lasting(name) || m.Now().Sub(have.Checked) < fresh) {
		return have.file, have.Modified, nil
	}
	// One request asks for all; who gives up waiting doesn't end it for the others.
	asked := m.fetches.DoChan(name, func() (any, error) { return nil, m.fetch(name, have.orNone()) })
	select {
	case <-r.Context().Done():
		have.close()
		return nil, time.Time{}, r.Context().Err()
	case result := <-asked:
		err = result.Err
	}
	if err != nil && have != nil && !errors.Is(err, errNone) {
		// Rather the indexes of before than none: they say themselves how long they hold.
		m.Log.WarnContext(r.Context(), "the archive doesn't answer, what it said before is handed out", "path", name, "error", err)
		return have.file, have.Modified, nil
	}
	have.close()
	if err != nil {
		return nil, time.Time{}, err
	}
	if have, err = m.shelf.open(name); err != nil || have == nil {
		return nil, time.Time{}, errors.Join(errors.New("what was read is gone already"), err)
	}
	return have.file, have.Modified, nil
}

// openLocal opens a file of the directory; links in it lead nowhere outside.
func (m *Mirror) openLocal(name string) (*os.File, time.Time, error) {
	root, err := os.OpenRoot(m.Upstream)
	if err != nil {
		return nil, time.Time{}, err
	}
	defer func() { _ = root.Close() }() // it was only read
	// Looked at before: opening a pipe would wait.
	info, err := root.Stat(name)
	if errors.Is(err, os.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return nil, time.Time{}, errNone
	}
	if err != nil {
		return nil, time.Time{}, err
	}
	file, err := root.Open(name)
	return file, info.ModTime(), err
}

// lasting tells whether a file never changes: packages have their version in
// the name, and indexes by hash their content.
func lasting(name string) bool {
	_, hash := hashOf(name)
	return hash || strings.Contains(name, "/pool/")
}

var byHash = regexp.MustCompile(`/by-hash/SHA256/([0-9a-f]{64})$`)

// hashOf is the SHA-256 that a file's name says it has.
func hashOf(name string) (string, bool) {
	found := byHash.FindStringSubmatch(name)
	if found == nil {
		return "", false
	}
	return found[1], true
}
