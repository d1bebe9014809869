// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"bastide.dev/dataplane"
	"bastide.dev/fault"
)

// Of a NIC's namespace.
const (
	firstLink = "eth0" // the NIC that has the default route
	// A further NIC has a routing table of its own, numbered after its link, and
	// a rule that leads to it what is sent from its address.
	farTables   = 10000
	farPriority = 1000
)

// nic is a NIC on its way into the kernel.
type nic struct {
	dataplane.NIC
	link    string // the router's end
	far     string // the other end
	mark    string // the alias of the router's end, once all of it is set up
	subnet  dataplane.Subnet
	space   *space // where the other end lives, open while Apply works on it
	current bool   // stands already, as marked
}

// applyNICs makes a network's interfaces what they should be and returns the
// IDs of those that stand. A machine without a namespace waits, and so does
// one whose namespace goes away meanwhile.
func (p *Plane) applyNICs(v *dataplane.VNet, n *vnet, netns func(string) string) ([]string, error) {
	have, err := links(n.nl)
	if err != nil {
		return nil, err
	}
	stands := map[string]bool{}
	wanted := map[string]bool{}
	var failed []error
	var fresh []*nic
	for _, spec := range v.NICs {
		c := p.newNIC(v, spec)
		wanted[c.link] = true
		err := p.checkNIC(c, n, have[c.link], netns)
		if err == nil && c.space != nil && !c.current {
			fresh = append(fresh, c)
			continue
		}
		if err == nil && c.space != nil && c.Namespace != "" {
			err = p.configureEnd(c) // a namespace of ours is healed inside, too
		}
		stands[c.ID] = err == nil && c.current
		failed = append(failed, wrapNIC(c, errors.Join(err, c.close())))
	}
	for name, link := range have {
		if strings.HasPrefix(name, nicPrefix) && link.Type() == "veth" && !wanted[name] {
			failed = append(failed, removeLink(n.nl, name))
		}
	}
	failed = append(failed, p.attach(n, fresh, have, stands))
	ids := []string{}
	for _, spec := range v.NICs {
		if stands[spec.ID] {
			ids = append(ids, spec.ID)
		}
	}
	return ids, errors.Join(failed...)
}

func wrapNIC(n *nic, err error) error {
	if err != nil {
		return fmt.Errorf("nic %s: %w", n.ID, err)
	}
	return nil
}

func (p *Plane) newNIC(v *dataplane.VNet, spec dataplane.NIC) *nic {
	subnet, _ := v.Subnet(spec.Subnet) // Validate saw to it
	n := &nic{NIC: spec, subnet: subnet, link: dataplane.NICLink(p.Instance, spec.ID), far: orElse(spec.Link, firstLink)}
	text := fmt.Sprintln(spec.Address, subnet.Prefix, p.mtu, n.far)
	n.mark = fmt.Sprintf("%s %x", spec.ID, sha256.Sum256([]byte(text)))[:len(spec.ID)+13]
	return n
}

func (n *nic) close() error {
	if n.space == nil {
		return nil
	}
	return n.space.close()
}

// checkNIC opens the namespace the NIC lives in, as far as there is one, and
// finds out whether the NIC stands there already.
func (p *Plane) checkNIC(c *nic, n *vnet, link netlink.Link, netns func(string) string) error {
	marked := link != nil && link.Attrs().Alias == c.mark
	path := p.NetnsPath(c.Namespace)
	open := p.nicSpace
	if c.Machine != "" {
		if path = netns(c.Machine); path == "" {
			return n.saw(c.ID, path, nil)
		}
		if marked {
			return p.checkMachine(c, n, link, path)
		}
		open = openSpace
	}
	s, err := open(path)
	if c.Machine != "" && errors.Is(err, fs.ErrNotExist) {
		return n.saw(c.ID, path, nil)
	}
	if err != nil {
		return err
	}
	c.space = s
	if err := n.saw(c.ID, path, s.ns); err != nil {
		return err
	}
	if c.Machine == "" {
		if err := n.listen(c.ID, s.ns); err != nil {
			return err
		}
	}
	if marked {
		c.current, err = leadsTo(n.nl, link, s.ns)
	}
	return err
}

// checkMachine is the short way for a machine's NIC that is marked as done: it
// needs no more than the namespace's number, unless the machine booted anew.
func (p *Plane) checkMachine(c *nic, n *vnet, link netlink.Link, path string) error {
	ns, err := openNetns(path)
	if errors.Is(err, fs.ErrNotExist) {
		return n.saw(c.ID, path, nil)
	}
	if err != nil {
		return err
	}
	c.current, err = leadsTo(n.nl, link, ns)
	err = errors.Join(err, n.saw(c.ID, path, ns))
	if err == nil && c.current {
		err = p.bound(c, n, ns)
	}
	if err = errors.Join(err, ns.Close()); err != nil || c.current {
		return err
	}
	c.space, err = openSpace(path)
	if errors.Is(err, fs.ErrNotExist) {
		return n.saw(c.ID, path, nil)
	}
	return err
}

// nicSpace opens, or makes, the namespace for a NIC or a terminal.
func (p *Plane) nicSpace(path string) (*space, error) {
	if err := p.makeDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	s, err := openSpace(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	if s, err = ensureSpace(path); err != nil {
		return nil, err
	}
	if err := within(s.ns, func() error { return apply(nicSpaceSettings()) }); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// attach sets fresh NICs up and closes them. The mark comes last: a crash
// before it makes the next Apply set the NIC up again.
func (p *Plane) attach(n *vnet, fresh []*nic, have map[string]netlink.Link, stands map[string]bool) error {
	if len(fresh) == 0 {
		return nil
	}
	var failed []error
	var settings []setting
	var made []*nic
	for _, c := range fresh {
		if err := p.pair(c, n, have[c.link]); err != nil {
			failed = append(failed, wrapNIC(c, errors.Join(err, c.close())))
			continue
		}
		made = append(made, c)
		settings = append(settings, nicLinkSettings(c.link)...)
	}
	failed = append(failed, within(n.ns, func() error { return apply(settings) }))
	var up []string
	for _, c := range made {
		err := p.finishNIC(c, n)
		up = append(up, c.link)
		stands[c.ID] = err == nil
		failed = append(failed, wrapNIC(c, errors.Join(err, c.close())))
	}
	if err := errors.Join(failed...); err != nil {
		return err
	}
	return carrying(n.nl, up...)
}

// pair makes the NIC's two ends, unless they are where they should be.
func (p *Plane) pair(c *nic, n *vnet, old netlink.Link) error {
	if old != nil {
		right, err := leadsTo(n.nl, old, c.space.ns)
		if err != nil {
			return err
		}
		far, err := findLink(c.space.nl, c.far)
		if err != nil {
			return err
		}
		if right && far != nil && far.Attrs().ParentIndex == old.Attrs().Index {
			return ready(n.nl, old, p.mtu)
		}
		if err := removeLink(n.nl, c.link); err != nil {
			return err
		}
	}
	return addPair(n.nl, c.link, p.mtu, c.far, c.space)
}

func (p *Plane) finishNIC(c *nic, n *vnet) error {
	if err := p.configureEnd(c); err != nil {
		return err
	}
	// Before the mark: nothing of the machine runs until its bounds stand.
	if err := p.bound(c, n, c.space.ns); err != nil {
		return err
	}
	link, err := mustLink(n.nl, c.link)
	if err != nil {
		return err
	}
	if err := n.nl.LinkSetAlias(link, c.mark); err != nil {
		return fmt.Errorf("mark: %w", err)
	}
	return nil
}

// configureEnd sets up the NIC's own end: address and routes.
func (p *Plane) configureEnd(c *nic) error {
	h := c.space.nl
	lo, err := mustLink(h, loopback)
	if err != nil {
		return err
	}
	if err := ready(h, lo, 0); err != nil {
		return err
	}
	link, err := mustLink(h, c.far)
	if err != nil {
		return err
	}
	address, table, index := netip.PrefixFrom(c.Address, c.subnet.Prefix.Bits()), 0, link.Attrs().Index
	if c.far != firstLink {
		if err := c.alone(); err != nil {
			return err
		}
		// Its subnet isn't routed here by default: the first link's may be the same.
		address, table = single(c.Address), farTables+index
	}
	if err := syncAddresses(h, link, []netip.Prefix{address}); err != nil {
		return err
	}
	if err := ready(h, link, p.mtu); err != nil {
		return err
	}
	err = syncRoutes(h, []route{{table: table, dst: anywhere(), via: c.subnet.Gateway(), link: index}}, index)
	if err != nil {
		return err
	}
	return syncFarRules(c, table)
}

// alone refuses an address that another link of the namespace has already:
// from where to answer is told by the address.
func (n *nic) alone() error {
	listed, err := n.space.nl.AddrList(nil, unix.AF_INET)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range listed {
		if toAddr(a.IP) != n.Address {
			continue
		}
		if other, err := n.space.nl.LinkByIndex(a.LinkIndex); err == nil && other.Attrs().Name != n.far {
			return fault.New(fault.Unsupported, "PropertyNotSupported",
				"%s of the same namespace has the address %s already, in another network.", other.Attrs().Name, n.Address)
		}
	}
	return nil
}

// syncFarRules makes a NIC's packets leave by the NIC: those from the address
// of one that isn't the first ask its own table. Rules of links that are gone
// go, too.
func syncFarRules(c *nic, table int) error {
	have, err := ourRules(c.space.nl)
	if err != nil {
		return err
	}
	if table == 0 && len(have) == 0 {
		return nil
	}
	byName, err := links(c.space.nl)
	if err != nil {
		return err
	}
	want := []selector{}
	for s := range have {
		others := slices.ContainsFunc(slices.Collect(maps.Values(byName)), func(l netlink.Link) bool {
			return l.Attrs().Index == s.table-farTables && l.Attrs().Name != c.far
		})
		if others {
			want = append(want, s)
		}
	}
	if table != 0 {
		want = append(want, selector{priority: farPriority, from: single(c.Address), table: table})
	}
	return syncSelectors(c.space.nl, want)
}
