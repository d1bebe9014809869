// SPDX-License-Identifier: Apache-2.0

package login_test

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"bastide.dev/identity"
)

// az runs the machine's own az with a configuration of its own.
func (w *world) az(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "az", args...)
	cmd.Env = append(os.Environ(), "AZURE_CONFIG_DIR="+dir, "REQUESTS_CA_BUNDLE="+w.ca, "AZURE_CORE_COLLECT_TELEMETRY=no", "HTTPS_PROXY=", "https_proxy=")
	return cmd
}

func run(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var problems strings.Builder
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("az %s %s: %v\n%s", cmd.Args[1], cmd.Args[2], err, problems.String())
	}
	return string(out)
}

func (w *world) azCloud(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	config, err := json.Marshal(map[string]any{"endpoints": map[string]string{"resourceManager": w.url, "management": w.url,
		"activeDirectory": w.url + "/adfs", "activeDirectoryResourceId": w.url, "activeDirectoryGraphResourceId": w.url + "/graph/", "microsoftGraphResourceId": w.url + "/graph/"}})
	if err != nil {
		t.Fatal(err)
	}
	run(t, w.az(t, dir, "cloud", "update", "-n", "AzureCloud", "--cloud-config", string(config)))
	return dir
}

func TestAzWithServicePrincipal(t *testing.T) {
	w := start(t)
	dir := w.azCloud(t)
	run(t, w.az(t, dir, "login", "--service-principal", "-u", w.first.ClientID, "-p", w.first.Secret, "--tenant", w.first.Tenant.ID))
	token := strings.TrimSpace(run(t, w.az(t, dir, "account", "get-access-token", "--query", "accessToken", "-o", "tsv")))
	if p, err := w.directory.Authenticate(t.Context(), token); err != nil || p.AppID != w.first.ClientID {
		t.Errorf("%+v %v", p, err)
	}
	if got := run(t, w.az(t, dir, "ad", "sp", "show", "--id", w.first.ClientID, "--query", "id", "-o", "tsv")); strings.TrimSpace(got) != w.first.PrincipalID {
		t.Errorf("az ad sp show: %q", got)
	}
	out, err := w.az(t, dir, "login", "--service-principal", "-u", w.first.ClientID, "-p", "wrong", "--tenant", w.first.Tenant.ID).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "AADSTS7000215") {
		t.Errorf("wrong secret: %v\n%s", err, out)
	}
}

func TestAzWithUser(t *testing.T) {
	w := start(t)
	dir := w.azCloud(t)
	run(t, w.az(t, dir, "login", "-u", w.first.Administrator, "-p", w.first.Password))
	if got := run(t, w.az(t, dir, "ad", "signed-in-user", "show", "--query", "userPrincipalName", "-o", "tsv")); strings.TrimSpace(got) != w.first.Administrator {
		t.Errorf("az ad signed-in-user show: %q", got)
	}
	if got := run(t, w.az(t, dir, "account", "show", "--query", "[id,tenantId]", "-o", "tsv")); strings.Fields(got)[0] != w.first.Tenant.SubscriptionID {
		t.Errorf("az account show: %q", got)
	}
	if got := run(t, w.az(t, dir, "ad", "sp", "list", "--display-name", "bastide", "--query", "[].appId", "-o", "tsv")); strings.TrimSpace(got) != w.first.ClientID {
		t.Errorf("az ad sp list: %q", got)
	}
	if got := run(t, w.az(t, dir, "ad", "app", "create", "--display-name", "x", "--query", "displayName", "-o", "tsv")); strings.TrimSpace(got) != "x" {
		t.Errorf("az ad app create: %q", got)
	}
}

func TestAzWithDeviceCode(t *testing.T) {
	w := start(t)
	dir := w.azCloud(t)
	cmd := w.az(t, dir, "login", "--use-device-code")
	messages, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	asked := regexp.MustCompile(`open the page (\S+) and enter the code (\S+) to`)
	var seen strings.Builder
	signedIn := false
	for lines := bufio.NewScanner(messages); lines.Scan(); {
		seen.WriteString(lines.Text() + "\n")
		if m := asked.FindStringSubmatch(lines.Text()); m != nil {
			signedIn = m[1] == w.url+"/device" && w.browser(t).device(m[2]) == http.StatusOK
		}
	}
	if err := cmd.Wait(); err != nil || !signedIn {
		t.Fatalf("signed in %v, az: %v\n%s", signedIn, err, seen.String())
	}
	token := strings.TrimSpace(run(t, w.az(t, dir, "account", "get-access-token", "--query", "accessToken", "-o", "tsv")))
	if p, err := w.directory.Authenticate(t.Context(), token); err != nil || p.Name != w.first.Administrator {
		t.Errorf("%+v %v", p, err)
	}
}

func TestSDKCredentials(t *testing.T) {
	w := start(t)
	options := policy.ClientOptions{Transport: w.client, Cloud: cloud.Configuration{ActiveDirectoryAuthorityHost: w.url + "/"}}
	secret, err := azidentity.NewClientSecretCredential(w.first.Tenant.ID, w.first.ClientID, w.first.Secret,
		&azidentity.ClientSecretCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	device, err := azidentity.NewDeviceCodeCredential(&azidentity.DeviceCodeCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: true,
		TenantID: w.first.Tenant.ID, ClientID: identity.AppCLI, UserPrompt: func(_ context.Context, m azidentity.DeviceCodeMessage) error {
			if status := w.browser(t).device(m.UserCode); status != http.StatusOK {
				return fmt.Errorf("page answers %d", status)
			}
			return nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	// A cluster's identity, with the secret that the service keeps for it: the
	// provider of its cloud-controller-manager can't turn discovery off, but for "adfs".
	principal, _, err := w.directory.CreateManagedIdentity(t.Context(), "cluster", "/subscriptions/s/cluster")
	if err != nil {
		t.Fatal(err)
	}
	clientID, platform, err := w.directory.PlatformSecret(t.Context(), principal)
	if err != nil {
		t.Fatal(err)
	}
	managed, err := azidentity.NewClientSecretCredential("adfs", clientID, platform, &azidentity.ClientSecretCredentialOptions{ClientOptions: options})
	if err != nil {
		t.Fatal(err)
	}
	for name, credential := range map[string]azcore.TokenCredential{w.first.ClientID: secret, w.first.Administrator: device, clientID: managed} {
		token, err := credential.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{w.url + "/.default"}})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if p, err := w.directory.Authenticate(t.Context(), token.Token); err != nil || p.Name != name {
			t.Errorf("%+v %v", p, err)
		}
	}
}

// TestEachCredentialOfTheSDK buys a token with every credential of azidentity
// that needs neither a machine's metadata nor a person's own browser.
func TestEachCredentialOfTheSDK(t *testing.T) {
	w := start(t)
	options := policy.ClientOptions{Transport: w.client, Cloud: cloud.Configuration{ActiveDirectoryAuthorityHost: w.url + "/"}}
	tenant, client := w.first.Tenant.ID, w.first.ClientID
	certificate, key := w.certificate(t, time.Now().Add(time.Hour))
	w.federated = w.assertion(t, certificate, key, func(s *signed) { s.claims["iss"] = "https://issuer.example" })
	tokenFile := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(tokenFile, []byte(w.federated), 0o600); err != nil {
		t.Fatal(err)
	}
	api, _, secret := w.api(t)
	for _, consent := range [][3]string{{identity.AppCLI, api.AppID, "Orders.Read"}, {api.AppID, identity.AppResourceManager, "user_impersonation"}} {
		if err := w.directory.Consent(t.Context(), "", consent[0], consent[1], consent[2:]); err != nil {
			t.Fatal(err)
		}
	}
	_, incoming := w.post(t, "/common/oauth2/v2.0/token", with(w.userForm(), "scope", "api://orders.bastide.test/Orders.Read"))
	assertion := func(context.Context) (string, error) { return w.federated, nil }
	for name, c := range map[string]struct {
		make func() (azcore.TokenCredential, error)
		who  string
	}{
		"certificate": {func() (azcore.TokenCredential, error) {
			return azidentity.NewClientCertificateCredential(tenant, client, []*x509.Certificate{certificate}, key, &azidentity.ClientCertificateCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: true})
		}, client},
		"certificate with its chain": {func() (azcore.TokenCredential, error) {
			return azidentity.NewClientCertificateCredential(tenant, client, []*x509.Certificate{certificate}, key, &azidentity.ClientCertificateCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: true, SendCertificateChain: true})
		}, client},
		"assertion": {func() (azcore.TokenCredential, error) {
			return azidentity.NewClientAssertionCredential(tenant, client, assertion, &azidentity.ClientAssertionCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: true})
		}, client},
		"workload identity": {func() (azcore.TokenCredential, error) {
			return azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: true, TenantID: tenant, ClientID: client, TokenFilePath: tokenFile})
		}, client},
		"name and password": {func() (azcore.TokenCredential, error) {
			//nolint:staticcheck // deprecated, and still what people's scripts have
			return azidentity.NewUsernamePasswordCredential(tenant, identity.AppCLI, w.first.Administrator, w.first.Password, &azidentity.UsernamePasswordCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: true})
		}, w.first.Administrator},
		"on behalf of": {func() (azcore.TokenCredential, error) {
			return azidentity.NewOnBehalfOfCredentialWithSecret(tenant, api.AppID, incoming["access_token"].(string), secret, &azidentity.OnBehalfOfCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: true})
		}, w.first.Administrator},
	} {
		t.Run(name, func(t *testing.T) {
			credential, err := c.make()
			if err != nil {
				t.Fatal(err)
			}
			token, err := credential.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{w.url + "/.default"}})
			if err != nil {
				t.Fatal(err)
			}
			if claims := claimsOf(t, token.Token); claims.UPN != c.who && claims.AppID != c.who {
				t.Errorf("%+v", claims)
			}
		})
	}
}
