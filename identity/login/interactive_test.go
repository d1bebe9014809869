// SPDX-License-Identifier: Apache-2.0

package login_test

import (
	"context"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"bastide.dev/identity"
)

// TestInteractiveCredential signs in with the SDK's own interactive credential:
// it opens "the browser" (a program that writes down where to), somebody signs in
// there, and the code comes back to the port that the SDK listens on.
func TestInteractiveCredential(t *testing.T) {
	w := start(t)
	dir := t.TempDir()
	opened := filepath.Join(dir, "opened")
	if err := os.WriteFile(filepath.Join(dir, "xdg-open"), []byte("#!/bin/sh\nprintf %s \"$1\" > \"$OPENED.part\" && mv \"$OPENED.part\" \"$OPENED\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("OPENED", opened)
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	credential, err := azidentity.NewInteractiveBrowserCredential(&azidentity.InteractiveBrowserCredentialOptions{TenantID: w.first.Tenant.ID, ClientID: identity.AppCLI,
		DisableInstanceDiscovery: true, ClientOptions: policy.ClientOptions{Transport: w.client, Cloud: cloud.Configuration{ActiveDirectoryAuthorityHost: w.url + "/"}}})
	if err != nil {
		t.Fatal(err)
	}
	person := w.browser(t)
	signedIn := make(chan error, 1)
	go func() { signedIn <- signIn(person, opened, w.first.Password) }()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	token, err := credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{w.url + "/.default"}})
	if there := <-signedIn; err != nil || there != nil {
		t.Fatal(err, there)
	}
	if p, err := w.directory.Authenticate(t.Context(), token.Token); err != nil || p.Name != w.first.Administrator {
		t.Errorf("%+v %v", p, err)
	}
}

// signIn goes where the browser was sent to, signs in, and follows the answer
// back to the program.
func signIn(b *browser, opened, password string) error {
	var text []byte
	for begin := time.Now(); len(text) == 0; time.Sleep(10 * time.Millisecond) {
		text, _ = os.ReadFile(opened) // not there yet
		if time.Since(begin) > 20*time.Second {
			return fmt.Errorf("the SDK opened no browser")
		}
	}
	address, err := url.Parse(string(text))
	if err != nil {
		return err
	}
	b.get(address.RequestURI())
	page := b.password(password)
	action := formAction.FindStringSubmatch(page.text)
	if action == nil {
		return fmt.Errorf("no form back: %d %s", page.status, page.text)
	}
	form := url.Values{}
	for _, field := range hiddenField.FindAllStringSubmatch(page.text, -1) {
		form.Set(field[1], html.UnescapeString(field[2]))
	}
	answer, err := http.PostForm(html.UnescapeString(action[1]), form) // MSAL asks for the code in a form
	if err != nil {
		return err
	}
	return answer.Body.Close()
}
