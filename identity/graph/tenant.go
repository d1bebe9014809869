// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"strings"

	"bastide.dev/identity"
)

func organizationObject(t identity.Tenant) object {
	return object{"@odata.type": "#microsoft.graph.organization", "id": t.ID, "displayName": t.DisplayName, "createdDateTime": moment(t.Created), "tenantType": "AAD",
		"verifiedDomains": []object{{"name": t.Domain, "isDefault": true, "isInitial": true, "type": "Managed", "capabilities": "Email, OfficeCommunicationsOnline"}},
		"assignedPlans":   []object{}, "businessPhones": []string{}, "technicalNotificationMails": []string{}, "onPremisesSyncEnabled": nil}
}

func domainObject(t identity.Tenant) object {
	return object{"@odata.type": "#microsoft.graph.domain", "id": t.Domain, "isDefault": true, "isInitial": true, "isRoot": true, "isVerified": true, "isAdminManaged": true,
		"authenticationType": "Managed", "supportedServices": []string{}, "availabilityStatus": nil, "passwordNotificationWindowInDays": nil, "passwordValidityPeriodInDays": nil}
}

// ofTenant answers what is made of the one tenant, as a list or by its id.
func (s *Service) ofTenant(of string, form func(identity.Tenant) object) answerer {
	return func(r *request) (any, error) {
		t, err := s.directory.Tenant(r.Context())
		if err != nil {
			return nil, err
		}
		o := form(t)
		id := r.PathValue("id")
		if id == "" {
			return s.collection(r, of, []item{o})
		}
		if name, _ := o["id"].(string); !strings.EqualFold(name, id) {
			return nil, missing(id)
		}
		return s.one(r, o, of)
	}
}
