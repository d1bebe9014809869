// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"bastide.dev/dataplane"
)

const terminals = "terminals"

// resolvers is a terminal's resolver file: the edge's name server.
func resolvers() []byte {
	return fmt.Appendf(nil, "nameserver %s\noptions timeout:2 attempts:2\n", dataplane.WireServer)
}

// TerminalResolver is the file that names a terminal's resolver, to be mounted
// over /etc/resolv.conf for what runs in its namespace.
func (p *Plane) TerminalResolver(id string) string {
	return filepath.Join(p.RunDir, terminals, id, "resolv.conf")
}

// applyTerminals makes the clients on the instance's Internet what they should
// be, and removes those that are no more.
func (p *Plane) applyTerminals(want []dataplane.EdgeTerminal) error {
	wanted := map[string]bool{}
	var failed []error
	for _, t := range want {
		wanted[t.Link] = true
		if err := p.applyTerminal(t); err != nil {
			failed = append(failed, fmt.Errorf("terminal %s: %w", t.ID, err))
		}
	}
	byName, err := links(p.edge.nl)
	failed = append(failed, err)
	for name, link := range byName {
		if strings.HasPrefix(name, terminalPrefix) && link.Type() == "veth" && !wanted[name] {
			failed = append(failed, removeLink(p.edge.nl, name))
		}
	}
	entries, err := p.entries(terminals)
	failed = append(failed, err)
	for _, id := range entries {
		if !slices.ContainsFunc(want, func(t dataplane.EdgeTerminal) bool { return t.ID == id }) {
			failed = append(failed, os.RemoveAll(filepath.Join(p.RunDir, terminals, id)))
		}
	}
	return errors.Join(failed...)
}

func (p *Plane) applyTerminal(t dataplane.EdgeTerminal) error {
	if p.edge.dns == nil {
		server, err := p.startNames(p.edge.ns)
		if err != nil {
			return fmt.Errorf("name server: %w", err)
		}
		p.edge.dns = server
	}
	s, err := p.nicSpace(p.NetnsPath(t.Namespace))
	if err != nil {
		return err
	}
	if _, _, err = join(p.edge.space, t.Link, s, firstLink, p.mtu); err == nil {
		err = configureTerminal(s, t.Address)
	}
	return errors.Join(err, s.close(), p.writeResolver(t.ID))
}

// configureTerminal sets up the terminal's own end.
func configureTerminal(s *space, address netip.Addr) error {
	if err := loopbackUp(s.nl, nil); err != nil {
		return err
	}
	link, err := mustLink(s.nl, firstLink)
	if err != nil {
		return err
	}
	if err := syncAddresses(s.nl, link, []netip.Prefix{single(address)}); err != nil {
		return err
	}
	index := link.Attrs().Index
	return syncRoutes(s.nl, []route{{dst: anywhere(), via: dataplane.EdgeAddress, link: index}}, index)
}

func (p *Plane) writeResolver(id string) error {
	path := p.TerminalResolver(id)
	if err := p.makeDir(filepath.Dir(path)); err != nil {
		return err
	}
	if have, err := os.ReadFile(path); err == nil && slices.Equal(have, resolvers()) {
		return nil
	}
	if err := os.WriteFile(path, resolvers(), 0o644); err != nil {
		return fmt.Errorf("resolver file: %w", err)
	}
	return nil
}
