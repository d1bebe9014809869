// SPDX-License-Identifier: Apache-2.0

package signin

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/google/uuid"

	"bastide.dev/fault"
)

// Bounds of what is stored; Entra ID's own where it has them.
const (
	maxPolicies  = 195
	maxLocations = 195
	maxRanges    = 2000
	maxNames     = 2000 // in one list of a condition
	maxName      = 256
)

// normalise gives words their one spelling and ids lower case, so that
// evaluation compares bytes.
func (p *Policy) normalise() {
	c := &p.Conditions
	lists := []*[]string{&c.Users.IncludeUsers, &c.Users.ExcludeUsers, &c.Users.IncludeGroups, &c.Users.ExcludeGroups,
		&c.Users.IncludeRoles, &c.Users.ExcludeRoles, &c.Applications.Include, &c.Applications.Exclude}
	if c.Clients != nil {
		lists = append(lists, &c.Clients.Include, &c.Clients.Exclude)
	}
	if c.Locations != nil {
		lists = append(lists, &c.Locations.Include, &c.Locations.Exclude)
	}
	for _, list := range lists {
		*list = spell(*list)
	}
	if len(c.ClientAppTypes) == 0 {
		c.ClientAppTypes = []string{AnyClient}
	}
	if c.Clients != nil && len(c.Users.IncludeUsers) == 0 {
		c.Users.IncludeUsers = []string{None}
	}
	if f := p.frequency(); f != nil {
		if f.Interval == "" {
			f.Interval = "timeBased"
		}
		if f.Method == "" {
			f.Method = "primaryAndSecondaryAuthentication"
		}
	}
	if p.Grant != nil {
		p.Grant.Operator = strings.ToUpper(p.Grant.Operator)
		if p.Grant.Controls == nil {
			p.Grant.Controls = []string{}
		}
		if p.Grant.Strength != nil {
			p.Grant.Strength.ID = strings.ToLower(p.Grant.Strength.ID)
		}
	}
}

func (p *Policy) frequency() *Frequency {
	if p.Session == nil {
		return nil
	}
	return p.Session.Frequency
}

func spell(names []string) []string {
	spelled := []string{}
	for _, name := range names {
		known := slices.IndexFunc(words(), func(w string) bool { return strings.EqualFold(w, name) })
		if known >= 0 {
			spelled = append(spelled, words()[known])
		} else {
			spelled = append(spelled, strings.ToLower(name))
		}
	}
	return spelled
}

func words() []string { return []string{All, None, AllTrusted, AllGuests, AllClients} }

// problems are all that is wrong with a policy in itself.
func (p *Policy) problems() []*fault.Error {
	var found []*fault.Error
	if p.Name == "" || len(p.Name) > maxName {
		found = append(found, bad("displayName", "The displayName must have 1 to %d characters.", maxName))
	}
	if !slices.Contains([]string{Enabled, Disabled, ReportOnly}, p.State) {
		found = append(found, bad("state", "The state must be '%s', '%s' or '%s'.", Enabled, Disabled, ReportOnly))
	}
	found = append(found, p.Conditions.problems()...)
	if p.Grant == nil && (p.frequency() == nil || !p.frequency().Enabled) {
		found = append(found, bad("grantControls", "A policy needs grantControls or sessionControls that say something."))
	}
	found = append(found, p.Grant.problems()...)
	found = append(found, p.frequency().problems()...)
	if p.Conditions.Clients != nil && (p.Grant == nil || !slices.Equal(p.Grant.Controls, []string{Block}) || p.Session != nil) {
		found = append(found, bad("grantControls", "A policy for service principals can only block."))
	}
	return found
}

func (c *Conditions) problems() []*fault.Error {
	u := &c.Users
	found := slices.Concat(
		ids("conditions.users.includeUsers", u.IncludeUsers, All, None, AllGuests), ids("conditions.users.excludeUsers", u.ExcludeUsers, AllGuests),
		ids("conditions.users.includeGroups", u.IncludeGroups), ids("conditions.users.excludeGroups", u.ExcludeGroups),
		ids("conditions.users.includeRoles", u.IncludeRoles), ids("conditions.users.excludeRoles", u.ExcludeRoles),
		ids("conditions.applications.includeApplications", c.Applications.Include, All, None), ids("conditions.applications.excludeApplications", c.Applications.Exclude))
	if len(c.Applications.Include) == 0 {
		found = append(found, bad("conditions.applications.includeApplications", "A policy needs applications to include: 'All', 'None' or app ids."))
	}
	if len(u.IncludeUsers)+len(u.IncludeGroups)+len(u.IncludeRoles) == 0 {
		found = append(found, bad("conditions.users", "A policy needs users, groups or roles to include, or clientApplications."))
	}
	if c.Clients != nil {
		found = append(found, ids("conditions.clientApplications.includeServicePrincipals", c.Clients.Include, AllClients, None)...)
		found = append(found, ids("conditions.clientApplications.excludeServicePrincipals", c.Clients.Exclude)...)
		if len(c.Clients.Include) == 0 {
			found = append(found, bad("conditions.clientApplications.includeServicePrincipals", "There must be service principals to include: 'ServicePrincipalsInMyTenant' or ids."))
		}
		if !slices.Equal(u.IncludeUsers, []string{None}) || len(u.IncludeGroups)+len(u.IncludeRoles) > 0 {
			found = append(found, bad("conditions.users", "A policy is about users or about service principals: with clientApplications, includeUsers must be 'None'."))
		}
	}
	for _, kind := range c.ClientAppTypes {
		if !slices.Contains([]string{AnyClient, BrowserClient, NativeClient, LegacyClient, ExchangeSync}, kind) {
			found = append(found, bad("conditions.clientAppTypes", "The client app type '%.50s' is not one of all, browser, mobileAppsAndDesktopClients, exchangeActiveSync, other.", kind))
		}
	}
	if l := c.Locations; l != nil {
		found = append(found, ids("conditions.locations.includeLocations", l.Include, All, AllTrusted)...)
		found = append(found, ids("conditions.locations.excludeLocations", l.Exclude, AllTrusted)...)
		if len(l.Include) == 0 {
			found = append(found, bad("conditions.locations.includeLocations", "There must be locations to include: 'All', 'AllTrusted' or ids."))
		}
	}
	if c.Flows != nil && c.Flows.TransferMethods != deviceCodeFlow {
		found = append(found, bad("conditions.authenticationFlows.transferMethods", "The one method of transfer that is supported is 'deviceCodeFlow'."))
	}
	return found
}

// ids holds a list against: GUIDs, or the words that are possible there.
func ids(target string, names []string, words ...string) []*fault.Error {
	if len(names) > maxNames {
		return []*fault.Error{bad(target, "'%s' has %d entries; at most %d are possible.", target, len(names), maxNames)}
	}
	var found []*fault.Error
	for _, name := range names {
		if (uuid.Validate(name) != nil || len(name) != 36) && !slices.Contains(words, name) {
			found = append(found, bad(target, "'%.100s' is not possible in '%s': an id%s is.", name, target, strings.Join(append([]string{""}, words...), " or ")))
		}
		if slices.Contains(words, name) && name != AllGuests && name != AllTrusted && len(names) > 1 {
			found = append(found, bad(target, "'%s' stands alone in '%s'.", name, target))
		}
	}
	return found
}

func (g *Grant) problems() []*fault.Error {
	if g == nil {
		return nil
	}
	var found []*fault.Error
	if g.Operator != "AND" && g.Operator != "OR" {
		found = append(found, bad("grantControls.operator", "The operator must be 'AND' or 'OR'."))
	}
	for _, control := range g.Controls {
		if control != Block && control != MFA {
			found = append(found, fault.New(fault.Unsupported, "BadRequest", "The grant control '%.50s' would have no effect here: 'block' and 'mfa' are supported.", control).At("grantControls.builtInControls"))
		}
	}
	count := len(g.Controls)
	if s := g.Strength; s != nil {
		count++
		if s.ID != StrengthMFA && s.ID != StrengthPasskey {
			found = append(found, fault.New(fault.Unsupported, "BadRequest", "The authentication strength '%.50s' is not supported: the built-in ones '%s' (multifactor) and '%s' (phishing-resistant) are.", s.ID, StrengthMFA, StrengthPasskey).At("grantControls.authenticationStrength"))
		}
	}
	if count != 1 {
		found = append(found, bad("grantControls.builtInControls", "There must be one of 'block', 'mfa' and an authentication strength: each excludes the others."))
	}
	return found
}

func (f *Frequency) problems() []*fault.Error {
	if f == nil || !f.Enabled {
		return nil
	}
	var found []*fault.Error
	if f.Method != "primaryAndSecondaryAuthentication" {
		found = append(found, fault.New(fault.Unsupported, "BadRequest", "The authenticationType '%.50s' is not supported: 'primaryAndSecondaryAuthentication' is.", f.Method).At("sessionControls.signInFrequency.authenticationType"))
	}
	switch {
	case f.Interval == "everyTime":
		if f.Value != 0 || f.Unit != "" {
			found = append(found, bad("sessionControls.signInFrequency.value", "'everyTime' has no value and no type."))
		}
	case f.Interval != "timeBased":
		found = append(found, bad("sessionControls.signInFrequency.frequencyInterval", "The frequencyInterval must be 'timeBased' or 'everyTime'."))
	case f.Unit == "hours" && (f.Value < 1 || f.Value > 23), f.Unit == "days" && (f.Value < 1 || f.Value > 365):
		found = append(found, bad("sessionControls.signInFrequency.value", "The value must be 1 to 23 hours or 1 to 365 days."))
	case f.Unit != "hours" && f.Unit != "days":
		found = append(found, bad("sessionControls.signInFrequency.type", "The type must be 'hours' or 'days'."))
	}
	return found
}

// ParseLocation reads a named location from a POST, or a PATCH laid over old.
func ParseLocation(body map[string]any, old *Location) (Location, error) {
	var l Location
	if old != nil {
		l = *old
	}
	var found []*fault.Error
	switch kind, _ := body["@odata.type"].(string); {
	case kind == "#microsoft.graph.countryNamedLocation":
		return l, fault.New(fault.Unsupported, "BadRequest", "A 'countryNamedLocation' would have no effect here: addresses aren't known by country. 'ipNamedLocation' is supported.").At("@odata.type")
	case kind != "#microsoft.graph.ipNamedLocation" && (kind != "" || old == nil):
		return l, bad("@odata.type", "The '@odata.type' must be '#microsoft.graph.ipNamedLocation'.")
	}
	for name, value := range body {
		switch name {
		case "displayName":
			l.Name, _ = value.(string)
		case "isTrusted":
			trusted, ok := value.(bool)
			if !ok && value != nil {
				found = append(found, bad("isTrusted", "'isTrusted' must be true or false."))
			}
			l.Trusted = trusted
		case "ipRanges":
			var problems []*fault.Error
			l.Ranges, problems = ranges(value)
			found = append(found, problems...)
		case "id", "createdDateTime", "modifiedDateTime":
		default:
			if !strings.Contains(name, "@") {
				found = append(found, bad(name, "The property '%.100s' does not exist on type 'ipNamedLocation'.", name))
			}
		}
	}
	if l.Name == "" || len(l.Name) > maxName {
		found = append(found, bad("displayName", "The displayName must have 1 to %d characters.", maxName))
	}
	if len(l.Ranges) == 0 && len(found) == 0 {
		found = append(found, bad("ipRanges", "A named location needs ranges."))
	}
	return l, fault.Join(found...)
}

func ranges(value any) ([]netip.Prefix, []*fault.Error) {
	list, ok := value.([]any)
	if !ok || len(list) > maxRanges {
		return nil, []*fault.Error{bad("ipRanges", "'ipRanges' must be a list of at most %d ranges.", maxRanges)}
	}
	var found []*fault.Error
	var prefixes []netip.Prefix
	for _, entry := range list {
		object, _ := entry.(map[string]any)
		text, _ := object["cidrAddress"].(string)
		kind, _ := object["@odata.type"].(string)
		p, err := netip.ParsePrefix(text)
		switch {
		case err != nil || p.Addr().Is4In6() || p.Addr().Zone() != "":
			found = append(found, bad("ipRanges", "'%.60s' is not a range of addresses such as '192.88.99.0/24'.", text))
		case p.Addr().Is4() && p.Bits() < 8, p.Addr().Is6() && p.Bits() < 8:
			found = append(found, bad("ipRanges", "The range '%s' is too wide: at least /8 is needed.", text))
		case kind != "" && (kind == "#microsoft.graph.iPv4CidrRange") != p.Addr().Is4():
			found = append(found, bad("ipRanges", "The range '%s' isn't of the type '%.60s'.", text, kind))
		default:
			prefixes = append(prefixes, p.Masked())
		}
	}
	return prefixes, found
}
