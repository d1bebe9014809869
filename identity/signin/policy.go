// SPDX-License-Identifier: Apache-2.0

package signin

import (
	"net/netip"
	"slices"
	"time"

	"bastide.dev/fault"
	"bastide.dev/identity"
)

// The states of a policy.
const (
	Enabled    = "enabled"
	Disabled   = "disabled"
	ReportOnly = "enabledForReportingButNotEnforced"
)

// Words that stand for more than one thing in conditions, and kinds of clients.
const (
	All        = "All"
	None       = "None"
	AllTrusted = "AllTrusted"
	AllGuests  = "GuestsOrExternalUsers" // this directory has none: it matches nobody
	AllClients = "ServicePrincipalsInMyTenant"

	AnyClient     = "all"
	BrowserClient = "browser"
	NativeClient  = "mobileAppsAndDesktopClients"
	LegacyClient  = "other" // name and password in one request
	ExchangeSync  = "exchangeActiveSync"
)

// What a policy can ask for, and the built-in strengths of authentication.
const (
	Block = "block"
	MFA   = "mfa"

	StrengthMFA     = "00000000-0000-0000-0000-000000000002"
	StrengthPasskey = "00000000-0000-0000-0000-000000000004" // phishing-resistant
)

// deviceCodeFlow is the one transfer of a sign-in that there is.
const deviceCodeFlow = "deviceCodeFlow"

// everyTime allows what clocks differ by and a page takes, as Entra ID does.
const everyTimeSlack = 5 * time.Minute

// Policy is one conditional access policy in Graph's form. Ids are lower case.
type Policy struct {
	ID         string     `json:"id"`
	Name       string     `json:"displayName"`
	State      string     `json:"state"`
	Created    time.Time  `json:"createdDateTime"`
	Modified   time.Time  `json:"modifiedDateTime,omitzero"`
	Conditions Conditions `json:"conditions"`
	Grant      *Grant     `json:"grantControls,omitempty"`
	Session    *Session   `json:"sessionControls,omitempty"`
}

// Conditions say which sign-ins a policy is about: all of them must hold.
type Conditions struct {
	Users          Users               `json:"users"`
	Clients        *ClientApplications `json:"clientApplications,omitempty"`
	Applications   Applications        `json:"applications"`
	ClientAppTypes []string            `json:"clientAppTypes"`
	Locations      *Locations          `json:"locations,omitempty"`
	Flows          *Flows              `json:"authenticationFlows,omitempty"`
}

// Users are people, by themselves, their groups and their directory roles.
type Users struct {
	IncludeUsers  []string `json:"includeUsers"`
	ExcludeUsers  []string `json:"excludeUsers"`
	IncludeGroups []string `json:"includeGroups"`
	ExcludeGroups []string `json:"excludeGroups"`
	IncludeRoles  []string `json:"includeRoles"`
	ExcludeRoles  []string `json:"excludeRoles"`
}

// ClientApplications are service principals that sign in as themselves.
type ClientApplications struct {
	Include []string `json:"includeServicePrincipals"`
	Exclude []string `json:"excludeServicePrincipals"`
}

// Applications are what tokens are for.
type Applications struct {
	Include []string `json:"includeApplications"`
	Exclude []string `json:"excludeApplications"`
}

// Locations are where sign-ins come from.
type Locations struct {
	Include []string `json:"includeLocations"`
	Exclude []string `json:"excludeLocations"`
}

// Flows are ways to a token.
type Flows struct {
	TransferMethods string `json:"transferMethods"`
}

// Grant is what has to be so before a token is issued.
type Grant struct {
	Operator string    `json:"operator"`
	Controls []string  `json:"builtInControls"`
	Strength *Strength `json:"authenticationStrength,omitempty"`
}

// Strength names a built-in strength of authentication.
type Strength struct {
	ID string `json:"id"`
}

// Session is how long a sign-in counts.
type Session struct {
	Frequency *Frequency `json:"signInFrequency,omitempty"`
}

// Frequency is how often a principal has to prove itself anew.
type Frequency struct {
	Enabled  bool   `json:"isEnabled"`
	Value    int    `json:"value,omitempty"`
	Unit     string `json:"type,omitempty"`     // hours, days
	Interval string `json:"frequencyInterval"`  // timeBased, everyTime
	Method   string `json:"authenticationType"` // primaryAndSecondaryAuthentication
}

// Location is a named location: ranges of addresses.
type Location struct {
	ID       string         `json:"id"`
	Name     string         `json:"displayName"`
	Trusted  bool           `json:"isTrusted"`
	Ranges   []netip.Prefix `json:"ipRanges"`
	Created  time.Time      `json:"createdDateTime"`
	Modified time.Time      `json:"modifiedDateTime,omitzero"`
}

func (l Location) holds(a netip.Addr) bool {
	a = a.Unmap()
	return slices.ContainsFunc(l.Ranges, func(p netip.Prefix) bool { return p.Contains(a) })
}

// attempt is a sign-in as policies look at it.
type attempt struct {
	identity.SignIn
	client string // BrowserClient, NativeClient or LegacyClient
}

// flow is the way to the token, of a refresh the one its tokens began with.
func (a attempt) flow() identity.Flow {
	if a.Flow == identity.FlowRefresh && a.Origin != "" {
		return a.Origin
	}
	return a.Flow
}

// strong tells whether a second factor was proved; a passkey is two in one.
func (a attempt) strong() bool {
	return slices.Contains(a.Methods, identity.MethodMFA) || a.passkey()
}

func (a attempt) passkey() bool { return slices.Contains(a.Methods, identity.MethodPasskey) }

// judge says what policies make of an attempt. It is pure.
func judge(policies []Policy, locations map[string]Location, a attempt) identity.Verdict {
	var v identity.Verdict
	blocked := false
	for i := range policies {
		p := &policies[i]
		if p.State == Disabled {
			continue
		}
		o := p.outcome(locations, a)
		v.Policies = append(v.Policies, identity.Applied{ID: p.ID, Name: p.Name, Result: o.result(p.State == ReportOnly)})
		if p.State != Enabled {
			continue
		}
		blocked = blocked || o.blocked
		v.NeedsMFA = v.NeedsMFA || o.needsMFA || o.needsPasskey
		v.NeedsPasskey = v.NeedsPasskey || o.needsPasskey
		v.Stale = v.Stale || o.stale
	}
	switch {
	case blocked:
		v.Denied = fault.New(fault.Forbidden, CodeBlocked, "Access has been blocked by Conditional Access policies. The access policy does not allow token issuance.")
	case v.Stale && (a.Flow == identity.FlowRefresh || a.Flow == identity.FlowOnBehalf):
		v.Denied = fault.New(fault.Unauthorized, CodeStale, "The refresh token has expired or is invalid due to sign-in frequency checks by Conditional Access. Sign in again.")
	}
	return v
}

// outcome is one policy's part.
type outcome struct {
	applies, blocked, needsMFA, needsPasskey, stale bool
}

// result is Graph's word for it.
func (o outcome) result(reportOnly bool) string {
	unmet := o.needsMFA || o.needsPasskey || o.stale
	switch {
	case reportOnly && !o.applies:
		return "reportOnlyNotApplied"
	case reportOnly && o.blocked:
		return "reportOnlyFailure"
	case reportOnly && unmet:
		return "reportOnlyInterrupted"
	case reportOnly:
		return "reportOnlySuccess"
	case !o.applies:
		return "notApplied"
	case o.blocked || unmet:
		return "failure"
	}
	return "success"
}

func (p *Policy) outcome(locations map[string]Location, a attempt) outcome {
	if !p.applies(locations, a) {
		return outcome{}
	}
	o := outcome{applies: true}
	if g := p.Grant; g != nil {
		o.blocked = slices.Contains(g.Controls, Block)
		o.needsMFA = (slices.Contains(g.Controls, MFA) || g.Strength != nil) && !a.strong()
		o.needsPasskey = g.Strength != nil && g.Strength.ID == StrengthPasskey && !a.passkey()
	}
	if p.Session != nil && p.Session.Frequency != nil {
		o.stale = p.Session.Frequency.stale(a)
	}
	return o
}

// stale tells whether the principal proved itself too long ago. A time that
// isn't known, or lies ahead, is too long ago.
func (f *Frequency) stale(a attempt) bool {
	if !f.Enabled {
		return false
	}
	since := a.Authenticated
	if since.IsZero() {
		return a.Flow == identity.FlowRefresh || a.Flow == identity.FlowOnBehalf
	}
	age := a.Time.Sub(since)
	return age > f.life() || age < -everyTimeSlack
}

func (f *Frequency) life() time.Duration {
	switch {
	case f.Interval == "everyTime":
		return everyTimeSlack
	case f.Unit == "days":
		return time.Duration(f.Value) * 24 * time.Hour
	}
	return time.Duration(f.Value) * time.Hour
}

func (p *Policy) applies(locations map[string]Location, a attempt) bool {
	c := &p.Conditions
	return c.aboutPrincipal(a) && c.aboutApplication(a) && c.aboutClient(a) && c.aboutLocation(locations, a) &&
		(c.Flows == nil || a.flow() == identity.FlowDevice)
}

// aboutPrincipal: people by users, applications by clientApplications. Managed
// identities are under no policy, as in Entra ID: they sign in from where they are assigned only.
func (c *Conditions) aboutPrincipal(a attempt) bool {
	switch a.Kind {
	case identity.UserKind:
		u := &c.Users
		included := slices.Contains(u.IncludeUsers, All) || slices.Contains(u.IncludeUsers, a.Principal) ||
			overlap(u.IncludeGroups, a.Groups) || overlap(u.IncludeRoles, a.Roles)
		return included && !slices.Contains(u.ExcludeUsers, a.Principal) && !overlap(u.ExcludeGroups, a.Groups) && !overlap(u.ExcludeRoles, a.Roles)
	case identity.ServicePrincipalKind:
		if c.Clients == nil {
			return false
		}
		included := slices.Contains(c.Clients.Include, AllClients) || slices.Contains(c.Clients.Include, a.Principal)
		return included && !slices.Contains(c.Clients.Exclude, a.Principal)
	case identity.ManagedIdentityKind:
	}
	return false
}

// aboutApplication looks at what the token is for. A sign-in through a
// confidential client counts as one to that client, too, whose id token it gets;
// an exclusion of the client doesn't open other resources.
func (c *Conditions) aboutApplication(a attempt) bool {
	in := c.Applications.Include
	included := slices.Contains(in, All) || slices.Contains(in, a.ResourceID) ||
		a.client == BrowserClient && slices.Contains(in, a.ClientID)
	return included && !slices.Contains(c.Applications.Exclude, a.ResourceID)
}

func (c *Conditions) aboutClient(a attempt) bool {
	return a.Kind != identity.UserKind || slices.Contains(c.ClientAppTypes, AnyClient) || slices.Contains(c.ClientAppTypes, a.client)
}

func (c *Conditions) aboutLocation(locations map[string]Location, a attempt) bool {
	if c.Locations == nil {
		return true
	}
	within := func(name string) bool {
		switch name {
		case All:
			return true
		case AllTrusted:
			for _, l := range locations {
				if l.Trusted && l.holds(a.Address) {
					return true
				}
			}
			return false
		}
		l, known := locations[name]
		return known && l.holds(a.Address)
	}
	return slices.ContainsFunc(c.Locations.Include, within) && !slices.ContainsFunc(c.Locations.Exclude, within)
}

func overlap(a, b []string) bool {
	return slices.ContainsFunc(a, func(v string) bool { return slices.Contains(b, v) })
}
