// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	azruntime "github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"golang.org/x/sys/unix"

	"bastide.dev/fault"
	"bastide.dev/host"
	"bastide.dev/ruleset"
	"bastide.dev/why"
)

func TestPrintWhy(t *testing.T) {
	a := why.Answer{From: "pod a/b", To: "Service a/web", Protocol: "TCP", Port: 80, Reachable: why.Some, By: "One of two.", Rule: "nsg/x/y", Stale: true, StaleAt: []string{"vnet rg/v"},
		Paths: []why.Path{
			{To: "pod a/web-0", Reachable: true, Hops: []why.Hop{{Where: "pod a/b", What: "sends"}, {Where: "node n0", What: "rule", Rule: "nsg/x/z", Verdict: "allow"}}},
			{To: "pod a/web-1", By: "A reason.", Hops: []why.Hop{{Where: "node n0", What: "rule", Rule: "nsg/x/y", Verdict: "deny"}, {Where: "node n0", What: "more"}}}},
		Probe: &why.Probe{Sent: 4, Measured: "timeout", Expected: "connected", Details: []string{"why so"}}}
	var out bytes.Buffer
	if err := printWhy(&out, &a, false); err != nil {
		t.Fatal(err)
	}
	want := `PARTLY REACHABLE: One of two.
Decided by nsg/x/y
TCP from pod a/b to Service a/web:80

Way 1 of 2, to pod a/web-0: open
  pod a/b  sends         
  node n0  rule   allow  nsg/x/z

Way 2 of 2, to pod a/web-1: closed. A reason.
  node n0  rule  deny  nsg/x/y
           more        

Note: the kernel doesn't have the newest state of vnet rg/v yet: the answer is what will hold then.
Probe: timeout; expected: connected; DOESN'T AGREE (4 sent)
  why so
`
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestJudge(t *testing.T) {
	open := func(l why.Listener) why.Path { return why.Path{Reachable: true, Listener: l} }
	closed := func(verdict string) why.Path { return why.Path{Hops: []why.Hop{{Verdict: verdict}}} }
	for _, tc := range []struct {
		paths    []why.Path
		protocol uint8
		results  string
		agrees   bool
	}{
		{[]why.Path{open(why.ListenerReady)}, ruleset.TCP, "connected", true},
		{[]why.Path{open(why.ListenerReady)}, ruleset.TCP, "refused", false},
		{[]why.Path{open(why.ListenerUnknown)}, ruleset.TCP, "refused", true},
		{[]why.Path{open(why.ListenerUnknown)}, ruleset.TCP, "timeout", false},
		{[]why.Path{open(why.ListenerUnknown)}, ruleset.UDP, "timeout", true},
		{[]why.Path{open(why.ListenerReady)}, ruleset.UDP, "unreachable", false},
		{[]why.Path{closed("deny")}, ruleset.TCP, "timeout", true},
		{[]why.Path{closed("deny")}, ruleset.TCP, "unreachable", true},
		{[]why.Path{closed("deny")}, ruleset.TCP, "refused", false},
		{[]why.Path{closed("deny")}, ruleset.TCP, "connected", false},
		{[]why.Path{closed("reset")}, ruleset.TCP, "refused", true},
		{[]why.Path{closed("reset")}, ruleset.TCP, "connected", false},
		{[]why.Path{open(why.ListenerBeyond)}, ruleset.TCP, "timeout", true},
		{[]why.Path{open(why.ListenerReady), closed("deny")}, ruleset.TCP, "connected timeout connected", true},
		{[]why.Path{open(why.ListenerReady), closed("deny")}, ruleset.TCP, "connected refused", false},
	} {
		var answers []host.ProbeAnswer
		for _, r := range strings.Fields(tc.results) {
			answers = append(answers, host.ProbeAnswer{Result: r})
		}
		a := why.Answer{Paths: tc.paths, Target: why.Target{Protocol: tc.protocol}}
		if p := judge(&a, answers); p.Agrees != tc.agrees {
			t.Errorf("%+v measured %s: %+v", tc.paths, tc.results, p)
		}
	}
}

func TestAnswered(t *testing.T) {
	for status, kind := range map[int]fault.Kind{400: fault.Invalid, 404: fault.NotFound, 409: fault.Conflict, 503: fault.Unavailable} {
		request, err := azruntime.NewRequest(t.Context(), http.MethodGet, "https://x.example/y")
		if err != nil {
			t.Fatal(err)
		}
		response := &http.Response{StatusCode: status, Status: "x", Request: request.Raw(),
			Body: io.NopCloser(strings.NewReader(`{"error":{"code":"C","message":"What is wrong."}}`))}
		err = answered(azruntime.NewResponseError(response))
		if f := fault.From(err); f.Kind != kind || f.Message != "What is wrong." {
			t.Errorf("%d: %v", status, err)
		}
	}
	var buffer bytes.Buffer
	if code := exitCode(errUnreachable, &buffer); code != exitFailed || buffer.Len() != 0 {
		t.Errorf("an answer exits with %d and says %q", code, buffer.String())
	}
}

// TestEnterTerminal moves a thread into a namespace of another thread's.
func TestEnterTerminal(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("needs root for namespaces")
	}
	dir := t.TempDir()
	kept, resolver := filepath.Join(dir, "netns"), filepath.Join(dir, "resolv.conf")
	for _, path := range []string{kept, resolver} {
		if err := os.WriteFile(path, []byte("nameserver 168.63.129.16\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		t.Fatal(err)
	}
	onThread(t, func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", kept, "", unix.MS_BIND, "")
	})
	t.Cleanup(func() {
		if err := unix.Unmount(kept, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	var seen, links []byte
	onThread(t, func() error {
		if err := enterTerminal(kept, resolver); err != nil {
			return err
		}
		if seen, err = os.ReadFile("/etc/resolv.conf"); err != nil {
			return err
		}
		links, err = os.ReadFile("/proc/thread-self/net/dev")
		return err
	})
	if !strings.Contains(string(seen), "168.63.129.16") {
		t.Errorf("inside, the resolver is %q", seen)
	}
	if n := strings.Count(string(links), ":"); n > 1 {
		t.Errorf("inside there are %d links:\n%s", n, links)
	}
	if after, err := os.ReadFile("/etc/resolv.conf"); err != nil || !bytes.Equal(before, after) {
		t.Errorf("outside, the resolver became %q: %v", after, err)
	}
}

// onThread runs f on a thread that ends with it.
func onThread(t *testing.T, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
