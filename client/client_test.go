// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"bastide.dev/arm"
	"bastide.dev/client"
	"bastide.dev/fault"
	"bastide.dev/identity"
	"bastide.dev/identity/login"
	"bastide.dev/resource"
	"bastide.dev/store/memory"
)

// certificate is a server's, which is its own authority.
func certificate(t *testing.T, names []string) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, DNSNames: names, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// adapter is how cmd gives a real directory to the front door.
type adapter struct{ *identity.Directory }

func (a adapter) Authenticate(ctx context.Context, bearer string) (arm.Principal, error) {
	p, err := a.Directory.Authenticate(ctx, bearer)
	return arm.Principal{ID: p.ID, Kind: string(p.Kind), Name: p.Name, AppID: p.AppID, Tenant: p.TenantID, Groups: p.Groups}, err
}

// Authorize lets those do everything whom a new instance has.
func (a adapter) Authorize(_ context.Context, who arm.Principal, action string, scope resource.ID) error {
	if !slices.Contains(a.RolesOf(who.ID), identity.GlobalAdministrator) {
		return fault.New(fault.Forbidden, "AuthorizationFailed", "The client '%s' may not do '%s' on '%s'.", who.ID, action, scope)
	}
	return nil
}

// boot starts the instance's front doors on a port of their own, with names that no resolver knows.
func boot(t *testing.T) (client.Instance, client.Secrets) {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	server := httptest.NewUnstartedServer(nil)
	at := netip.MustParseAddrPort(server.Listener.Addr().String())
	dir := t.TempDir()
	i := client.Instance{Name: "t", Domain: "client.test", Location: "eastus", Address: at.Addr(), Port: at.Port(), StateDir: dir, CAFile: filepath.Join(dir, "ca.pem")}
	pair, ca := certificate(t, i.Hosts())
	if err := os.WriteFile(i.CAFile, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	s := memory.New(0)
	d, err := identity.New(identity.Config{Store: s, Log: quiet, Endpoints: identity.Endpoints{Authority: i.Authority(), ResourceManager: i.ResourceManager(), Graph: i.Graph()}})
	if err != nil {
		t.Fatal(err)
	}
	first, err := d.Bootstrap(t.Context(), identity.BootstrapOptions{Domain: i.Domain})
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := login.New(login.Config{Directory: d, Store: s, Gate: open{}, Journal: open{}, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	front, err := arm.New(arm.Config{Store: s, Authenticator: adapter{d}, Authorizer: adapter{d}, Logger: quiet,
		Tenant:        arm.Tenant{ID: first.Tenant.ID, DisplayName: first.Tenant.DisplayName},
		Subscriptions: []arm.Subscription{{ID: first.Tenant.SubscriptionID}}, Endpoints: arm.Endpoints{
			CloudName: "AzureCloud", ResourceManager: i.ResourceManager(), Login: i.Authority(), Graph: i.Graph(), Audiences: []string{i.ResourceManager()}}})
	if err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.Host, "login.") {
			tokens.ServeHTTP(w, r)
			return
		}
		front.ServeHTTP(w, r)
	})
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	server.StartTLS()
	t.Cleanup(server.Close)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- front.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	i.TenantID, i.SubscriptionID, i.ClientID, i.Administrator = first.Tenant.ID, first.Tenant.SubscriptionID, first.ClientID, first.Administrator
	return i, client.Secrets{ClientSecret: first.Secret}
}

type group struct {
	ID       string            `json:"id"`
	Name     string            `json:"name"`
	Location string            `json:"location"`
	Tags     map[string]string `json:"tags"`
}

func TestClientAgainstTheFrontDoor(t *testing.T) {
	i, secrets := boot(t)
	c, err := client.New(client.Config{Instance: i, Secrets: secrets})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Health(t.Context()); err != nil {
		t.Error(err)
	}
	const version = "2021-04-01"
	groups := "/subscriptions/" + i.SubscriptionID + "/resourceGroups"
	made, err := client.Put[group](t.Context(), c, groups+"/rg1", version, map[string]any{"location": i.Location, "tags": map[string]string{"a": "b"}})
	if err != nil || made.Name != "rg1" {
		t.Fatalf("%+v %v", made, err)
	}
	read, err := client.Get[group](t.Context(), c, groups+"/RG1", version)
	if err != nil || read.Tags["a"] != "b" {
		t.Errorf("%+v %v", read, err)
	}
	all, err := client.List[group](t.Context(), c, groups, version)
	if err != nil || len(all) != 1 {
		t.Errorf("%+v %v", all, err)
	}
	for value, want := range map[string]int{"b": 1, "another & more": 0} {
		some, err := client.Query[group](t.Context(), c, groups, version, map[string]string{"$filter": "tagName eq 'a' and tagValue eq '" + value + "'"})
		if err != nil || len(some) != want {
			t.Errorf("groups with the tag a=%s: %+v %v", value, some, err)
		}
	}
	if err := c.Delete(t.Context(), groups+"/rg1", version); err != nil {
		t.Error(err)
	}
	var answer *azcore.ResponseError
	if _, err := client.Get[group](t.Context(), c, groups+"/rg1", version); !errors.As(err, &answer) || answer.StatusCode != http.StatusNotFound {
		t.Errorf("a deleted group: %v", err)
	}
	if token, err := c.Token(t.Context(), i.ResourceManager()); err != nil || strings.Count(token, ".") != 2 {
		t.Errorf("token %v", err)
	}
	wrong, err := client.New(client.Config{Instance: i, Secrets: client.Secrets{ClientSecret: "wrong"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.List[group](t.Context(), wrong, groups, version); err == nil || !strings.Contains(err.Error(), "AADSTS7000215") {
		t.Errorf("wrong secret: %v", err)
	}
}

func TestInstanceFiles(t *testing.T) {
	dir := t.TempDir()
	if _, err := client.LoadInstance(dir); !errors.Is(err, client.ErrNoInstance) {
		t.Errorf("no instance: %v", err)
	}
	i := client.Instance{Name: "x", Domain: "d.test", Address: netip.MustParseAddr("192.88.99.1"), StateDir: dir}
	if err := i.Save(); err != nil {
		t.Fatal(err)
	}
	if got, err := client.LoadInstance(dir); err != nil || got != i {
		t.Errorf("%+v %v", got, err)
	}
	s := client.Secrets{ClientSecret: "the-client-secret"}
	if err := s.Save(dir); err != nil {
		t.Fatal(err)
	}
	if got, err := client.LoadSecrets(dir); err != nil || got != s {
		t.Errorf("%+v %v", got, err)
	}
	for name, mode := range map[string]os.FileMode{"instance.json": 0o644, "secrets.json": 0o600} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v %v", name, info, err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "secrets.json"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := client.LoadSecrets(dir); err == nil {
		t.Error("secrets that others may read are taken")
	}
	if data, err := os.ReadFile(filepath.Join(dir, "instance.json")); err != nil || strings.Contains(string(data), "the-client-secret") {
		t.Error("the description holds a secret")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("left behind: %v %v", entries, err)
	}
}

// open is a gate that lets all through and a journal of nothing.
type open struct{}

func (open) Judge(context.Context, identity.SignIn) (identity.Verdict, error) {
	return identity.Verdict{}, nil
}

func (open) Record(identity.SignIn, identity.Verdict, error) {}
