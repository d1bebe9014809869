// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"

	"bastide.dev/dataplane"
)

// nicPrefix begins the name of a router's end of a NIC.
const nicPrefix = "n"

// nic is a NIC on its way into the kernel.
type nic struct {
	dataplane.NIC
	link    string // the router's end
	mark    string // the alias of that link, once all of it is set up
	subnet  dataplane.Subnet
	space   *space // where the other end lives, open while Apply works on it
	current bool   // stands already, as marked
}

// applyNICs makes a network's interfaces what they should be and returns the
// link of each that stands. A machine without a namespace waits, and so does
// one whose namespace goes away meanwhile.
func (p *Plane) applyNICs(v *dataplane.VNet, r *router, netns func(string) string) (map[string]int, error) {
	have, err := links(r.nl)
	if err != nil {
		return nil, err
	}
	standing := map[string]int{}
	wanted := map[string]bool{}
	var failed []error
	var fresh []*nic
	for _, spec := range v.NICs {
		n := p.newNIC(v, spec)
		wanted[n.link] = true
		link, err := p.checkNIC(n, r, have[n.link], netns)
		if err == nil && n.space != nil && !n.current {
			fresh = append(fresh, n)
			continue
		}
		if err == nil && n.space != nil && n.Namespace != "" {
			err = p.configureEnd(n) // a namespace of ours is healed inside, too
		}
		if err == nil && n.current {
			standing[n.ID] = link
		}
		failed = append(failed, wrapNIC(n, errors.Join(err, n.close())))
	}
	for name, link := range have {
		if strings.HasPrefix(name, nicPrefix) && link.Type() == "veth" && !wanted[name] {
			failed = append(failed, removeLink(r.nl, name))
		}
	}
	failed = append(failed, p.attach(r, fresh, have, standing))
	return standing, errors.Join(failed...)
}

func wrapNIC(n *nic, err error) error {
	if err != nil {
		return fmt.Errorf("nic %s: %w", n.ID, err)
	}
	return nil
}

func (p *Plane) newNIC(v *dataplane.VNet, spec dataplane.NIC) *nic {
	subnet, _ := v.Subnet(spec.Subnet) // Validate saw to it
	text := fmt.Sprintln(spec.Address, subnet.Prefix, p.mtu)
	return &nic{NIC: spec, subnet: subnet, link: dataplane.LinkName(nicPrefix, p.Instance, "nic/"+spec.ID),
		mark: fmt.Sprintf("%s %x", spec.ID, sha256.Sum256([]byte(text)))[:len(spec.ID)+13]}
}

func (n *nic) close() error {
	if n.space == nil {
		return nil
	}
	return n.space.close()
}

// checkNIC opens the namespace the NIC lives in, as far as there is one, and
// tells whether the NIC stands there already.
func (p *Plane) checkNIC(n *nic, r *router, link netlink.Link, netns func(string) string) (int, error) {
	path := p.NetnsPath(n.Namespace)
	open := openSpace
	if n.Machine != "" {
		if path = netns(n.Machine); path == "" {
			return 0, nil
		}
		marked := link != nil && link.Attrs().Alias == n.mark
		if marked {
			return p.checkMachine(n, r, link, path)
		}
	} else {
		open = p.nicSpace
	}
	s, err := open(path)
	if n.Machine != "" && errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n.space = s
	if link == nil || link.Attrs().Alias != n.mark {
		return 0, nil
	}
	n.current, err = leadsTo(r.nl, link, s.ns)
	return link.Attrs().Index, err
}

// checkMachine is the short way for a machine's NIC that is marked as done: it
// needs no more than the namespace's number, unless the machine booted anew.
func (p *Plane) checkMachine(n *nic, r *router, link netlink.Link, path string) (int, error) {
	ns, err := openNetns(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n.current, err = leadsTo(r.nl, link, ns)
	if err = errors.Join(err, ns.Close()); err != nil || n.current {
		return link.Attrs().Index, err
	}
	n.space, err = openSpace(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	return 0, err
}

// nicSpace opens, or makes, the namespace for a NIC.
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
func (p *Plane) attach(r *router, fresh []*nic, have map[string]netlink.Link, standing map[string]int) error {
	if len(fresh) == 0 {
		return nil
	}
	var failed []error
	var settings []setting
	var made []*nic
	for _, n := range fresh {
		if err := p.pair(n, r, have[n.link]); err != nil {
			failed = append(failed, wrapNIC(n, errors.Join(err, n.close())))
			continue
		}
		made = append(made, n)
		// The kernel delays proxied answers by up to 0.8 s, to be polite to others.
		settings = append(settings, setting{"ipv4/neigh/" + n.link + "/proxy_delay", "0"})
	}
	failed = append(failed, within(r.ns, func() error { return apply(settings) }))
	for _, n := range made {
		link, err := p.finishNIC(n, r)
		if err == nil {
			standing[n.ID] = link
		}
		failed = append(failed, wrapNIC(n, errors.Join(err, n.close())))
	}
	return errors.Join(failed...)
}

// pair makes the NIC's two ends, unless they are where they should be.
func (p *Plane) pair(n *nic, r *router, old netlink.Link) error {
	if old != nil {
		right, err := leadsTo(r.nl, old, n.space.ns)
		if err != nil {
			return err
		}
		if right {
			return ready(r.nl, old, p.mtu)
		}
		if err := removeLink(r.nl, n.link); err != nil {
			return err
		}
	}
	return addPair(r.nl, n.link, p.mtu, nicLink, n.space)
}

func (p *Plane) finishNIC(n *nic, r *router) (int, error) {
	if err := p.configureEnd(n); err != nil {
		return 0, err
	}
	link, err := mustLink(r.nl, n.link)
	if err != nil {
		return 0, err
	}
	if err := r.nl.LinkSetAlias(link, n.mark); err != nil {
		return 0, fmt.Errorf("mark: %w", err)
	}
	return link.Attrs().Index, nil
}

// configureEnd sets up the NIC's own end: address, default route.
func (p *Plane) configureEnd(n *nic) error {
	h := n.space.nl
	lo, err := mustLink(h, loopback)
	if err != nil {
		return err
	}
	if err := ready(h, lo, 0); err != nil {
		return err
	}
	link, err := mustLink(h, nicLink)
	if err != nil {
		return err
	}
	address := netip.PrefixFrom(n.Address, n.subnet.Prefix.Bits())
	if err := syncAddresses(h, link, []netip.Prefix{address}); err != nil {
		return err
	}
	if err := ready(h, link, p.mtu); err != nil {
		return err
	}
	index := link.Attrs().Index
	return syncRoutes(h, []route{{dst: anywhere(), via: n.subnet.Gateway(), link: index}}, index)
}
