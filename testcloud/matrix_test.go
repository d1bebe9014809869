// SPDX-License-Identifier: Apache-2.0

package testcloud_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
)

const (
	authorizationVersion = "2022-04-01"
	// leastCells is how much of the matrix there is to be at least.
	leastCells = 1000
)

// TestAccessMatrix gives each kind of principal each role at each scope, tries
// what the roles are about in ARM and in a cluster, and compares every answer
// with what Azure's role definitions promise (matrixRoles).
func TestAccessMatrix(t *testing.T) {
	m := newMatrix(t)
	var wrong, cells atomic.Int64
	var all sync.WaitGroup
	for _, a := range m.actors(t) {
		all.Go(func() {
			for _, role := range matrixRoles() {
				for name, scope := range m.scopes {
					n, bad := m.try(t.Context(), t, a, role, name, scope)
					cells.Add(int64(n))
					wrong.Add(int64(bad))
				}
			}
		})
	}
	all.Wait()
	t.Logf("%d cells, %d wrong", cells.Load(), wrong.Load())
	if cells.Load() < leastCells {
		t.Errorf("only %d cells", cells.Load())
	}
}

// matrix is an instance with two groups, a cluster, and a principal of each kind.
type matrix struct {
	*access
	scopes map[string]string // name → ARM id
	probes []matrixProbe
	other  string // a principal that is given roles
}

// matrixProbe is one thing to try: its scope, and whether an answer means yes.
type matrixProbe struct {
	name  string
	scope string
	try   func(ctx context.Context, a *actor) (bool, error)
}

func newMatrix(t *testing.T) *matrix {
	a := newAccess(t, "matrix")
	a.integrated(t, "c", true)
	a.rig.group(t, "other")
	m := &matrix{access: a, other: a.user(t, "bystander").id}
	cluster := a.id("rg", "Microsoft.ContainerService/managedClusters/c")
	nsg, otherNSG := a.nid("networkSecurityGroups/g"), a.id("other", "Microsoft.Network/networkSecurityGroups/g")
	for _, id := range []string{nsg, otherNSG} {
		a.put(t, id, networkVersion, object{"location": "eastus"}, nil)
	}
	for _, name := range []string{"n1", "n2"} {
		a.kube.kubectl(t, "create", "namespace", name)
	}
	group := "/subscriptions/" + a.sub + "/resourceGroups/rg"
	m.scopes = map[string]string{"subscription": "/subscriptions/" + a.sub, "group": group, "other group": "/subscriptions/" + a.sub + "/resourceGroups/other",
		"cluster": cluster, "security group": nsg, "namespace": cluster + "/namespaces/n1"}
	m.probes = append(m.inARM(group, cluster, nsg, otherNSG), m.inCluster(cluster)...)
	return m
}

// actors are a user, a user in a group, one in a group of that group, a service
// principal, and a virtual machine's identity.
func (m *matrix) actors(t *testing.T) []*actor {
	direct, member, nested := m.user(t, "direct"), m.user(t, "member"), m.user(t, "nested")
	group := m.directoryGroup(t, "readers", member.id)
	inner := m.directoryGroup(t, "inner", nested.id)
	outer := m.directoryGroup(t, "outer", inner)
	member.grantee, member.granteeType = group, "Group"
	nested.grantee, nested.granteeType = outer, "Group"
	return []*actor{direct, member, nested, m.principal(t, "robot"), m.machineIdentity(t, "box")}
}

// try gives the role, tries every probe, and takes it away again. Nothing waits
// in between: a change of roles holds from the next call on, in both places.
func (m *matrix) try(ctx context.Context, t *testing.T, a *actor, role matrixRole, scopeName, scope string) (cells, bad int) {
	remove, err := m.assign(ctx, a, role.id, scope)
	if err != nil {
		t.Errorf("%s gets no %s at %s: %v", a.name, role.name, scopeName, err)
		return 0, 1
	}
	for _, p := range m.probes {
		want := covers(scope, p.scope) && slices.Contains(role.allows, p.name)
		got, err := p.try(ctx, a)
		cells++
		if err != nil || got != want {
			bad++
			t.Errorf("%s with %s at the %s: %s is %v, should be %v; %v", a.name, role.name, scopeName, p.name, got, want, err)
		}
	}
	if err := remove(ctx); err != nil {
		t.Errorf("%s keeps %s at %s: %v", a.name, role.name, scopeName, err)
	}
	return cells, bad
}

// covers tells whether an assignment at a scope is one for what is at another.
func covers(scope, at string) bool {
	return strings.EqualFold(scope, at) || strings.HasPrefix(strings.ToLower(at), strings.ToLower(scope)+"/")
}

// inARM are requests to Resource Manager.
func (m *matrix) inARM(group, cluster, nsg, otherNSG string) []matrixProbe {
	request := func(name, scope, method, id, version string, body func() any) matrixProbe {
		return matrixProbe{name, scope, func(ctx context.Context, a *actor) (bool, error) {
			var b any
			if body != nil {
				b = body()
			}
			return m.allowed(ctx, a, method, id, version, b)
		}}
	}
	rule := func() any {
		return object{"properties": object{"priority": 200, "direction": "Inbound", "access": "Allow", "protocol": "Tcp", "sourceAddressPrefix": "*",
			"sourcePortRange": "*", "destinationAddressPrefix": "*", "destinationPortRange": "80"}}
	}
	assignments := nsg + "/providers/Microsoft.Authorization/roleAssignments"
	const clusters = "2025-02-01"
	return []matrixProbe{
		request("cluster read", cluster, http.MethodGet, cluster, clusters, nil),
		request("cluster write", cluster, http.MethodPatch, cluster, clusters, func() any { return object{"tags": object{"a": "b"}} }),
		request("user credential", cluster, http.MethodPost, cluster+"/listClusterUserCredential", clusters, nil),
		request("admin credential", cluster, http.MethodPost, cluster+"/listClusterAdminCredential", clusters, nil),
		request("group read", group, http.MethodGet, group, "2021-04-01", nil),
		request("rules read", nsg, http.MethodGet, nsg, networkVersion, nil),
		request("rules write", nsg, http.MethodPut, nsg+"/securityRules/r", networkVersion, rule),
		request("rules delete", nsg, http.MethodDelete, nsg+"/securityRules/gone", networkVersion, nil),
		request("rules read", otherNSG, http.MethodGet, otherNSG, networkVersion, nil),
		request("assignments read", nsg, http.MethodGet, assignments, authorizationVersion, nil),
		{"assign", nsg, func(ctx context.Context, a *actor) (bool, error) {
			id := assignments + "/" + uuid.NewString()
			return m.allowed(ctx, a, http.MethodPut, id, authorizationVersion, object{"properties": object{"principalId": m.other, "principalType": "User",
				"roleDefinitionId": m.roleID("acdd72a7-3385-48ef-bd42-f606fba81ae7")}}, func(ctx context.Context) error {
				return m.rest(ctx, http.MethodDelete, id, authorizationVersion, nil, nil)
			})
		}},
	}
}

// inCluster are requests to an API server.
func (m *matrix) inCluster(cluster string) []matrixProbe {
	n1, n2 := cluster+"/namespaces/n1", cluster+"/namespaces/n2"
	request := func(name, scope, method, path string, body any) matrixProbe {
		return matrixProbe{name, scope, func(ctx context.Context, a *actor) (bool, error) {
			return m.allowedInCluster(ctx, a, method, path, body)
		}}
	}
	create := func(name, scope, path string, o object) matrixProbe {
		return request(name, scope, http.MethodPost, path+"?dryRun=All", o)
	}
	named := func(version, kind, name string, more object) object {
		o := object{"apiVersion": version, "kind": kind, "metadata": object{"name": name}}
		for k, v := range more {
			o[k] = v
		}
		return o
	}
	return []matrixProbe{
		request("pods read", n1, http.MethodGet, "/api/v1/namespaces/n1/pods", nil),
		request("pods read", n2, http.MethodGet, "/api/v1/namespaces/n2/pods", nil),
		request("pods read", cluster, http.MethodGet, "/api/v1/pods", nil),
		request("nodes read", cluster, http.MethodGet, "/api/v1/nodes", nil),
		request("secrets read", n1, http.MethodGet, "/api/v1/namespaces/n1/secrets", nil),
		request("namespaces read", n1, http.MethodGet, "/api/v1/namespaces/n1", nil),
		create("configmaps write", n1, "/api/v1/namespaces/n1/configmaps", named("v1", "ConfigMap", "x", nil)),
		create("quotas write", n1, "/api/v1/namespaces/n1/resourcequotas", named("v1", "ResourceQuota", "x", nil)),
		create("namespaces write", cluster, "/api/v1/namespaces", named("v1", "Namespace", "x", nil)),
		create("bindings write", n1, "/apis/rbac.authorization.k8s.io/v1/namespaces/n1/rolebindings", named("rbac.authorization.k8s.io/v1", "RoleBinding", "x",
			object{"roleRef": object{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}})),
		request("deployments delete", n1, http.MethodDelete, "/apis/apps/v1/namespaces/n1/deployments/gone", nil),
		request("pods exec", n1, http.MethodPost, "/api/v1/namespaces/n1/pods/gone/exec?command=true&stdout=true", nil),
	}
}

// allowed sends a request of a's and tells a yes from a no; undo takes back what a yes did.
func (m *matrix) allowed(ctx context.Context, a *actor, method, id, version string, body any, undo ...func(context.Context) error) (bool, error) {
	status, text, err := m.send(ctx, a, method, m.base+id+"?api-version="+version, m.base, body)
	switch {
	case err != nil:
		return false, err
	case status == http.StatusForbidden && strings.Contains(text, "AuthorizationFailed"):
		return false, nil
	case status >= http.StatusInternalServerError || status == http.StatusUnauthorized || status == http.StatusForbidden || status == http.StatusBadRequest:
		return false, fmt.Errorf("%s %s: %d %s", method, id, status, text)
	}
	for _, u := range undo {
		if err := u(ctx); err != nil {
			return true, err
		}
	}
	return true, nil
}

func (m *matrix) allowedInCluster(ctx context.Context, a *actor, method, path string, body any) (bool, error) {
	status, text, err := m.send(ctx, a, method, m.server+path, serverApplication, body)
	switch {
	case err != nil:
		return false, err
	case status == http.StatusForbidden:
		return false, nil
	case status >= http.StatusInternalServerError || status == http.StatusUnauthorized:
		return false, fmt.Errorf("%s %s: %d %s", method, path, status, text)
	}
	return true, nil
}
