// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"bastide.dev/dataplane"
)

// place is where a NIC's other end lives, as it was last seen.
type place struct {
	path  string
	file  os.FileInfo // nil: nothing was there
	watch *watch      // of a namespace of ours
	// bounded says what a machine's own namespace was given last.
	bounded bounds
}

func (n *vnet) saw(nic, path string, ns *os.File) error {
	at := n.places[nic]
	if at == nil {
		at = &place{}
		n.places[nic] = at
	}
	at.path = path
	if ns == nil {
		at.file, at.bounded = nil, unknownBounds
		return nil
	}
	info, err := ns.Stat()
	if err != nil {
		return fmt.Errorf("network namespace: %w", err)
	}
	if at.watch != nil && !os.SameFile(at.file, info) {
		err, at.watch = at.watch.close(), nil
	}
	if at.file != nil && !os.SameFile(at.file, info) {
		at.bounded = unknownBounds
	}
	at.file = info
	return err
}

// listen hears from now on of what happens in a NIC's namespace.
func (n *vnet) listen(nic string, ns *os.File) error {
	at := n.places[nic]
	if at.watch != nil {
		return nil
	}
	var err error
	at.watch, err = newWatch(ns)
	return err
}

// forgetPlaces gives up those of NICs that aren't in keep.
func (n *vnet) forgetPlaces(keep []dataplane.NIC) error {
	var failed []error
	for id, at := range n.places {
		if slices.ContainsFunc(keep, func(nic dataplane.NIC) bool { return nic.ID == id }) {
			continue
		}
		if at.watch != nil {
			failed = append(failed, at.watch.close())
		}
		delete(n.places, id)
	}
	return errors.Join(failed...)
}

// quiet tells whether nothing happened to the network since it was last asked.
func (p *Plane) quiet(n *vnet, v *dataplane.VNet, netns func(string) string) bool {
	quiet := n.watch.quiet()
	for i := range v.NICs {
		nic := &v.NICs[i]
		at := n.places[nic.ID]
		if at == nil {
			quiet = false
			continue
		}
		path := p.NetnsPath(nic.Namespace)
		if nic.Machine != "" {
			path = netns(nic.Machine)
		}
		info, err := os.Stat(path)
		same := at.path == path && (err == nil) == (at.file != nil) && (err != nil || os.SameFile(info, at.file))
		quiet = same && (at.watch == nil || at.watch.quiet()) && quiet
	}
	return quiet
}
