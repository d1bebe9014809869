// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"strings"
	"testing"

	authorization "k8s.io/api/authorization/v1"

	"bastide.dev/rbac"
)

// The data actions are those that Azure documents for Microsoft.ContainerService.
func TestActions(t *testing.T) {
	for request, want := range map[string]string{
		"get pods":                                    "pods/read",
		"watch pods":                                  "pods/read",
		"create pods":                                 "pods/write",
		"deletecollection pods":                       "pods/delete",
		"get pods/log":                                "pods/read",
		"update pods/status":                          "pods/write",
		"create pods/exec":                            "pods/exec/action",
		"get pods/exec":                               "pods/exec/action",
		"get pods/attach":                             "pods/write",
		"get pods/portforward":                        "pods/write",
		"get services/proxy":                          "services/write",
		"get nodes/proxy":                             "nodes/write",
		"create serviceaccounts/token":                "serviceaccounts/write",
		"list apps deployments":                       "apps/deployments/read",
		"patch apps deployments/scale":                "apps/deployments/write",
		"bind rbac.authorization.k8s.io clusterroles": "rbac.authorization.k8s.io/clusterroles/bind/action",
		"escalate rbac.authorization.k8s.io roles":    "rbac.authorization.k8s.io/roles/escalate/action",
		"impersonate users":                           "users/impersonate/action",
		"impersonate authentication.k8s.io userextras/scopes":          "authentication.k8s.io/userextras/impersonate/action",
		"approve certificates.k8s.io signers":                          "certificates.k8s.io/signers/approve/action",
		"update certificates.k8s.io certificatesigningrequests/status": "certificates.k8s.io/certificatesigningrequests/write",
		"get templates.gatekeeper.sh constrainttemplates":              "customresources/read",
		"delete example.com exec":                                      "customresources/delete",
		"get /healthz":                                                 "healthz/read",
		"get /apis/apps/v1":                                            "apis/apps/v1/read",
		"post /logs":                                                   "logs/write",
	} {
		actions, ok := actionsOf(parse(request))
		if !ok || len(actions) != 1 || actions[0].name != prefix+want {
			t.Errorf("%s is %v (%t), want %s", request, actions, ok, want)
			continue
		}
		custom := strings.HasPrefix(want, "customresources/")
		if (len(actions[0].attributes) > 0) != custom {
			t.Errorf("%s has attributes %v", request, actions[0].attributes)
		}
	}
}

func TestNoAction(t *testing.T) {
	for _, spec := range []*authorization.SubjectAccessReviewSpec{
		{},
		parse("get"),
		parse("get pods/../secrets"),
		parse("get ../secrets pods"),
		parse("GET pods"),
		parse("get/action pods"),
		parse("get /../secrets"),
		parse("get /a//b"),
		parse("get /"),
		parse("get /*"),
		parse("get Pods"),
		{ResourceAttributes: &authorization.ResourceAttributes{Verb: "get", Resource: "pods"}, NonResourceAttributes: &authorization.NonResourceAttributes{Path: "/healthz", Verb: "get"}},
	} {
		if actions, ok := actionsOf(spec); ok {
			t.Errorf("%+v is %v", spec, actions)
		}
	}
}

// parse reads "verb [group] resource[/subresource]" or "verb /path".
func parse(text string) *authorization.SubjectAccessReviewSpec {
	words := strings.Fields(text)
	last := words[len(words)-1]
	if strings.HasPrefix(last, "/") {
		return &authorization.SubjectAccessReviewSpec{NonResourceAttributes: &authorization.NonResourceAttributes{Verb: words[0], Path: last}}
	}
	r := &authorization.ResourceAttributes{Verb: words[0]}
	if len(words) == 3 {
		r.Group = words[1]
	}
	if len(words) > 1 {
		r.Resource, r.Subresource, _ = strings.Cut(last, "/")
	}
	return &authorization.SubjectAccessReviewSpec{ResourceAttributes: r}
}

// What Azure documents of its four roles: reader, writer, admin, cluster admin,
// each at the scope of a namespace and asked in it.
func TestBuiltInRoles(t *testing.T) {
	roles := []string{"7f6c6a51-bcf8-42ba-9220-52d62157d7db", "a7ffa36f-339b-4b5c-8bdf-e2c188b2c0eb", "3498e952-d568-435e-9b2c-8d77e338d7f7", "b1ff04bb-8a4e-4dc4-8eb5-8693973ce19b"}
	worlds := make([]*world, len(roles))
	for i, role := range roles {
		worlds[i] = newWorld(t)
		worlds[i].assign(robot, role, resourceID+"/namespaces/n")
	}
	for request, want := range map[string]string{ // y and n of each role
		"get pods": "yyyy", "list apps deployments": "yyyy", "get configmaps": "yyyy", "get services": "yyyy", "get pods/log": "yyyy", "get serviceaccounts": "yyyy",
		"get secrets": "nyyy", "list secrets": "nyyy", "create secrets": "nyyy", "create pods": "nyyy", "delete apps deployments": "nyyy", "patch services": "nyyy",
		"create pods/exec": "nyyy", "get pods/exec": "nyyy", "get pods/attach": "nyyy", "get pods/portforward": "nyyy", "get services/proxy": "nyyy",
		"create serviceaccounts/token": "nyyy", "impersonate serviceaccounts": "nyyy",
		"get rbac.authorization.k8s.io roles": "nnyy", "create rbac.authorization.k8s.io rolebindings": "nnyy", "escalate rbac.authorization.k8s.io roles": "nnyy",
		"bind rbac.authorization.k8s.io roles": "nnyy", "get example.com widgets": "nnyy", "create example.com widgets": "nnyy",
		"get resourcequotas": "yyyy", "create resourcequotas": "nnny", "delete resourcequotas": "nnny", "update resourcequotas/status": "nnny",
		"get namespaces": "yyyy", "update namespaces": "nnny", "update namespaces/finalize": "nnny", "delete namespaces": "nnny",
		"* pods": "nyyy", "* secrets": "nyyy", "* * *": "nnny", "* resourcequotas": "nnny", "get * *": "nnyy", "get * secrets": "nnyy",
	} {
		spec := parse(request)
		spec.ResourceAttributes.Namespace = "n"
		for i, w := range worlds {
			ask := by(robot, kindApp, 1000)
			ask.ResourceAttributes = spec.ResourceAttributes
			if s := w.ask(t, clusterID, ask); s.Allowed != (want[i] == 'y') || s.Denied {
				t.Errorf("%s as role %d: %+v, want %c", request, i, s, want[i])
			}
			elsewhere := *spec.ResourceAttributes
			elsewhere.Namespace = ""
			if ask.ResourceAttributes = &elsewhere; w.ask(t, clusterID, ask).Allowed {
				t.Errorf("%s of the whole cluster, as role %d in a namespace, is allowed", request, i)
			}
		}
	}
}

func TestConditionsOnCustomResources(t *testing.T) {
	w := newWorld(t)
	const role = "ffffffff-0000-0000-0000-000000000001"
	w.table.Define(&rbac.Definition{ID: role, Name: "CRD reader", Custom: true, Permissions: []rbac.Permission{{DataActions: []string{prefix + "*/read"}}}})
	w.table.Put(&rbac.Assignment{ID: "a", Scope: resourceID, PrincipalID: robot, Role: role, ConditionVersion: "2.0",
		Condition: "((!(ActionMatches{'" + prefix + "customresources/read'})) OR (@Request[" + attributeGroup + "] StringEqualsIgnoreCase 'templates.gatekeeper.sh'))"})
	for request, want := range map[string]bool{
		"get templates.gatekeeper.sh constrainttemplates": true, "get kyverno.io policies": false, "get pods": true, "create pods": false,
	} {
		ask := by(robot, kindApp, 1000)
		ask.ResourceAttributes = parse(request).ResourceAttributes
		if s := w.ask(t, clusterID, ask); s.Allowed != want {
			t.Errorf("%s: %+v, want %t", request, s, want)
		}
	}
}
