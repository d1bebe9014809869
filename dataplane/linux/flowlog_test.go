// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"bufio"
	"encoding/json"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"bastide.dev/dataplane"
)

func readFlows(t *testing.T, path string) []dataplane.FlowLine {
	t.Helper()
	file, err := os.Open(path)
	if os.IsNotExist(err) {
		return nil
	}
	must(t, err)
	defer func() { must(t, file.Close()) }()
	var all []dataplane.FlowLine
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var f dataplane.FlowLine
		must(t, json.Unmarshal(lines.Bytes(), &f))
		all = append(all, f)
	}
	return all
}

func TestFlowLog(t *testing.T) {
	w, v := pairOf(t)
	v.NICs[2].NSG = "rg/nic"
	g := group("rg/nic", dataplane.NSGRule{Name: "web", Priority: 100, Inbound: true, Protocol: unix.IPPROTO_TCP, DestinationPorts: tcpPorts(80, 80)})
	v.NSGs = []dataplane.NSG{g}
	w.apply(configOf(v))
	path := filepath.Join(w.config.RunDir, "flowlogs", "a.jsonl")
	serve(t, w.node("a-n1"), "10.224.0.5:81", "second")
	answers(t, w.node("a-n0"), "10.224.0.5:81", "second sees 10.224.0.4")

	v.NSGs[0].Log = true
	w.apply(configOf(v))
	answersTCP(t, w.node("a-n0"), "10.224.0.5:81", "second sees 10.224.0.4")
	ask(t, w.node("a-n0"), "tcp4", "", "10.224.0.5:80", nothing)
	has := func(direction, verdict, rule string, port uint16) func() bool {
		return func() bool {
			for _, f := range readFlows(t, path) {
				if f.NSG == "rg/nic" && f.Direction == direction && f.Verdict == verdict && f.Rule == rule && f.DestinationPort == port &&
					f.Source == netip.MustParseAddr("10.224.0.4") && f.Destination == netip.MustParseAddr("10.224.0.5") &&
					f.Protocol == unix.IPPROTO_TCP && f.SourcePort > 0 && !f.Time.IsZero() {
					return true
				}
			}
			return false
		}
	}
	w.until("the allowed connection is logged", has("Inbound", "Allow", "AllowVnetInBound", 81))
	w.until("the refused connection is logged", has("Inbound", "Deny", "web", 80))
	info, err := os.Stat(path)
	must(t, err)
	if info.Mode() != fs.FileMode(0o600) {
		t.Errorf("mode %s", info.Mode())
	}
	for _, f := range readFlows(t, path) {
		if f.DestinationPort == 81 && f.Protocol == unix.IPPROTO_UDP {
			t.Error("a packet from before is logged")
		}
	}
	v.NSGs[0].Log = false
	w.apply(configOf(v))
	before := len(readFlows(t, path))
	answersTCP(t, w.node("a-n0"), "10.224.0.5:81", "second sees 10.224.0.4")
	if after := len(readFlows(t, path)); after != before {
		t.Errorf("it is still logged: %d lines, then %d", before, after)
	}
}

func TestLogFileRotates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "logs", "a.jsonl")
	l := &logFile{path: path}
	line := []byte(strings.Repeat("x", 1<<20-1) + "\n")
	for range maxFlowLog>>20 + 1 {
		must(t, l.write(line))
	}
	must(t, l.close())
	now, err := os.Stat(path)
	must(t, err)
	old, err := os.Stat(path + ".1")
	must(t, err)
	if now.Size() != int64(len(line)) || old.Size() != maxFlowLog {
		t.Errorf("sizes %d and %d", now.Size(), old.Size())
	}
}
