// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"bastide.dev/ruleset"
)

// Bits and numbers as the kernel has them.
const (
	stateInvalid     = 1
	stateEstablished = 2
	stateRelated     = 4
	stateNew         = 8
	statusDNAT       = 1 << 5
	typeLocal        = 2
)

// firstReg is the first of the kernel's sixteen 4-byte registers. A key begins
// there; each of its fields takes whole registers.
const firstReg = unix.NFT_REG32_00

// kind is how the kernel keeps a field's values: their bytes, and the number
// that the nft tool knows their type by.
type kind struct {
	width int
	magic uint32
}

// kindOf is a field's kind; addresses have bytes bytes.
func kindOf(f ruleset.Field, bytes int) kind {
	switch f {
	case ruleset.InLink, ruleset.OutLink:
		return kind{unix.IFNAMSIZ, 41}
	case ruleset.Source, ruleset.Destination:
		if bytes == 16 {
			return kind{16, 8}
		}
		return kind{4, 7}
	case ruleset.Protocol:
		return kind{1, 12}
	case ruleset.SourcePort, ruleset.DestinationPort:
		return kind{2, 13}
	case ruleset.ICMPType:
		return kind{1, 14}
	case ruleset.State:
		return kind{4, 26}
	case ruleset.Reply:
		return kind{1, 27}
	case ruleset.Translated:
		return kind{4, 28}
	case ruleset.Type:
		return kind{4, 38}
	}
	return kind{4, 19} // marks
}

// padded is a width in whole registers.
func padded(width int) int { return (width + 3) &^ 3 }

// span is an inclusive range of a field's values in the kernel's bytes.
type span struct{ from, to string }

func (s span) exact() bool { return s.from == s.to }

func one(b []byte) span { return span{string(b), string(b)} }

func native(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

// spans are the bytes of a range; a few fields have several for one.
func spans(f ruleset.Field, r ruleset.Range) []span {
	first, last := r.From, r.Last()
	switch f {
	case ruleset.InLink, ruleset.OutLink:
		name := make([]byte, unix.IFNAMSIZ)
		copy(name, first.Name)
		return []span{one(name)}
	case ruleset.Source, ruleset.Destination:
		return []span{{string(first.Addr.AsSlice()), string(last.Addr.AsSlice())}}
	case ruleset.Protocol, ruleset.ICMPType:
		return []span{{string([]byte{byte(first.Number)}), string([]byte{byte(last.Number)})}}
	case ruleset.SourcePort, ruleset.DestinationPort:
		return []span{{string(binary.BigEndian.AppendUint16(nil, uint16(first.Number))),
			string(binary.BigEndian.AppendUint16(nil, uint16(last.Number)))}}
	case ruleset.Mark, ruleset.ConnMark:
		return []span{{string(binary.BigEndian.AppendUint32(nil, first.Number)), string(binary.BigEndian.AppendUint32(nil, last.Number))}}
	}
	var all []span
	for n := first.Number; n <= last.Number; n++ {
		for _, b := range named(f, n) {
			all = append(all, one(b))
		}
	}
	return all
}

// named are the kernel's bytes of a number that is a name of ours.
func named(f ruleset.Field, n uint32) [][]byte {
	switch f {
	case ruleset.State:
		return [][][]byte{{}, {native(stateNew)}, {native(stateEstablished), native(stateRelated)}, {native(stateInvalid)}}[n]
	case ruleset.Reply:
		return [][]byte{{byte(n)}}
	case ruleset.Translated:
		return [][]byte{native(n * statusDNAT)}
	}
	return [][]byte{native(typeLocal)}
}

// program is the expressions of one rule, and what they made sure of so far.
type program struct {
	c      *compiler
	code   []byte
	family byte // of addresses, when it was checked
	ports  bool // the protocol has some
	icmp   bool
	uses   []string // the sets, maps, objects and chains of the compiler that it names
}

func (p *program) add(expressions ...expr.Any) {
	for _, e := range expressions {
		b, err := expr.Marshal(unix.NFPROTO_INET, e)
		if err != nil {
			p.c.fail(fmt.Errorf("encode %T: %w", e, err))
			return
		}
		p.code = append(p.code, nest(unix.NFTA_LIST_ELEM, b)...)
	}
}

// need adds the checks without which a field can't be read. The kernel would
// read other protocols' bytes.
func (p *program) need(f ruleset.Field, bytes int) {
	switch f {
	case ruleset.Source, ruleset.Destination:
		family := byte(unix.NFPROTO_IPV4)
		if bytes == 16 {
			family = unix.NFPROTO_IPV6
		}
		if p.family != family {
			p.add(&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: firstReg}, &expr.Cmp{Op: expr.CmpOpEq, Register: firstReg, Data: []byte{family}})
			p.family = family
		}
	case ruleset.SourcePort, ruleset.DestinationPort:
		if !p.ports {
			p.add(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: firstReg})
			p.lookup(p.c.ported(), firstReg, false)
			p.ports = true
		}
	case ruleset.ICMPType:
		if !p.icmp {
			p.add(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: firstReg}, &expr.Cmp{Op: expr.CmpOpEq, Register: firstReg, Data: []byte{ruleset.ICMP}})
			p.icmp = true
		}
	}
}

// load reads a field into registers from reg on.
func (p *program) load(f ruleset.Field, bytes int, reg uint32) {
	payload := func(base expr.PayloadBase, offset, length uint32) {
		p.add(&expr.Payload{DestRegister: reg, Base: base, Offset: offset, Len: length})
	}
	switch f {
	case ruleset.InLink:
		p.add(&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg})
	case ruleset.OutLink:
		p.add(&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg})
	case ruleset.Source, ruleset.Destination:
		payload(expr.PayloadBaseNetworkHeader, addressOffset(f, bytes), uint32(bytes))
	case ruleset.Protocol:
		p.add(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg})
	case ruleset.SourcePort:
		payload(expr.PayloadBaseTransportHeader, 0, 2)
	case ruleset.DestinationPort:
		payload(expr.PayloadBaseTransportHeader, 2, 2)
	case ruleset.ICMPType:
		payload(expr.PayloadBaseTransportHeader, 0, 1)
	case ruleset.State:
		p.add(&expr.Ct{Key: expr.CtKeySTATE, Register: reg})
	case ruleset.Reply:
		p.add(&expr.Ct{Key: expr.CtKeyDIRECTION, Register: reg})
	case ruleset.Translated:
		p.add(&expr.Ct{Key: expr.CtKeySTATUS, Register: reg}, masked(reg, statusDNAT, 0))
	case ruleset.Mark:
		p.add(&expr.Meta{Key: expr.MetaKeyMARK, Register: reg}, bigEndian(reg))
	case ruleset.ConnMark:
		p.add(&expr.Ct{Key: expr.CtKeyMARK, Register: reg}, bigEndian(reg))
	case ruleset.Type:
		p.add(&expr.Fib{Register: reg, FlagDADDR: true, ResultADDRTYPE: true})
	}
}

// addressOffset is where an address is in its IP header.
func addressOffset(f ruleset.Field, bytes int) uint32 {
	at := uint32(12)
	if bytes == 16 {
		at = 8
	}
	if f == ruleset.Destination {
		at += uint32(bytes)
	}
	return at
}

// key loads fields one after another, as a set's key has them, and returns the
// key's length.
func (p *program) key(fields []ruleset.Field, bytes int) int {
	for _, f := range fields {
		p.need(f, bytes)
	}
	length := 0
	for _, f := range fields {
		p.load(f, bytes, firstReg+uint32(length/4))
		length += padded(kindOf(f, bytes).width)
	}
	return length
}

// lookup goes on when the key is in the set.
func (p *program) lookup(set string, reg uint32, not bool) {
	p.add(&expr.Lookup{SourceRegister: reg, SetName: set, Invert: not})
	p.uses = append(p.uses, set)
}

// find puts what a map has for the key into registers from reg on.
func (p *program) find(name string, reg uint32) {
	p.add(&expr.Lookup{SourceRegister: firstReg, DestRegister: reg, IsDestRegSet: true, SetName: name})
	p.uses = append(p.uses, name)
}

// masked keeps mask's bits of a register and flips those of xor.
func masked(reg, mask, xor uint32) expr.Any {
	return &expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: native(mask), Xor: native(xor)}
}

// bigEndian makes a number of the machine comparable in ranges.
func bigEndian(reg uint32) expr.Any {
	return &expr.Byteorder{SourceRegister: reg, DestRegister: reg, Op: expr.ByteorderHton, Len: 4, Size: 4}
}

// or joins a register's bits with another's; Linux has it since 6.13, and the
// library not yet.
func (p *program) or(reg, other uint32) {
	const (
		operation, second = 6, 8 // NFTA_BITWISE_OP, NFTA_BITWISE_SREG2
		operationOr       = 4    // NFT_BITWISE_OR
	)
	p.code = append(p.code, nest(unix.NFTA_LIST_ELEM, text(unix.NFTA_EXPR_NAME, "bitwise"), nest(unix.NFTA_EXPR_DATA,
		number(unix.NFTA_BITWISE_SREG, reg), number(second, other), number(unix.NFTA_BITWISE_DREG, reg),
		number(unix.NFTA_BITWISE_LEN, 4), number(operation, operationOr)))...)
}
