// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	mnl "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// The nftables library waits for an acknowledgement of every message, and gives
// no handles of rules back. Here a whole transaction is one write and one
// acknowledgement, so its messages are made and read by hand; the expressions
// inside of rules are the library's.

const (
	headerLen = 16
	batchSize = 64 << 20        // the most bytes of one transaction
	patience  = 5 * time.Second // the kernel answers at once; this is for a bug
)

// attr is a netlink attribute, padded.
func attr(kind uint16, data ...[]byte) []byte {
	size := 4
	for _, d := range data {
		size += len(d)
	}
	b := make([]byte, 4, (size+3)&^3)
	binary.NativeEndian.PutUint16(b, uint16(size))
	binary.NativeEndian.PutUint16(b[2:], kind)
	for _, d := range data {
		b = append(b, d...)
	}
	return b[:cap(b)]
}

func nest(kind uint16, data ...[]byte) []byte { return attr(kind|unix.NLA_F_NESTED, data...) }

func text(kind uint16, s string) []byte { return attr(kind, []byte(s), []byte{0}) }

func number(kind uint16, n uint32) []byte { return attr(kind, binary.BigEndian.AppendUint32(nil, n)) }

// message is one nftables command.
type message struct {
	kind  uint16 // NFT_MSG_…
	flags uint16
	what  string // for errors
	body  [][]byte
}

// put appends the message in wire form.
func (m message) put(b []byte, subsystem, seq uint32, extra uint16) []byte {
	start := len(b)
	b = append(b, make([]byte, headerLen)...)
	b = append(b, unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0)
	for _, part := range m.body {
		b = append(b, part...)
	}
	h := b[start:]
	binary.NativeEndian.PutUint32(h, uint32(len(h)))
	binary.NativeEndian.PutUint16(h[4:], uint16(subsystem<<8)|m.kind)
	binary.NativeEndian.PutUint16(h[6:], m.flags|extra|unix.NLM_F_REQUEST)
	binary.NativeEndian.PutUint32(h[8:], seq)
	return b
}

// bracket is the message that begins or ends a transaction.
func bracket(b []byte, kind uint16, seq uint32) []byte {
	b = message{kind: kind}.put(b, 0, seq, 0)
	h := b[len(b)-4:]
	h[0] = unix.AF_UNSPEC
	binary.BigEndian.PutUint16(h[2:], unix.NFNL_SUBSYS_NFTABLES)
	return b
}

// socket is a connection to nftables in one network namespace.
type socket struct {
	conn *mnl.Conn
	raw  syscall.RawConn
	seq  uint32
	buf  []byte
}

func dial(ns *os.File) (*socket, error) {
	config := &mnl.Config{}
	if ns != nil {
		config.NetNS = int(ns.Fd())
	}
	conn, err := mnl.Dial(unix.NETLINK_NETFILTER, config)
	if err != nil {
		return nil, err
	}
	raw, err := conn.SyscallConn()
	if err == nil {
		// Without privileges on the machine it is as large as net.core.wmem_max allows.
		err = conn.SetWriteBuffer(batchSize)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &socket{conn: conn, raw: raw, buf: make([]byte, 1<<18)}, nil
}

func (s *socket) close() error { return s.conn.Close() }

func (s *socket) send(b []byte) error {
	var sent error
	err := s.raw.Write(func(fd uintptr) bool {
		sent = unix.Sendto(int(fd), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		return !errors.Is(sent, unix.EAGAIN)
	})
	return errors.Join(err, sent)
}

// received is one message from the kernel.
type received struct {
	kind, flags uint16
	seq         uint32
	data        []byte // valid until the next receive
}

func (s *socket) receive() ([]received, error) {
	if err := s.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	var n int
	var got error
	err := s.raw.Read(func(fd uintptr) bool {
		n, _, got = unix.Recvfrom(int(fd), s.buf, unix.MSG_DONTWAIT)
		return !errors.Is(got, unix.EAGAIN)
	})
	if err = errors.Join(err, got); err != nil {
		return nil, err
	}
	var all []received
	for b := s.buf[:n]; len(b) >= headerLen; {
		size := int(binary.NativeEndian.Uint32(b))
		if size < headerLen || size > len(b) {
			return nil, errors.New("a netlink message is cut")
		}
		all = append(all, received{kind: binary.NativeEndian.Uint16(b[4:]), flags: binary.NativeEndian.Uint16(b[6:]),
			seq: binary.NativeEndian.Uint32(b[8:]), data: b[headerLen:size]})
		b = b[min((size+3)&^3, len(b)):]
	}
	return all, nil
}

// commit does all messages in one transaction, or none. The last message alone
// asks for an acknowledgement; those that fail are answered anyway.
func (s *socket) commit(messages []message) error {
	if len(messages) == 0 {
		return nil
	}
	begin := s.seq + 1
	b := bracket(nil, unix.NFNL_MSG_BATCH_BEGIN, begin)
	for i, m := range messages {
		extra := uint16(0)
		if i == len(messages)-1 {
			extra = unix.NLM_F_ACK
		}
		b = m.put(b, unix.NFNL_SUBSYS_NFTABLES, begin+1+uint32(i), extra)
	}
	last := begin + uint32(len(messages))
	s.seq = last + 1
	b = bracket(b, unix.NFNL_MSG_BATCH_END, s.seq)
	if err := s.send(b); err != nil {
		return fmt.Errorf("send %d bytes: %w", len(b), err)
	}
	return s.acknowledged(messages, begin, last)
}

// acknowledged reads answers up to the last message's. One to the transaction's
// begin is final too, when the kernel refuses it as a whole.
func (s *socket) acknowledged(messages []message, begin, last uint32) error {
	var failed []error
	for {
		answers, err := s.receive()
		if err != nil {
			return errors.Join(append(failed, err)...)
		}
		for _, a := range answers {
			if a.kind != unix.NLMSG_ERROR || a.seq < begin || len(a.data) < 4 {
				continue
			}
			code := int32(binary.NativeEndian.Uint32(a.data))
			if code != 0 && len(failed) < 5 {
				what := "commit"
				if i := a.seq - begin; i > 0 && int(i) <= len(messages) {
					what = messages[i-1].what
				}
				failed = append(failed, fmt.Errorf("%s: %w", what, unix.Errno(-code)))
			}
			if a.seq == last || a.seq == begin && code != 0 {
				return errors.Join(failed...)
			}
		}
	}
}

// errInterrupted is a dump during which someone changed what it was to tell.
var errInterrupted = errors.New("changed while it was read")

// dump asks for all objects of a kind and gives each one's attributes to got.
func (s *socket) dump(m message, got func(attributes)) error {
	s.seq++
	if err := s.send(m.put(nil, unix.NFNL_SUBSYS_NFTABLES, s.seq, unix.NLM_F_DUMP)); err != nil {
		return err
	}
	interrupted := false
	for {
		answers, err := s.receive()
		if err != nil {
			return err
		}
		for _, a := range answers {
			if a.seq != s.seq {
				continue
			}
			interrupted = interrupted || a.flags&unix.NLM_F_DUMP_INTR != 0
			switch {
			case a.kind == unix.NLMSG_ERROR || a.kind == unix.NLMSG_DONE:
				return ended(a.data, interrupted)
			case len(a.data) >= 4:
				got(a.data[4:])
			}
		}
	}
}

// ended is the error that a dump's last message has.
func ended(data []byte, interrupted bool) error {
	if len(data) >= 4 {
		if code := int32(binary.NativeEndian.Uint32(data)); code < 0 {
			return unix.Errno(-code)
		}
	}
	if interrupted {
		return errInterrupted
	}
	return nil
}

// generation is the number of the namespace's last transaction.
func (s *socket) generation() (uint32, error) {
	s.seq++
	if err := s.send(message{kind: unix.NFT_MSG_GETGEN}.put(nil, unix.NFNL_SUBSYS_NFTABLES, s.seq, 0)); err != nil {
		return 0, err
	}
	for {
		answers, err := s.receive()
		if err != nil {
			return 0, err
		}
		for _, a := range answers {
			if a.seq != s.seq || len(a.data) < 4 {
				continue
			}
			if a.kind == unix.NLMSG_ERROR {
				return 0, unix.Errno(-int32(binary.NativeEndian.Uint32(a.data)))
			}
			if id := attributes(a.data[4:]).find(unix.NFTA_GEN_ID); len(id) == 4 {
				return binary.BigEndian.Uint32(id), nil
			}
			return 0, errors.New("the kernel gave no generation")
		}
	}
}

// attributes are a sequence of netlink attributes.
type attributes []byte

// each calls got with every attribute.
func (a attributes) each(got func(kind uint16, data []byte)) {
	for len(a) >= 4 {
		size := int(binary.NativeEndian.Uint16(a))
		if size < 4 || size > len(a) {
			return
		}
		got(binary.NativeEndian.Uint16(a[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), a[4:size])
		a = a[min((size+3)&^3, len(a)):]
	}
}

// find is the first attribute of a kind.
func (a attributes) find(kind uint16) []byte {
	var found []byte
	a.each(func(k uint16, data []byte) {
		if k == kind && found == nil {
			found = data
		}
	})
	return found
}

// name is an attribute that is a string.
func (a attributes) name(kind uint16) string {
	b := a.find(kind)
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}
