// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"regexp"
	"slices"
	"strings"

	authorization "k8s.io/api/authorization/v1"
)

// prefix is before every data action of Kubernetes' API.
const prefix = "Microsoft.ContainerService/managedClusters/"

// The attributes of custom resources that conditions of role assignments ask
// for; "kind" is the plural name, as in Azure.
const (
	attributeGroup = prefix + "customResources:group"
	attributeKind  = prefix + "customResources:kind"
)

// wildcard is Kubernetes' own word for all verbs, groups or resources.
const wildcard = "*"

// action is a data action, with the attributes that go with it.
type action struct {
	name       string
	attributes map[string][]string
}

var (
	nameForm = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$`)
	pathForm = regexp.MustCompile(`^(/[-A-Za-z0-9_.*]+)*/?$`)
)

// actionsOf are the data actions that a request needs, all of them. None are
// returned for what has no name in Azure.
func actionsOf(spec *authorization.SubjectAccessReviewSpec) ([]action, bool) {
	switch {
	case spec.ResourceAttributes != nil && spec.NonResourceAttributes == nil:
		return resourceActions(spec.ResourceAttributes)
	case spec.NonResourceAttributes != nil && spec.ResourceAttributes == nil:
		return pathAction(spec.NonResourceAttributes)
	}
	return nil, false
}

// scopeOf is the namespace for what is in one, and else the cluster: so a list
// of all namespaces needs a role on the cluster.
func scopeOf(c Cluster, r *authorization.ResourceAttributes) (string, bool) {
	if r == nil || r.Namespace == "" {
		return c.Resource, true
	}
	return c.Resource + "/namespaces/" + r.Namespace, nameForm.MatchString(r.Namespace)
}

func pathAction(n *authorization.NonResourceAttributes) ([]action, bool) {
	verb, ok := suffix(n.Verb)
	path := strings.Trim(n.Path, "/")
	if !ok || path == "" || len(path) > 256 || !pathForm.MatchString("/"+path) || slices.Contains(strings.Split(path, "/"), "..") || strings.Contains(path, wildcard) {
		return nil, false
	}
	return []action{{name: prefix + path + "/" + verb}}, true
}

func resourceActions(r *authorization.ResourceAttributes) ([]action, bool) {
	if r.Group == wildcard || r.Resource == wildcard || r.Verb == wildcard {
		return wildcardActions(r)
	}
	a, ok := resourceAction(r.Group, r.Resource, r.Subresource, r.Verb)
	return []action{a}, ok
}

// resourceAction names one request. A subresource is part of its resource, as in
// Azure, with two exceptions: exec has an action of its own, and what opens a
// connection into a pod, node or service is never a mere read, whichever verb
// the client's protocol makes of it.
func resourceAction(group, resource, subresource, verb string) (action, bool) {
	for _, name := range []string{group, resource, subresource} {
		if name != "" && !nameForm.MatchString(name) || resource == "" {
			return action{}, false
		}
	}
	what, ok := suffix(verb)
	if !ok {
		return action{}, false
	}
	if group == "" && resource == "pods" && subresource == "exec" {
		return action{name: prefix + "pods/exec/action"}, true
	}
	if what == "read" && slices.Contains([]string{"attach", "portforward", "proxy"}, subresource) {
		what = "write"
	}
	switch {
	case group == "":
		return action{name: prefix + resource + "/" + what}, true
	case !builtIn(group):
		return action{name: prefix + "customresources/" + what,
			attributes: map[string][]string{attributeGroup: {group}, attributeKind: {resource}}}, true
	}
	return action{name: prefix + group + "/" + resource + "/" + what}, true
}

// suffix is Azure's word for a verb.
func suffix(verb string) (string, bool) {
	switch verb {
	case "get", "list", "watch", "head", "options":
		return "read", true
	case "create", "update", "patch", "post", "put":
		return "write", true
	case "delete", "deletecollection":
		return "delete", true
	}
	// bind, escalate, impersonate, use, approve, sign, attest, …
	return verb + "/action", nameForm.MatchString(verb) && !strings.Contains(verb, ".")
}

// wildcardActions are all that a request for everything needs: it is granted to
// those that have each of them. A group that isn't known stands for all custom
// resources there may be.
func wildcardActions(r *authorization.ResourceAttributes) ([]action, bool) {
	verbs := []string{r.Verb}
	if r.Verb == wildcard {
		verbs = []string{"get", "create", "delete", "bind", "escalate", "impersonate", "use", "approve"}
	}
	groups := []string{r.Group}
	if r.Group == wildcard {
		groups = append(builtInGroups(), "", "any.custom.group")
	}
	var all []action
	for _, group := range groups {
		resources := []string{r.Resource}
		if r.Resource == wildcard {
			resources = resourcesOf(group)
		}
		for _, resource := range resources {
			for _, verb := range verbs {
				a, ok := resourceAction(group, resource, r.Subresource, verb)
				if !ok {
					return nil, false
				}
				all = append(all, a)
			}
		}
	}
	if r.Resource == wildcard && r.Verb == wildcard && slices.Contains(groups, "") {
		all = append(all, action{name: prefix + "pods/exec/action"})
	}
	return all, true
}
