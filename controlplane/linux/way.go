// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"errors"
	"fmt"
	"os"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"bastide.dev/controlplane"
)

// wayTable is the nftables table in a control plane's own namespace that leads
// clients to the API server.
const wayTable = "bastide-apiserver"

// way is where clients of the API server are led.
type way struct {
	to controlplane.Slot
	// held keeps back what clients ask: TCP brings it again when the way is open.
	// Who dials a slot's own port from within the namespace is let through.
	held bool
	// leaving does that to those who are at the other slot still.
	leaving bool
}

// lead makes the way in a network namespace, in one transaction: new connections
// go there from then on, and those that are open stay where they are.
func lead(netns string, w way) (err error) {
	ns, err := os.Open(netns)
	if err != nil {
		return fmt.Errorf("lead clients to the API server: %w", err)
	}
	defer func() { err = errors.Join(err, ns.Close()) }()
	conn, err := nftables.New(nftables.WithNetNSFd(int(ns.Fd())))
	if err != nil {
		return fmt.Errorf("lead clients to the API server: %w", err)
	}
	table := conn.AddTable(&nftables.Table{Name: wayTable, Family: nftables.TableFamilyINet})
	chain := func(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority, rules ...[]expr.Any) {
		c := conn.AddChain(&nftables.Chain{Name: name, Table: table, Type: kind, Hooknum: hook, Priority: priority})
		conn.FlushChain(c)
		for _, r := range rules {
			conn.AddRule(&nftables.Rule{Table: table, Chain: c, Exprs: r})
		}
	}
	chain("prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest, redirect(w.to))
	chain("output", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest, redirect(w.to))
	var filter [][]expr.Any
	for _, slot := range controlplane.Slots() {
		filter = append(filter, strangers(slot))
		if w.held && slot == w.to || w.leaving && slot != w.to {
			filter = append(filter, hold(slot))
		}
	}
	chain("input", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter, filter...)
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("lead clients to the API server: %w", err)
	}
	return nil
}

// redirect leads connections to the public port of this namespace to a slot's.
func redirect(to controlplane.Slot) []expr.Any {
	rule := append(tcpTo(controlplane.PublicPort),
		&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
		&expr.Immediate{Register: 1, Data: binaryutil.BigEndian.PutUint16(to.Port())},
		&expr.Redir{RegisterProtoMin: 1})
	return rule
}

// strangers drops what comes from outside to a slot's own port: an API server
// that isn't in charge has nothing to say to them.
func strangers(slot controlplane.Slot) []expr.Any {
	rule := append(tcpTo(slot.Port()), translated(expr.CmpOpEq)...)
	return append(rule,
		&expr.Meta{Key: expr.MetaKeyIIFTYPE, Register: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binaryutil.NativeEndian.PutUint16(unix.ARPHRD_LOOPBACK)},
		&expr.Verdict{Kind: expr.VerdictDrop})
}

// acknowledgement is the size of the largest packet without content, with every
// option that TCP has room for. A TLS record around anything makes it larger.
const acknowledgement = 80

// hold drops what came by the public port and says something: answers that are
// under way go on to be acknowledged.
func hold(slot controlplane.Slot) []expr.Any {
	rule := append(tcpTo(slot.Port()), translated(expr.CmpOpNeq)...)
	return append(rule,
		&expr.Meta{Key: expr.MetaKeyLEN, Register: 1},
		&expr.Byteorder{SourceRegister: 1, DestRegister: 1, Op: expr.ByteorderHton, Len: 4, Size: 4},
		&expr.Cmp{Op: expr.CmpOpGt, Register: 1, Data: binaryutil.BigEndian.PutUint32(acknowledgement)},
		&expr.Verdict{Kind: expr.VerdictDrop})
}

const dnat = 1 << 5 // IPS_DST_NAT: the connection's destination is another than it asked for

// translated compares the connection's mark of a changed destination with none.
func translated(op expr.CmpOp) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATUS, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(dnat), Xor: make([]byte, 4)},
		&expr.Cmp{Op: op, Register: 1, Data: make([]byte, 4)},
	}
}

func tcpTo(port uint16) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
	}
}
