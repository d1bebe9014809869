// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"reflect"

	"github.com/google/nftables"
	mnl "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"bastide.dev/dataplane"
)

// writer collects one table; commit puts it in place of the old one in a
// single transaction, so that no packet ever meets half of it.
type writer struct {
	conn  *nftables.Conn
	table *nftables.Table
	err   error
}

func (w *writer) set(name string, prefixes []netip.Prefix) *nftables.Set {
	s := &nftables.Set{Table: w.table, Name: name, KeyType: nftables.TypeIPAddr, Interval: true}
	w.err = errors.Join(w.err, w.conn.AddSet(s, intervals(prefixes)))
	return s
}

func (w *writer) filter(name string, hook *nftables.ChainHook, policy nftables.ChainPolicy) *nftables.Chain {
	return w.conn.AddChain(&nftables.Chain{Name: name, Table: w.table, Type: nftables.ChainTypeFilter,
		Hooknum: hook, Priority: nftables.ChainPriorityFilter, Policy: &policy})
}

func (w *writer) nat(name string, hook *nftables.ChainHook, priority *nftables.ChainPriority) *nftables.Chain {
	return w.conn.AddChain(&nftables.Chain{Name: name, Table: w.table, Type: nftables.ChainTypeNAT, Hooknum: hook, Priority: priority})
}

func (w *writer) rule(chain *nftables.Chain, parts ...words) {
	w.conn.AddRule(&nftables.Rule{Table: w.table, Chain: chain, Exprs: rule(parts...)})
}

// firewall keeps our table of one namespace. It writes only when the table
// should differ from the last one written, or when anyone else wrote since:
// the kernel numbers every transaction of a namespace.
type firewall struct {
	ns         *os.File // nil: the machine's own
	name       string
	generation *mnl.Conn
	last       table
	lastGen    uint32
}

func newFirewall(ns *os.File, instance string) (*firewall, error) {
	config := &mnl.Config{}
	if ns != nil {
		config.NetNS = int(ns.Fd())
	}
	conn, err := mnl.Dial(unix.NETLINK_NETFILTER, config)
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	return &firewall{ns: ns, name: dataplane.TableName(instance), generation: conn}, nil
}

func (f *firewall) close() error {
	if err := f.generation.Close(); err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	return nil
}

// gen reads the number of the namespace's last transaction.
func (f *firewall) gen() (uint32, error) {
	answer, err := f.generation.Execute(mnl.Message{
		Header: mnl.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN, Flags: mnl.Request},
		Data:   make([]byte, 4),
	})
	if err != nil {
		return 0, fmt.Errorf("nftables generation: %w", err)
	}
	for _, m := range answer {
		if len(m.Data) < 4 {
			continue
		}
		attrs, err := mnl.NewAttributeDecoder(m.Data[4:])
		if err != nil {
			return 0, fmt.Errorf("nftables generation: %w", err)
		}
		attrs.ByteOrder = binary.BigEndian
		for attrs.Next() {
			if attrs.Type() == unix.NFTA_GEN_ID {
				return attrs.Uint32(), nil
			}
		}
	}
	return 0, errors.New("nftables generation: the kernel gave none")
}

func (f *firewall) connect() (*nftables.Conn, error) {
	var options []nftables.ConnOption
	if f.ns != nil {
		options = append(options, nftables.WithNetNSFd(int(f.ns.Fd())))
	}
	conn, err := nftables.New(options...)
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	return conn, nil
}

// put makes our table t.
func (f *firewall) put(t table) error {
	gen, err := f.gen()
	if err != nil {
		return err
	}
	if f.last != nil && gen == f.lastGen && reflect.DeepEqual(f.last, t) {
		return nil
	}
	conn, err := f.connect()
	if err != nil {
		return err
	}
	own := &nftables.Table{Name: f.name, Family: nftables.TableFamilyINet}
	conn.AddTable(own) // a table must be there to be deleted
	conn.DelTable(own)
	w := &writer{conn: conn, table: conn.AddTable(own)}
	t.write(w)
	if w.err != nil {
		return fmt.Errorf("nftables: %w", w.err)
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("nftables table %s: %w", f.name, err)
	}
	if f.lastGen, err = f.gen(); err != nil {
		return err
	}
	f.last = t
	return nil
}

// remove deletes our table, if it is there.
func (f *firewall) remove() error {
	conn, err := f.connect()
	if err != nil {
		return err
	}
	f.last = nil
	own := &nftables.Table{Name: f.name, Family: nftables.TableFamilyINet}
	conn.AddTable(own)
	conn.DelTable(own)
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("remove nftables table %s: %w", f.name, err)
	}
	return nil
}

// strangers lists the tables of others that drop forwarded packets by default:
// an accept in ours can't overrule them.
func (f *firewall) strangers() ([]string, error) {
	conn, err := f.connect()
	if err != nil {
		return nil, err
	}
	chains, err := conn.ListChains()
	if err != nil {
		return nil, fmt.Errorf("list nftables chains: %w", err)
	}
	var found []string
	for _, c := range chains {
		if c.Hooknum != nil && *c.Hooknum == *nftables.ChainHookForward && c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop {
			found = append(found, c.Table.Name+" "+c.Name)
		}
	}
	return found, nil
}
