// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"bastide.dev/fault"
	"bastide.dev/identity/signin"
)

// mostSignIns is Graph's page of the log.
const mostSignIns = 1000

// signInLog answers the log, the newest first. As Graph does, it shows people's
// interactive sign-ins unless the filter names signInEventTypes.
func (s *Service) signInLog(r *request) (any, error) {
	q := r.URL.Query()
	top, after, filter, err := logQuery(q)
	if err != nil {
		return nil, err
	}
	found, err := s.signIns.SignIns(r.Context(), filter.Since, func(e *signin.Entry) bool {
		return (filter.Types || e.EventType() == signin.InteractiveUser) && filter.Match(e)
	})
	if err != nil {
		return nil, err
	}
	answer := object{"@odata.context": s.context("auditLogs/signIns")}
	if q.Get("$count") == "true" {
		answer["@odata.count"] = len(found)
	}
	if after != nil {
		begin := slices.IndexFunc(found, func(e signin.Entry) bool { return after.before(&e) })
		if begin < 0 {
			begin = len(found)
		}
		found = found[begin:]
	}
	if len(found) > top {
		found = found[:top]
		q.Set("$skiptoken", cursorOf(&found[top-1]))
		answer["@odata.nextLink"] = s.directory.Endpoints().Graph + r.URL.Path + "?" + q.Encode()
	}
	objects := []object{}
	for i := range found {
		o := s.signInObject(r.Context(), &found[i])
		if fields := q.Get("$select"); fields != "" {
			o = pick(o, strings.Split(fields, ","))
		}
		objects = append(objects, o)
	}
	answer["value"] = objects
	return answer, nil
}

func (s *Service) signIn(r *request) (any, error) {
	id := r.PathValue("id")
	found, err := s.signIns.SignIns(r.Context(), time.Time{}, func(e *signin.Entry) bool { return strings.EqualFold(e.ID, id) })
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, fault.New(fault.NotFound, "ResourceNotFound", "Resource '%.100s' does not exist.", id)
	}
	return s.whole("auditLogs/signIns", s.signInObject(r.Context(), &found[0])), nil
}

func logQuery(q url.Values) (top int, after *cursor, filter signin.Filter, err error) {
	for name, values := range q {
		if !slices.Contains([]string{"$filter", "$top", "$skiptoken", "$select", "$count", "$orderby"}, name) || len(values) > 1 {
			return 0, nil, filter, badQuery("The query parameter '%.50s' is not implemented, or there is more than one.", name)
		}
	}
	top = mostSignIns
	if text := q.Get("$top"); text != "" {
		if top, err = strconv.Atoi(text); err != nil || top < 1 || top > mostSignIns {
			return 0, nil, filter, badQuery("$top must be a number from 1 to %d.", mostSignIns)
		}
	}
	if order := strings.Join(strings.Fields(q.Get("$orderby")), " "); order != "" && order != "createdDateTime desc" {
		return 0, nil, filter, badQuery("The $orderby '%.50s' is not implemented: 'createdDateTime desc' is.", order)
	}
	if token := q.Get("$skiptoken"); token != "" {
		if after, err = parseCursor(token); err != nil {
			return 0, nil, filter, err
		}
	}
	filter, err = signin.ParseFilter(q.Get("$filter"))
	return top, after, filter, err
}

// cursor is the last entry of the page before: what came in meanwhile doesn't shift pages.
type cursor struct {
	nanos int64
	id    string
}

func cursorOf(e *signin.Entry) string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d.%s", e.Time.UnixNano(), e.ID))
}

func parseCursor(token string) (*cursor, error) {
	data, err := base64.RawURLEncoding.DecodeString(token)
	nanos, id, ok := strings.Cut(string(data), ".")
	n, numberErr := strconv.ParseInt(nanos, 10, 64)
	if err != nil || numberErr != nil || !ok {
		return nil, badQuery("The $skiptoken is invalid.")
	}
	return &cursor{n, id}, nil
}

// before tells whether an entry comes after the cursor's in the log's order.
func (c *cursor) before(e *signin.Entry) bool {
	nanos := e.Time.UnixNano()
	return nanos < c.nanos || nanos == c.nanos && e.ID > c.id
}

// signInObject is an entry as Graph's signIn, with the properties that its beta has.
func (s *Service) signInObject(ctx context.Context, e *signin.Entry) object {
	kind := e.EventType()
	policies := []object{}
	for _, p := range e.Policies {
		policies = append(policies, object{"id": p.ID, "displayName": p.Name, "result": p.Result})
	}
	reason, details := e.Reason, any(nil)
	if e.Code == 0 {
		reason = "Other."
	}
	if e.Count > 1 {
		details = fmt.Sprintf("%d sign-ins alike, within a second", e.Count)
	}
	o := object{"id": e.ID, "createdDateTime": e.Time, "appId": e.ClientID, "appDisplayName": s.appName(ctx, e.ClientID),
		"resourceId": e.ResourceID, "resourceDisplayName": s.appName(ctx, e.ResourceID), "ipAddress": e.Address, "userAgent": e.UserAgent,
		"correlationId": e.Correlation, "clientAppUsed": e.ClientApp(), "authenticationProtocol": e.Protocol(), "isInteractive": kind == signin.InteractiveUser,
		"signInEventTypes": []string{kind}, "authenticationMethodsUsed": nonNil(e.Methods), "conditionalAccessStatus": e.AccessStatus,
		"appliedConditionalAccessPolicies": policies, "riskDetail": "none", "riskLevelAggregated": "none", "riskLevelDuringSignIn": "none", "riskState": "none",
		"status": object{"errorCode": e.Code, "failureReason": reason, "additionalDetails": details},
		"userId": "", "userPrincipalName": nil, "userDisplayName": nil, "servicePrincipalId": "", "servicePrincipalName": nil, "servicePrincipalCredentialKeyId": ""}
	if kind == signin.ServicePrincipal || kind == signin.ManagedIdentity {
		o["servicePrincipalId"], o["servicePrincipalCredentialKeyId"] = e.Principal, e.Credential
		if sp, err := s.directory.ServicePrincipal(ctx, e.Principal); err == nil {
			o["servicePrincipalName"] = sp.DisplayName
		}
		return o
	}
	o["userId"], o["userPrincipalName"] = e.Principal, e.Name
	if user, err := s.directory.User(ctx, e.Principal); err == nil {
		o["userPrincipalName"], o["userDisplayName"] = user.Name, user.DisplayName
	}
	return o
}

// appName is an application's name; one that is gone, or never was, has none.
func (s *Service) appName(ctx context.Context, appID string) any {
	app, err := s.directory.Application(ctx, appID)
	if err != nil {
		return nil
	}
	return app.DisplayName
}
