// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"net/http"
	"slices"
	"strings"

	"bastide.dev/fault"
	"bastide.dev/resource"
)

// coreVersions are the API versions of ARM's own parts.
func coreVersions() []resource.APIVersion {
	return []resource.APIVersion{"2025-04-01", "2025-03-01", "2024-11-01", "2024-07-01", "2024-03-01", "2023-07-01", "2022-12-01",
		"2022-09-01", "2022-06-01", "2022-01-01", "2021-04-01", "2021-01-01", "2020-10-01", "2020-08-01", "2020-06-01",
		"2020-01-01", "2019-11-01", "2019-10-01", "2019-08-01", "2019-07-01", "2019-06-01", "2019-05-10", "2019-05-01",
		"2019-03-01", "2018-11-01", "2018-09-01", "2018-08-01", "2018-07-01", "2018-06-01", "2018-05-01", "2018-02-01",
		"2018-01-01", "2017-08-01", "2017-06-01", "2017-05-10", "2017-05-01", "2017-03-01", "2016-09-01", "2016-07-01",
		"2016-06-01", "2016-02-01", "2015-11-01", "2015-01-01", "2014-04-01"}
}

func checkCore(c *call) error {
	if slices.Contains(coreVersions(), c.version) {
		return nil
	}
	return fault.New(fault.Invalid, "InvalidApiVersionParameter",
		"The api-version '%s' is invalid. The supported versions are '%s'.", c.version, joinVersions(coreVersions()))
}

func (h *Handler) checkSubscription(id resource.ID) error {
	if id.Subscription() == "" || h.subscription(id.Subscription()) != nil {
		return nil
	}
	return fault.New(fault.NotFound, "SubscriptionNotFound", "The subscription '%s' could not be found.", id.Subscription())
}

func (h *Handler) subscription(id string) *Subscription {
	i := slices.IndexFunc(h.config.Subscriptions, func(s Subscription) bool { return strings.EqualFold(s.ID, id) })
	if i < 0 {
		return nil
	}
	return &h.config.Subscriptions[i]
}

// serveSubscriptions lists the subscriptions that the caller may read.
func (h *Handler) serveSubscriptions(w http.ResponseWriter, c *call) error {
	if err := checkCore(c); err != nil {
		return err
	}
	values := []any{}
	for _, s := range h.config.Subscriptions {
		err := h.authorize(c.request.Context(), c, resource.TypeSubscription+"/read", resource.SubscriptionID(s.ID))
		if fault.Is(err, fault.Forbidden) {
			continue
		}
		if err != nil {
			return err
		}
		values = append(values, h.showSubscription(s))
	}
	return respond(w, http.StatusOK, map[string]any{"value": values, "count": map[string]any{"type": "Total", "value": len(values)}})
}

func (h *Handler) serveSubscription(w http.ResponseWriter, c *call) error {
	if c.request.Method != http.MethodGet {
		return notAllowed(c)
	}
	if err := checkCore(c); err != nil {
		return err
	}
	if err := h.authorize(c.request.Context(), c, resource.TypeSubscription+"/read", c.path.ID); err != nil {
		return err
	}
	return respond(w, http.StatusOK, h.showSubscription(*h.subscription(c.path.ID.Subscription())))
}

func (h *Handler) showSubscription(s Subscription) map[string]any {
	return map[string]any{
		"id": "/subscriptions/" + s.ID, "subscriptionId": s.ID, "tenantId": h.config.Tenant.ID, "displayName": s.DisplayName,
		"state": "Enabled", "authorizationSource": "RoleBased", "managedByTenants": []any{},
		"subscriptionPolicies": map[string]any{"locationPlacementId": "Public_2014-09-01", "quotaId": "Internal_2014-09-01", "spendingLimit": "Off"},
	}
}

func (h *Handler) serveTenants(w http.ResponseWriter, c *call) error {
	if err := checkCore(c); err != nil {
		return err
	}
	t := h.config.Tenant
	tenant := map[string]any{"id": "/tenants/" + t.ID, "tenantId": t.ID, "displayName": t.DisplayName, "tenantCategory": "Home", "tenantType": "AAD"}
	if t.Domain != "" {
		tenant["defaultDomain"], tenant["domains"] = t.Domain, []string{t.Domain}
	}
	return respond(w, http.StatusOK, map[string]any{"value": []any{tenant}})
}

// serveLocations lists the regions whose names are understood.
func (h *Handler) serveLocations(w http.ResponseWriter, c *call) error {
	if err := checkCore(c); err != nil {
		return err
	}
	if err := h.authorize(c.request.Context(), c, "Microsoft.Resources/subscriptions/locations/read", c.path.ID); err != nil {
		return err
	}
	values := []any{}
	for _, l := range resource.Locations() {
		metadata := map[string]any{"regionType": "Physical", "regionCategory": "Recommended", "geographyGroup": l.Group,
			"latitude": l.Latitude, "longitude": l.Longitude, "pairedRegion": []any{}}
		if l.Paired != "" {
			metadata["pairedRegion"] = []any{map[string]string{"name": l.Paired, "id": c.path.ID.String() + "/locations/" + l.Paired}}
		}
		values = append(values, map[string]any{"id": c.path.ID.String() + "/locations/" + l.Name, "name": l.Name, "type": "Region",
			"displayName": l.Display, "regionalDisplayName": "(" + l.Group + ") " + l.Display, "metadata": metadata})
	}
	return respond(w, http.StatusOK, map[string]any{"value": values})
}

// serveProviders lists the namespaces.
func (h *Handler) serveProviders(w http.ResponseWriter, c *call) error {
	if err := h.readProviders(c); err != nil {
		return err
	}
	values := []any{}
	for _, p := range h.table.providers {
		values = append(values, h.showProvider(c, p))
	}
	return respond(w, http.StatusOK, map[string]any{"value": values})
}

func (h *Handler) readProviders(c *call) error {
	if err := checkCore(c); err != nil {
		return err
	}
	if c.path.ID.IsRoot() {
		return nil // what there is, isn't anybody's
	}
	return h.authorize(c.request.Context(), c, "Microsoft.Resources/subscriptions/providers/read", c.path.ID.SubscriptionID())
}

func (h *Handler) serveProvider(w http.ResponseWriter, c *call, namespace string) error {
	if c.request.Method != http.MethodGet {
		return notAllowed(c)
	}
	if err := h.readProviders(c); err != nil {
		return err
	}
	p, err := h.table.provider(namespace)
	if err != nil {
		return err
	}
	return respond(w, http.StatusOK, h.showProvider(c, p))
}

// serveRegistration serves POST …/register and …/unregister. What is built in is always registered.
func (h *Handler) serveRegistration(w http.ResponseWriter, c *call) error {
	if !c.path.ID.IsType(resource.TypeSubscription) {
		return notFound(c)
	}
	if err := checkCore(c); err != nil {
		return err
	}
	p, err := h.table.provider(c.path.Rest[0])
	if err != nil {
		return err
	}
	action := strings.ToLower(c.path.Rest[1])
	if err := h.authorize(c.request.Context(), c, p.Namespace+"/"+action+"/action", c.path.ID); err != nil {
		return err
	}
	switch action {
	case "register":
		return respond(w, http.StatusOK, h.showProvider(c, p))
	case "unregister":
		return fault.New(fault.Conflict, "CannotUnregisterRegistrationFreeResourceProvider",
			"The namespace '%s' can't be unregistered: it is built into this instance.", p.Namespace)
	}
	return notFound(c)
}

func (h *Handler) showProvider(c *call, p Provider) map[string]any {
	var names []string
	zones := []any{} // every region is one zone; clients ask again and again for a region that isn't listed
	for _, l := range resource.Locations() {
		names = append(names, l.Display)
		zones = append(zones, map[string]any{"location": l.Display, "zones": []string{}})
	}
	types := []any{}
	for _, t := range p.Types {
		r := h.table.rows[strings.ToLower(p.Namespace+"/"+t.Name)]
		shown := map[string]any{"resourceType": t.Name, "apiVersions": t.Versions, "defaultApiVersion": t.Versions[0], "locations": names, "zoneMappings": zones, "capabilities": "None"}
		if r.tracked() {
			shown["capabilities"] = "SupportsTags, SupportsLocation"
		}
		types = append(types, shown)
	}
	id := "/providers/" + p.Namespace
	if !c.path.ID.IsRoot() {
		id = c.path.ID.SubscriptionID().String() + id
	}
	return map[string]any{"id": id, "namespace": p.Namespace, "registrationState": "Registered",
		"registrationPolicy": "RegistrationFree", "resourceTypes": types}
}
