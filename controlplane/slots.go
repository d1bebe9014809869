// SPDX-License-Identifier: Apache-2.0

package controlplane

// Slot is one of the two places that an API server can have. A changed one is
// started in the place that is free, beside the one that serves.
type Slot int

// The slots.
const (
	FirstSlot Slot = iota
	SecondSlot
)

// APIServerB is the program in the second slot; APIServer is the one in the first.
const APIServerB = "kube-apiserver-b"

// PublicPort is where clients find the API server, in whichever slot it is.
const PublicPort = 443

// Slots are both.
func Slots() []Slot { return []Slot{FirstSlot, SecondSlot} }

// Program is the name of the slot's process and of the directory of its files.
func (s Slot) Program() string {
	if s == SecondSlot {
		return APIServerB
	}
	return APIServer
}

// Port is where the slot's API server listens: the way from PublicPort leads there.
func (s Slot) Port() uint16 {
	if s == SecondSlot {
		return 6444
	}
	return 6443
}

// Other is the other slot.
func (s Slot) Other() Slot {
	if s == SecondSlot {
		return FirstSlot
	}
	return SecondSlot
}

// Valid tells whether it is one of the two.
func (s Slot) Valid() bool { return s == FirstSlot || s == SecondSlot }

// placed gives what is the API server's to its slot.
func (s Slot) placed(p Plan) Plan {
	for i := range p.Files {
		if p.Files[i].Program == APIServer {
			p.Files[i].Program = s.Program()
		}
	}
	for i := range p.Leaves {
		if p.Leaves[i].Program == APIServer {
			p.Leaves[i].Program = s.Program()
		}
	}
	return p
}
