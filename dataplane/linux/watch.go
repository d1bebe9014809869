// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// watch hears of every change of links, addresses, routes and routing rules in
// a namespace: what was quiet since it was last looked through needn't be
// looked through again. It keeps the namespace alive, so only namespaces that
// are ours are watched.
type watch struct{ socket int }

func newWatch(ns *os.File) (*watch, error) {
	w := &watch{}
	err := within(ns, func() (err error) {
		w.socket, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", ns.Name(), err)
	}
	err = unix.Bind(w.socket, &unix.SockaddrNetlink{Family: unix.AF_NETLINK,
		Groups: unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV4_RULE})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("watch %s: %w", ns.Name(), err), w.close())
	}
	return w, nil
}

// quiet forgets what was heard, and tells whether that was nothing. More than
// the socket holds is an error of reading, and isn't quiet either.
func (w *watch) quiet() bool {
	buffer := make([]byte, 8) // a message's length doesn't matter
	for quiet := true; ; quiet = false {
		_, _, err := unix.Recvfrom(w.socket, buffer, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
		if errors.Is(err, unix.EAGAIN) {
			return quiet
		}
		if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR) {
			return false
		}
	}
}

func (w *watch) close() error {
	if err := unix.Close(w.socket); err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	return nil
}
