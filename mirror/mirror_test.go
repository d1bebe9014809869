// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bastide.dev/fault"
)

// archive is an upstream whose answers a test chooses.
type archive struct {
	*httptest.Server
	mu    sync.Mutex
	asked []string
	give  func(w http.ResponseWriter, r *http.Request)
}

func newArchive(t *testing.T) *archive {
	t.Helper()
	a := &archive{}
	a.give = func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "content of "+r.URL.Path) }
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		a.asked = append(a.asked, r.Method+" "+r.URL.RequestURI())
		give := a.give
		a.mu.Unlock()
		give(w, r)
	}))
	t.Cleanup(a.Close)
	return a
}

func (a *archive) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.asked)
}

func (a *archive) answer(give func(w http.ResponseWriter, r *http.Request)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.give = give
}

func newMirror(t *testing.T, c Config) *Mirror {
	t.Helper()
	if c.Dir == "" {
		c.Dir = t.TempDir()
	}
	m, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func get(m http.Handler, path string, headers ...string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	m.ServeHTTP(w, r)
	return w
}

const (
	deb     = "/debian/pool/main/o/openssl/libssl3_3.0.17-1~deb12u2+b1_amd64.deb"
	release = "/debian-security/dists/bookworm-security/InRelease"
)

func TestReadsThroughAndKeeps(t *testing.T) {
	a := newArchive(t)
	now := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	c := Config{Upstream: a.URL + "/mirrors/", Dir: t.TempDir(), Now: func() time.Time { return now }}
	m := newMirror(t, c)
	for range 2 {
		if w := get(m, deb); w.Code != 200 || w.Body.String() != "content of /mirrors"+deb {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
	m = newMirror(t, c) // another process
	get(m, deb)
	now = now.Add(365 * 24 * time.Hour)
	if get(m, deb); a.count() != 1 {
		t.Errorf("a package was asked for %d times: %v", a.count(), a.asked)
	}
	if w := get(m, deb, "Range", "bytes=0-6"); w.Code != http.StatusPartialContent || w.Body.String() != "content" {
		t.Errorf("a part: %d %q", w.Code, w.Body)
	}

	// What may change is asked for again, after a moment.
	a.answer(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", now.Add(-time.Hour), strings.NewReader("release 1"))
	})
	get(m, release)
	get(m, release)
	before := a.count()
	now = now.Add(fresh)
	if w := get(m, release); w.Code != 200 || w.Body.String() != "release 1" || a.count() != before+1 {
		t.Errorf("%d %s %d", w.Code, w.Body, a.count()-before)
	}
	if w := get(m, release, "If-Modified-Since", now.Format(http.TimeFormat)); w.Code != http.StatusNotModified || a.count() != before+1 {
		t.Errorf("%d, asked %d times", w.Code, a.count()-before)
	}
	// An archive that is away isn't the end of what is known, nor does it make up more.
	a.Close()
	now = now.Add(24 * time.Hour)
	if w := get(m, release); w.Code != 200 || w.Body.String() != "release 1" {
		t.Errorf("without the archive: %d %s", w.Code, w.Body)
	}
	if w := get(m, "/debian/pool/main/o/other_1_all.deb"); w.Code != http.StatusBadGateway {
		t.Errorf("without the archive, unknown: %d", w.Code)
	}
}

// TestNothingElse: a tenant reaches the two archives through it, and no other
// path, host or method.
func TestNothingElse(t *testing.T) {
	a := newArchive(t)
	m := newMirror(t, Config{Upstream: a.URL})
	for _, path := range []string{
		"/", "/debian", "/debian/", "/debian/dists", "/debian/dists/", "/debian/project/trace/x", "/etc/passwd", "/debian-security/indices/x",
		"/debian/dists/../../etc/passwd", "/debian/dists/..%2f..%2fetc/passwd", "/debian/pool/%2e%2e/%2e%2e/x", "/debian/pool/..../x", "/debian/pool/.hidden",
		"/debian//pool/x", "/debian/pool//x", "/debian/pool/x/", "/debian/pool/x?a=b", "/debian/pool/a%00b", "/debian/pool/a%0d%0aHost:%20x", "/debian/pool/a%20b",
		`/debian/pool/a%5cb`, "/debian/pool/@evil%2f", "/debian/pool/" + strings.Repeat("a", 600), "/other/pool/x",
	} {
		if w := get(m, path); w.Code != http.StatusNotFound {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "PATCH", "TRACE"} {
		w := httptest.NewRecorder()
		m.ServeHTTP(w, httptest.NewRequest(method, deb, strings.NewReader("x")))
		if w.Code != http.StatusMethodNotAllowed {
			t.Errorf("%s: %d", method, w.Code)
		}
	}
	if a.count() != 0 {
		t.Errorf("the archive was asked: %v", a.asked)
	}
	for _, upstream := range []string{"", "deb.debian.org", "ftp://x", "http://u:p@x", "http://x?y", "file:///etc", "../x", "/a/../b", "http://", "javascript:x"} {
		if err := CheckUpstream(upstream); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", upstream, err)
		}
	}
}

// TestNoRedirect: an archive, or who poses as one, leads to no other service.
func TestNoRedirect(t *testing.T) {
	var reached atomic.Int64
	inner := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		reached.Add(1)
		_, _ = io.WriteString(w, "secret")
	}))
	defer inner.Close()
	a := newArchive(t)
	m := newMirror(t, Config{Upstream: a.URL})
	for _, status := range []int{301, 302, 303, 307, 308} {
		a.answer(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, inner.URL+"/secret", status) })
		if w := get(m, deb); w.Code != http.StatusBadGateway || strings.Contains(w.Body.String(), "secret") {
			t.Errorf("%d: %d %s", status, w.Code, w.Body)
		}
	}
	if reached.Load() != 0 {
		t.Error("it was followed")
	}
}

// TestOnlyWholeAnswersAreKept: what is cut short, too big or not what its name
// says is neither handed out nor kept.
func TestOnlyWholeAnswersAreKept(t *testing.T) {
	a := newArchive(t)
	m := newMirror(t, Config{Upstream: a.URL})
	hash := sha256.Sum256([]byte("right"))
	named := "/debian/dists/bookworm/main/binary-amd64/by-hash/SHA256/" + hex.EncodeToString(hash[:])
	for name, test := range map[string]struct {
		path string
		give func(w http.ResponseWriter, r *http.Request)
		want int
	}{
		"cut short": {deb, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "short")
			panic(http.ErrAbortHandler)
		}, http.StatusBadGateway},
		"too big":         {deb, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "9999999999") }, http.StatusBadGateway},
		"something else":  {named, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "wrong") }, http.StatusBadGateway},
		"not there":       {deb, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) }, http.StatusNotFound},
		"trouble":         {deb, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }, http.StatusBadGateway},
		"out of the blue": {deb, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) }, http.StatusBadGateway},
	} {
		a.answer(test.give)
		for range 2 {
			if w := get(m, test.path); w.Code != test.want {
				t.Errorf("%s: %d %s", name, w.Code, w.Body)
			}
		}
	}
	a.answer(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "right") })
	for _, path := range []string{deb, named} {
		if w := get(m, path); w.Code != 200 || w.Body.String() != "right" {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

// TestDamageIsNoticed: what changed on disk isn't handed out, but read again.
func TestDamageIsNoticed(t *testing.T) {
	a := newArchive(t)
	c := Config{Upstream: a.URL, Dir: t.TempDir()}
	get(newMirror(t, c), deb)
	files, err := filepath.Glob(c.Dir + "/*" + contentEnd)
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	whole, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, damage := range []string{"", strings.Repeat("x", len(whole)), "longer" + string(whole)} {
		if err := os.WriteFile(files[0], []byte(damage), 0o600); err != nil {
			t.Fatal(err)
		}
		if w := get(newMirror(t, c), deb); w.Body.String() != string(whole) {
			t.Errorf("handed out: %q", w.Body)
		}
	}
}

func TestTheShelfIsBounded(t *testing.T) {
	a := newArchive(t)
	a.answer(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat("x", 1000)) })
	c := Config{Upstream: a.URL, Dir: t.TempDir(), Bytes: 10_000}
	m := newMirror(t, c)
	for i := range 100 {
		if w := get(m, "/debian/pool/main/a/a_"+strings.Repeat("i", i+1)+".deb"); w.Code != 200 || w.Body.Len() != 1000 {
			t.Fatal(w.Code)
		}
	}
	files, err := filepath.Glob(c.Dir + "/*" + contentEnd)
	if err != nil || len(files) > 10 || len(files) < 5 {
		t.Errorf("%d are kept, %v", len(files), err)
	}
	records, err := filepath.Glob(c.Dir + "/*")
	if err != nil || len(records) != 2*len(files) {
		t.Errorf("%d files for %d objects, %v", len(records), len(files), err)
	}
}

func TestOneRequestServesAll(t *testing.T) {
	a := newArchive(t)
	arrived, open := make(chan struct{}, 100), make(chan struct{})
	a.answer(func(w http.ResponseWriter, _ *http.Request) {
		arrived <- struct{}{}
		<-open
		_, _ = io.WriteString(w, "once")
	})
	m := newMirror(t, Config{Upstream: a.URL})
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if w := get(m, deb); w.Body.String() != "once" {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		})
	}
	<-arrived
	close(open)
	all.Wait()
	if a.count() != 1 {
		t.Errorf("asked %d times", a.count())
	}
}

func TestDirectory(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, deb)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(t.TempDir(), "secret")
	for path, content := range map[string]string{file: "a package", secret: "secret"} {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(secret, filepath.Join(dir, "debian/pool/link")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "debian/pool/pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	m, err := New(Config{Upstream: dir})
	if err != nil {
		t.Fatal(err)
	}
	if w := get(m, deb); w.Code != 200 || w.Body.String() != "a package" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	for _, path := range []string{"/debian/pool/link", "/debian/pool/pipe", "/debian/pool/main", "/debian/pool/none"} {
		if w := get(m, path); w.Code == 200 || strings.Contains(w.Body.String(), "secret") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}
