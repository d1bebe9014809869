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

// edgeSettings: sources are checked by the tables, in the edge as in routers.
// rp_filter would refuse neighbours' requests from their link-local address, a
// floating back end's answers, and what marks route.
func edgeSettings() []setting {
	return append(routerSettings(),
		setting{"ipv4/conf/default/rp_filter", "0"}, setting{"ipv4/conf/default/proxy_arp", "0"})
}

// vnetSettings are a router's. A connection it doesn't know in its middle isn't
// known by being seen (what was cut stays cut), and one that passes twice, by
// an appliance, may look odd.
func vnetSettings() []setting {
	return append(edgeSettings(),
		setting{"netfilter/nf_conntrack_tcp_loose", "0"}, setting{"netfilter/nf_conntrack_tcp_be_liberal", "1"},
		setting{"netfilter/nf_conntrack_acct", "1"})
}

// nicLinkSettings make a router answer, at once, for every address that it has
// a route to. The kernel delays proxied answers by up to 0.8 s, to be polite to
// others.
func nicLinkSettings(link string) []setting {
	return []setting{{"ipv4/conf/" + link + "/proxy_arp", "1"}, {"ipv4/neigh/" + link + "/proxy_delay", "0"}}
}

// trustTables puts links right that an earlier version made with rp_filter.
func trustTables() error {
	entries, err := os.ReadDir(sysctlRoot + "ipv4/conf")
	if err != nil {
		return fmt.Errorf("sysctl: %w", err)
	}
	for _, e := range entries {
		if err := apply([]setting{{"ipv4/conf/" + e.Name() + "/rp_filter", "0"}}); err != nil {
			return err
		}
	}
	return nil
}

// nicSpaceSettings let an unprivileged control plane listen on port 443 of the
// namespace that is its own. With interfaces in two networks, it is no way from
// one to the other.
func nicSpaceSettings() []setting {
	return []setting{{"ipv4/ip_unprivileged_port_start", "0"}, {forwarding, "0"}}
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
