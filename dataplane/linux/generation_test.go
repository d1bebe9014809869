// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"encoding/binary"
	"os"
	"testing"

	mnl "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// generation is the number of the last nftables transaction in a namespace.
func generation(t *testing.T, path string) uint32 {
	t.Helper()
	ns, err := os.Open(path)
	must(t, err)
	defer func() { must(t, ns.Close()) }()
	conn, err := mnl.Dial(unix.NETLINK_NETFILTER, &mnl.Config{NetNS: int(ns.Fd())})
	must(t, err)
	defer func() { must(t, conn.Close()) }()
	answer, err := conn.Execute(mnl.Message{Header: mnl.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN, Flags: mnl.Request}, Data: make([]byte, 4)})
	must(t, err)
	for _, m := range answer {
		if len(m.Data) < 4 {
			continue
		}
		attributes, err := mnl.UnmarshalAttributes(m.Data[4:])
		must(t, err)
		for _, a := range attributes {
			if a.Type == unix.NFTA_GEN_ID {
				return binary.BigEndian.Uint32(a.Data)
			}
		}
	}
	t.Fatal("the kernel gave no generation")
	return 0
}
