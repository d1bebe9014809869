// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"net/http"
	"strings"

	"bastide.dev/fault"
	"bastide.dev/resource"
)

// route finds what a request is about: a resource, a collection, an action, or one of ARM's own lists.
func (h *Handler) route(w http.ResponseWriter, c *call) error {
	id := c.path.ID
	if err := h.checkSubscription(id); err != nil {
		return err
	}
	if len(c.path.Rest) == 0 {
		return h.routeNamed(w, c)
	}
	first := strings.ToLower(c.path.Rest[0])
	switch {
	case c.path.Provider && len(c.path.Rest) == 1:
		return h.serveProvider(w, c, c.path.Rest[0])
	case c.path.Provider && c.request.Method == http.MethodPost:
		if r := h.table.rows[strings.ToLower(c.path.Rest[0]+"/"+c.path.Rest[1])]; r != nil && r.Actions[""] != nil {
			return h.serveCollectionAction(w, c, r)
		}
		return h.serveRegistration(w, c)
	case c.path.Provider:
		return h.routeCollection(w, c, c.path.Rest[0]+"/"+c.path.Rest[1])
	case id.IsRoot():
		return h.routeRoot(w, c, first)
	case id.IsType(resource.TypeSubscription):
		return h.routeSubscription(w, c, first)
	case id.IsType(resource.TypeGroup) && first == "resources":
		return h.serveResources(w, c)
	case c.request.Method == http.MethodPost:
		return h.serveAction(w, c, c.path.Rest[0])
	case id.IsType(resource.TypeGroup):
		return notFound(c)
	}
	return h.routeCollection(w, c, id.Type()+"/"+c.path.Rest[0])
}

// routeNamed serves a path that is an id.
func (h *Handler) routeNamed(w http.ResponseWriter, c *call) error {
	id := c.path.ID
	switch {
	case id.IsRoot():
		return notFound(c)
	case id.IsType(resource.TypeSubscription):
		return h.serveSubscription(w, c)
	}
	if id.IsType(id.Namespace() + "/locations/operations") {
		return h.serveStatus(w, c)
	}
	if id.IsType(id.Namespace() + "/locations/operationresults") {
		return h.serveResult(w, c)
	}
	row, err := h.table.find(id.Type(), c.version)
	if err != nil {
		return err
	}
	if err := checkScope(row, id.Parent()); err != nil {
		return err
	}
	switch c.request.Method {
	case http.MethodGet, http.MethodHead:
		return h.serveGet(w, c, row)
	case http.MethodPut, http.MethodPatch, http.MethodDelete:
		return h.serveWrite(w, c, row)
	}
	return notAllowed(c)
}

func (h *Handler) routeCollection(w http.ResponseWriter, c *call, typ string) error {
	row, err := h.table.find(typ, c.version)
	if err != nil {
		return err
	}
	if c.request.Method != http.MethodGet {
		return notAllowed(c)
	}
	return h.serveList(w, c, row)
}

func (h *Handler) routeRoot(w http.ResponseWriter, c *call, first string) error {
	if c.request.Method != http.MethodGet {
		return notAllowed(c)
	}
	switch first {
	case "subscriptions":
		return h.serveSubscriptions(w, c)
	case "tenants":
		return h.serveTenants(w, c)
	case "providers":
		return h.serveProviders(w, c)
	}
	return notFound(c)
}

func (h *Handler) routeSubscription(w http.ResponseWriter, c *call, first string) error {
	if c.request.Method != http.MethodGet {
		return notAllowed(c)
	}
	switch first {
	case "resourcegroups":
		return h.routeCollection(w, c, resource.TypeGroup)
	case "resources":
		return h.serveResources(w, c)
	case "locations":
		return h.serveLocations(w, c)
	case "providers":
		return h.serveProviders(w, c)
	}
	return notFound(c)
}

// checkScope refuses a resource at a place where its type doesn't stand.
func checkScope(r *row, parent resource.ID) error {
	if r.child() {
		return nil
	}
	ok := true
	switch r.Scope {
	case InGroup:
		ok = parent.IsType(resource.TypeGroup)
	case InSubscription:
		ok = parent.IsType(resource.TypeSubscription)
	case InTenant:
		ok = parent.IsRoot()
	case OnAny:
	}
	if !ok {
		return fault.New(fault.NotFound, "InvalidResourceType", "The resource type '%s' doesn't exist at the scope '%s'.", r.full, parent)
	}
	return nil
}

func notFound(c *call) error {
	return fault.New(fault.NotFound, "InvalidRequestUri", "There is nothing at the path '%s'.", c.request.URL.Path)
}

func notAllowed(c *call) error {
	return fault.New(fault.NotAllowed, "MethodNotAllowed", "The method %s isn't possible on '%s'.", c.request.Method, c.request.URL.Path)
}
