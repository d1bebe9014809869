// SPDX-License-Identifier: Apache-2.0

package testcloud_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	aks "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v6"
	"github.com/google/uuid"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	// serverApplication is the audience of every cluster, commandLine the client of az.
	serverApplication = "6dae42f8-4368-4678-94ff-3960e28e3630"
	commandLine       = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"
	computeVersion    = "2024-07-01"
)

// access is a rig for questions of who may do what: people and programs in the
// directory, and a cluster that knows them.
type access struct {
	*rig
	*kube  // of the integrated cluster, as its local administrator
	server string
	web    *http.Client // trusts the service and the cluster
	login  string
	graph  string
}

// actor is somebody who gets tokens.
type actor struct {
	name, id, kind       string
	grantee, granteeType string // who is given roles for it; it itself, unless set
	secret               string
	buy                  func(ctx context.Context, resource string) (string, time.Time, error)

	mu     sync.Mutex // guards tokens
	tokens map[string]bought
}

type bought struct {
	token string
	until time.Time
}

func newAccess(t *testing.T, instance string) *access {
	r := newRig(t, instance)
	domain := r.Env["BASTIDE_DOMAIN"]
	return &access{rig: r, web: r.http, login: "https://login." + domain + "/" + r.Env["AZURE_TENANT_ID"] + "/oauth2/v2.0/token", graph: "https://graph." + domain}
}

// integrated makes a cluster of one node that the directory's people may use.
func (a *access) integrated(t *testing.T, name string, azureRBAC bool) {
	t.Helper()
	k, err := a.rig.cluster(t.Context(), t, name, func(m *aks.ManagedCluster) {
		m.Properties.AADProfile = &aks.ManagedClusterAADProfile{Managed: to.Ptr(true), EnableAzureRBAC: &azureRBAC}
	})
	if err != nil {
		t.Fatal(err)
	}
	a.kube = k
	config, err := clientcmd.LoadFromFile(k.config)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(must(os.ReadFile(a.rig.Env["SSL_CERT_FILE"])))
	for _, c := range config.Clusters {
		a.server = c.Server
		pool.AppendCertsFromPEM(c.CertificateAuthorityData)
	}
	a.web = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, MaxIdleConnsPerHost: 64, ForceAttemptHTTP2: true}}
}

// ask sends JSON with a bearer token.
func (a *access) ask(ctx context.Context, token, method, address string, body any) (int, string, error) {
	var raw []byte
	if body != nil {
		raw = must(json.Marshal(body))
	}
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(raw))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := a.web.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// send is ask with an actor's token for a resource.
func (a *access) send(ctx context.Context, who *actor, method, address, resource string, body any) (int, string, error) {
	token, err := who.token(ctx, resource)
	if err != nil {
		return 0, "", fmt.Errorf("token of %s for %s: %w", who.name, resource, err)
	}
	return a.ask(ctx, token, method, address, body)
}

func (w *actor) token(ctx context.Context, resource string) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if b, ok := w.tokens[resource]; ok && time.Now().Before(b.until) {
		return b.token, nil
	}
	token, until, err := w.buy(ctx, resource)
	if err != nil {
		return "", err
	}
	if w.tokens == nil {
		w.tokens = map[string]bought{}
	}
	w.tokens[resource] = bought{token, until}
	return token, nil
}

// directory asks Graph as the instance's owner.
func (a *access) directory(t testing.TB, method, path string, body, into any) {
	t.Helper()
	token, err := a.cred.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{a.graph + "/.default"}})
	if err != nil {
		t.Fatal(err)
	}
	status, text, err := a.ask(t.Context(), token.Token, method, a.graph+"/v1.0"+path, body)
	if err != nil || status >= http.StatusBadRequest {
		t.Fatalf("%s %s: %d %s %v", method, path, status, text, err)
	}
	if into != nil {
		if err := json.Unmarshal([]byte(text), into); err != nil {
			t.Fatal(err)
		}
	}
}

type graphObject struct{ ID, AppID, SecretText string }

const password = "Correct-Horse-7-Battery"

// user makes a person, who signs in with name and password.
func (a *access) user(t testing.TB, name string) *actor {
	t.Helper()
	upn := name + "@" + a.rig.Env["BASTIDE_DOMAIN"]
	var u graphObject
	a.directory(t, http.MethodPost, "/users", object{"accountEnabled": true, "displayName": name, "mailNickname": name, "userPrincipalName": upn,
		"passwordProfile": object{"password": password, "forceChangePasswordNextSignIn": false}}, &u)
	w := &actor{name: name, id: u.ID, kind: "User", secret: password}
	w.buy = func(ctx context.Context, resource string) (string, time.Time, error) {
		return a.tokenFor(ctx, url.Values{"grant_type": {"password"}, "client_id": {commandLine}, "username": {upn}, "password": {w.secret}, "scope": {resource + "/.default"}})
	}
	return w
}

// directoryGroup makes a group of members.
func (a *access) directoryGroup(t testing.TB, name string, members ...string) string {
	t.Helper()
	bound := []string{}
	for _, id := range members {
		bound = append(bound, a.graph+"/v1.0/directoryObjects/"+id)
	}
	var g graphObject
	a.directory(t, http.MethodPost, "/groups", object{"displayName": name, "mailNickname": name, "mailEnabled": false, "securityEnabled": true,
		"members@odata.bind": bound}, &g)
	return g.ID
}

// principal makes an application with a secret.
func (a *access) principal(t testing.TB, name string) *actor {
	t.Helper()
	var app, sp, secret graphObject
	a.directory(t, http.MethodPost, "/applications", object{"displayName": name}, &app)
	a.directory(t, http.MethodPost, "/servicePrincipals", object{"appId": app.AppID}, &sp)
	a.directory(t, http.MethodPost, "/applications/"+app.ID+"/addPassword", object{"passwordCredential": object{"displayName": "test"}}, &secret)
	w := &actor{name: name, id: sp.ID, kind: "ServicePrincipal", secret: secret.SecretText}
	w.buy = func(ctx context.Context, resource string) (string, time.Time, error) {
		return a.tokenFor(ctx, url.Values{"grant_type": {"client_credentials"}, "client_id": {app.AppID}, "client_secret": {w.secret}, "scope": {resource + "/.default"}})
	}
	return w
}

// machineIdentity is the identity of a virtual machine, which buys its tokens
// from the metadata address.
func (a *access) machineIdentity(t testing.TB, name string) *actor {
	t.Helper()
	a.rig.vnet(t, "net", "10.60.0.0/16", "vms=10.60.2.0/24")
	box, err := a.rig.jump(t)
	if err != nil {
		t.Fatal(err)
	}
	id := a.id("rg", "Microsoft.Compute/virtualMachines/"+box.name)
	if err := a.rest(t.Context(), http.MethodPatch, id, computeVersion, object{"identity": object{"type": "SystemAssigned"}}, nil); err != nil {
		t.Fatal(err)
	}
	a.settle(t, id, computeVersion)
	var view struct{ Identity struct{ PrincipalID string } }
	if err := a.rest(t.Context(), http.MethodGet, id, computeVersion, nil, &view); err != nil {
		t.Fatal(err)
	}
	w := &actor{name: name, id: view.Identity.PrincipalID, kind: "ServicePrincipal"}
	w.buy = func(ctx context.Context, resource string) (string, time.Time, error) {
		out, err := box.run(ctx, box.here.space, nil, "./echo metadata "+"'/metadata/identity/oauth2/token?api-version=2018-02-01&resource="+url.QueryEscape(resource)+"'")
		if err != nil {
			return "", time.Time{}, err
		}
		return tokenIn([]byte(out))
	}
	return w
}

func (a *access) tokenFor(ctx context.Context, form url.Values) (string, time.Time, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.login, strings.NewReader(form.Encode()))
	if err != nil {
		return "", time.Time{}, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := a.web.Do(req)
	if err != nil {
		return "", time.Time{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", time.Time{}, err
	}
	return tokenIn(text)
}

func tokenIn(text []byte) (string, time.Time, error) {
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(text, &answer); err != nil || answer.AccessToken == "" {
		return "", time.Time{}, fmt.Errorf("no token: %s", text)
	}
	return answer.AccessToken, time.Now().Add(30 * time.Minute), nil
}

func (a *access) roleID(guid string) string {
	return "/subscriptions/" + a.sub + "/providers/Microsoft.Authorization/roleDefinitions/" + guid
}

// assign gives an actor, or whom it gets its roles through, a role; remove takes it away.
func (a *access) assign(ctx context.Context, who *actor, role, scope string) (remove func(context.Context) error, err error) {
	grantee, kind := who.grantee, who.granteeType
	if grantee == "" {
		grantee, kind = who.id, who.kind
	}
	id := scope + "/providers/Microsoft.Authorization/roleAssignments/" + uuid.NewString()
	err = a.rest(ctx, http.MethodPut, id, authorizationVersion, object{"properties": object{"principalId": grantee, "principalType": kind, "roleDefinitionId": a.roleID(role)}}, nil)
	return func(ctx context.Context) error {
		return a.rest(ctx, http.MethodDelete, id, authorizationVersion, nil, nil)
	}, err
}
