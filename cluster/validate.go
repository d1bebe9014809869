// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"regexp"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

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
	p.validateOutbound(d)
	p.validateAccess(d)
	p.validateIntegration(d)
	p.validateIssuer(d, old)
	p.validatePools(d, old)
	p.validateVersion(d, old)
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
	p.fixed(d.Overlay == old.Overlay, network+"networkPluginMode")
	p.fixed(d.Policy == old.Policy, network+"networkPolicy")
	p.fixed(d.Outbound.Type == old.Outbound.Type, network+"outboundType")
	p.fixed(d.Outbound.PoolType == old.Outbound.PoolType, network+"loadBalancerProfile.backendPoolType")
	p.fixed(d.Access.Private == old.Access.Private, prefix+"apiServerAccessProfile.enablePrivateCluster")
	p.fixed(strings.EqualFold(d.Access.Zone, old.Access.Zone), prefix+"apiServerAccessProfile.privateDNSZone")
	p.fixed(d.Access.Subdomain == old.Access.Subdomain, prefix+"fqdnSubdomain")
	p.changedIdentity(d, old)
	p.upgradable(d.Version, old, prefix+"kubernetesVersion")
}

// fixed records a change of a property that can't change.
func (p *parser) fixed(same bool, target string) {
	if !same {
		p.bad("PropertyChangeNotAllowed", target, "Changing property '%s' is not allowed.", target)
	}
}
