// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
)

// Azure's bounds of security rules.
const (
	maxRules    = 1000 // of a group
	minPriority = 100
	maxPriority = 4096
	maxListed   = 4000 // prefixes, or ports, of one rule
)

// ruleCheck judges security rules, and gives them their normal form.
type ruleCheck struct {
	p     *Provider
	f     *findings
	group resource.ID
	known map[string]bool // application groups that are there, by key
	tags  *tags           // the built-in ones, and those that the rules name
	held  []*arm.Document
}

// reads finds the operator's service tags that rules name. Each is held: it
// can't go while it gets a user.
func (c *ruleCheck) reads(ctx context.Context, rules []*armnetwork.SecurityRule) error {
	c.tags = instanceTags(c.p.settings(), newInventory(nil))
	for _, rule := range rules {
		for _, text := range ruleAddresses(rule) {
			if !tagForm.MatchString(text) || c.knownTag(text) {
				continue
			}
			d, err := arm.GetDocument(ctx, c.p.Store, serviceTagID(c.group.Subscription(), text))
			if fault.Is(err, fault.NotFound) {
				continue // address says so
			}
			if err != nil {
				return err
			}
			c.tags.own[strings.ToLower(text)] = &item{doc: d, model: &ServiceTag{}}
			c.held = append(c.held, d)
		}
	}
	return nil
}

// knownTag tells whether a rule may name the service tag.
func (c *ruleCheck) knownTag(name string) bool {
	_, _, known := c.tags.find(name)
	return known || builtInTag(name)
}

// knows notes the application groups that the group as it was names: they can't
// have been deleted. It reads it only when the rules name any.
func (c *ruleCheck) knows(old *arm.Document, rules []*armnetwork.SecurityRule) error {
	named := func(r *armnetwork.SecurityRule) []*armnetwork.ApplicationSecurityGroup {
		return slices.Concat(r.Properties.SourceApplicationSecurityGroups, r.Properties.DestinationApplicationSecurityGroups)
	}
	if old == nil || !slices.ContainsFunc(rules, func(r *armnetwork.SecurityRule) bool { return len(named(r)) > 0 }) {
		return nil
	}
	var was armnetwork.SecurityGroup
	if err := decodeGroup(old.Body, &was); err != nil {
		return err
	}
	for _, r := range was.Properties.SecurityRules {
		for _, g := range named(r) {
			c.known[keyOf(value(g.ID))] = true
		}
	}
	return nil
}

// rule judges one rule.
func (c *ruleCheck) rule(ctx context.Context, at string, rule *armnetwork.SecurityRule) (*armnetwork.SecurityRule, error) {
	in, f, name := orEmpty(rule.Properties), c.f, value(rule.Name)
	at += ".properties."
	kept := &armnetwork.SecurityRulePropertiesFormat{Description: in.Description, Priority: in.Priority}
	if n := value(in.Priority); n < minPriority || n > maxPriority {
		f.bad("SecurityRuleInvalidPriority", at+"priority", "Security rule has invalid Priority. Value provided: %d. Allowed range %d-%d.", n, minPriority, maxPriority)
	}
	if len(value(in.Description)) > 140 {
		f.bad("SecurityRuleInvalidDescription", at+"description", "The description of security rule %s has more than 140 characters.", name)
	}
	kept.Access = required(f, at+"access", name, in.Access, armnetwork.PossibleSecurityRuleAccessValues()...)
	kept.Direction = required(f, at+"direction", name, in.Direction, armnetwork.PossibleSecurityRuleDirectionValues()...)
	kept.Protocol = required(f, at+"protocol", name, in.Protocol, armnetwork.PossibleSecurityRuleProtocolValues()...)
	for _, side := range []struct {
		name          string
		port          *string
		ports         []*string
		address       *string
		addresses     []*string
		groups        []*armnetwork.ApplicationSecurityGroup
		keptPort      **string
		keptPorts     *[]*string
		keptAddress   **string
		keptAddresses *[]*string
		keptGroups    *[]*armnetwork.ApplicationSecurityGroup
	}{
		{"source", in.SourcePortRange, in.SourcePortRanges, in.SourceAddressPrefix, in.SourceAddressPrefixes, in.SourceApplicationSecurityGroups,
			&kept.SourcePortRange, &kept.SourcePortRanges, &kept.SourceAddressPrefix, &kept.SourceAddressPrefixes, &kept.SourceApplicationSecurityGroups},
		{"destination", in.DestinationPortRange, in.DestinationPortRanges, in.DestinationAddressPrefix, in.DestinationAddressPrefixes, in.DestinationApplicationSecurityGroups,
			&kept.DestinationPortRange, &kept.DestinationPortRanges, &kept.DestinationAddressPrefix, &kept.DestinationAddressPrefixes, &kept.DestinationApplicationSecurityGroups},
	} {
		*side.keptPort, *side.keptPorts = c.either(at+side.name+"PortRange", name, side.port, side.ports, c.port, false)
		*side.keptAddress, *side.keptAddresses = c.either(at+side.name+"AddressPrefix", name, side.address, side.addresses, c.address, len(side.groups) > 0)
		var err error
		if *side.keptGroups, err = c.groups(ctx, at+side.name, name, side.groups, value(side.address) != "" || len(side.addresses) > 0); err != nil {
			return nil, err
		}
	}
	return &armnetwork.SecurityRule{Name: rule.Name, Properties: kept}, nil
}

// required is oneOf for what has no default.
func required[S ~string](f *findings, target, rule string, v *S, all ...S) *S {
	if v == nil || *v == "" {
		f.bad("SecurityRuleParameterNotSpecified", target, "Security rule parameter %s cannot be empty for rule with Id %s.", target[strings.LastIndex(target, ".")+1:], rule)
		return nil
	}
	for i := range all {
		if strings.EqualFold(string(*v), string(all[i])) {
			return &all[i]
		}
	}
	f.bad("SecurityRuleParameterContainsUnsupportedValue", target, "Security rule parameter %s for rule with Id %s cannot specify %s.",
		target[strings.LastIndex(target, ".")+1:], rule, *v)
	return nil
}

// either takes the one value or the list: both, or none, aren't a rule. absent
// says that something else stands in its place.
func (c *ruleCheck) either(target, rule string, one *string, list []*string, check func(target, text string, alone bool), absent bool) (*string, []*string) {
	list = present(list)
	name := target[strings.LastIndex(target, ".")+1:]
	plural := name + "s"
	if strings.HasSuffix(name, "Prefix") {
		plural = name + "es"
	}
	switch {
	case value(one) != "" && len(list) > 0:
		c.f.bad("SecurityRuleParameterConflict", target, "Security rule %s can't have both %s and %s.", rule, name, plural)
	case value(one) == "" && len(list) == 0 && !absent:
		c.f.bad("SecurityRuleParameterNotSpecified", target, "Security rule parameter %s cannot be empty for rule with Id %s: give %s or %s.", name, rule, name, plural)
	case len(list) > maxListed:
		c.f.bad("SecurityRuleLimitReached", target, "Security rule %s has %d %s; at most %d are possible.", rule, len(list), plural, maxListed)
	}
	if value(one) != "" {
		check(target, *one, true)
	} else {
		one = nil
	}
	for i, text := range list {
		check(fmt.Sprintf("%s[%d]", strings.TrimSuffix(target, name)+plural, i), value(text), len(list) == 1)
	}
	return one, list
}

// port judges "*", "80" and "80-90". A list says "*" only when nothing else is in it.
func (c *ruleCheck) port(target, text string, alone bool) {
	if text == "*" && alone {
		return
	}
	first, last, isRange := strings.Cut(text, "-")
	from, err := strconv.ParseUint(first, 10, 16)
	to := from
	if isRange && err == nil {
		to, err = strconv.ParseUint(last, 10, 16)
	}
	if err != nil || to < from {
		c.f.bad("SecurityRuleInvalidPortRange", target, "Security rule has invalid Port range. Value provided: %s. Value should be an integer OR integer range with '-' delimiter. Valid range 0-65535.", text)
	}
}

var tagForm = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._-]*$`)

// address judges "*", an address, a prefix, a range and a service tag.
func (c *ruleCheck) address(target, text string, alone bool) {
	if text == "*" || strings.EqualFold(text, "Any") {
		if !alone {
			c.f.bad("SecurityRuleParameterContainsUnsupportedValue", target, "Security rule parameter %s cannot specify %s beside other values.", target, text)
		}
		return
	}
	if tagForm.MatchString(text) {
		if !c.knownTag(text) {
			c.f.bad("SecurityRuleInvalidAddressPrefix", target, "Security rule has invalid Address prefix. Value provided: %s. There is no service tag of that name: GET locations/%s/serviceTags lists them.", text, c.p.Location)
		}
		return
	}
	prefix, err := netip.ParsePrefix(text)
	if addr, addrErr := netip.ParseAddr(text); addrErr == nil && addr.Zone() == "" {
		prefix, err = netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	switch {
	case err != nil:
		c.f.bad("SecurityRuleInvalidAddressPrefix", target, "Security rule has invalid Address prefix. Value provided: %s.", text)
	case !prefix.Addr().Is4():
		*c.f = append(*c.f, ipv6(target, text))
	}
}

// groups judges the application security groups of one side.
func (c *ruleCheck) groups(ctx context.Context, at, rule string, list []*armnetwork.ApplicationSecurityGroup, addresses bool) ([]*armnetwork.ApplicationSecurityGroup, error) {
	at += "ApplicationSecurityGroups"
	var kept []*armnetwork.ApplicationSecurityGroup
	if addresses && len(list) > 0 {
		c.f.bad("SecurityRuleParameterConflict", at, "Security rule %s can't have both address prefixes and application security groups on one side.", rule)
	}
	for i, g := range present(list) {
		target := fmt.Sprintf("%s[%d].id", at, i)
		id, ok := reference(c.f, target, g.ID, typeASG)
		if !ok {
			continue
		}
		kept = append(kept, &armnetwork.ApplicationSecurityGroup{ID: g.ID})
		if c.known[id.Key()] {
			continue
		}
		d, err := c.p.referenced(ctx, c.f, c.group, target, id)
		if err != nil {
			return nil, err
		}
		if d != nil {
			c.known[id.Key()] = true
			c.held = append(c.held, d)
		}
	}
	return kept, nil
}

// conflicts refuses two rules of one direction with the same priority.
func (c *ruleCheck) conflicts(rules []*armnetwork.SecurityRule) {
	type place struct {
		direction armnetwork.SecurityRuleDirection
		priority  int32
	}
	first := map[place]string{}
	for i, r := range rules {
		if r.Properties.Direction == nil || r.Properties.Priority == nil {
			continue
		}
		at := place{*r.Properties.Direction, *r.Properties.Priority}
		other, taken := first[at]
		if !taken {
			first[at] = value(r.Name)
			continue
		}
		*c.f = append(*c.f, fault.New(fault.Invalid, "SecurityRuleConflict",
			"Security rule %s conflicts with rule %s. Rules cannot have the same Priority and Direction.", value(r.Name), other).At(fmt.Sprintf("%s[%d].properties.priority", ruleList, i)))
	}
}
