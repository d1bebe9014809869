// SPDX-License-Identifier: Apache-2.0

package signin

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"bastide.dev/identity"
)

const (
	alice  = "a11ce000-0000-0000-0000-000000000001"
	bob    = "b0b00000-0000-0000-0000-000000000002"
	robot  = "40b07000-0000-0000-0000-000000000003"
	admins = "ad311500-0000-0000-0000-000000000004"
	role   = identity.GlobalAdministrator
	shop   = "5409a000-0000-0000-0000-000000000005"
	office = "0ff1ce00-0000-0000-0000-000000000006"
	cafe   = "cafe0000-0000-0000-0000-000000000007"
)

var noon = time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)

func places() map[string]Location {
	return map[string]Location{
		office: {ID: office, Trusted: true, Ranges: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("2001:db8::/32")}},
		cafe:   {ID: cafe, Ranges: []netip.Prefix{netip.MustParsePrefix("10.2.0.0/16")}},
	}
}

// person is alice at the office with her password, changed by edits.
func person(edits ...func(*attempt)) attempt {
	a := attempt{client: NativeClient, SignIn: identity.SignIn{Time: noon, Flow: identity.FlowCode, Kind: identity.UserKind, Principal: alice, ClientID: identity.AppCLI,
		ResourceID: identity.AppResourceManager, Address: netip.MustParseAddr("10.1.2.3"), Methods: []string{identity.MethodPassword}, Authenticated: noon}}
	for _, edit := range edits {
		edit(&a)
	}
	return a
}

func from(address string) func(*attempt) {
	return func(a *attempt) { a.Address, _ = netip.ParseAddr(address) }
}
func proved(methods ...string) func(*attempt) { return func(a *attempt) { a.Methods = methods } }
func flow(f identity.Flow) func(*attempt)     { return func(a *attempt) { a.Flow = f } }
func aged(d time.Duration) func(*attempt) {
	return func(a *attempt) { a.Authenticated = noon.Add(-d) }
}

// parsed is a policy from the conditions and controls as Graph's JSON has them.
func parsed(t *testing.T, conditions, controls string) Policy {
	t.Helper()
	p, err := ParsePolicy(body(t, `{"displayName":"p","state":"enabled","conditions":{`+conditions+`},`+controls+`}`), nil)
	if err != nil {
		t.Fatal(err)
	}
	p.ID = "1"
	return p
}

const (
	everyone = `"users":{"includeUsers":["All"]},"applications":{"includeApplications":["All"]}`
	block    = `"grantControls":{"operator":"OR","builtInControls":["block"]}`
	mfa      = `"grantControls":{"operator":"OR","builtInControls":["mfa"]}`
	passkey  = `"grantControls":{"operator":"AND","builtInControls":[],"authenticationStrength":{"id":"` + StrengthPasskey + `"}}`
)

func every(frequency string) string {
	return `"grantControls":null,"sessionControls":{"signInFrequency":{"isEnabled":true,` + frequency + `}}`
}

func TestJudge(t *testing.T) {
	users := func(u string) string { return `"users":{` + u + `},"applications":{"includeApplications":["All"]}` }
	at := func(l string) string { return everyone + `,"locations":{` + l + `}` }
	robots := `"users":{"includeUsers":["None"]},"applications":{"includeApplications":["All"]},"clientApplications":{"includeServicePrincipals":["ServicePrincipalsInMyTenant"],"excludeServicePrincipals":["` + bob + `"]}`
	asRobot := func(a *attempt) {
		a.Kind, a.Principal, a.Flow = identity.ServicePrincipalKind, robot, identity.FlowSecret
	}
	for name, c := range map[string]struct {
		conditions, controls string
		a                    attempt
		want                 string // "" nothing, block, mfa, passkey, stale, refused
	}{
		"everyone":                      {everyone, block, person(), "block"},
		"nobody":                        {users(`"includeUsers":["None"]`), block, person(), ""},
		"guests there are none":         {users(`"includeUsers":["GuestsOrExternalUsers"]`), block, person(), ""},
		"another user":                  {users(`"includeUsers":["` + bob + `"]`), block, person(), ""},
		"the user, in capitals":         {users(`"includeUsers":["` + strings.ToUpper(alice) + `"]`), block, person(), "block"},
		"an excluded user":              {users(`"includeUsers":["All"],"excludeUsers":["` + alice + `"]`), block, person(), ""},
		"a member":                      {users(`"includeGroups":["` + admins + `"]`), block, person(func(a *attempt) { a.Groups = []string{admins} }), "block"},
		"no member":                     {users(`"includeGroups":["` + admins + `"]`), block, person(), ""},
		"an excluded member":            {users(`"includeUsers":["All"],"excludeGroups":["` + admins + `"]`), block, person(func(a *attempt) { a.Groups = []string{admins} }), ""},
		"a role":                        {users(`"includeRoles":["` + role + `"]`), mfa, person(func(a *attempt) { a.Roles = []string{role} }), "mfa"},
		"an excluded role":              {users(`"includeUsers":["All"],"excludeRoles":["` + role + `"]`), mfa, person(func(a *attempt) { a.Roles = []string{role} }), ""},
		"users aren't robots":           {everyone, block, person(asRobot), ""},
		"robots":                        {robots, block, person(asRobot), "block"},
		"robots aren't users":           {robots, block, person(), ""},
		"an excluded robot":             {robots, block, person(asRobot, func(a *attempt) { a.Principal = bob }), ""},
		"managed identities":            {robots, block, person(asRobot, func(a *attempt) { a.Kind = identity.ManagedIdentityKind }), ""},
		"an application":                {`"users":{"includeUsers":["All"]},"applications":{"includeApplications":["` + identity.AppResourceManager + `"]}`, block, person(), "block"},
		"another application":           {`"users":{"includeUsers":["All"]},"applications":{"includeApplications":["` + shop + `"]}`, block, person(), ""},
		"no client by name":             {`"users":{"includeUsers":["All"]},"applications":{"includeApplications":["` + identity.AppCLI + `"]}`, block, person(), ""},
		"a web client is signed in to":  {`"users":{"includeUsers":["All"]},"applications":{"includeApplications":["` + shop + `"]}`, block, person(func(a *attempt) { a.ClientID, a.client = shop, BrowserClient }), "block"},
		"an excluded application":       {`"users":{"includeUsers":["All"]},"applications":{"includeApplications":["All"],"excludeApplications":["` + identity.AppResourceManager + `"]}`, block, person(), ""},
		"an excluded client opens none": {`"users":{"includeUsers":["All"]},"applications":{"includeApplications":["All"],"excludeApplications":["` + shop + `"]}`, block, person(func(a *attempt) { a.ClientID, a.client = shop, BrowserClient }), "block"},
		"legacy":                        {everyone + `,"clientAppTypes":["other","exchangeActiveSync"]`, block, person(flow(identity.FlowPassword), func(a *attempt) { a.client = LegacyClient }), "block"},
		"not legacy":                    {everyone + `,"clientAppTypes":["other"]`, block, person(), ""},
		"device code":                   {everyone + `,"authenticationFlows":{"transferMethods":"deviceCodeFlow"}`, block, person(flow(identity.FlowDevice)), "block"},
		"no device code":                {everyone + `,"authenticationFlows":{"transferMethods":"deviceCodeFlow"}`, block, person(), ""},
		"what grew out of device code":  {everyone + `,"authenticationFlows":{"transferMethods":"deviceCodeFlow"}`, block, person(flow(identity.FlowRefresh), func(a *attempt) { a.Origin = identity.FlowDevice }), "block"},
		"what grew out of code":         {everyone + `,"authenticationFlows":{"transferMethods":"deviceCodeFlow"}`, block, person(flow(identity.FlowRefresh), func(a *attempt) { a.Origin = identity.FlowCode }), ""},
		"outside, at the office":        {at(`"includeLocations":["All"],"excludeLocations":["AllTrusted"]`), block, person(), ""},
		"outside, at the cafe":          {at(`"includeLocations":["All"],"excludeLocations":["AllTrusted"]`), block, person(from("10.2.0.1")), "block"},
		"outside, from nowhere":         {at(`"includeLocations":["All"],"excludeLocations":["AllTrusted"]`), block, person(from("")), "block"},
		"mapped address":                {at(`"includeLocations":["All"],"excludeLocations":["AllTrusted"]`), block, person(from("::ffff:10.1.0.1")), ""},
		"IPv6":                          {at(`"includeLocations":["All"],"excludeLocations":["` + office + `"]`), block, person(from("2001:db8::1")), ""},
		"a place":                       {at(`"includeLocations":["` + cafe + `"]`), block, person(from("10.2.255.255")), "block"},
		"a place that is gone":          {at(`"includeLocations":["All"],"excludeLocations":["` + shop + `"]`), block, person(), "block"},
		"mfa":                           {everyone, mfa, person(), "mfa"},
		"mfa by code":                   {everyone, mfa, person(proved("pwd", "otp", "mfa")), ""},
		"mfa by passkey":                {everyone, mfa, person(proved("fido")), ""},
		"passkey by code":               {everyone, passkey, person(proved("pwd", "otp", "mfa")), "passkey"},
		"passkey":                       {everyone, passkey, person(proved("fido")), ""},
		"fresh":                         {everyone, every(`"value":1,"type":"hours"`), person(aged(time.Hour)), ""},
		"stale":                         {everyone, every(`"value":1,"type":"hours"`), person(aged(time.Hour + time.Second)), "stale"},
		"stale refresh":                 {everyone, every(`"value":1,"type":"days"`), person(flow(identity.FlowRefresh), aged(25*time.Hour)), "refused"},
		"fresh refresh":                 {everyone, every(`"value":1,"type":"days"`), person(flow(identity.FlowRefresh), aged(23*time.Hour)), ""},
		"refresh of nobody knows when":  {everyone, every(`"value":1,"type":"days"`), person(flow(identity.FlowRefresh), func(a *attempt) { a.Authenticated = time.Time{} }), "refused"},
		"authenticated in the future":   {everyone, every(`"value":1,"type":"days"`), person(flow(identity.FlowRefresh), aged(-time.Hour)), "refused"},
		"every time":                    {everyone, every(`"frequencyInterval":"everyTime"`), person(aged(6 * time.Minute)), "stale"},
	} {
		t.Run(name, func(t *testing.T) {
			p := parsed(t, c.conditions, c.controls)
			if got := say(judge([]Policy{p}, places(), c.a)); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
			p.State = ReportOnly
			v := judge([]Policy{p}, places(), c.a)
			if say(v) != "" || !strings.HasPrefix(v.Policies[0].Result, "reportOnly") {
				t.Errorf("report-only: %+v", v)
			}
			p.State = Disabled
			if v := judge([]Policy{p}, places(), c.a); say(v) != "" || len(v.Policies) != 0 {
				t.Errorf("disabled: %+v", v)
			}
		})
	}
}

// say is a verdict in a word.
func say(v identity.Verdict) string {
	switch {
	case v.Denied != nil && v.Denied.Code == CodeBlocked:
		return "block"
	case v.Denied != nil && v.Denied.Code == CodeStale:
		return "refused"
	case v.Denied != nil:
		return v.Denied.Code
	case v.NeedsPasskey && v.NeedsMFA:
		return "passkey"
	case v.NeedsMFA:
		return "mfa"
	case v.Stale:
		return "stale"
	}
	return ""
}

// TestJudgeAgainstPlainEvaluation compares thousands of random sets of policies
// with an evaluation that is written down as the documentation reads.
func TestJudgeAgainstPlainEvaluation(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 2026))
	some := func(all ...string) []string {
		return slices.DeleteFunc(slices.Clone(all), func(string) bool { return r.IntN(2) > 0 })
	}
	rare := func(one string) []string {
		return slices.DeleteFunc([]string{one}, func(string) bool { return r.IntN(8) > 0 })
	}
	one := func(all ...string) string { return all[r.IntN(len(all))] }
	verdicts := map[string]int{}
	for range 20000 {
		var policies []Policy
		for i := range 1 + r.IntN(4) {
			p := Policy{ID: fmt.Sprint(i), State: one(Enabled, Enabled, ReportOnly, Disabled), Conditions: Conditions{
				Users:        Users{some(All, alice, bob), rare(alice), some(admins), rare(admins), some(role), rare(role)},
				Applications: Applications{some(All, shop, identity.AppResourceManager), rare(shop)}, ClientAppTypes: some(AnyClient, BrowserClient, NativeClient, LegacyClient)}}
			if r.IntN(3) == 0 {
				p.Conditions.Locations = &Locations{some(All, AllTrusted, office, cafe), some(AllTrusted, cafe)}
			}
			if r.IntN(4) == 0 {
				p.Conditions.Flows = &Flows{deviceCodeFlow}
			}
			p.Grant = &Grant{Operator: "OR", Controls: []string{one(Block, MFA)}}
			policies = append(policies, p)
		}
		a := person(from(one("10.1.0.1", "10.2.0.1", "10.3.0.1", "")), proved(some("pwd", "mfa", "fido")...), flow(identity.Flow(one("authorizationCode", "deviceCode", "ropc"))))
		a.Principal, a.Groups, a.Roles, a.ResourceID = one(alice, bob), some(admins), some(role), one(shop, identity.AppResourceManager)
		a.client = one(NativeClient, LegacyClient)
		got, want := say(judge(policies, places(), a)), plainly(policies, a)
		if got != want {
			t.Fatalf("%q, plainly %q: %+v under %+v", got, want, a, policies)
		}
		verdicts[got]++
	}
	if verdicts["block"] < 1000 || verdicts["mfa"] < 500 || verdicts[""] < 1000 {
		t.Errorf("the sample is one-sided: %v", verdicts)
	}
}

func plainly(policies []Policy, a attempt) string {
	verdict := ""
	for _, p := range policies {
		if p.State != Enabled {
			continue
		}
		c := p.Conditions
		names := map[string]bool{All: true, a.Principal: true}
		included, excluded := false, false
		for _, u := range c.Users.IncludeUsers {
			included = included || names[u]
		}
		for _, g := range a.Groups {
			included = included || slices.Contains(c.Users.IncludeGroups, g)
			excluded = excluded || slices.Contains(c.Users.ExcludeGroups, g)
		}
		for _, g := range a.Roles {
			included = included || slices.Contains(c.Users.IncludeRoles, g)
			excluded = excluded || slices.Contains(c.Users.ExcludeRoles, g)
		}
		if !included || excluded || slices.Contains(c.Users.ExcludeUsers, a.Principal) {
			continue
		}
		if !slices.Contains(c.Applications.Include, All) && !slices.Contains(c.Applications.Include, a.ResourceID) || slices.Contains(c.Applications.Exclude, a.ResourceID) {
			continue
		}
		if !slices.Contains(c.ClientAppTypes, AnyClient) && !slices.Contains(c.ClientAppTypes, a.client) {
			continue
		}
		if c.Flows != nil && a.Flow != identity.FlowDevice {
			continue
		}
		if c.Locations != nil {
			here := map[string][]string{"10.1.0.1": {All, AllTrusted, office}, "10.2.0.1": {All, cafe}}[a.Address.String()]
			if here == nil {
				here = []string{All}
			}
			if !overlap(here, c.Locations.Include) || overlap(here, c.Locations.Exclude) {
				continue
			}
		}
		if p.Grant.Controls[0] == Block {
			return "block"
		}
		if !slices.Contains(a.Methods, "mfa") && !slices.Contains(a.Methods, "fido") {
			verdict = "mfa"
		}
	}
	return verdict
}
