// SPDX-License-Identifier: Apache-2.0

package testcloud_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	aks "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v6"
	"github.com/google/uuid"
	"k8s.io/client-go/tools/clientcmd"
)

// TestDirectory lets the directory's people and programs into clusters with
// kubelogin, and out of them again.
func TestDirectory(t *testing.T) {
	a := newAAD(t, "d-aad")
	t.Run("kubelogin's modes", func(t *testing.T) { a.modes(t) })
	t.Run("groups", func(t *testing.T) { a.groups(t) })
	t.Run("more groups than a token names", func(t *testing.T) { a.overage(t) })
	t.Run("roles of Azure", func(t *testing.T) { a.azureRoles(t) })
	t.Run("a role is effective at once", func(t *testing.T) { a.effective(t) })
	t.Run("revocation", func(t *testing.T) { a.revoked(t) })
	t.Run("authorities rotate", func(t *testing.T) { a.rotated(t) })
	t.Run("local accounts", func(t *testing.T) { a.localAccounts(t) })
}

func (a *aad) modes(t *testing.T) {
	k, tenant := a.byKubernetes, a.Env["AZURE_TENANT_ID"]
	robot := a.newProgram(t, "robot")
	certificate := a.certify(t, robot)
	k.kubectl(t, "create", "clusterrolebinding", "robot", "--clusterrole=view", "--user="+robot.id)
	if out := a.deviceLogin(t, k.userConfig(t), a.alice, "auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"); out != a.alice.name {
		t.Errorf("devicecode: %q, want %s", out, a.alice.name)
	}
	azHome := t.TempDir()
	login := exec.CommandContext(t.Context(), "az", "login", "--service-principal", "--username", robot.appID, "--password="+robot.secret, "--tenant", tenant, "--allow-no-subscriptions")
	login.Env = append(a.environment(t), "AZURE_CONFIG_DIR="+azHome)
	for _, name := range []string{"clouds.config", "config"} {
		if text, err := os.ReadFile(filepath.Join(a.Env["AZURE_CONFIG_DIR"], name)); err == nil {
			if err := os.WriteFile(filepath.Join(azHome, name), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if out, err := login.CombinedOutput(); err != nil {
		t.Fatalf("az login: %v\n%s", err, out)
	}
	azurecli := a.signer(t, k, "azurecli")
	a.Run(t, "kubectl", "config", "--kubeconfig", azurecli, "set-credentials", "clusterUser_rg_k", "--exec-env=AZURE_CONFIG_DIR="+azHome)
	for mode, c := range map[string]struct{ config, who string }{
		"ropc":                    {a.ropc(t, k, a.alice), a.alice.name},
		"spn by secret":           {a.spn(t, k, robot), robot.id},
		"spn by certificate":      {a.signer(t, k, "spn", "--client-id", robot.appID, "--tenant-id", tenant, "--client-certificate", certificate), robot.id},
		"azurecli":                {azurecli, robot.id},
		"spn by the surroundings": {a.surroundings(t, k), ""},
	} {
		t.Run(mode, func(t *testing.T) {
			if who := a.whoami(t, c.config); c.who != "" && who != c.who || who == "" {
				t.Errorf("kubectl is %q, want %s", who, c.who)
			}
			if c.who != "" && !a.allowed(t, c.config, "get", "pods") {
				t.Error("may not read pods")
			}
		})
	}
	if a.allowed(t, a.spn(t, k, robot), "get", "secrets") {
		t.Error("view reads secrets")
	}
}

// surroundings is a kubeconfig that takes AZURE_CLIENT_ID and its secret from `bastide env`.
func (a *aad) surroundings(t *testing.T, k *kube) string {
	t.Helper()
	path := k.userConfig(t)
	args := []string{"config", "--kubeconfig", path, "set-credentials", "clusterUser_rg_" + k.name, "--exec-command=kubelogin", "--exec-api-version=client.authentication.k8s.io/v1beta1"}
	for _, arg := range []string{"get-token", "--login", "spn", "--server-id", kubeloginServer, "--authority-host", a.Env["AZURE_AUTHORITY_HOST"], "--disable-instance-discovery"} {
		args = append(args, "--exec-arg="+arg)
	}
	a.Run(t, "kubectl", args...)
	return path
}

// rotated: who signs in isn't known by a certificate, but who asks the directory is.
func (a *aad) rotated(t *testing.T) {
	k := a.byKubernetes
	before := k.userConfig(t)
	k.otherAuthorities(t)
	if who := a.whoami(t, a.ropc(t, k, a.alice)); who != a.alice.name {
		t.Errorf("after a rotation of authorities kubectl is %q", who)
	}
	if bytes.Equal(must(os.ReadFile(before)), must(os.ReadFile(k.userConfig(t)))) {
		t.Error("users are given the authority of before")
	}
}

func (a *aad) groups(t *testing.T) {
	k := a.byKubernetes
	config := a.ropc(t, k, a.bob)
	if a.allowed(t, config, "get", "nodes") {
		t.Error("who is in no group reads nodes")
	}
	inner := a.groupOf(t, "inner", a.bob.id)
	a.join(t, a.admins, inner)
	if !a.allowed(t, config, "get", "nodes") {
		t.Error("who is in a group of the group of administrators may not read nodes")
	}
	// A live token that names the group ends with the membership, not with its hour.
	api := a.client(t, k)
	token := a.personToken(t, a.bob)
	if code := api.get(t, token, "/api/v1/nodes"); code != http.StatusOK {
		t.Fatalf("bob's token: %d", code)
	}
	a.leave(t, inner, a.bob.id)
	if took := until(t, func() bool { return api.get(t, token, "/api/v1/nodes") == http.StatusForbidden }); took > 500*time.Millisecond {
		t.Errorf("the token of one who was removed counted for %s", took)
	}
	if code := api.get(t, a.personToken(t, a.bob), "/api/v1/nodes"); code != http.StatusForbidden {
		t.Errorf("a new token: %d", code)
	}
}

// overage is somebody in so many groups that tokens don't name them.
func (a *aad) overage(t *testing.T) {
	k := a.byKubernetes
	dave := a.person(t, "dave")
	for i := range 201 {
		a.groupOf(t, fmt.Sprintf("crowd %d", i), dave.id)
	}
	api, token := a.client(t, k), a.personToken(t, dave)
	if code := api.get(t, token, "/api/v1/nodes"); code != http.StatusForbidden {
		t.Errorf("with 201 groups, none of which has rights: %d", code)
	}
	a.join(t, a.admins, dave.id)
	if took := until(t, func() bool { return api.get(t, token, "/api/v1/nodes") == http.StatusOK }); took > 11*time.Second {
		t.Errorf("the 202nd group counted after %s", took)
	}
	a.leave(t, a.admins, dave.id)
	if took := until(t, func() bool { return api.get(t, token, "/api/v1/nodes") == http.StatusForbidden }); took > 500*time.Millisecond {
		t.Errorf("the 202nd group counted for %s more", took)
	}
	// The API server remembers for ten seconds whom a token made, and with which
	// groups: as long as that names the one he left, all is denied.
	config := a.bearer(t, k, token)
	until(t, func() bool { return api.get(t, token, "/version") == http.StatusOK })
	if who := a.whoami(t, config); who != dave.name {
		t.Errorf("kubectl is %q", who)
	}
}

const (
	rbacReader       = "7f6c6a51-bcf8-42ba-9220-52d62157d7db"
	rbacWriter       = "a7ffa36f-339b-4b5c-8bdf-e2c188b2c0eb"
	rbacAdmin        = "3498e952-d568-435e-9b2c-8d77e338d7f7"
	rbacClusterAdmin = "b1ff04bb-8a4e-4dc4-8eb5-8693973ce19b"
)

// give gives a principal a role and returns the assignment's id.
func (a *aad) give(t testing.TB, principal, role, scope string) string {
	t.Helper()
	id := scope + "/providers/Microsoft.Authorization/roleAssignments/" + uuid.NewString()
	if err := a.rest(t.Context(), http.MethodPut, id, "2022-04-01", object{"properties": object{"principalId": principal, "principalType": "ServicePrincipal",
		"roleDefinitionId": "/subscriptions/" + a.sub + "/providers/Microsoft.Authorization/roleDefinitions/" + role}}, nil); err != nil {
		t.Fatal(err)
	}
	return id
}

func (a *aad) azureRoles(t *testing.T) {
	z := a.byAzure
	id := a.id("rg", "Microsoft.ContainerService/managedClusters/z")
	z.kubectl(t, "create", "namespace", "team")
	z.kubectl(t, "create", "namespace", "team-b")
	commands := [][]string{
		{"get", "pods", "-n", "team"}, {"get", "secrets", "-n", "team"}, {"create", "configmap", "x", "-n", "team", "--dry-run=server"},
		{"create", "role", "x", "--verb=get", "--resource=pods", "-n", "team", "--dry-run=server"}, {"create", "quota", "x", "-n", "team", "--dry-run=server"},
		{"get", "pods", "-n", "team-b"}, {"get", "pods", "-A"}, {"get", "nodes"}, {"get", "clusterroles"}, {"create", "namespace", "x", "--dry-run=server"},
	}
	for _, c := range []struct{ name, role, scope, want string }{
		{"reader of a namespace", rbacReader, id + "/namespaces/team", "ynnnnnnnnn"},
		{"writer of a namespace", rbacWriter, id + "/namespaces/team", "yyynnnnnnn"},
		{"admin of a namespace", rbacAdmin, id + "/namespaces/team", "yyyynnnnnn"},
		{"cluster admin of a namespace", rbacClusterAdmin, id + "/namespaces/team", "yyyyynnnnn"},
		{"reader of the cluster", rbacReader, id, "ynnnnyynnn"},
		{"writer of the cluster", rbacWriter, id, "yyynnyynnn"},
		{"admin of the cluster", rbacAdmin, id, "yyyynyyyyn"},
		{"cluster admin of the cluster", rbacClusterAdmin, id, "yyyyyyyyyy"},
		{"owner of the group", "8e3af657-a8ff-443c-a75c-2fe8c4bcb635", "/subscriptions/" + a.sub + "/resourceGroups/rg", "nnnnnnnnnn"},
	} {
		t.Run(c.name, func(t *testing.T) {
			robot := a.newProgram(t, c.name)
			a.give(t, robot.id, c.role, c.scope)
			config := a.bearer(t, z, a.programToken(t, robot))
			for i, command := range commands {
				if got := a.allowed(t, config, command...); got != (c.want[i] == 'y') {
					t.Errorf("kubectl %s: allowed %t", strings.Join(command, " "), got)
				}
			}
		})
	}
}

// bearer is a kubeconfig with a token.
func (a *aad) bearer(t testing.TB, k *kube, token string) string {
	t.Helper()
	config := must(clientcmd.LoadFromFile(k.userConfig(t)))
	for _, user := range config.AuthInfos {
		user.Exec, user.Token = nil, token
	}
	path := filepath.Join(t.TempDir(), "bearer")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// effective measures how long a role takes to count, and to count no more.
func (a *aad) effective(t *testing.T) {
	z := a.byAzure
	id := a.id("rg", "Microsoft.ContainerService/managedClusters/z")
	robot := a.newProgram(t, "measured")
	api, token := a.client(t, z), a.programToken(t, robot)
	var given, taken []time.Duration
	for range 20 {
		assignment := a.give(t, robot.id, rbacReader, id)
		given = append(given, until(t, func() bool { return api.get(t, token, "/api/v1/pods") == http.StatusOK }))
		if err := a.rest(t.Context(), http.MethodDelete, assignment, "2022-04-01", nil, nil); err != nil {
			t.Fatal(err)
		}
		taken = append(taken, until(t, func() bool { return api.get(t, token, "/api/v1/pods") == http.StatusForbidden }))
	}
	slices.Sort(given)
	slices.Sort(taken)
	t.Logf("p95 of 20: given %s, taken away %s", given[18], taken[18])
	if given[18] > 500*time.Millisecond || taken[18] > 500*time.Millisecond {
		t.Errorf("a role took %s to count and %s to count no more (p95)", given[18], taken[18])
	}
}

func (a *aad) revoked(t *testing.T) {
	api := a.client(t, a.byKubernetes)
	carol := a.person(t, "carol")
	a.join(t, a.admins, carol.id)
	token := a.personToken(t, carol)
	if code := api.get(t, token, "/api/v1/nodes"); code != http.StatusOK {
		t.Fatalf("carol's token: %d", code)
	}
	a.askGraph(t, http.MethodPatch, "/users/"+carol.id, object{"accountEnabled": false}, nil)
	until(t, func() bool { return api.get(t, token, "/api/v1/nodes") == http.StatusForbidden })
	robot := a.newProgram(t, "short-lived")
	token = a.programToken(t, robot)
	a.give(t, robot.id, rbacClusterAdmin, a.id("rg", "Microsoft.ContainerService/managedClusters/z"))
	z := a.client(t, a.byAzure)
	until(t, func() bool { return z.get(t, token, "/api/v1/nodes") == http.StatusOK })
	a.askGraph(t, http.MethodDelete, "/servicePrincipals/"+robot.id, nil, nil)
	until(t, func() bool { return z.get(t, token, "/api/v1/nodes") != http.StatusOK })
}

func (a *aad) localAccounts(t *testing.T) {
	k := a.byKubernetes
	alice := a.ropc(t, k, a.alice)
	k.change(t, func(m *aks.ManagedCluster) { m.Properties.DisableLocalAccounts = to.Ptr(true) })
	if _, stderr, err := a.as(t.Context(), t, k.config, "get", "nodes"); err == nil || !strings.Contains(stderr, "Unauthorized") && !strings.Contains(stderr, "must be logged in") && !strings.Contains(stderr, "provide credentials") {
		t.Errorf("an old administrator's certificate: %v\n%s", err, stderr)
	}
	if _, err := k.clusters(t).ListClusterAdminCredentials(t.Context(), "rg", "k", nil); err == nil || !strings.Contains(err.Error(), "Getting static credential is not allowed because this cluster is set to disable local accounts.") {
		t.Errorf("an administrator's credential: %v", err)
	}
	if !a.allowed(t, alice, "get", "nodes") {
		t.Error("the directory's administrator is out, too")
	}
	k.change(t, func(m *aks.ManagedCluster) { m.Properties.DisableLocalAccounts = to.Ptr(false) })
	if _, _, err := a.as(t.Context(), t, k.config, "get", "nodes"); err == nil {
		t.Error("local accounts came back with their certificates of before")
	}
	creds, err := k.clusters(t).ListClusterAdminCredentials(t.Context(), "rg", "k", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(k.config, creds.Kubeconfigs[0].Value, 0o600); err != nil {
		t.Fatal(err)
	}
	k.kubectl(t, "get", "nodes")
}

// api asks an API server without kubectl.
type api struct {
	http   *http.Client
	server string
}

func (a *aad) client(t testing.TB, k *kube) *api {
	t.Helper()
	config := must(clientcmd.LoadFromFile(k.userConfig(t)))
	pool, server := x509.NewCertPool(), ""
	for _, c := range config.Clusters {
		server = c.Server
		pool.AppendCertsFromPEM(c.CertificateAuthorityData)
	}
	return &api{http: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}}, server: server}
}

func (a *api) get(t testing.TB, token, path string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.server+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := a.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// until waits for something to become true and says how long it took.
func until(t testing.TB, f func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	for !f() {
		if time.Since(start) > 15*time.Second {
			t.Fatal("it never came true")
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(start)
}
