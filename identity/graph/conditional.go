// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"bastide.dev/fault"
	"bastide.dev/identity/signin"
)

// accessRoutes are conditional access and the log of sign-ins.
func (s *Service) accessRoutes() map[string]answerer {
	const policies, locations = "/v1.0/identity/conditionalAccess/policies", "/v1.0/identity/conditionalAccess/namedLocations"
	const strengths, log = "/v1.0/policies/authenticationStrengthPolicies", "/v1.0/auditLogs/signIns"
	return map[string]answerer{
		"GET " + policies:                                 reading(policyArea, s.listAccess("identity/conditionalAccess/policies", s.policies)),
		"POST " + policies:                                rulingPolicies(s.createPolicy),
		"GET " + policies + "/{id}":                       reading(policyArea, s.policy),
		"PATCH " + policies + "/{id}":                     rulingPolicies(s.updatePolicy),
		"DELETE " + policies + "/{id}":                    rulingPolicies(s.deletePolicy),
		"GET " + locations:                                reading(policyArea, s.listAccess("identity/conditionalAccess/namedLocations", s.locations)),
		"POST " + locations:                               rulingPolicies(s.createLocation),
		"GET " + locations + "/{id}":                      reading(policyArea, s.location),
		"PATCH " + locations + "/{id}":                    rulingPolicies(s.updateLocation),
		"DELETE " + locations + "/{id}":                   rulingPolicies(s.deleteLocation),
		"GET " + strengths:                                reading(policyArea, s.listAccess("policies/authenticationStrengthPolicies", strengthObjects)),
		"GET " + strengths + "/{id}":                      reading(policyArea, s.strength),
		"GET " + log:                                      reading(auditArea, s.signInLog),
		"GET " + log + "/{id}":                            reading(auditArea, s.signIn),
		"GET /v1.0/reports/appCredentialSignInActivities": reading(auditArea, s.credentialUses),
	}
}

// reading answers who may read an area.
func reading(of area, answer answerer) answerer {
	return func(r *request) (any, error) {
		if err := r.mayRead(of); err != nil {
			return nil, err
		}
		return answer(r)
	}
}

// rulingPolicies answers who may change conditional access.
func rulingPolicies(answer answerer) answerer {
	return func(r *request) (any, error) {
		if err := allow(r.may.writesPolicies()); err != nil {
			return nil, err
		}
		return answer(r)
	}
}

// readObject reads a body that is one JSON object.
func readObject(r *request) (map[string]any, error) {
	var body map[string]any
	decoder := json.NewDecoder(r.Body)
	if err := decoder.Decode(&body); err != nil || body == nil {
		return nil, fault.New(fault.Invalid, "BadRequest", "The body must be a JSON object of at most %d bytes.", maxBody).Because(err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, fault.New(fault.Invalid, "BadRequest", "There is something after the body's JSON object.")
	}
	return body, nil
}

// listAccess answers a short collection with Graph's query options.
func (s *Service) listAccess(name string, list func(context.Context) ([]object, error)) answerer {
	return func(r *request) (any, error) {
		found, err := list(r.Context())
		if err != nil {
			return nil, err
		}
		found, err = query(r.URL.Query(), found)
		return object{"@odata.context": s.context(name), "value": found}, err
	}
}

// whole is the answer of a single object.
func (s *Service) whole(kind string, o object) object {
	o["@odata.context"] = s.context(kind + "/$entity")
	return o
}

// warn tells who just wrote a policy that it keeps everybody out who could take it back.
func (s *Service) warn(r *request, o object) (object, error) {
	guilty, err := s.signIns.LockedOut(r.Context())
	if err != nil {
		return nil, err
	}
	for _, p := range guilty {
		if p.ID == o["id"] {
			s.log.Warn("a conditional access policy keeps out every global administrator", "policy", p.ID, "name", p.Name, "by", r.who.ID)
			o["@bastide.warning"] = "This policy keeps every Global Administrator from signing in. The machine's administrator can switch it off: sudo bastide conditional-access off " + p.ID
		}
	}
	return o, nil
}

func (s *Service) policies(ctx context.Context) ([]object, error) {
	found, err := s.signIns.Policies(ctx)
	return convert(found, policyObject), err
}

func (s *Service) policy(r *request) (any, error) {
	p, err := s.signIns.Policy(r.Context(), r.PathValue("id"))
	return s.whole("identity/conditionalAccess/policies", policyObject(p)), err
}

func (s *Service) createPolicy(r *request) (any, error) {
	body, err := readObject(r)
	if err != nil {
		return nil, err
	}
	p, err := s.signIns.CreatePolicy(r.Context(), body)
	if err != nil {
		return nil, err
	}
	o, err := s.warn(r, policyObject(p))
	if err != nil {
		return nil, err
	}
	return created{s.whole("identity/conditionalAccess/policies", o)}, nil
}

func (s *Service) updatePolicy(r *request) (any, error) {
	body, err := readObject(r)
	if err != nil {
		return nil, err
	}
	p, err := s.signIns.UpdatePolicy(r.Context(), r.PathValue("id"), body)
	if err != nil {
		return nil, err
	}
	o, err := s.warn(r, policyObject(p))
	if err != nil || o["@bastide.warning"] == nil {
		return nil, err
	}
	return s.whole("identity/conditionalAccess/policies", o), nil
}

func (s *Service) deletePolicy(r *request) (any, error) {
	return nil, s.signIns.DeletePolicy(r.Context(), r.PathValue("id"))
}

func (s *Service) locations(ctx context.Context) ([]object, error) {
	found, err := s.signIns.Locations(ctx)
	return convert(found, locationObject), err
}

func (s *Service) location(r *request) (any, error) {
	l, err := s.signIns.Location(r.Context(), r.PathValue("id"))
	return s.whole("identity/conditionalAccess/namedLocations", locationObject(l)), err
}

func (s *Service) createLocation(r *request) (any, error) {
	body, err := readObject(r)
	if err != nil {
		return nil, err
	}
	l, err := s.signIns.CreateLocation(r.Context(), body)
	return created{s.whole("identity/conditionalAccess/namedLocations", locationObject(l))}, err
}

func (s *Service) updateLocation(r *request) (any, error) {
	body, err := readObject(r)
	if err != nil {
		return nil, err
	}
	_, err = s.signIns.UpdateLocation(r.Context(), r.PathValue("id"), body)
	return nil, err
}

func (s *Service) deleteLocation(r *request) (any, error) {
	return nil, s.signIns.DeleteLocation(r.Context(), r.PathValue("id"))
}

// policyObject is a policy with all that Graph's has; what has no effect here is empty.
func policyObject(p signin.Policy) object {
	c := p.Conditions
	conditions := object{"users": withEmpty(c.Users, "includeGuestsOrExternalUsers", "excludeGuestsOrExternalUsers"),
		"applications": withEmpty(c.Applications, "applicationFilter"), "clientAppTypes": c.ClientAppTypes, "clientApplications": nil,
		"locations": nil, "authenticationFlows": nil, "signInRiskLevels": []string{}, "userRiskLevels": []string{}, "servicePrincipalRiskLevels": []string{},
		"insiderRiskLevels": nil, "platforms": nil, "devices": nil}
	applications, _ := conditions["applications"].(object)
	applications["includeUserActions"], applications["includeAuthenticationContextClassReferences"] = []string{}, []string{}
	if c.Clients != nil {
		conditions["clientApplications"] = withEmpty(c.Clients, "servicePrincipalFilter")
	}
	if c.Locations != nil {
		conditions["locations"] = c.Locations
	}
	if c.Flows != nil {
		conditions["authenticationFlows"] = c.Flows
	}
	o := object{"id": p.ID, "displayName": p.Name, "state": p.State, "templateId": nil, "createdDateTime": p.Created, "modifiedDateTime": nil,
		"conditions": conditions, "grantControls": nil, "sessionControls": nil}
	if !p.Modified.IsZero() {
		o["modifiedDateTime"] = p.Modified
	}
	if g := p.Grant; g != nil {
		grant := object{"operator": g.Operator, "builtInControls": g.Controls, "customAuthenticationFactors": []string{}, "termsOfUse": []string{}, "authenticationStrength": nil}
		if g.Strength != nil {
			grant["authenticationStrength"] = strengthObject(g.Strength.ID)
		}
		o["grantControls"] = grant
	}
	if p.Session != nil && p.Session.Frequency != nil {
		o["sessionControls"] = object{"signInFrequency": frequencyObject(*p.Session.Frequency), "disableResilienceDefaults": nil,
			"applicationEnforcedRestrictions": nil, "cloudAppSecurity": nil, "persistentBrowser": nil}
	}
	return o
}

func frequencyObject(f signin.Frequency) object {
	o := object{"isEnabled": f.Enabled, "value": nil, "type": nil, "frequencyInterval": f.Interval, "authenticationType": f.Method}
	if f.Value != 0 {
		o["value"], o["type"] = f.Value, f.Unit
	}
	return o
}

// withEmpty is a struct as an object, with names whose value is null.
func withEmpty(value any, names ...string) object {
	o := object{}
	data, err := json.Marshal(value)
	if err == nil {
		err = json.Unmarshal(data, &o)
	}
	if err != nil { // our own structs encode
		panic(fmt.Sprintf("graph: %T: %v", value, err))
	}
	for _, name := range names {
		o[name] = nil
	}
	return o
}

func locationObject(l signin.Location) object {
	ranges := []object{}
	for _, p := range l.Ranges {
		kind := "#microsoft.graph.iPv6CidrRange"
		if p.Addr().Is4() {
			kind = "#microsoft.graph.iPv4CidrRange"
		}
		ranges = append(ranges, object{"@odata.type": kind, "cidrAddress": p.String()})
	}
	o := object{"@odata.type": "#microsoft.graph.ipNamedLocation", "id": l.ID, "displayName": l.Name, "isTrusted": l.Trusted,
		"ipRanges": ranges, "createdDateTime": l.Created, "modifiedDateTime": l.Modified}
	if l.Modified.IsZero() {
		o["modifiedDateTime"] = l.Created
	}
	return o
}

// strengthObjects are the built-in strengths of authentication that policies can ask for.
func strengthObjects(context.Context) ([]object, error) {
	return []object{strengthObject(signin.StrengthMFA), strengthObject(signin.StrengthPasskey)}, nil
}

func strengthObject(id string) object {
	o := object{"id": id, "policyType": "builtIn", "requirementsSatisfied": "mfa", "displayName": "Multifactor authentication",
		"description": "A password with a one-time code, or a passkey.", "allowedCombinations": []string{"fido2", "password,softwareOath"}}
	if id == signin.StrengthPasskey {
		o["displayName"], o["description"], o["allowedCombinations"] = "Phishing-resistant MFA", "A passkey.", []string{"fido2"}
	}
	return o
}

func (s *Service) strength(r *request) (any, error) {
	for _, id := range []string{signin.StrengthMFA, signin.StrengthPasskey} {
		if strings.EqualFold(r.PathValue("id"), id) {
			return s.whole("policies/authenticationStrengthPolicies", strengthObject(id)), nil
		}
	}
	return nil, fault.New(fault.NotFound, "ResourceNotFound", "Resource '%.100s' does not exist: 'Multifactor authentication' and 'Phishing-resistant MFA' do.", r.PathValue("id"))
}
