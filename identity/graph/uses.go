// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"bastide.dev/identity"
	"bastide.dev/identity/signin"
)

// credentialUses answers when each credential of applications and managed
// identities was last used, in the form of beta's appCredentialSignInActivity.
// One that never was isn't in it; sign-ins without a credential of a name have no keyId.
func (s *Service) credentialUses(r *request) (any, error) {
	principals, err := s.directory.ServicePrincipals(r.Context())
	if err != nil {
		return nil, err
	}
	found := []object{}
	for _, p := range principals {
		uses, err := s.signIns.LastUses(r.Context(), p.ID)
		if err != nil {
			return nil, err
		}
		for key, at := range uses {
			o := object{"@odata.type": "#microsoft.graph.appCredentialSignInActivity", "id": p.ID + "/" + key, "appId": p.AppID,
				"servicePrincipalObjectId": p.ID, "credentialOrigin": origin(p), "signInActivity": object{"lastSignInDateTime": at}}
			if key != signin.AnyUse {
				o["keyId"] = key
			}
			found = append(found, o)
		}
	}
	found, err = query(r.URL.Query(), found)
	return object{"@odata.context": s.context("reports/appCredentialSignInActivities"), "value": found}, err
}

func origin(p identity.ServicePrincipal) string {
	if p.Type == identity.ManagedIdentity {
		return "servicePrincipal"
	}
	return "application"
}
