// SPDX-License-Identifier: Apache-2.0

package signin

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"bastide.dev/fault"
)

// property says what of Graph's policy has an effect here. An object has its
// own properties; what is refused may be sent as long as it says nothing.
type property struct {
	refused bool
	object  map[string]property
}

func refusedAll(names ...string) map[string]property {
	all := map[string]property{}
	for _, name := range names {
		all[name] = property{refused: true}
	}
	return all
}

func object(known map[string]property, names ...string) property {
	if known == nil {
		known = map[string]property{}
	}
	for _, name := range names {
		known[name] = property{}
	}
	return property{object: known}
}

// policyShape is the conditionalAccessPolicy of Graph v1.0.
func policyShape() property {
	conditions := refusedAll("signInRiskLevels", "userRiskLevels", "servicePrincipalRiskLevels", "insiderRiskLevels", "agentIdRiskLevels",
		"platforms", "devices", "deviceStates", "times")
	conditions["clientAppTypes"] = property{}
	conditions["users"] = object(refusedAll("includeGuestsOrExternalUsers", "excludeGuestsOrExternalUsers"),
		"includeUsers", "excludeUsers", "includeGroups", "excludeGroups", "includeRoles", "excludeRoles")
	conditions["clientApplications"] = object(refusedAll("servicePrincipalFilter", "includeAgentIdServicePrincipals", "excludeAgentIdServicePrincipals", "agentIdServicePrincipalFilter"),
		"includeServicePrincipals", "excludeServicePrincipals")
	conditions["applications"] = object(refusedAll("includeUserActions", "includeAuthenticationContextClassReferences", "applicationFilter", "globalSecureAccess", "networkAccess"),
		"includeApplications", "excludeApplications")
	conditions["locations"] = object(nil, "includeLocations", "excludeLocations")
	conditions["authenticationFlows"] = object(nil, "transferMethods")
	grant := refusedAll("customAuthenticationFactors", "termsOfUse")
	grant["authenticationStrength"] = object(nil, "id", "displayName", "description", "policyType", "requirementsSatisfied", "allowedCombinations",
		"createdDateTime", "modifiedDateTime", "combinationConfigurations")
	session := refusedAll("applicationEnforcedRestrictions", "cloudAppSecurity", "persistentBrowser", "disableResilienceDefaults",
		"continuousAccessEvaluation", "secureSignInSession", "globalSecureAccessFilteringProfile")
	session["signInFrequency"] = object(nil, "isEnabled", "value", "type", "frequencyInterval", "authenticationType")
	return property{object: map[string]property{
		"id": {}, "createdDateTime": {}, "modifiedDateTime": {}, "templateId": {refused: true}, "partialEnablementStrategy": {refused: true},
		"displayName": {}, "state": {}, "conditions": {object: conditions},
		"grantControls":   object(grant, "operator", "builtInControls"),
		"sessionControls": {object: session},
	}}
}

// ParsePolicy reads the body of a POST, or of a PATCH laid over old. Every problem is
// reported at once; what would have no effect is refused by name.
func ParsePolicy(body map[string]any, old *Policy) (Policy, error) {
	body = deepCopy(body)
	bind(body)
	problems := check("", body, policyShape())
	if err := fault.Join(problems...); err != nil {
		return Policy{}, err
	}
	merged := body
	if old != nil {
		base, err := asMap(*old)
		if err != nil {
			return Policy{}, err
		}
		merged = merge(base, body)
	}
	prune(merged, policyShape())
	data, err := json.Marshal(merged)
	if err != nil {
		return Policy{}, fmt.Errorf("encode policy: %w", err)
	}
	var p Policy
	if err := json.Unmarshal(data, &p); err != nil {
		return Policy{}, malformed(err)
	}
	p.normalise()
	if old != nil {
		p.ID, p.Created = old.ID, old.Created
	}
	return p, fault.Join(p.problems()...)
}

// malformed names the property whose value has the wrong type.
func malformed(err error) error {
	where := ""
	if e, ok := err.(*json.UnmarshalTypeError); ok { //nolint:errorlint // encoding/json returns it bare
		where = e.Field
	}
	return bad(where, "The value of '%s' has the wrong type.", where).Because(err)
}

func bad(target, format string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, "BadRequest", format, args...).At(target)
}

// bind takes the reference to a strength, as some clients send it.
func bind(body map[string]any) {
	grant, _ := body["grantControls"].(map[string]any)
	if link, ok := grant["authenticationStrength@odata.bind"].(string); ok {
		grant["authenticationStrength"] = map[string]any{"id": link[strings.LastIndexByte(link, '/')+1:]}
	}
}

// check finds what isn't known, and what is known to have no effect here.
func check(path string, body map[string]any, shape property) []*fault.Error {
	var problems []*fault.Error
	for _, name := range slices.Sorted(maps.Keys(body)) {
		value := body[name]
		if strings.Contains(name, "@") { // OData's own
			continue
		}
		at := strings.TrimPrefix(path+"."+name, ".")
		p, known := shape.object[name]
		switch {
		case !known:
			problems = append(problems, bad(at, "The property '%.100s' does not exist on this type, or isn't known here.", at))
		case p.refused && !Blank(value):
			problems = append(problems, fault.New(fault.Unsupported, "BadRequest", "The property '%s' would have no effect here: it is not supported.", at).At(at))
		case p.object != nil && value != nil:
			inner, ok := value.(map[string]any)
			if !ok {
				problems = append(problems, bad(at, "The property '%s' must be an object.", at))
				continue
			}
			problems = append(problems, check(at, inner, p)...)
		}
	}
	return problems
}

// Blank tells whether a value says nothing: null, false, "", or empty all through.
// OData's annotations don't count.
func Blank(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case bool:
		return !v
	case string:
		return v == ""
	case []any:
		return len(v) == 0
	case map[string]any:
		for name, inner := range v {
			if !strings.HasPrefix(name, "@odata.") && !Blank(inner) {
				return false
			}
		}
		return true
	}
	return false
}

// prune drops what is refused (and so blank), OData's own, and objects that say nothing.
func prune(body map[string]any, shape property) {
	for name, value := range body {
		p := shape.object[name]
		inner, isObject := value.(map[string]any)
		switch {
		case p.refused || strings.Contains(name, "@"), isObject && Blank(value):
			delete(body, name)
		case isObject && p.object != nil:
			prune(inner, p)
		}
	}
}

// merge lays a PATCH over what is there: objects by property, all else whole.
func merge(base, patch map[string]any) map[string]any {
	merged := maps.Clone(base)
	for name, value := range patch {
		inner, ok := value.(map[string]any)
		under, both := merged[name].(map[string]any)
		switch {
		case value == nil:
			delete(merged, name)
		case ok && both:
			merged[name] = merge(under, inner)
		default:
			merged[name] = value
		}
	}
	return merged
}

func deepCopy(body map[string]any) map[string]any {
	copied := maps.Clone(body)
	for name, value := range copied {
		if inner, ok := value.(map[string]any); ok {
			copied[name] = deepCopy(inner)
		}
	}
	return copied
}

func asMap(value any) (map[string]any, error) {
	data, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	var m map[string]any
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	return m, nil
}
