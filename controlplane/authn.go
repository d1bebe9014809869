// SPDX-License-Identifier: Apache-2.0

package controlplane

import "fmt"

// authentication lets the unknown ask for the server's health and nothing else,
// and takes the directory's tokens where the cluster is integrated with it.
func (c *compiler) authentication() object {
	o := object{
		"apiVersion": "apiserver.config.k8s.io/v1",
		"kind":       "AuthenticationConfiguration",
		"anonymous": object{"enabled": true, "conditions": []object{
			{"path": "/livez"}, {"path": "/readyz"}, {"path": "/healthz"}}},
	}
	if c.Directory != nil {
		o["jwt"] = []object{c.Directory.jwt()}
	}
	return o
}

// jwt reads the directory's access tokens. As on AKS a user is called by their
// principal name and every other principal by its object id; groups are object
// ids. What can end before the token does is kept as extras, for the webhook
// that decides whether it still counts.
func (d *Directory) jwt() object {
	extra := func(key, claim string) object {
		return object{"key": key, "valueExpression": claim}
	}
	optional := func(claim string) string {
		return fmt.Sprintf("has(claims.%[1]s) ? string(claims.%[1]s) : ''", claim)
	}
	return object{
		"issuer":               object{"url": d.Issuer, "certificateAuthority": string(d.CA), "audiences": d.Audiences, "audienceMatchPolicy": "MatchAny"},
		"claimValidationRules": d.claimRules(),
		"claimMappings": object{
			"username": object{"expression": "claims.idtyp == 'user' ? claims.upn.lowerAscii() : claims.oid"},
			"groups":   object{"expression": "has(claims.groups) ? claims.groups : []"},
			"uid":      object{"expression": "claims.oid"},
			"extra": []object{
				extra(ExtraPrincipal, "claims.oid"), extra(ExtraTenant, "claims.tid"), extra(ExtraKind, "claims.idtyp"),
				extra(ExtraIssued, "string(int(claims.iat))"), extra(ExtraApp, optional("appid")), extra(ExtraCredential, optional("bst_cred")),
			},
		},
		"userValidationRules": []object{
			{"expression": "!user.username.startsWith('system:')", "message": "a user of the directory can't have a name of Kubernetes' own"},
			{"expression": "user.groups.all(g, g.matches('^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'))", "message": "a group isn't an object id"},
		},
	}
}

// claimRules say which tokens are read. A token that leaves its groups out, since
// they are too many, isn't: the webhook answers for it, with all of them.
func (d *Directory) claimRules() []object {
	rule := func(expression, message string) object { return object{"expression": expression, "message": message} }
	guid := func(claim string) string {
		return fmt.Sprintf("has(claims.%[1]s) && claims.%[1]s.matches('^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$')", claim)
	}
	return []object{
		rule(fmt.Sprintf("has(claims.tid) && claims.tid == '%s'", d.Tenant), "the token is another tenant's"),
		rule("has(claims.ver) && claims.ver == '1.0'", "the token isn't an access token of version 1.0"),
		rule("has(claims.idtyp) && claims.idtyp in ['user', 'app']", "the token isn't an access token"),
		rule(guid("oid"), "the token names no principal"),
		rule("claims.idtyp == 'app' || has(claims.upn) && claims.upn.contains('@')", "the token names no user"),
		rule("!has(claims.nonce)", "an id token is for its client alone"),
		rule("has(claims.iat)", "the token doesn't say when it was issued"),
		rule("!(has(claims.hasgroups) && claims.hasgroups == true) && !has(claims._claim_names)", "the principal's groups aren't in the token"),
	}
}
