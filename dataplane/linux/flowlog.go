// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	mnl "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"bastide.dev/dataplane"
)

const (
	// maxFlowLog is the size at which a flow log becomes the old one, of which
	// there is one.
	maxFlowLog = 64 << 20
	// flowBuffer is what the kernel holds for us while we write.
	flowBuffer = 4 << 20
	// headers is as much of a packet as we want to see.
	headers = 128
)

// What nfnetlink_log calls its messages and attributes.
const (
	logSubsystem  = 4
	logPacket     = logSubsystem << 8
	logConfig     = logSubsystem<<8 | 1
	logCommand    = 1 // attributes of a configuration
	logMode       = 2
	logTimeout    = 4
	logThreshold  = 5
	logBind       = 1
	logCopyPacket = 2
	logPayload    = 9 // attributes of a packet
	logPrefix     = 10
)

// origin names a rule of a network security group as the kernel's log does: as
// the compiled table, but no longer than its prefixes are.
func origin(nsg, rule string) string {
	const longest = 127
	name := "nsg/" + nsg + "/" + rule
	return name[:min(len(name), longest)]
}

// flowLogger writes one network's flow log.
type flowLogger struct {
	conn  *mnl.Conn
	file  *logFile
	log   *slog.Logger
	rules atomic.Pointer[map[string]dataplane.FlowLine] // by origin: what a rule means
	ended sync.WaitGroup
}

// startFlowLog reads the log group of a router's namespace.
func startFlowLog(ns *os.File, group uint16, path string, log *slog.Logger) (*flowLogger, error) {
	conn, err := mnl.Dial(unix.NETLINK_NETFILTER, &mnl.Config{NetNS: int(ns.Fd())})
	if err != nil {
		return nil, fmt.Errorf("flow log: %w", err)
	}
	if err := errors.Join(conn.SetReadBuffer(flowBuffer), bindLog(conn, group)); err != nil {
		return nil, errors.Join(fmt.Errorf("flow log: %w", err), conn.Close())
	}
	f := &flowLogger{conn: conn, file: &logFile{path: path}, log: log}
	f.ended.Go(f.read)
	return f, nil
}

// bindLog asks for a log group's packets: their headers, a few together but
// no later than a tenth of a second.
func bindLog(conn *mnl.Conn, group uint16) error {
	for _, attribute := range []mnl.Attribute{
		{Type: logCommand, Data: []byte{logBind}},
		{Type: logMode, Data: []byte{0, 0, 0, headers, logCopyPacket, 0}},
		{Type: logTimeout, Data: []byte{0, 0, 0, 10}},
		{Type: logThreshold, Data: []byte{0, 0, 0, 32}},
	} {
		data, err := mnl.MarshalAttributes([]mnl.Attribute{attribute})
		if err != nil {
			return err
		}
		head := binary.BigEndian.AppendUint16([]byte{unix.AF_INET, 0}, group)
		_, err = conn.Execute(mnl.Message{Header: mnl.Header{Type: logConfig, Flags: mnl.Request | mnl.Acknowledge}, Data: append(head, data...)})
		if err != nil {
			return fmt.Errorf("log group %d: %w", group, err)
		}
	}
	return nil
}

// set tells what the rules mean that packets are logged for.
func (f *flowLogger) set(v *dataplane.VNet) {
	rules := map[string]dataplane.FlowLine{}
	for _, nsg := range v.NSGs {
		for _, r := range nsg.Rules {
			meaning := dataplane.FlowLine{NSG: nsg.ID, Rule: r.Name, Direction: "Outbound", Verdict: "Deny"}
			if r.Inbound {
				meaning.Direction = "Inbound"
			}
			if r.Allow {
				meaning.Verdict = "Allow"
			}
			rules[origin(nsg.ID, r.Name)] = meaning
		}
	}
	f.rules.Store(&rules)
}

func (f *flowLogger) close() error {
	err := f.conn.Close()
	f.ended.Wait()
	if err = errors.Join(err, f.file.close()); err != nil {
		return fmt.Errorf("flow log: %w", err)
	}
	return nil
}

// read writes a line per packet until the connection closes. A log that can't
// be written doesn't stop the traffic; it is said, once until it works again.
func (f *flowLogger) read() {
	failing := false
	for {
		messages, err := f.conn.Receive()
		if errors.Is(err, unix.ENOBUFS) {
			f.log.Warn("flow log: packets came faster than they were written", "file", f.file.path)
			continue
		}
		if err != nil {
			return // closed
		}
		var lines []byte
		for _, m := range messages {
			if m.Header.Type == logPacket && len(m.Data) > 4 {
				lines = f.line(lines, m.Data[4:])
			}
		}
		err = f.file.write(lines)
		if err != nil && !failing {
			f.log.Error("flow log isn't written", "error", err)
		}
		failing = err != nil
	}
}

// line appends the line of one packet.
func (f *flowLogger) line(lines, data []byte) []byte {
	attributes, err := mnl.UnmarshalAttributes(data)
	if err != nil {
		return lines
	}
	var prefix string
	var packet []byte
	for _, a := range attributes {
		switch a.Type &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER) {
		case logPrefix:
			prefix = strings.TrimRight(string(a.Data), "\x00")
		case logPayload:
			packet = a.Data
		}
	}
	rules := f.rules.Load()
	if rules == nil {
		return lines
	}
	entry, known := (*rules)[prefix]
	if !known || !parse(&entry, packet) {
		return lines
	}
	entry.Time = time.Now().UTC()
	text, err := json.Marshal(entry)
	if err != nil {
		return lines
	}
	return append(append(lines, text...), '\n')
}

// parse reads the IPv4 header and the ports behind it.
func parse(e *dataplane.FlowLine, packet []byte) bool {
	const least = 20
	if len(packet) < least || packet[0]>>4 != 4 {
		return false
	}
	e.Protocol = packet[9]
	e.Source = netip.AddrFrom4([4]byte(packet[12:16]))
	e.Destination = netip.AddrFrom4([4]byte(packet[16:20]))
	behind := int(packet[0]&0xf) * 4
	if e.Protocol != unix.IPPROTO_TCP && e.Protocol != unix.IPPROTO_UDP && e.Protocol != unix.IPPROTO_SCTP || len(packet) < behind+4 {
		return true
	}
	e.SourcePort = binary.BigEndian.Uint16(packet[behind:])
	e.DestinationPort = binary.BigEndian.Uint16(packet[behind+2:])
	return true
}
