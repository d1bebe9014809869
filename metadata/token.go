// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// maxResource bounds the name of what a token is for.
const maxResource = 512

// token answers the token endpoint: for which identity, what for.
func (h *handler) token(r *http.Request, machine *box) (object, *problem) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, bad("The query is malformed")
	}
	for name, values := range query {
		if len(values) > 1 {
			return nil, bad("A parameter is there more than once: " + printable(name))
		}
	}
	resource := query.Get("resource")
	switch {
	case resource == "":
		return nil, bad("Required audience parameter not specified")
	case len(resource) > maxResource || printable(resource) != resource:
		return nil, &problem{status: http.StatusBadRequest, Code: "invalid_resource", Description: "The audience isn't the name of a resource"}
	}
	identity, p := choose(machine.machine.Identities, query)
	if p != nil {
		return nil, p
	}
	fresh := strings.EqualFold(query.Get("bypass_cache"), "true")
	t, p := h.get(r.Context(), machine, identity, resource, fresh)
	if p != nil {
		return nil, p
	}
	left := strconv.FormatInt(max(0, int64(t.expires.Sub(h.Now()).Seconds())), 10)
	return object{"access_token": t.access, "client_id": identity.ClientID, "expires_in": left, "ext_expires_in": left,
		"expires_on": strconv.FormatInt(t.expires.Unix(), 10), "not_before": strconv.FormatInt(t.from.Unix(), 10),
		"resource": resource, "token_type": "Bearer"}, nil
}

// choose finds the identity that is asked for. Without a choice it is the
// machine's own, else the only one.
func choose(all []Identity, query url.Values) (*Identity, *problem) {
	by := map[string]func(*Identity) string{
		"client_id":  func(i *Identity) string { return i.ClientID },
		"object_id":  func(i *Identity) string { return i.PrincipalID },
		"msi_res_id": func(i *Identity) string { return i.ResourceID }, "mi_res_id": func(i *Identity) string { return i.ResourceID },
	}
	asked := ""
	for name := range by {
		if !query.Has(name) {
			continue
		}
		if asked != "" {
			return nil, bad(fmt.Sprintf("%s and %s can't both choose the identity", min(asked, name), max(asked, name)))
		}
		asked = name
	}
	var system *Identity
	for i := range all {
		if asked != "" && strings.EqualFold(by[asked](&all[i]), query.Get(asked)) {
			return &all[i], nil
		}
		if all[i].System {
			system = &all[i]
		}
	}
	switch {
	case asked != "" || len(all) == 0:
		return nil, bad("Identity not found")
	case system != nil:
		return system, nil
	case len(all) > 1:
		return nil, bad("Multiple user assigned identities exist, please specify the clientId / resourceId of the identity in the token request")
	}
	return &all[0], nil
}

// printable is a text without what isn't printable ASCII.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
}
