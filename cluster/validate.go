// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"bastide.dev/fault"
	"bastide.dev/resource"
)

// The forms of names, as AKS's naming rules give them.
var (
	clusterNameForm = regexp.MustCompile(`^[a-zA-Z0-9]([-_a-zA-Z0-9]{0,61}[a-zA-Z0-9])?$`)
	dnsPrefixForm   = regexp.MustCompile(`^[a-zA-Z0-9]([-a-zA-Z0-9]{0,52}[a-zA-Z0-9])?$`)
	adminForm       = regexp.MustCompile(`^[A-Za-z][-A-Za-z0-9_]{0,31}$`)
	groupNameForm   = regexp.MustCompile(`^[-\w._()]{0,79}[-\w_()]$`)
)

// validate checks a complete cluster: id is the resource's, old what it was.
func (p *parser) validate(d *Desired, id resource.ID, old *Desired) {
	const prefix = "properties."
	if !clusterNameForm.MatchString(id.Name()) {
		p.bad("InvalidParameter", "name", "The value of parameter name is invalid: %q must be 1 to 63 letters, digits, underscores and hyphens, and begin and end with a letter or digit.", id.Name())
	}
	if d.Location != p.location {
		p.bad("LocationNotAvailableForResourceType", "location",
			"The provided location %q is not available for resource type 'Microsoft.ContainerService/managedClusters'. The location that is available: %s.", d.Location, p.location)
	}
	if d.DNSPrefix != "" && !dnsPrefixForm.MatchString(d.DNSPrefix) {
		p.bad("InvalidParameter", prefix+"dnsPrefix", "The value of parameter dnsPrefix is invalid: %q must be 1 to 54 letters, digits and hyphens, and begin and end with a letter or digit.", d.DNSPrefix)
	}
	if !groupNameForm.MatchString(d.NodeGroup) {
		p.bad("InvalidParameter", prefix+"nodeResourceGroup", "The value of parameter nodeResourceGroup is invalid: %q isn't a resource group's name.", d.NodeGroup)
	}
	p.validateLinux(d)
	p.validateNetwork(d)
	p.validatePools(d, old)
	if old != nil {
		p.unchanged(d, old)
	}
}

func (p *parser) validateLinux(d *Desired) {
	const prefix = "properties.linuxProfile."
	if !adminForm.MatchString(d.Admin) {
		p.bad("InvalidParameter", prefix+"adminUsername", "The value of parameter linuxProfile.adminUsername is invalid: %q must begin with a letter, then letters, digits, - and _.", d.Admin)
	}
	if slices.Contains(reservedUsers(), strings.ToLower(d.Admin)) {
		p.bad("InvalidParameter", prefix+"adminUsername", "The value of parameter linuxProfile.adminUsername is invalid: %q is reserved, the node image has a user or group of that name.", d.Admin)
	}
	for _, key := range d.Keys {
		if _, _, _, _, err := ssh.ParseAuthorizedKey([]byte(key)); err != nil {
			p.bad("InvalidParameter", prefix+"ssh.publicKeys.keyData", "The value of parameter linuxProfile.ssh.publicKeys.keyData is invalid: it isn't an SSH public key such as \"ssh-rsa AAAA…\".")
		}
	}
}

// reservedUsers are the users and groups that a node's Debian has already.
func reservedUsers() []string {
	return strings.Fields(`root daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc nobody nogroup sshd
		adm tty disk kmem dialout fax voice cdrom floppy tape sudo audio dip operator src shadow utmp video sasl plugdev staff
		users input sgx kvm render crontab messagebus netdev polkitd tcpdump uuidd ssh _ssh`)
}

func (p *parser) validateNetwork(d *Desired) {
	const prefix = "properties.networkProfile."
	if d.Plugin != kubenet && d.Plugin != azureCNI {
		p.problems = append(p.problems, fault.New(fault.Unsupported, "PropertyNotSupported",
			"properties.networkProfile.networkPlugin can't be %q here: only kubenet and azure are possible.", d.Plugin).At(prefix+"networkPlugin"))
		return
	}
	if d.Plugin == azureCNI && d.PodCIDR.IsValid() {
		p.bad("InvalidParameter", prefix+"podCidr", "podCidr can't be set with the network plugin azure: pods get addresses from the node's subnet.")
	}
	// Kubernetes takes a service range of at most 20 bits.
	if s := d.ServiceCIDR; s.IsValid() && (s.Bits() < 12 || s.Bits() > 27) {
		p.bad("InvalidParameter", prefix+"serviceCidr", "The value of parameter networkProfile.serviceCidr is invalid: %s must be between /12 and /27.", s)
	}
	if c := d.PodCIDR; c.IsValid() && c.Bits() > kubenetPodBits {
		p.bad("InvalidParameter", prefix+"podCidr", "The value of parameter networkProfile.podCidr is invalid: %s holds no node's /24.", c)
	}
	p.validateDNS(d)
	p.validateOverlap(d)
}

func (p *parser) validateDNS(d *Desired) {
	const target = "properties.networkProfile.dnsServiceIP"
	if !d.DNS.IsValid() || !d.ServiceCIDR.IsValid() {
		return
	}
	switch {
	case !d.ServiceCIDR.Contains(d.DNS):
		p.bad("InvalidParameter", target, "The value of parameter networkProfile.dnsServiceIP is invalid: %s isn't in the service range %s.", d.DNS, d.ServiceCIDR)
	case d.DNS == nth(d.ServiceCIDR, 0) || d.DNS == nth(d.ServiceCIDR, 1):
		p.bad("InvalidParameter", target, "The value of parameter networkProfile.dnsServiceIP is invalid: %s is the range itself or the API server's own; take a later one.", d.DNS)
	}
}

// validateOverlap refuses ranges that meet: the three of a cluster, and those
// that mean something else on every Linux machine.
func (p *parser) validateOverlap(d *Desired) {
	const prefix = "properties.networkProfile."
	type named struct {
		target, name string
		prefix       netip.Prefix
	}
	ranges := []named{
		{prefix + "serviceCidr", "serviceCidr", d.ServiceCIDR},
		{prefix + "podCidr", "podCidr", d.PodCIDR},
	}
	fixed := []named{
		{"", "the cluster's virtual network", vnetPrefix()},
		{"", "loopback addresses", netip.MustParsePrefix("127.0.0.0/8")},
		{"", "link-local addresses", netip.MustParsePrefix("169.254.0.0/16")},
		{"", "Azure's own address", netip.MustParsePrefix("168.63.129.16/32")},
		{"", "multicast addresses", netip.MustParsePrefix("224.0.0.0/3")},
		{"", "addresses of no network", netip.MustParsePrefix("0.0.0.0/8")},
	}
	for i, r := range ranges {
		for _, other := range append(ranges[:i:i], fixed...) {
			if r.prefix.IsValid() && other.prefix.IsValid() && r.prefix.Overlaps(other.prefix) {
				code := "ServiceCidrOverlapExistingSubnetsCidr"
				if other.target != "" || r.name == "podCidr" {
					code = "InvalidParameter"
				}
				p.bad(code, r.target, "The specified %s %s overlaps %s %s.", r.name, r.prefix, other.name, other.prefix)
			}
		}
	}
}

// unchanged refuses a change of what is fixed for a cluster's life.
func (p *parser) unchanged(d, old *Desired) {
	const prefix, network = "properties.", "properties.networkProfile."
	p.fixed(d.DNSPrefix == old.DNSPrefix, prefix+"dnsPrefix")
	p.fixed(d.NodeGroup == old.NodeGroup, prefix+"nodeResourceGroup")
	p.fixed(d.Admin == old.Admin, prefix+"linuxProfile.adminUsername")
	p.fixed(sameTexts(d.Keys, old.Keys), prefix+"linuxProfile.ssh.publicKeys")
	p.fixed(d.Plugin == old.Plugin, network+"networkPlugin")
	p.fixed(d.PodCIDR == old.PodCIDR, network+"podCidr")
	p.fixed(d.ServiceCIDR == old.ServiceCIDR, network+"serviceCidr")
	p.fixed(d.DNS == old.DNS, network+"dnsServiceIP")
	p.fixed(d.Identity == old.Identity, "identity.type")
	p.fixed(d.ClientID == old.ClientID, prefix+"servicePrincipalProfile.clientId")
	p.noUpgrade(d.Version, old.Version, prefix+"kubernetesVersion")
}

// fixed records a change of a property that can't change.
func (p *parser) fixed(same bool, target string) {
	if !same {
		p.bad("PropertyChangeNotAllowed", target, "Changing property '%s' is not allowed.", target)
	}
}

func (p *parser) noUpgrade(to, from Version, target string) {
	switch c := to.Compare(from); {
	case c < 0:
		p.bad("OperationNotAllowed", target, "Downgrading from %s to %s is not allowed.", from, to)
	case c > 0:
		p.problems = append(p.problems, fault.New(fault.Unsupported, "PropertyNotSupported",
			"%s can't change from %s to %s here: upgrades aren't offered.", target, from, to).At(target))
	}
}
