// SPDX-License-Identifier: Apache-2.0

package signin

import (
	"encoding/json"
	"strings"
	"testing"

	"bastide.dev/fault"
)

func body(t testing.TB, text string) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestWhatHasNoEffectIsRefused holds every part of Graph's policy that isn't real here.
func TestWhatHasNoEffectIsRefused(t *testing.T) {
	whole := func(conditions, rest string) string {
		return `{"displayName":"p","state":"enabled","conditions":{` + conditions + `},` + rest + `}`
	}
	for name, c := range map[string]struct{ body, names string }{
		"risk":             {whole(everyone+`,"signInRiskLevels":["high"]`, block), "conditions.signInRiskLevels"},
		"user risk":        {whole(everyone+`,"userRiskLevels":["high"]`, block), "conditions.userRiskLevels"},
		"platforms":        {whole(everyone+`,"platforms":{"includePlatforms":["android"]}`, block), "conditions.platforms"},
		"devices":          {whole(everyone+`,"devices":{"deviceFilter":{"mode":"include","rule":"x"}}`, block), "conditions.devices"},
		"guests by kind":   {whole(`"users":{"includeUsers":["All"],"excludeGuestsOrExternalUsers":{"guestOrExternalUserTypes":"internalGuest"}},"applications":{"includeApplications":["All"]}`, block), "excludeGuestsOrExternalUsers"},
		"Office 365":       {whole(`"users":{"includeUsers":["All"]},"applications":{"includeApplications":["Office365"]}`, block), "office365"},
		"user actions":     {whole(`"users":{"includeUsers":["All"]},"applications":{"includeApplications":["All"],"includeUserActions":["urn:user:registersecurityinfo"]}`, block), "includeUserActions"},
		"transfer":         {whole(everyone+`,"authenticationFlows":{"transferMethods":"authenticationTransfer"}`, block), "transferMethods"},
		"compliant device": {whole(everyone, `"grantControls":{"operator":"OR","builtInControls":["compliantDevice"]}`), "compliantDevice"},
		"terms of use":     {whole(everyone, `"grantControls":{"operator":"OR","builtInControls":["mfa"],"termsOfUse":["x"]}`), "termsOfUse"},
		"own strength":     {whole(everyone, `"grantControls":{"operator":"OR","builtInControls":[],"authenticationStrength":{"id":"00000000-0000-0000-0000-000000000003"}}`), "authenticationStrength"},
		"browser session":  {whole(everyone, `"sessionControls":{"persistentBrowser":{"isEnabled":true,"mode":"always"}}`), "persistentBrowser"},
		"unknown":          {whole(everyone, block+`,"shoeSize":42`), "shoeSize"},
		"other case":       {whole(everyone, block+`,"State":"disabled"`), "State"},
		"unknown within":   {whole(everyone+`,"weather":{}`, block), "conditions.weather"},
		"wrong type":       {whole(everyone, block+`,"displayName":["x"]`), "displayName"},
		"list for object":  {whole(`"users":[],"applications":{"includeApplications":["All"]}`, block), "conditions.users"},
		"no users":         {whole(`"applications":{"includeApplications":["All"]}`, block), "conditions.users"},
		"no applications":  {whole(`"users":{"includeUsers":["All"]}`, block), "includeApplications"},
		"no id":            {whole(`"users":{"includeUsers":["alice"]},"applications":{"includeApplications":["All"]}`, block), "alice"},
		"excluding all":    {whole(`"users":{"includeUsers":["All"],"excludeUsers":["All"]},"applications":{"includeApplications":["All"]}`, block), "excludeUsers"},
		"block and mfa":    {whole(everyone, `"grantControls":{"operator":"OR","builtInControls":["block","mfa"]}`), "builtInControls"},
		"no control":       {whole(everyone, `"grantControls":{"operator":"OR","builtInControls":[]}`), "grantControls"},
		"nothing to do":    {whole(everyone, `"grantControls":null`), "grantControls"},
		"no such state":    {strings.Replace(whole(everyone, block), `"enabled"`, `"on"`, 1), "state"},
		"mfa of a robot":   {whole(`"users":{"includeUsers":["None"]},"applications":{"includeApplications":["All"]},"clientApplications":{"includeServicePrincipals":["ServicePrincipalsInMyTenant"]}`, mfa), "only block"},
		"0 hours":          {whole(everyone, every(`"value":0,"type":"hours"`)), "value"},
		"a long time":      {whole(everyone, every(`"value":99999999999999,"type":"days"`)), "value"},
		"second factor":    {whole(everyone, every(`"value":1,"type":"hours","authenticationType":"secondaryAuthentication"`)), "authenticationType"},
	} {
		_, err := ParsePolicy(body(t, c.body), nil)
		if err == nil || !strings.Contains(err.Error(), c.names) || !fault.Is(err, fault.Invalid) && !fault.Is(err, fault.Unsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := ParsePolicy(body(t, `{"displayName":"","state":"x","conditions":{"users":{"includeUsers":["All"]},"applications":{"includeApplications":["y"]}}}`), nil)
	if f := fault.From(err); len(f.Details) < 4 {
		t.Errorf("all problems at once: %v", err)
	}
}

// TestWhatSaysNothingIsTaken: providers send every property, most of them empty.
func TestWhatSaysNothingIsTaken(t *testing.T) {
	p, err := ParsePolicy(body(t, `{"@odata.type":"#microsoft.graph.conditionalAccessPolicy","id":null,"displayName":"p","state":"enabled","conditions":{`+everyone+
		`,"clientAppTypes":["all"],"signInRiskLevels":[],"platforms":null,"devices":null,"locations":{"includeLocations":[],"excludeLocations":[]},"clientApplications":null},
		"grantControls":{"operator":"OR","builtInControls":["mfa"],"termsOfUse":[],"customAuthenticationFactors":[],"authenticationStrength":null},
		"sessionControls":{"applicationEnforcedRestrictions":{"isEnabled":false},"disableResilienceDefaults":false,"signInFrequency":null}}`), nil)
	if err != nil || p.Conditions.Locations != nil || p.Session != nil {
		t.Errorf("%+v %v", p, err)
	}
	p, err = ParsePolicy(body(t, `{"displayName":"p","state":"enabled","conditions":{`+everyone+`},"grantControls":{"operator":"OR","authenticationStrength@odata.bind":"https://graph.microsoft.com/v1.0/policies/authenticationStrengthPolicies/`+StrengthPasskey+`"}}`), nil)
	if err != nil || p.Grant.Strength == nil || p.Grant.Strength.ID != StrengthPasskey {
		t.Errorf("bound strength: %+v %v", p.Grant, err)
	}
}

func TestPatch(t *testing.T) {
	old := parsed(t, everyone+`,"locations":{"includeLocations":["All"],"excludeLocations":["AllTrusted"]}`, mfa)
	p, err := ParsePolicy(body(t, `{"id":"other","state":"disabled","conditions":{"users":{"excludeUsers":["`+alice+`"]},"locations":null}}`), &old)
	if err != nil || p.ID != old.ID || p.State != Disabled || p.Conditions.Locations != nil || p.Conditions.Users.ExcludeUsers[0] != alice || p.Conditions.Users.IncludeUsers[0] != All || p.Grant.Controls[0] != MFA {
		t.Errorf("%+v %v", p, err)
	}
	if _, err := ParsePolicy(body(t, `{"grantControls":null}`), &old); err == nil {
		t.Error("a policy that asks for nothing was taken")
	}
}

func TestLocations(t *testing.T) {
	l, err := ParseLocation(body(t, `{"@odata.type":"#microsoft.graph.ipNamedLocation","displayName":"office","isTrusted":true,"ipRanges":[{"@odata.type":"#microsoft.graph.iPv4CidrRange","cidrAddress":"10.1.2.3/16"},{"cidrAddress":"2001:db8::/32"}]}`), nil)
	if err != nil || !l.Trusted || len(l.Ranges) != 2 || l.Ranges[0].String() != "10.1.0.0/16" {
		t.Errorf("%+v %v", l, err)
	}
	if l, err = ParseLocation(body(t, `{"isTrusted":false}`), &l); err != nil || l.Trusted || len(l.Ranges) != 2 {
		t.Errorf("patched: %+v %v", l, err)
	}
	for _, wrong := range []string{
		`{"@odata.type":"#microsoft.graph.countryNamedLocation","displayName":"x","countriesAndRegions":["DE"]}`, `{"displayName":"x","ipRanges":[{"cidrAddress":"10.0.0.0/8"}]}`,
		`{"@odata.type":"#microsoft.graph.ipNamedLocation","displayName":"x","ipRanges":[{"cidrAddress":"0.0.0.0/0"}]}`,
		`{"@odata.type":"#microsoft.graph.ipNamedLocation","displayName":"x","ipRanges":[{"cidrAddress":"::ffff:10.0.0.0/112"}]}`,
		`{"@odata.type":"#microsoft.graph.ipNamedLocation","displayName":"x","ipRanges":[]}`,
		`{"@odata.type":"#microsoft.graph.ipNamedLocation","displayName":"x","ipRanges":"10.0.0.0/8"}`,
		`{"@odata.type":"#microsoft.graph.ipNamedLocation","displayName":"","ipRanges":[{"cidrAddress":"10.0.0.0/8"}]}`,
		`{"@odata.type":"#microsoft.graph.ipNamedLocation","displayName":"x","colour":1,"ipRanges":[{"cidrAddress":"10.0.0.0/8"}]}`,
		`{"@odata.type":"#microsoft.graph.ipNamedLocation","displayName":"x","ipRanges":[{"@odata.type":"#microsoft.graph.iPv6CidrRange","cidrAddress":"10.0.0.0/8"}]}`,
	} {
		if l, err := ParseLocation(body(t, wrong), nil); err == nil {
			t.Errorf("taken: %s: %+v", wrong, l)
		}
	}
}

// FuzzParsePolicy feeds bodies: each is understood or refused, and what is
// understood means the same when it is written and read again.
func FuzzParsePolicy(f *testing.F) {
	for _, seed := range []string{`{}`, `{"displayName":"p","state":"enabled","conditions":{` + everyone + `},` + mfa + `}`, `{"conditions":null}`, `{"grantControls":{"authenticationStrength":{"id":7}}}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var m map[string]any
		if json.Unmarshal([]byte(text), &m) != nil {
			return
		}
		p, err := ParsePolicy(m, nil)
		if err != nil {
			if !fault.Is(err, fault.Invalid) && !fault.Is(err, fault.Unsupported) {
				t.Errorf("%s: %v", text, err)
			}
			return
		}
		again, err := ParsePolicy(map[string]any{}, &p)
		if err != nil || again.State != p.State || again.Name != p.Name {
			t.Errorf("%s: read again: %+v %v", text, again, err)
		}
	})
}
