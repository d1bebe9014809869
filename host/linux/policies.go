// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"bastide.dev/fault"
	"bastide.dev/ruleset"
)

const (
	maxTable  = 64 << 20
	tablePath = "http://policy/table" // what a policy agent answers with its table
)

// Policies asks a machine's policy agent for its table.
func (p *Prober) Policies(ctx context.Context, pid int) (ruleset.Table, error) {
	root, err := os.OpenFile(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return ruleset.Table{}, fmt.Errorf("machine's root: %w", err)
	}
	table, err := fetchTable(ctx, root, p.PolicySocket)
	return table, errors.Join(err, root.Close())
}

func fetchTable(ctx context.Context, root *os.File, socket string) (table ruleset.Table, err error) {
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dialIn(ctx, root, socket)
	}}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, tablePath, nil)
	if err != nil {
		return table, err
	}
	response, err := transport.RoundTrip(request) // no client: what a machine answers isn't followed elsewhere
	if err != nil {
		return table, fault.New(fault.Unavailable, "", "The machine's policy agent doesn't answer.").Because(err)
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxTable+1))
	switch {
	case err != nil:
		return table, fmt.Errorf("policy agent: %w", err)
	case len(text) > maxTable:
		return table, fault.New(fault.TooLarge, "", "The machine's policy agent sends more than %d bytes.", maxTable)
	case response.StatusCode != http.StatusOK:
		return table, fault.New(fault.Unavailable, "", "The machine's policy agent answers %d.", response.StatusCode)
	}
	if err := json.Unmarshal(text, &table); err != nil {
		return table, fmt.Errorf("policy agent's table: %w", err)
	}
	return table, nil
}

// dialIn connects to a socket below another root. The path is resolved there
// without following any link, so that a machine can't lead out of itself, and
// what is found is connected to by its descriptor: it can't be exchanged.
func dialIn(ctx context.Context, root *os.File, path string) (net.Conn, error) {
	fd, err := unix.Openat2(int(root.Fd()), strings.TrimPrefix(path, "/"), &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC | unix.O_NOFOLLOW,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	file := os.NewFile(uintptr(fd), path)
	conn, err := new(net.Dialer).DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d", fd))
	return conn, errors.Join(err, file.Close())
}
