// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	sysctlRoot = "/proc/sys/net/"
	forwarding = "ipv4/ip_forward"
)

// setting is one sysctl below net, by path.
type setting struct{ path, value string }

// routerSettings make a namespace forward, with nothing inherited from the
// machine: the kernel copies the machine's own values into new namespaces.
func routerSettings() []setting {
	return []setting{
		{forwarding, "1"},
		{"ipv4/conf/all/rp_filter", "0"},
		{"ipv4/conf/all/send_redirects", "0"},
		{"ipv4/conf/default/send_redirects", "0"},
		{"ipv4/conf/all/accept_redirects", "0"},
		{"ipv4/conf/all/accept_source_route", "0"},
		{"ipv4/conf/all/proxy_arp", "0"},
		{"ipv4/conf/all/arp_ignore", "0"},
		{"ipv4/conf/default/arp_ignore", "0"},
		{"ipv6/conf/all/disable_ipv6", "1"},
		{"ipv6/conf/default/disable_ipv6", "1"},
	}
}

// edgeSettings: sources are checked by the edge's table, not by rp_filter,
// which would refuse the neighbours' requests from their link-local address.
func edgeSettings() []setting {
	return append(routerSettings(),
		setting{"ipv4/conf/default/rp_filter", "0"}, setting{"ipv4/conf/default/proxy_arp", "0"})
}

// vnetSettings are inherited by each interface that is made later: a source
// that isn't routed to the interface is dropped, and the router answers for
// every address that it has a route to.
func vnetSettings() []setting {
	return append(routerSettings(),
		setting{"ipv4/conf/default/rp_filter", "1"}, setting{"ipv4/conf/default/proxy_arp", "1"})
}

// nicSpaceSettings let an unprivileged control plane listen on port 443 of the
// namespace that is its own.
func nicSpaceSettings() []setting {
	return []setting{{"ipv4/ip_unprivileged_port_start", "0"}}
}

// apply writes the settings of the calling thread's namespace. What a kernel
// without IPv6 lacks needn't be switched off.
func apply(settings []setting) error {
	for _, s := range settings {
		err := os.WriteFile(sysctlRoot+s.path, []byte(s.value), 0)
		if err != nil && (!errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(s.path, "ipv6/")) {
			return fmt.Errorf("sysctl: %w", err)
		}
	}
	return nil
}

// locked runs do while no other instance on this machine is in its own.
func locked(dir string, do func() error) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("shared directory: %w", err)
	}
	lock, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("shared directory: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return errors.Join(fmt.Errorf("lock %s: %w", dir, err), lock.Close())
	}
	return errors.Join(do(), lock.Close())
}

// ledger remembers, for all instances, how the machine's forwarding stood.
type ledger struct {
	Before    string   `json:"before"`
	Instances []string `json:"instances"`
}

func ledgerPath(dir string) string { return filepath.Join(dir, "forwarding.json") }

func readLedger(dir string) (ledger, bool, error) {
	var l ledger
	data, err := os.ReadFile(ledgerPath(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return l, false, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &l)
	}
	if err != nil {
		return l, false, fmt.Errorf("forwarding: %w", err)
	}
	return l, true, nil
}

func writeLedger(dir string, l ledger) error {
	data, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("forwarding: %w", err)
	}
	// In one step: a ledger that is cut short would stop every later Apply.
	next := ledgerPath(dir) + ".new"
	if err := os.WriteFile(next, data, 0o600); err != nil {
		return fmt.Errorf("forwarding: %w", err)
	}
	if err := os.Rename(next, ledgerPath(dir)); err != nil {
		return fmt.Errorf("forwarding: %w", err)
	}
	return nil
}

func readForwarding() (string, error) {
	value, err := os.ReadFile(sysctlRoot + forwarding)
	if err != nil {
		return "", fmt.Errorf("forwarding: %w", err)
	}
	return strings.TrimSpace(string(value)), nil
}

// holdForwarding switches the machine's forwarding on and remembers how it was.
func holdForwarding(dir, instance string) error {
	return locked(dir, func() error {
		l, known, err := readLedger(dir)
		if err != nil {
			return err
		}
		if !known {
			if l.Before, err = readForwarding(); err != nil {
				return err
			}
		}
		if !slices.Contains(l.Instances, instance) {
			l.Instances = append(l.Instances, instance)
			if err := writeLedger(dir, l); err != nil {
				return err
			}
		}
		return apply([]setting{{forwarding, "1"}})
	})
}

// releaseForwarding puts the machine's forwarding back when the last instance goes.
func releaseForwarding(dir, instance string) error {
	return locked(dir, func() error {
		l, known, err := readLedger(dir)
		if err != nil || !known {
			return err
		}
		l.Instances = slices.DeleteFunc(l.Instances, func(i string) bool { return i == instance })
		if len(l.Instances) > 0 {
			return writeLedger(dir, l)
		}
		if err := os.Remove(ledgerPath(dir)); err != nil {
			return fmt.Errorf("forwarding: %w", err)
		}
		if l.Before == "1" {
			return nil
		}
		return apply([]setting{{forwarding, l.Before}})
	})
}
