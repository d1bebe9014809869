// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bastide.dev/dataplane"
)

const (
	tenant = "11111111-1111-1111-1111-111111111111"
	arm    = "https://management.azure.com/"
)

// directory is a token service that knows two identities.
type directory struct {
	*httptest.Server
	sold    atomic.Int64
	refuse  atomic.Pointer[string] // an error's code
	waiting chan struct{}          // when set, purchases wait for it
}

func newDirectory(t *testing.T) *directory {
	t.Helper()
	d := &directory{}
	d.Server = httptest.NewTLSServer(http.HandlerFunc(d.answer))
	d.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	t.Cleanup(d.Close)
	return d
}

func (d *directory) answer(w http.ResponseWriter, r *http.Request) {
	if d.waiting != nil {
		<-d.waiting
	}
	code := d.refuse.Load()
	if r.PostFormValue("grant_type") != "client_credentials" || r.PostFormValue("client_secret") != "secret of "+r.PostFormValue("client_id") {
		wrong := "invalid_client"
		code = &wrong
	}
	if code != nil {
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(object{"error": *code, "error_description": "AADSTS1: " + *code})
		return
	}
	_ = json.NewEncoder(w).Encode(object{"access_token": fmt.Sprintf("token %d of %s for %s", d.sold.Add(1), r.PostFormValue("client_id"), r.PostFormValue("resource")),
		"expires_in": "3599"})
}

func user(name string) Identity {
	return Identity{PrincipalID: "p-" + name, ClientID: "c-" + name, Secret: "secret of c-" + name,
		ResourceID: "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/" + name}
}

type world struct {
	*Service
	directory *directory
	handler   http.Handler
	now       atomic.Int64 // nanoseconds after the start
}

var (
	start   = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	machine = netip.MustParseAddr("10.224.0.4")
	other   = netip.MustParseAddr("10.224.0.5")
)

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{directory: newDirectory(t)}
	roots := x509.NewCertPool()
	roots.AddCert(w.directory.Certificate())
	s, err := New(Config{Roots: roots, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return start.Add(time.Duration(w.now.Load())) }})
	if err != nil {
		t.Fatal(err)
	}
	w.Service = s
	w.handler = &handler{Service: s, senders: senders{}}
	return w
}

// senders knows two machines.
type senders struct{}

func (senders) MAC(dataplane.Sender) string { return "02:aa:bb:cc:dd:0e" }

// loopback takes everybody for the first machine.
type loopback struct{ senders }

func (l loopback) Sender(netip.Addr) (dataplane.Sender, bool) { return l.senders.Sender(machine) }

func (senders) Sender(a netip.Addr) (dataplane.Sender, bool) {
	known := map[netip.Addr]string{machine: "m1", other: "m2"}[a]
	return dataplane.Sender{Machine: known, Address: a, Subnet: netip.MustParsePrefix("10.224.0.0/16"),
		Public: netip.MustParseAddr("192.88.99.9")}, known != ""
}

func (w *world) put(t *testing.T, id string, identities ...Identity) {
	t.Helper()
	err := w.Put(Machine{ID: id, TenantID: tenant, TokenURL: w.directory.URL + "/" + tenant + "/oauth2/token", Identities: identities,
		Compute: Compute{Name: "vm-" + id, VMID: "id-" + id, Size: "Standard_B1s", Group: "rg", Location: "eastus", Hostname: "host-" + id,
			Admin: "azureuser", Keys: []string{"ssh-ed25519 AAAA"}, Tags: []Tag{{"env", "test"}, {"team", "a"}},
			ResourceID: "/subscriptions/s/resourceGroups/rg/providers/Microsoft.Compute/virtualMachines/vm-" + id}})
	if err != nil {
		t.Fatal(err)
	}
}

// get sends a request as a machine does; edit may spoil it.
func (w *world) get(from netip.Addr, path string, edit func(*http.Request)) (int, string) {
	r := httptest.NewRequest(http.MethodGet, "http://169.254.169.254"+path, nil)
	r.RemoteAddr = netip.AddrPortFrom(from, 4000).String()
	r.Header.Set("Metadata", "true")
	if edit != nil {
		edit(r)
	}
	w.now.Add(int64(time.Second)) // the limit's own test doesn't come this way
	recorder := httptest.NewRecorder()
	w.handler.ServeHTTP(recorder, r)
	return recorder.Code, recorder.Body.String()
}

func (w *world) token(t *testing.T, from netip.Addr, query string) (int, map[string]string) {
	t.Helper()
	status, body := w.get(from, "/metadata/identity/oauth2/token?api-version=2018-02-01"+query, nil)
	answer := map[string]string{}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return status, answer
}

// What a program on the machine can be tricked into sending is refused, whatever it asks for.
func TestForgedRequests(t *testing.T) {
	w := newWorld(t)
	w.put(t, "m1", user("a"))
	for _, path := range []string{"/metadata/instance?api-version=2021-02-01", "/metadata/versions",
		"/metadata/identity/oauth2/token?api-version=2018-02-01&resource=" + arm} {
		if status, body := w.get(machine, path, nil); status != http.StatusOK {
			t.Fatalf("%s: %d %s", path, status, body)
		}
		for what, edit := range map[string]func(*http.Request){
			"no header":             func(r *http.Request) { r.Header.Del("Metadata") },
			"header false":          func(r *http.Request) { r.Header.Set("Metadata", "false") },
			"header twice":          func(r *http.Request) { r.Header.Add("Metadata", "true") },
			"X-Forwarded-For":       func(r *http.Request) { r.Header.Set("X-Forwarded-For", "10.0.0.1") },
			"empty X-Forwarded-For": func(r *http.Request) { r.Header["X-Forwarded-For"] = []string{""} },
			"Forwarded":             func(r *http.Request) { r.Header.Set("Forwarded", "for=10.0.0.1") },
			"X-Forwarded-Host":      func(r *http.Request) { r.Header.Set("X-Forwarded-Host", "x") },
			"Via":                   func(r *http.Request) { r.Header.Set("Via", "1.1 proxy") },
			"rebinding":             func(r *http.Request) { r.Host = "evil.example" },
			"rebinding, port":       func(r *http.Request) { r.Host = "evil.example:80" },
			"another port":          func(r *http.Request) { r.Host = "169.254.169.254:8080" },
			"no host":               func(r *http.Request) { r.Host = "" },
			"POST":                  func(r *http.Request) { r.Method = http.MethodPost },
			"PUT":                   func(r *http.Request) { r.Method = http.MethodPut },
			"HEAD":                  func(r *http.Request) { r.Method = http.MethodHead },
		} {
			status, body := w.get(machine, path, edit)
			if status != http.StatusBadRequest && status != http.StatusMethodNotAllowed || strings.Contains(body, "access_token") || strings.Contains(body, "vmId") {
				t.Errorf("%s, %s: %d %s", path, what, status, body)
			}
		}
		if status, body := w.get(machine, path, func(r *http.Request) { r.Host = "169.254.169.254:80" }); status != http.StatusOK {
			t.Errorf("the address with its port: %d %s", status, body)
		}
	}
}

func TestOthersGetNothing(t *testing.T) {
	w := newWorld(t)
	w.put(t, "m1", user("a"))
	for _, from := range []netip.Addr{other, netip.MustParseAddr("10.9.9.9"), netip.MustParseAddr("192.88.99.9")} {
		for _, path := range []string{"/metadata/instance?api-version=2021-02-01", "/metadata/versions", "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=" + arm} {
			if status, body := w.get(from, path, nil); status != http.StatusNotFound || !strings.Contains(body, "not_ready") {
				t.Errorf("%s, %s: %d %s", from, path, status, body)
			}
		}
	}
	w.put(t, "m2", user("b"))
	if _, answer := w.token(t, other, "&resource="+arm); answer["client_id"] != "c-b" {
		t.Errorf("the other machine got %v", answer)
	}
	if _, answer := w.token(t, other, "&resource="+arm+"&client_id=c-a"); answer["access_token"] != "" {
		t.Errorf("it gets another machine's identity: %v", answer)
	}
	w.Remove("m1")
	if status, body := w.get(machine, "/metadata/versions", nil); status != http.StatusNotFound {
		t.Errorf("a machine that is gone: %d %s", status, body)
	}
}

func TestInstance(t *testing.T) {
	w := newWorld(t)
	w.put(t, "m1")
	for path, want := range map[string]string{
		"/compute/name?format=text":                                          "vm-m1",
		"/compute/tags?format=text":                                          "env:test;team:a",
		"/compute/tagsList/1/name?format=text":                               "team",
		"/compute/zone?format=text":                                          "",
		"/Compute/VMID?format=text":                                          "id-m1",
		"/network/interface/0/macAddress?format=text":                        "02AABBCCDD0E",
		"/network/interface/0/ipv4/ipAddress/0/privateIpAddress?format=text": "10.224.0.4",
		"/network/interface/0/ipv4/ipAddress/0/publicIpAddress?format=text":  "192.88.99.9",
		"/network/interface/0/ipv4/subnet/0/address?format=text":             "10.224.0.0",
		"/network/interface/0/ipv4/subnet?format=text":                       "0/",
		"?format=text":                       "compute/\nnetwork/",
		"/network/interface/0?format=text":   "ipv4/\nipv6/\nmacAddress",
		"/network/interface/0/ipv4/subnet/0": `{"address":"10.224.0.0","prefix":"16"}`,
		"/compute/publicKeys?format=json":    `[{"keyData":"ssh-ed25519 AAAA","path":"/home/azureuser/.ssh/authorized_keys"}]`,
		"/compute/virtualMachineScaleSet":    `{"id":""}`,
	} {
		path, query, _ := strings.Cut(path, "?")
		if status, body := w.get(machine, "/metadata/instance"+path+"?api-version=2021-02-01&"+query, nil); status != http.StatusOK || body != want {
			t.Errorf("%s: %d %q, want %q", path, status, body, want)
		}
	}
	for path, want := range map[string]int{
		"/metadata/instance": 400, "/metadata/instance?api-version=2031-01-01": 400, "/metadata/instance?api-version=2021-02-01&api-version=2021-02-01": 400,
		"/metadata/instance/compute/name?api-version=2021-02-01": 400, "/metadata/instance/compute?api-version=2021-02-01&format=xml": 400,
		"/metadata/instance/compute/nothing?api-version=2021-02-01": 404, "/metadata/instance/network/interface/1?api-version=2021-02-01": 404,
		"/metadata/instance/network/interface/-1?api-version=2021-02-01": 404, "/metadata/instance/compute/name/x?api-version=2021-02-01": 404,
		"/": 404, "/metadata": 404, "/metadata/versions/x": 404, "/metadata/attested/document?api-version=2021-02-01": 404,
		"/metadata/identity?api-version=2018-02-01": 404, "/metadata/identity/info?api-version=2017-03-01": 400, "/latest/meta-data/": 404,
		"/metadata/identity/info?api-version=2018-02-01": 200, "/metadata/scheduledevents?api-version=2020-07-01": 200, "/Metadata/Versions/": 200,
	} {
		if status, body := w.get(machine, path, nil); status != want {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if _, body := w.get(machine, "/metadata/instance", nil); !strings.Contains(body, `"newest-versions":["2025-04-07"`) {
		t.Errorf("without a version: %s", body)
	}
}

func TestWhichIdentity(t *testing.T) {
	w := newWorld(t)
	own := user("own")
	own.System, own.ResourceID = true, "/subscriptions/s/resourceGroups/rg/providers/Microsoft.Compute/virtualMachines/vm-m1"
	a, b := user("a"), user("b")
	for _, c := range []struct {
		what       string
		identities []Identity
		query      string
		want       string // its client id, or the refusal
	}{
		{"none", nil, "", "Identity not found"},
		{"the only one", []Identity{a}, "", "c-a"},
		{"the machine's own", []Identity{a, own, b}, "", "c-own"},
		{"one of two", []Identity{a, b}, "", "Multiple user assigned identities exist, please specify the clientId / resourceId of the identity in the token request"},
		{"by client", []Identity{a, own, b}, "&client_id=C-B", "c-b"},
		{"by object", []Identity{a, b}, "&object_id=p-b", "c-b"},
		{"by resource", []Identity{a, b}, "&msi_res_id=" + strings.ToUpper(b.ResourceID), "c-b"},
		{"by resource, as newer clients", []Identity{a, b}, "&mi_res_id=" + b.ResourceID, "c-b"},
		{"not its", []Identity{a}, "&client_id=c-b", "Identity not found"},
		{"an empty choice", []Identity{a}, "&client_id=", "Identity not found"},
		{"two choices", []Identity{a, b}, "&client_id=c-b&object_id=p-a", "client_id and object_id can't both choose the identity"},
		{"one choice twice", []Identity{a, b}, "&client_id=c-b&client_id=c-a", "A parameter is there more than once: client_id"},
	} {
		w.Remove("m1")
		w.put(t, "m1", c.identities...)
		_, answer := w.token(t, machine, "&resource="+arm+c.query)
		if got := answer["client_id"] + answer["error_description"]; got != c.want {
			t.Errorf("%s: %v", c.what, answer)
		}
	}
	for what, query := range map[string]string{"none": "", "empty": "&resource=", "long": "&resource=" + strings.Repeat("a", maxResource+1), "line": "&resource=a%0ab"} {
		if status, answer := w.token(t, machine, query); status != http.StatusBadRequest {
			t.Errorf("resource %s: %v", what, answer)
		}
	}
}

func TestTokensAreKeptAndForgotten(t *testing.T) {
	w := newWorld(t)
	w.put(t, "m1", user("a"))
	get := func(query string) string {
		t.Helper()
		status, answer := w.token(t, machine, "&resource="+arm+query)
		if status != http.StatusOK {
			t.Fatal(status, answer)
		}
		return answer["access_token"]
	}
	first := get("")
	if again := get(""); again != first || w.directory.sold.Load() != 1 {
		t.Errorf("bought again: %s", again)
	}
	if _, answer := w.token(t, machine, "&resource="+arm); answer["token_type"] != "Bearer" || answer["resource"] != arm ||
		answer["expires_on"] == "" || answer["not_before"] == "" || !strings.HasPrefix(answer["expires_in"], "359") {
		t.Errorf("the answer's form: %v", answer)
	}
	if fresh := get("&bypass_cache=true"); fresh == first || get("") != fresh {
		t.Error("a fresh one was asked for")
	}
	kept := get("")
	w.now.Add(int64(56 * time.Minute))
	if late := get(""); late == kept {
		t.Error("a token that is about to end is handed out")
	}
	kept = get("")
	w.put(t, "m1", user("a"), user("b"))
	if get("&client_id=c-a") == kept {
		t.Error("the identities changed, and what was bought for them stays")
	}
	w.put(t, "m1")
	if status, answer := w.token(t, machine, "&resource="+arm+"&client_id=c-a"); status != http.StatusBadRequest {
		t.Errorf("an identity that was taken away: %v", answer)
	}
	stale := user("a")
	stale.Secret = "old"
	w.put(t, "m1", stale)
	if status, answer := w.token(t, machine, "&resource="+arm); status != http.StatusBadRequest || answer["error_description"] != "Identity not found" {
		t.Errorf("an identity that is gone in the directory: %v", answer)
	}
	w.put(t, "m1", user("a"))
	denied := "invalid_grant"
	w.directory.refuse.Store(&denied)
	if status, answer := w.token(t, machine, "&resource=denied"); status != http.StatusBadRequest || answer["error"] != denied || answer["error_description"] != "AADSTS1: invalid_grant" {
		t.Errorf("what the directory refuses: %v", answer)
	}
	w.directory.refuse.Store(nil)
	if status, answer := w.token(t, machine, "&resource=denied"); status != http.StatusOK {
		t.Errorf("a refusal was kept: %v", answer)
	}
	w.directory.Close()
	if status, answer := w.token(t, machine, "&resource=elsewhere"); status != http.StatusServiceUnavailable {
		t.Errorf("without the token service: %d %v", status, answer)
	}
}

func TestLimits(t *testing.T) {
	w := newWorld(t)
	w.put(t, "m1", user("a"))
	w.put(t, "m2", user("b"))
	ask := func(from netip.Addr) int {
		r := httptest.NewRequest(http.MethodGet, "http://169.254.169.254/metadata/versions", nil)
		r.RemoteAddr = netip.AddrPortFrom(from, 4000).String()
		r.Header.Set("Metadata", "true")
		recorder := httptest.NewRecorder()
		w.handler.ServeHTTP(recorder, r)
		return recorder.Code
	}
	count := map[int]int{}
	for range 2 * burst {
		count[ask(machine)]++
	}
	if count[http.StatusOK] != burst || count[http.StatusTooManyRequests] != burst {
		t.Errorf("%v", count)
	}
	if status := ask(other); status != http.StatusOK {
		t.Errorf("its neighbour pays for it: %d", status)
	}
	w.put(t, "m1", user("a"), user("b"))
	if status := ask(machine); status != http.StatusTooManyRequests {
		t.Errorf("a change of its identities gives it a new start: %d", status)
	}
	b := w.box("m1")
	for i := range 3 * maxTokens {
		b.keep(tokenKey{"c", fmt.Sprint(i)}, &token{expires: start.Add(time.Hour)}, start)
	}
	if len(b.tokens) > maxTokens {
		t.Errorf("it keeps %d tokens", len(b.tokens))
	}
}

// Many who ask for the same at once are one purchase; many different ones are bounded.
func TestPurchasesAtATime(t *testing.T) {
	w := newWorld(t)
	w.put(t, "m1", user("a"))
	w.directory.waiting = make(chan struct{})
	b := w.box("m1")
	statuses := make([]int, 40)
	var group sync.WaitGroup
	for i := range statuses {
		group.Go(func() {
			if _, p := w.Service.get(t.Context(), b, &b.machine.Identities[0], fmt.Sprint("resource", i%8), false); p != nil {
				statuses[i] = p.status
			}
		})
	}
	for len(b.buying) < purchases {
		time.Sleep(time.Millisecond)
	}
	close(w.directory.waiting)
	group.Wait()
	if sold := w.directory.sold.Load(); sold < purchases || sold > 8 {
		t.Errorf("%d purchases for 8 resources", sold)
	}
	for _, status := range statuses {
		if status != 0 && status != http.StatusTooManyRequests {
			t.Errorf("%v", statuses)
		}
	}
}

// Serve answers on a real listener, ends with it, and bounds connections.
func TestServe(t *testing.T) {
	w := newWorld(t)
	w.put(t, "m1", user("a"))
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- w.Serve(l, loopback{})
	}()
	var held []net.Conn
	for range perSender {
		conn, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, conn)
	}
	say := func(conn net.Conn) string {
		_, _ = io.WriteString(conn, "GET /metadata/versions HTTP/1.1\r\nHost: 169.254.169.254\r\nMetadata: true\r\n\r\n")
		_ = conn.SetReadDeadline(time.Now().Add(3 * time.Second))
		buffer := make([]byte, 100)
		n, _ := conn.Read(buffer)
		return string(buffer[:n])
	}
	if got := say(held[perSender-1]); !strings.HasPrefix(got, "HTTP/1.1 200") {
		t.Errorf("%q", got)
	}
	more, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if got := say(more); got != "" {
		t.Errorf("one connection too many is answered: %q", got)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil {
		t.Error("it ended without a reason")
	}
	if got := say(held[0]); got != "" {
		t.Errorf("a connection outlives its network: %q", got)
	}
}
