// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bastide.dev/client"
	"bastide.dev/dataplane"
	"bastide.dev/instance"
)

const (
	// watcherGroup is where Azure keeps the network watchers that it makes.
	watcherGroup = "NetworkWatcherRG"
	// followEvery is how often files are looked at for more.
	followEvery = 200 * time.Millisecond
)

func newNSGLog(g *global) *cobra.Command {
	follow := false
	cmd := &cobra.Command{
		Use:   "log NAME | GROUP/NAME | ID [on | off]",
		Short: "Log what a security group decides, and read the log",
		Long: `With "on" or "off", switches a network security group's flow log: a line for the first
packet of each connection, allowed or denied, with the rule that decided. It is the
resource networkWatchers/flowLogs; those of a group are removed by "off".

Without, prints the lines that were written, or with --follow those that are, until it
is interrupted; with -o json as they stand in the file.`,
		Example: `  bastide nsg log jump-nsg on
  bastide nsg log jump-nsg --follow
  bastide nsg log jump-nsg off`,
		Args:      cobra.RangeArgs(1, 2),
		ValidArgs: []string{"on", "off"},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 && args[1] != "on" && args[1] != "off" {
				return usageError{fmt.Errorf("a log is switched on or off, not %q", args[1])}
			}
			if err := mustBeRoot("bastide nsg log"); err != nil {
				return err
			}
			c, in, err := g.connect()
			if err != nil {
				return err
			}
			id, err := findGroup(cmd.Context(), c, in, args[0])
			if err != nil {
				return err
			}
			view, err := client.Get[groupView](cmd.Context(), c, id, networkVersion)
			if err != nil {
				return answered(err)
			}
			if len(args) == 2 {
				return answered(switchLog(cmd.Context(), c, in, view.ID, args[1] == "on"))
			}
			p := &flowPrinter{dir: flowLogs(in), nsg: logName(view.ID), json: g.output == "json", out: cmd.OutOrStdout(), open: map[string]*flowTail{}}
			return p.run(cmd.Context(), follow)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "print what comes from now on, until interrupted")
	return cmd
}

// flowLogs is where the host keeps flow logs: a file for each virtual network.
func flowLogs(in *instance.Instance) string { return filepath.Join(in.Dir("host"), "flowlogs") }

// logName is how a flow log names a security group: "resourceGroup/name".
func logName(id string) string {
	parts := strings.Split(strings.Trim(id, "/"), "/")
	return parts[3] + "/" + parts[len(parts)-1]
}

// flowLogView is a flow log, as far as it matters here.
type flowLogView struct {
	ID         string `json:"id"`
	Properties struct {
		Target string `json:"targetResourceId"`
	} `json:"properties"`
}

// switchLog makes a group's flow log, in the watcher that Azure would make, or
// removes all that it has.
func switchLog(ctx context.Context, c *client.Client, in *instance.Instance, nsg string, on bool) error {
	subscription := "/subscriptions/" + in.Subscription
	if !on {
		return removeLogs(ctx, c, subscription, nsg)
	}
	group := subscription + "/resourceGroups/" + watcherGroup
	watcher := group + "/providers/Microsoft.Network/networkWatchers/NetworkWatcher_" + in.Location
	at := map[string]any{"location": in.Location}
	if _, err := client.Put[any](ctx, c, group, "2021-04-01", at); err != nil {
		return err
	}
	if _, err := client.Put[any](ctx, c, watcher, networkVersion, at); err != nil {
		return err
	}
	_, err := client.Put[any](ctx, c, watcher+"/flowLogs/"+flowLogName(nsg), networkVersion, map[string]any{"location": in.Location,
		"properties": map[string]any{"targetResourceId": nsg, "storageId": "", "enabled": true}})
	return err
}

// flowLogName is a flow log's name by its group's: readable, and its alone.
func flowLogName(nsg string) string {
	sum := sha256.Sum256([]byte(strings.ToLower(nsg)))
	name := nsg[strings.LastIndex(nsg, "/")+1:]
	return name[:min(len(name), 60)] + "-" + hex.EncodeToString(sum[:4])
}

func removeLogs(ctx context.Context, c *client.Client, subscription, nsg string) error {
	watchers, err := client.List[linkView](ctx, c, subscription+"/providers/Microsoft.Network/networkWatchers", networkVersion)
	if err != nil {
		return err
	}
	for _, w := range watchers {
		logs, err := client.List[flowLogView](ctx, c, w.ID+"/flowLogs", networkVersion)
		if err != nil {
			return err
		}
		for _, l := range logs {
			if !strings.EqualFold(l.Properties.Target, nsg) {
				continue
			}
			if err := c.Delete(ctx, l.ID, networkVersion); err != nil {
				return err
			}
		}
	}
	return nil
}

// flowPrinter prints one group's lines of all networks' files.
type flowPrinter struct {
	dir  string
	nsg  string
	json bool
	out  io.Writer
	open map[string]*flowTail // by path
}

// flowTail is a file that is read as it grows.
type flowTail struct {
	file   *os.File
	reader *bufio.Reader
	part   string // of a line that isn't whole yet
}

// run prints what there is, or goes on with what comes.
func (p *flowPrinter) run(ctx context.Context, follow bool) (err error) {
	defer func() {
		for _, t := range p.open {
			err = errors.Join(err, t.file.Close())
		}
	}()
	if !follow {
		return p.pass(".jsonl.1", ".jsonl")
	}
	if err := p.skip(); err != nil {
		return err
	}
	ticker := time.NewTicker(followEvery)
	defer ticker.Stop()
	for {
		if err := p.pass(".jsonl"); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// skip opens the files that are there at their ends.
func (p *flowPrinter) skip() error {
	return p.each(".jsonl", func(path string) error {
		t, err := p.tail(path)
		if t == nil || err != nil {
			return err
		}
		_, err = t.file.Seek(0, io.SeekEnd)
		return err
	})
}

// pass prints what the files have more than the last time.
func (p *flowPrinter) pass(suffixes ...string) error {
	for _, suffix := range suffixes {
		if err := p.each(suffix, p.more); err != nil {
			return err
		}
	}
	return nil
}

func (p *flowPrinter) each(suffix string, do func(path string) error) error {
	paths, err := filepath.Glob(filepath.Join(p.dir, "*"+suffix))
	if err != nil {
		return err
	}
	for _, path := range paths {
		if err := do(path); err != nil {
			return fmt.Errorf("flow log: %w", err)
		}
	}
	return nil
}

func (p *flowPrinter) tail(path string) (*flowTail, error) {
	if t := p.open[path]; t != nil {
		return t, nil
	}
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // rotated just now
	}
	if err != nil {
		return nil, err
	}
	p.open[path] = &flowTail{file: file, reader: bufio.NewReader(file)}
	return p.open[path], nil
}

// more prints a file's further lines. One that another has taken the place of
// is read to its end first.
func (p *flowPrinter) more(path string) error {
	t, err := p.tail(path)
	if t == nil || err != nil {
		return err
	}
	held, err := t.file.Stat()
	if err != nil {
		return err
	}
	now, err := os.Stat(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	replaced := err == nil && !os.SameFile(held, now)
	for {
		text, err := t.reader.ReadString('\n')
		t.part += text
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		line := t.part
		t.part = ""
		if err := p.print(line); err != nil {
			return err
		}
	}
	if !replaced {
		return nil
	}
	delete(p.open, path)
	return errors.Join(t.file.Close(), p.more(path))
}

// print prints a line that is the group's.
func (p *flowPrinter) print(text string) error {
	var l dataplane.FlowLine
	if json.Unmarshal([]byte(text), &l) != nil || !strings.EqualFold(l.NSG, p.nsg) {
		return nil // another group's, or cut off by a full disk
	}
	if p.json {
		_, err := io.WriteString(p.out, text)
		return err
	}
	_, err := fmt.Fprintf(p.out, "%s  %-8s  %-5s  %s  %s → %s  %s\n", l.Time.Local().Format("2006-01-02 15:04:05.000"), l.Direction, l.Verdict,
		protocolName(l.Protocol), withPort(l.Source, l.SourcePort), withPort(l.Destination, l.DestinationPort), l.Rule)
	return err
}

func protocolName(number uint8) string {
	for name, n := range map[string]uint8{"ICMP": 1, "TCP": 6, "UDP": 17, "ESP": 50, "AH": 51, "SCTP": 132} {
		if n == number {
			return name
		}
	}
	return fmt.Sprint(number)
}

func withPort(a netip.Addr, port uint16) string {
	if port == 0 {
		return a.String()
	}
	return netip.AddrPortFrom(a, port).String()
}
