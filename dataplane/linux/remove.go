// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"bastide.dev/dataplane"
)

// removeVNets removes every network of the instance that isn't among keep.
func (p *Plane) removeVNets(keep []dataplane.VNet) error {
	entries, err := p.entries("routers")
	if err != nil {
		return err
	}
	var failed []error
	for _, name := range entries {
		id, isVNet := strings.CutPrefix(name, vnetPrefix)
		if !isVNet || slices.ContainsFunc(keep, func(v dataplane.VNet) bool { return v.ID == id }) {
			continue
		}
		if err := p.removeVNet(id); err != nil {
			failed = append(failed, fmt.Errorf("remove vnet %s: %w", id, err))
		}
	}
	return errors.Join(failed...)
}

// removeVNet deletes a router's links at once, not when the kernel gets round
// to the namespace: their other ends are in namespaces that live on.
func (p *Plane) removeVNet(id string) error {
	path := p.vnetPath(id)
	s, err := openSpace(path)
	if err == nil {
		err = errors.Join(removeVeths(s), s.close())
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if n := p.vnets[id]; n != nil {
		delete(p.vnets, id)
		err = errors.Join(err, n.close())
	}
	return errors.Join(err, removeNetns(path))
}

func removeVeths(s *space) error {
	byName, err := links(s.nl)
	if err != nil {
		return err
	}
	var failed []error
	for name, link := range byName {
		if link.Type() == "veth" {
			failed = append(failed, removeLink(s.nl, name))
		}
	}
	return errors.Join(failed...)
}

// removeSpaces removes the namespaces made for NICs and terminals that are no more.
func (p *Plane) removeSpaces(c *dataplane.Config) error {
	entries, err := p.entries("netns")
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	for _, t := range c.Edge.Terminals {
		wanted[t.Namespace] = true
	}
	for i := range c.VNets {
		for j := range c.VNets[i].NICs {
			wanted[c.VNets[i].NICs[j].Namespace] = true
		}
	}
	var failed []error
	for _, name := range entries {
		if !wanted[name] {
			failed = append(failed, removeNetns(p.NetnsPath(name)))
		}
	}
	return errors.Join(failed...)
}
