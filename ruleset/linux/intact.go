// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"encoding/binary"
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

// intact tells whether the kernel still has what we wrote. A rule can't change
// without getting another handle, so handles and elements say it all. Others
// may write their tables all the time (kube-proxy does): a read that they
// interrupt is done again, a few times.
func (f *Firewall) intact() bool {
	for range 5 {
		same, err := f.compare()
		if !errors.Is(err, errInterrupted) {
			return err == nil && same
		}
	}
	return false
}

func (f *Firewall) compare() (bool, error) {
	if same, err := f.compareChains(); err != nil || !same {
		return false, err
	}
	handles, err := f.readHandles("")
	if err != nil {
		return false, err
	}
	for _, c := range f.has.chains {
		if !slices.Equal(handles[c.Name], f.handles[c.Name]) {
			return false, nil
		}
	}
	for _, s := range f.has.sets {
		if same, err := f.compareSet(s); err != nil || !same {
			return false, err
		}
	}
	return true, nil
}

func (f *Firewall) compareChains() (bool, error) {
	ours := byName(f.has.chains)
	found, same := 0, true
	err := f.socket.dump(message{kind: unix.NFT_MSG_GETCHAIN, body: [][]byte{text(unix.NFTA_CHAIN_TABLE, f.name)}}, func(c attributes) {
		if c.name(unix.NFTA_CHAIN_TABLE) != f.name {
			return
		}
		found++
		our := ours[c.name(unix.NFTA_CHAIN_NAME)]
		if our == nil {
			same = false
			return
		}
		if p := c.find(unix.NFTA_CHAIN_POLICY); len(p) == 4 {
			same = same && our.Drop == (binary.BigEndian.Uint32(p) == 0)
		}
	})
	return same && found == len(f.has.chains), err
}

func (f *Firewall) compareSet(s *set) (bool, error) {
	left := make(map[element]struct{}, len(s.elements))
	for _, e := range s.elements {
		e.whole = "" // which the kernel doesn't know
		left[e] = struct{}{}
	}
	same := true
	m := message{kind: unix.NFT_MSG_GETSETELEM, body: [][]byte{text(unix.NFTA_SET_ELEM_LIST_TABLE, f.name), text(unix.NFTA_SET_ELEM_LIST_SET, s.name)}}
	err := f.socket.dump(m, func(part attributes) {
		attributes(part.find(unix.NFTA_SET_ELEM_LIST_ELEMENTS)).each(func(_ uint16, b []byte) {
			e := decode(b)
			if _, ok := left[e]; !ok {
				same = false
			}
			delete(left, e)
		})
	})
	return same && len(left) == 0, err
}
