// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"

	"bastide.dev/dataplane"
)

// afterSilence waits longer than a connection of one second's life may be
// silent, writes, and returns what becomes of it.
func afterSilence(t *testing.T, w *world, writer net.Conn) error {
	t.Helper()
	var err error
	w.until("it ends", func() bool {
		time.Sleep(2100 * time.Millisecond) // the silence that is tested
		if _, err = writer.Write([]byte("hello")); err == nil {
			must(t, writer.SetReadDeadline(time.Now().Add(nothing)))
			_, err = writer.Read(make([]byte, 1))
		}
		return err != nil
	})
	return err
}

// Whoever goes on with an outbound connection that was silent for too long is
// reset, when the egress promises so; else nobody hears anything.
func TestEgressReset(t *testing.T) {
	for _, reset := range []bool{true, false} {
		t.Run(fmt.Sprint(reset), func(t *testing.T) { egressReset(t, reset) })
	}
}

func egressReset(t *testing.T, reset bool) {
	w, v := pairOf(t)
	for i := range v.NICs {
		first := uint16(2048 + i*1024)
		v.NICs[i].Egress = []dataplane.Egress{{Origin: "lb", Address: addr("198.19.99.242"), First: first, Last: first + 1023, Idle: 1, Reset: reset}}
	}
	w.apply(configOf(v))
	outside := newOutside(t)
	inner := openConnection(t, w.node("a-n0"), "198.51.100.2:80", outside)
	inner.stillWorks()
	outer := openConnection(t, w.node("a-n1"), "198.51.100.2:81", outside)
	outer.stillWorks()
	for side, end := range map[string]net.Conn{"the interface": inner.client, "outside": outer.server} {
		if err := afterSilence(t, w, end); errors.Is(err, syscall.ECONNRESET) != reset {
			t.Errorf("%s hears %v", side, err)
		}
	}
}

// An interface's own public address keeps silent connections as long as it
// says, those that come in as well as those that leave.
func TestOwnAddressIdle(t *testing.T) {
	w, v := pairOf(t)
	v.Subnets[0].NSG = "rg/nodes"
	v.NSGs = []dataplane.NSG{open("rg/nodes")}
	v.Public = append(v.Public, dataplane.Public{Address: addr(service), Target: addr("10.224.0.4"), Idle: 1})
	v.NICs[1].Egress = nil
	w.apply(configOf(v))
	outside := newOutside(t)
	in := openTranslated(t, outside, service+":80", w.node("a-n0"), "10.224.0.4:80")
	out := openConnection(t, w.node("a-n0"), "198.51.100.2:80", outside)
	out.stillWorks()
	for way, end := range map[string]net.Conn{"in": in.client, "out": out.client} {
		if err := afterSilence(t, w, end); !isTimeout(err) {
			t.Errorf("%s: %v", way, err)
		}
	}
	in.isCut()
	out.isCut()
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}
