// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The words that rules are made of. Each is a match or a statement; a rule is
// several in a row. Registers hold nothing from one word to the next.

const (
	reg         = 1
	portReg     = 2
	srcOffset   = 12 // of the source in an IPv4 header
	dstOffset   = 16
	dportOffset = 2 // of the destination port in TCP and UDP
	dnatStatus  = 1 << 5
)

type words []expr.Any

// rule joins words.
func rule(parts ...words) words {
	var all words
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func equals(data []byte) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: data}
}

func differs(data []byte) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: data}
}

func linkBytes(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

func iif(name string) words {
	return words{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg}, equals(linkBytes(name))}
}

func oif(name string) words {
	return words{&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg}, equals(linkBytes(name))}
}

func notOif(name string) words {
	return words{&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg}, differs(linkBytes(name))}
}

func ipv4() words {
	return words{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg}, equals([]byte{unix.NFPROTO_IPV4})}
}

// field loads four bytes of the IPv4 header.
func field(offset uint32) words {
	return append(ipv4(), &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4})
}

// in matches an address field of the packet against a prefix.
func in(offset uint32, p netip.Prefix) words {
	w := field(offset)
	if p.Bits() < p.Addr().BitLen() {
		w = append(w, &expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4,
			Mask: toNet(p).Mask, Xor: make([]byte, 4)})
	}
	return append(w, equals(p.Masked().Addr().AsSlice()))
}

func from(p netip.Prefix) words { return in(srcOffset, p) }
func to(p netip.Prefix) words   { return in(dstOffset, p) }

// fromSet and toSet match an address field against a named set.
func fromSet(s *nftables.Set) words {
	return append(field(srcOffset), &expr.Lookup{SourceRegister: reg, SetName: s.Name, SetID: s.ID})
}

func toSet(s *nftables.Set) words {
	return append(field(dstOffset), &expr.Lookup{SourceRegister: reg, SetName: s.Name, SetID: s.ID})
}

func proto(p byte) words {
	return words{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg}, equals([]byte{p})}
}

func dport(p byte, port uint16) words {
	return append(proto(p),
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: dportOffset, Len: 2},
		equals(binaryutil.BigEndian.PutUint16(port)))
}

// ping matches an ICMP echo request.
func ping() words {
	return append(proto(unix.IPPROTO_ICMP),
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Len: 1}, equals([]byte{8}))
}

func ct(key expr.CtKey, bits uint32) words {
	return words{
		&expr.Ct{Key: key, Register: reg},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		differs(make([]byte, 4)),
	}
}

func known() words   { return ct(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED) }
func invalid() words { return ct(expr.CtKeySTATE, expr.CtStateBitINVALID) }
func dnatted() words { return ct(expr.CtKeySTATUS, dnatStatus) }

// spoofed matches a packet whose source isn't routed to where it came from.
func spoofed() words {
	return append(ipv4(), &expr.Fib{Register: reg, FlagSADDR: true, FlagIIF: true, ResultOIF: true}, equals(make([]byte, 4)))
}

func counter() words { return words{&expr.Counter{}} }
func accept() words  { return words{&expr.Verdict{Kind: expr.VerdictAccept}} }
func drop() words    { return append(counter(), &expr.Verdict{Kind: expr.VerdictDrop}) }

func masquerade() words { return words{&expr.Masq{}} }

func snat(a netip.Addr) words {
	return words{
		&expr.Immediate{Register: reg, Data: a.AsSlice()},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg},
	}
}

func dnat(a netip.Addr, port uint16) words {
	return words{
		&expr.Immediate{Register: reg, Data: a.AsSlice()},
		&expr.Immediate{Register: portReg, Data: binaryutil.BigEndian.PutUint16(port)},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg, RegProtoMin: portReg},
	}
}

// intervals are the elements of an interval set of disjoint prefixes.
func intervals(prefixes []netip.Prefix) []nftables.SetElement {
	var elements []nftables.SetElement
	for _, p := range prefixes {
		first := p.Masked().Addr()
		last := first.As4()
		for i := p.Bits(); i < first.BitLen(); i++ {
			last[i/8] |= 1 << (7 - i%8)
		}
		elements = append(elements, nftables.SetElement{Key: first.AsSlice()})
		if after := netip.AddrFrom4(last).Next(); after.IsValid() {
			elements = append(elements, nftables.SetElement{Key: after.AsSlice(), IntervalEnd: true})
		}
	}
	return elements
}
