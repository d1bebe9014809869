// SPDX-License-Identifier: Apache-2.0

package testcloud_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"html"
	"io"
	"math/big"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	aks "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v6"
	"golang.org/x/sync/errgroup"

	"bastide.dev/testcloud"
)

const (
	kubeloginServer = "6dae42f8-4368-4678-94ff-3960e28e3630"
	kubeloginClient = "80faf920-1908-4b52-b5ef-a8e7bedfc67a"
	personPassword  = "Correct-Horse-7-Battery"
)

// aad is an instance with people, and two clusters that are integrated with the
// directory: one by Kubernetes' roles, the other by Azure's as well.
type aad struct {
	*rig
	byKubernetes, byAzure *kube
	alice, bob            *person
	admins                string // a group that alice is in, which administrates byKubernetes
}

type person struct{ id, name string }

// program is an application with what it signs in with.
type program struct{ app, id, appID, secret string }

func newAAD(t *testing.T, instance string) *aad {
	t.Helper()
	c := testcloud.Start(t, instance)
	a := &aad{rig: &rig{Cloud: c, sdk: newSDK(t, c)}}
	a.group(t, "rg")
	a.alice, a.bob = a.person(t, "alice"), a.person(t, "bob")
	a.admins = a.groupOf(t, "cluster admins", a.alice.id)
	var both errgroup.Group
	both.Go(func() (err error) {
		a.byKubernetes, err = a.cluster(t.Context(), t, "k", func(*aks.ManagedCluster) {})
		return err
	})
	both.Go(func() (err error) {
		a.byAzure, err = a.cluster(t.Context(), t, "z", func(m *aks.ManagedCluster) {
			m.Properties.AADProfile = &aks.ManagedClusterAADProfile{Managed: to.Ptr(true), EnableAzureRBAC: to.Ptr(true)}
		})
		return err
	})
	if err := both.Wait(); err != nil {
		t.Fatal(err)
	}
	a.integrate(t)
	return a
}

// integrate lets the directory into the running cluster k, as its users do. What
// runs in it doesn't notice.
func (a *aad) integrate(t *testing.T) {
	t.Helper()
	k := a.byKubernetes
	k.kubectl(t, "rollout", "status", "-n", "kube-system", "deployment/coredns", "--timeout=60s")
	const pods = "jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[*].restartCount} {end}"
	before := k.kubectl(t, "get", "pods", "-A", "-l", "k8s-app=kube-dns", "-o", pods)
	login := testcloud.JSON[[]struct{}](t, a.Cloud, "az", "login", "--service-principal", "--username", a.Env["AZURE_CLIENT_ID"], "--password="+a.Env["AZURE_CLIENT_SECRET"],
		"--tenant", a.Env["AZURE_TENANT_ID"], "-o", "json")
	if len(login) != 1 {
		t.Fatalf("az sees %d subscriptions", len(login))
	}
	a.Run(t, "az", "aks", "update", "-g", "rg", "-n", "k", "--enable-aad", "--aad-admin-group-object-ids", a.admins, "-o", "none")
	if after := k.kubectl(t, "get", "pods", "-A", "-l", "k8s-app=kube-dns", "-o", pods); after != before {
		t.Errorf("pods were %s, and are %s", before, after)
	}
	path := filepath.Join(t.TempDir(), "az")
	a.Run(t, "az", "aks", "get-credentials", "-g", "rg", "-n", "k", "-f", path)
	if text := string(must(os.ReadFile(path))); !strings.Contains(text, "kubelogin") || strings.Contains(text, "client-key") {
		t.Errorf("az aks get-credentials wrote\n%s", text)
	}
	for _, refused := range [][]string{{"update-credentials", "--reset-aad", "--aad-server-app-id", "x", "--aad-server-app-secret", "y", "--aad-client-app-id", "z"}} {
		if _, stderr, err := a.Try(t.Context(), "az", append([]string{"aks"}, append(refused, "-g", "rg", "-n", "k")...)...); err == nil || !strings.Contains(stderr, "managed") {
			t.Errorf("az aks %v: %v %s", refused, err, stderr)
		}
	}
}

// askGraph asks the directory as the instance's owner.
func (a *aad) askGraph(t testing.TB, method, path string, body, into any) {
	t.Helper()
	base := "https://graph." + a.Env["BASTIDE_DOMAIN"]
	token, err := a.cred.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{base + "/.default"}})
	if err != nil {
		t.Fatal(err)
	}
	var raw []byte
	if body != nil {
		raw = must(json.Marshal(body))
	}
	req, err := http.NewRequestWithContext(t.Context(), method, base+"/v1.0"+path, bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token.Token)
	resp, err := a.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= http.StatusBadRequest {
		t.Fatalf("%s %s: %d %s %v", method, path, resp.StatusCode, text, err)
	}
	if into != nil {
		if err := json.Unmarshal(text, into); err != nil {
			t.Fatal(err)
		}
	}
}

type directoryObject struct{ ID, AppID, SecretText string }

func (a *aad) person(t testing.TB, name string) *person {
	t.Helper()
	p := &person{name: name + "@" + a.Env["BASTIDE_DOMAIN"]}
	var made directoryObject
	// Written in capitals: Kubernetes has the name in small letters, as on AKS.
	a.askGraph(t, http.MethodPost, "/users", object{"accountEnabled": true, "displayName": name, "mailNickname": name, "userPrincipalName": strings.ToUpper(name[:1]) + p.name[1:],
		"passwordProfile": object{"password": personPassword, "forceChangePasswordNextSignIn": false}}, &made)
	p.id = made.ID
	return p
}

func (a *aad) groupOf(t testing.TB, name string, members ...string) string {
	t.Helper()
	var made directoryObject
	a.askGraph(t, http.MethodPost, "/groups", object{"displayName": name, "mailNickname": "g", "mailEnabled": false, "securityEnabled": true}, &made)
	for _, id := range members {
		a.join(t, made.ID, id)
	}
	return made.ID
}

func (a *aad) join(t testing.TB, group, member string) {
	t.Helper()
	a.askGraph(t, http.MethodPost, "/groups/"+group+"/members/$ref", object{"@odata.id": "https://graph." + a.Env["BASTIDE_DOMAIN"] + "/v1.0/directoryObjects/" + member}, nil)
}

func (a *aad) leave(t testing.TB, group, member string) {
	t.Helper()
	a.askGraph(t, http.MethodDelete, "/groups/"+group+"/members/"+member+"/$ref", nil, nil)
}

func (a *aad) newProgram(t testing.TB, name string) *program {
	t.Helper()
	var app, sp, secret directoryObject
	a.askGraph(t, http.MethodPost, "/applications", object{"displayName": name}, &app)
	a.askGraph(t, http.MethodPost, "/servicePrincipals", object{"appId": app.AppID}, &sp)
	a.askGraph(t, http.MethodPost, "/applications/"+app.ID+"/addPassword", object{"passwordCredential": object{"displayName": "test"}}, &secret)
	return &program{app: app.ID, id: sp.ID, appID: app.AppID, secret: secret.SecretText}
}

// certify gives a program a certificate, and returns its path with the key.
func (a *aad) certify(t testing.TB, p *program) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "robot"}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	a.askGraph(t, http.MethodPatch, "/applications/"+p.app, object{"keyCredentials": []object{{"type": "AsymmetricX509Cert", "usage": "Verify", "displayName": "test",
		"key": base64.StdEncoding.EncodeToString(der)}}}, nil)
	path := filepath.Join(t.TempDir(), "robot.pem")
	text := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(key))})...)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// userConfig is the kubeconfig that `az aks get-credentials` would write.
func (k *kube) userConfig(t testing.TB) string {
	t.Helper()
	creds, err := k.clusters(t).ListClusterUserCredentials(t.Context(), "rg", k.name, nil)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "user")
	if err := os.WriteFile(path, creds.Kubeconfigs[0].Value, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// signer is a kubeconfig whose user signs in with kubelogin in some mode.
func (a *aad) signer(t testing.TB, k *kube, mode string, flags ...string) string {
	t.Helper()
	path := k.userConfig(t)
	args := []string{"config", "--kubeconfig", path, "set-credentials", "clusterUser_rg_" + k.name, "--exec-command=kubelogin", "--exec-api-version=client.authentication.k8s.io/v1beta1"}
	exec := append([]string{"get-token", "--login", mode, "--server-id", kubeloginServer, "--authority-host", a.Env["AZURE_AUTHORITY_HOST"], "--disable-instance-discovery",
		"--disable-environment-override"}, flags...)
	for _, arg := range exec {
		args = append(args, "--exec-arg="+arg)
	}
	a.Run(t, "kubectl", args...)
	return path
}

func (a *aad) ropc(t testing.TB, k *kube, p *person) string {
	t.Helper()
	return a.signer(t, k, "ropc", "--client-id", kubeloginClient, "--tenant-id", a.Env["AZURE_TENANT_ID"], "--username", p.name, "--password", personPassword)
}

func (a *aad) spn(t testing.TB, k *kube, p *program) string {
	t.Helper()
	return a.signer(t, k, "spn", "--client-id", p.appID, "--tenant-id", a.Env["AZURE_TENANT_ID"], "--client-secret", p.secret)
}

// as runs kubectl with a kubeconfig and a home of its own: nothing is remembered.
func (a *aad) as(ctx context.Context, t testing.TB, config string, args ...string) (stdout, stderr string, err error) {
	cmd := exec.CommandContext(ctx, filepath.Join(a.StateDir, "bin", "kubectl"), append([]string{"--kubeconfig", config}, args...)...)
	cmd.Env = a.environment(t)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

func (a *aad) environment(t testing.TB) []string {
	env := os.Environ()
	for name, value := range a.Env {
		env = append(env, name+"="+value)
	}
	home := t.TempDir()
	return append(env, "HOME="+home, "KUBECACHEDIR="+home)
}

func (a *aad) whoami(t testing.TB, config string) string {
	t.Helper()
	out, stderr, err := a.as(t.Context(), t, config, "auth", "whoami", "-o", "jsonpath={.status.userInfo.username}")
	if err != nil {
		t.Errorf("whoami: %v\n%s", err, stderr)
	}
	return out
}

// allowed tells whether a command isn't refused; any other failure ends the test.
func (a *aad) allowed(t testing.TB, config string, args ...string) bool {
	t.Helper()
	_, stderr, err := a.as(t.Context(), t, config, args...)
	if err != nil && !strings.Contains(stderr, "Forbidden") && !strings.Contains(stderr, "forbidden") {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, stderr)
	}
	return err == nil
}

var (
	deviceMessage = regexp.MustCompile(`open the page (\S+) and enter the code (\S+) `)
	formField     = regexp.MustCompile(`<input type="hidden" name="([^"]+)" value="([^"]*)">`)
	formTarget    = regexp.MustCompile(`<form method="post" action="([^"]*)"`)
)

// deviceLogin runs kubectl with the kubeconfig as AKS gives it, and signs in at
// the page that kubelogin names.
func (a *aad) deviceLogin(t *testing.T, config string, p *person, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(a.StateDir, "bin", "kubectl"), append([]string{"--kubeconfig", config}, args...)...)
	cmd.Env = a.environment(t)
	var out bytes.Buffer
	cmd.Stdout = &out
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		said.WriteString(lines.Text() + "\n")
		if found := deviceMessage.FindStringSubmatch(lines.Text()); found != nil {
			a.enterCode(t, found[1], found[2], p)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, &said)
	}
	return out.String()
}

func (a *aad) enterCode(t *testing.T, page, code string, p *person) {
	t.Helper()
	client := *a.http
	client.Jar = must(cookiejar.New(nil))
	text, at := "", must(url.Parse(page))
	send := func(method string, form url.Values) {
		req, err := http.NewRequestWithContext(t.Context(), method, at.String(), strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Origin", at.Scheme+"://"+at.Host)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text = string(must(io.ReadAll(resp.Body)))
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("%s %s: %d\n%s", method, at, resp.StatusCode, text)
		}
	}
	send(http.MethodGet, nil)
	for _, step := range []url.Values{
		{"step": {"code"}, "user_code": {code}}, {"step": {"password"}, "username": {p.name}, "password": {personPassword}}, {"step": {"approve"}},
	} {
		for _, field := range formField.FindAllStringSubmatch(text, -1) {
			if !step.Has(field[1]) {
				step.Set(field[1], html.UnescapeString(field[2]))
			}
		}
		if target := formTarget.FindStringSubmatch(text); target != nil {
			at = at.ResolveReference(must(url.Parse(html.UnescapeString(target[1]))))
		}
		send(http.MethodPost, step)
	}
	if !strings.Contains(text, "You are signed in") {
		t.Fatalf("the device wasn't approved:\n%s", text)
	}
}

// token is a program's or a person's, bought without kubelogin.
func (a *aad) token(t testing.TB, form url.Values) string {
	t.Helper()
	form.Set("scope", kubeloginServer+"/.default")
	resp, err := a.http.PostForm(fmt.Sprintf("%s%s/oauth2/v2.0/token", a.Env["AZURE_AUTHORITY_HOST"], a.Env["AZURE_TENANT_ID"]), form)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct {
		Token string `json:"access_token"`
	}
	if text := must(io.ReadAll(resp.Body)); json.Unmarshal(text, &answer) != nil || answer.Token == "" {
		t.Fatalf("no token: %s", text)
	}
	return answer.Token
}

func (a *aad) personToken(t testing.TB, p *person) string {
	t.Helper()
	return a.token(t, url.Values{"grant_type": {"password"}, "client_id": {kubeloginClient}, "username": {p.name}, "password": {personPassword}})
}

func (a *aad) programToken(t testing.TB, p *program) string {
	t.Helper()
	return a.token(t, url.Values{"grant_type": {"client_credentials"}, "client_id": {p.appID}, "client_secret": {p.secret}})
}
