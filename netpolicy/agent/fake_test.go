// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"bastide.dev/netpolicy"
	"bastide.dev/pki"
	"bastide.dev/ruleset"
)

// fakeServer is as much of an API server as the agent asks for: lists in pages,
// watches, and versions that it forgets.
type fakeServer struct {
	*httptest.Server
	dir string

	mu      sync.Mutex // guards what follows
	version int
	forgot  int // versions up to this one are gone
	objects map[string]map[string]string
	history []change
	more    chan struct{} // closed with each change
	absent  map[string]bool
	ends    chan struct{} // closed to end all watches
}

type change struct {
	version                 int
	path, kind, key, object string
}

func newFakeServer(t *testing.T) *fakeServer {
	f := &fakeServer{dir: t.TempDir(), objects: map[string]map[string]string{}, more: make(chan struct{}), absent: map[string]bool{}, ends: make(chan struct{})}
	pair, err := pki.NewCA("test", time.Hour)
	check(t, err)
	ca, err := pki.OpenCA(pair)
	check(t, err)
	serving, err := ca.Issue(pki.Request{CommonName: "server", IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Server: true, Lifetime: time.Hour})
	check(t, err)
	client, err := ca.Issue(pki.Request{CommonName: "agent", Client: true, Lifetime: time.Hour})
	check(t, err)
	for name, data := range map[string][]byte{"ca.crt": ca.Certificate(), "crt": client.Certificate, "key": client.Key} {
		check(t, os.WriteFile(filepath.Join(f.dir, name), data, 0o600))
	}
	certificate, err := tls.X509KeyPair(serving.Certificate, serving.Key)
	check(t, err)
	f.Server = httptest.NewUnstartedServer(f)
	f.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
	f.EnableHTTP2 = true
	f.StartTLS()
	t.Cleanup(func() { close(f.ends); f.CloseClientConnections(); f.Close() })
	f.set("/api/v1/namespaces", "ns", `{"metadata":{"name":"ns","labels":{"kubernetes.io/metadata.name":"ns"}}}`)
	f.absent[resources[clusterPolicies].path] = true
	return f
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// set adds or changes an object; "" deletes it.
func (f *fakeServer) set(path, key, object string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.version++
	kind := "MODIFIED"
	if f.objects[path] == nil {
		f.objects[path] = map[string]string{}
	}
	if object == "" {
		kind, object = "DELETED", f.objects[path][key]
		delete(f.objects[path], key)
	} else {
		object = strings.Replace(object, `"metadata":{`, fmt.Sprintf(`"metadata":{"resourceVersion":"%d",`, f.version), 1)
		f.objects[path][key] = object
	}
	f.history = append(f.history, change{f.version, path, kind, key, object})
	close(f.more)
	f.more = make(chan struct{})
}

func (f *fakeServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	absent := f.absent[r.URL.Path]
	f.mu.Unlock()
	switch {
	case r.ProtoMajor != 2:
		http.Error(w, "not HTTP/2", http.StatusHTTPVersionNotSupported)
	case absent:
		http.NotFound(w, r)
	case r.FormValue("watch") != "":
		f.watch(w, r)
	default:
		f.list(w, r)
	}
}

// list gives pages of two.
func (f *fakeServer) list(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var keys []string
	for key := range f.objects[r.URL.Path] {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	from, _ := strconv.Atoi(r.FormValue("continue"))
	to, next := min(from+2, len(keys)), ""
	if to < len(keys) {
		next = strconv.Itoa(to)
	}
	var items []string
	for _, key := range keys[from:to] {
		items = append(items, f.objects[r.URL.Path][key])
	}
	fmt.Fprintf(w, `{"kind":"List","metadata":{"resourceVersion":"%d","continue":%q},"items":[%s]}`, f.version, next, strings.Join(items, ","))
}

func (f *fakeServer) watch(w http.ResponseWriter, r *http.Request) {
	version, _ := strconv.Atoi(r.FormValue("resourceVersion"))
	w.(http.Flusher).Flush()
	for {
		f.mu.Lock()
		more, ends, gone := f.more, f.ends, version < f.forgot
		var news []change
		for _, c := range f.history {
			if c.version > version && c.path == r.URL.Path {
				news = append(news, c)
			}
		}
		version = f.version
		f.mu.Unlock()
		if gone {
			fmt.Fprintln(w, `{"type":"ERROR","object":{"kind":"Status","code":410,"message":"too old"}}`)
			return
		}
		for _, c := range news {
			fmt.Fprintf(w, "{\"type\":%q,\"object\":%s}\n", c.kind, c.object)
		}
		fmt.Fprintf(w, "{\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{\"resourceVersion\":\"%d\"}}}\n", version)
		w.(http.Flusher).Flush()
		select {
		case <-more:
		case <-ends:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// fakeKernel keeps what is put.
type fakeKernel struct {
	mu   sync.Mutex // guards what follows
	put  []ruleset.Table
	fail error
}

func (k *fakeKernel) Put(t ruleset.Table) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fail == nil {
		k.put = append(k.put, t)
	}
	return k.fail
}

func (k *fakeKernel) Counters() ([]ruleset.Counter, error) { return nil, nil }

func (k *fakeKernel) Cut(func(ruleset.Hook, ruleset.Packet) bool) (int, error) { return 0, nil }

// text is the table that the kernel has; "" when it has none.
func (k *fakeKernel) text() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.put) == 0 {
		return ""
	}
	return k.put[len(k.put)-1].Text()
}

// rig is an agent at a fake server and kernel.
type rig struct {
	t      *testing.T
	server *fakeServer
	kernel *fakeKernel
	config Config
	client *http.Client
	end    func()
}

func newRig(t *testing.T) *rig {
	s := newFakeServer(t)
	r := &rig{t: t, server: s, kernel: &fakeKernel{}}
	socket := filepath.Join(s.dir, "sock")
	r.config = Config{Kernel: r.kernel, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), AgentConfig: netpolicy.AgentConfig{
		Node: "n0", Ranges: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/24")}, Server: s.URL, CA: filepath.Join(s.dir, "ca.crt"),
		Certificate: filepath.Join(s.dir, "crt"), Key: filepath.Join(s.dir, "key"), Socket: socket, Sandboxes: filepath.Join(s.dir, "sandboxes")}}
	r.client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	return r
}

func (r *rig) start() {
	r.t.Helper()
	a, err := New(r.config)
	check(r.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- a.Run(ctx) }()
	r.end = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			r.t.Error(err)
		}
	})
	r.t.Cleanup(r.end)
	r.eventually("the agent listens", func() bool {
		conn, err := net.Dial("unix", r.config.Socket) // the file is there a moment before
		if err != nil {
			return false
		}
		return conn.Close() == nil
	})
}

func (r *rig) eventually(what string, ok func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("never: %s\n%s", what, r.kernel.text())
		}
	}
}

func (r *rig) has(part string) func() bool {
	return func() bool { return strings.Contains(r.kernel.text(), part) }
}

// call gives the answer's status and text.
func (r *rig) call(ctx context.Context, method, path string, body any) (int, string) {
	data, err := json.Marshal(body)
	check(r.t, err)
	request, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, bytes.NewReader(data))
	check(r.t, err)
	response, err := r.client.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(text)
}
