// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func flowText(nsg string, port int) string {
	return fmt.Sprintf(`{"time":"2026-11-21T07:00:00Z","nsg":%q,"rule":"ssh","direction":"Inbound","source":"192.88.99.60","destination":"10.0.0.4","sourcePort":%d,"destinationPort":22,"protocol":6,"verdict":"Allow"}`+"\n", nsg, port)
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestFlowLogIsPrinted(t *testing.T) {
	dir := t.TempDir()
	appendTo(t, filepath.Join(dir, "v1.jsonl.1"), flowText("rg/jump", 1001))
	appendTo(t, filepath.Join(dir, "v1.jsonl"), flowText("RG/jump", 1002)+flowText("rg/other", 1003)+`{"half":`)
	appendTo(t, filepath.Join(dir, "v2.jsonl"), flowText("rg/jump", 1004))
	var out strings.Builder
	p := &flowPrinter{dir: dir, nsg: "rg/jump", out: &out, open: map[string]*flowTail{}}
	if err := p.run(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	var ports []string
	for line := range strings.Lines(out.String()) {
		if !strings.Contains(line, "Inbound   Allow  TCP  192.88.99.60:") || !strings.HasSuffix(line, "→ 10.0.0.4:22  ssh\n") {
			t.Errorf("%q", line)
		}
		ports = append(ports, strings.Fields(strings.ReplaceAll(line, "192.88.99.60:", ""))[5])
	}
	if got := strings.Join(ports, " "); got != "1001 1002 1004" {
		t.Errorf("%s\n%s", got, out.String())
	}
}

// A log is followed from where it is: over half lines, new files and rotation.
func TestFlowLogIsFollowed(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "v1.jsonl")
	appendTo(t, path, flowText("rg/jump", 1001))
	reader, writer := io.Pipe()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	p := &flowPrinter{dir: dir, nsg: "rg/jump", json: true, out: writer, open: map[string]*flowTail{}}
	go func() { done <- p.run(ctx, true) }()
	lines := make(chan string)
	go func() {
		defer close(lines)
		buffer := make([]byte, 4096)
		for {
			n, err := reader.Read(buffer)
			if err != nil {
				return
			}
			lines <- string(buffer[:n])
		}
	}()
	expect := func(port int) {
		t.Helper()
		select {
		case got := <-lines:
			if got != flowText("rg/jump", port) {
				t.Fatalf("%d: %q", port, got)
			}
		case <-time.After(2 * time.Minute):
			t.Fatalf("%d never came", port)
		}
	}
	time.Sleep(2 * followEvery) // it stands at the end
	whole := flowText("rg/jump", 1002)
	appendTo(t, path, whole[:20])
	time.Sleep(2 * followEvery)
	appendTo(t, path, whole[20:])
	expect(1002)
	appendTo(t, path, flowText("rg/jump", 1003))
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	appendTo(t, path, flowText("rg/jump", 1004))
	expect(1003)
	expect(1004)
	appendTo(t, filepath.Join(dir, "v2.jsonl"), flowText("rg/jump", 1005))
	expect(1005)
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := writer.Close(); err != nil {
		t.Error(err)
	}
}

func TestLogNames(t *testing.T) {
	id := "/subscriptions/s/resourceGroups/MC_rg_" + strings.Repeat("x", 80) + "/providers/Microsoft.Network/networkSecurityGroups/"
	if got := logName(id + "jump"); !strings.HasSuffix(got, "xx/jump") {
		t.Error(got)
	}
	long := flowLogName(id + strings.Repeat("n", 80))
	if len(long) > 80 || flowLogName(id+"jump") != flowLogName(strings.ToUpper(id)+"jump") || flowLogName("/a/jump") == flowLogName("/b/jump") {
		t.Error(long, flowLogName(id+"jump"))
	}
}
