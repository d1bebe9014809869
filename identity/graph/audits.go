// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"bastide.dev/identity"
)

func auditObject(e identity.AuditEntry) object {
	by := object{"user": nil, "app": nil}
	switch {
	case e.By.Service:
		by["app"] = object{"appId": nil, "displayName": "Bastide", "servicePrincipalId": nil, "servicePrincipalName": nil}
	case e.By.Kind == identity.UserKind:
		by["user"] = object{"id": e.By.ID, "displayName": nil, "userPrincipalName": e.By.Name, "ipAddress": orNull(e.By.Address), "userType": nil, "homeTenantId": nil, "homeTenantName": nil}
	default:
		by["app"] = object{"appId": e.By.AppID, "displayName": orNull(e.By.Name), "servicePrincipalId": e.By.ID, "servicePrincipalName": nil}
	}
	targets := []object{}
	for _, t := range e.Targets {
		changed := []object{}
		for _, p := range t.Changed {
			changed = append(changed, object{"displayName": p.Name, "oldValue": orNull(string(p.Before)), "newValue": orNull(string(p.After))})
		}
		var upn any
		if t.Type == "User" {
			upn = orNull(t.Name)
		}
		targets = append(targets, object{"id": t.ID, "displayName": orNull(t.Name), "type": t.Type, "userPrincipalName": upn, "groupType": nil, "modifiedProperties": changed})
	}
	details := []object{}
	if e.By.Address != "" {
		details = append(details, object{"key": "ipAddress", "value": e.By.Address})
	}
	return object{"id": e.ID, "activityDateTime": e.Time.UTC().Format("2006-01-02T15:04:05.0000000Z"), "activityDisplayName": e.Activity, "category": e.Category,
		"correlationId": e.ID, "initiatedBy": by, "targetResources": targets, "additionalDetails": details, "loggedByService": "Core Directory",
		"operationType": operation(e.Activity), "result": "success", "resultReason": ""}
}

func operation(activity string) string {
	for i, c := range activity {
		if c == ' ' {
			return activity[:i]
		}
	}
	return activity
}

func (s *Service) audits(r *request) (any, error) {
	if err := r.mayRead(auditArea); err != nil {
		return nil, err
	}
	all, err := s.directory.AuditLog(r.Context())
	if err != nil {
		return nil, err
	}
	return s.collection(r, "auditLogs/directoryAudits", objects(convert(all, auditObject)))
}

func (s *Service) audit(r *request) (any, error) {
	if err := r.mayRead(auditArea); err != nil {
		return nil, err
	}
	all, err := s.directory.AuditLog(r.Context())
	if err != nil {
		return nil, err
	}
	for _, e := range all {
		if e.ID == r.PathValue("id") {
			return s.one(r, auditObject(e), "auditLogs/directoryAudits")
		}
	}
	return nil, missing(r.PathValue("id"))
}
