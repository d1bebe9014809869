// SPDX-License-Identifier: Apache-2.0

package managedidentity

import (
	"context"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/msi/armmsi"
	"github.com/google/uuid"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/store"
)

// Entra ID's bounds of federated credentials.
const (
	maxCredentials = 20
	maxText        = 600
)

var credentialName = regexp.MustCompile(`^[a-zA-Z0-9][-_a-zA-Z0-9]{2,119}$`)

func credentialModel() any { return &armmsi.FederatedIdentityCredential{} }

func credentialProperties() []arm.Property {
	rows := arm.Rows(arm.ReadOnly, "id", "name", "type", "systemData", "properties.provisioningState")
	return append(rows, arm.Rows(arm.Effective, "properties.issuer", "properties.subject", "properties.audiences[]")...)
}

// putCredential lets an identity take the tokens of one subject of one issuer.
func (p *Provider) putCredential(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	if r.Parent == nil {
		return nil, fmt.Errorf("credential %s: no identity", r.ID)
	}
	wanted, problems := parseCredential(r)
	if err := fault.Join(problems...); err != nil {
		return nil, err
	}
	identity, err := bodyOf(r.Parent)
	if err != nil {
		return nil, err
	}
	change, err := p.Directory.PlanCredentials(ctx, identity.Properties.PrincipalID, func(have []Credential) ([]Credential, error) {
		return with(have, wanted)
	})
	if err != nil {
		return nil, err
	}
	d, err := r.New()
	return &arm.Plan{Document: d, Changes: []store.Change{change}}, err
}

// with are the credentials with one added, or replaced by its name.
func with(have []Credential, wanted Credential) ([]Credential, error) {
	all := slices.Clone(have)
	at := slices.IndexFunc(all, func(c Credential) bool { return strings.EqualFold(c.Name, wanted.Name) })
	for i, c := range all {
		if i != at && c.Issuer == wanted.Issuer && c.Subject == wanted.Subject {
			return nil, fault.New(fault.Conflict, "Conflict",
				"Issuer and subject combination already exists for this Managed Identity: in the federated credential '%s'.", c.Name).At("properties.subject")
		}
	}
	if at >= 0 {
		wanted.ID = all[at].ID
		all[at] = wanted
		return all, nil
	}
	if len(all) >= maxCredentials {
		return nil, fault.New(fault.Invalid, "MaximumFederatedIdentityCredentialsExceeded",
			"Too many Federated Identity Credentials on this Managed Identity: there are %d, the limit.", maxCredentials)
	}
	wanted.ID = uuid.NewString()
	return append(all, wanted), nil
}

// deleteCredential stops an identity from taking an issuer's tokens.
func (p *Provider) deleteCredential(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	identity, err := bodyOf(r.Parent)
	if err != nil {
		return nil, err
	}
	change, err := p.Directory.PlanCredentials(ctx, identity.Properties.PrincipalID, func(have []Credential) ([]Credential, error) {
		return slices.DeleteFunc(slices.Clone(have), func(c Credential) bool { return strings.EqualFold(c.Name, r.ID.Name()) }), nil
	})
	if fault.Is(err, fault.NotFound) { // the principal is gone, and all it took
		return &arm.Plan{}, nil
	}
	return &arm.Plan{Changes: []store.Change{change}}, err
}

// parseCredential reads a request's credential, and all that is wrong with it.
func parseCredential(r *arm.Request) (Credential, []*fault.Error) {
	problems := arm.Judge(r.Body, credentialProperties())
	bad := func(target, format string, args ...any) {
		problems = append(problems, fault.New(fault.Invalid, "BadRequest", format, args...).At(target))
	}
	properties, _ := r.Body["properties"].(map[string]any)
	text := func(name string) string { s, _ := properties[name].(string); return s }
	c := Credential{Name: r.ID.Name(), Issuer: text("issuer"), Subject: text("subject")}
	if r.Old == nil && !credentialName.MatchString(c.Name) {
		bad("federatedIdentityCredentialResourceName", "The name %q isn't one of a federated credential: 3 to 120 letters, digits, hyphens and underscores, the first a letter or digit.", c.Name)
	}
	if why := badIssuer(c.Issuer); why != "" {
		bad("properties.issuer", "The issuer %s: it is the https URL in its tokens' claim iss.", why)
	}
	if c.Subject == "" || len(c.Subject) > maxText {
		bad("properties.subject", "The subject has 1 to %d characters: it is the claim sub of the tokens, such as system:serviceaccount:NAMESPACE:NAME.", maxText)
	}
	audiences, _ := properties["audiences"].([]any)
	for _, a := range audiences {
		s, _ := a.(string)
		c.Audiences = append(c.Audiences, s)
	}
	if len(c.Audiences) != 1 || c.Audiences[0] == "" || len(c.Audiences[0]) > maxText {
		bad("properties.audiences", "There is one audience of 1 to %d characters, such as api://AzureADTokenExchange.", maxText)
	}
	return c, problems
}

func badIssuer(issuer string) string {
	if issuer == "" || len(issuer) > maxText {
		return fmt.Sprintf("has 1 to %d characters", maxText)
	}
	u, err := url.Parse(issuer)
	switch {
	case err != nil, u.Scheme != "https", u.Hostname() == "":
		return "is no https URL"
	case u.User != nil, u.RawQuery != "", u.ForceQuery, u.Fragment != "", strings.Contains(issuer, "#"):
		return "has a user, a query or a fragment"
	}
	return ""
}
