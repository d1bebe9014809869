// SPDX-License-Identifier: Apache-2.0

package login_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"

	"bastide.dev/identity"
)

// chromium starts a browser that takes login.example.com for this machine and
// trusts the service's one certificate, and nothing else that it wouldn't anyhow.
func (w *world) chromium(t *testing.T) context.Context {
	t.Helper()
	program, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatalf("the sign-in page is tested with a real browser (`make deps` installs it): %v", err)
	}
	key := sha256.Sum256(w.leaf.RawSubjectPublicKeyInfo)
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(program), chromedp.NoSandbox, // root has none
		chromedp.Flag("host-resolver-rules", "MAP *.example.com 127.0.0.1"),
		chromedp.Flag("ignore-certificate-errors-spki-list", base64.StdEncoding.EncodeToString(key[:])), chromedp.Flag("proxy-server", "direct://"))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx, authenticator()); err != nil {
		t.Fatal(err)
	}
	return ctx
}

// here is the end of a native application's redirect.
func here(t *testing.T) (string, chan url.Values) {
	t.Helper()
	got := make(chan url.Values, 1)
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/here" {
			got <- r.URL.Query()
		}
		_, _ = rw.Write([]byte("<p id=arrived>You are back.</p>"))
	}))
	t.Cleanup(server.Close)
	return strings.Replace(server.URL, "127.0.0.1", "localhost", 1) + "/here", got
}

func press(step string) chromedp.Action[chromedp.Void] {
	return chromedp.Click(chromedp.CSS(`button[value="` + step + `"]`))
}

func (w *world) typed() chromedp.Action[chromedp.Void] {
	return chromedp.Steps(
		chromedp.SetValue(chromedp.CSS(`input[name="username"]`), w.first.Administrator), // it may be filled in
		chromedp.SendKeys(chromedp.CSS(`input[name="password"]`), w.first.Password),
		press("password"))
}

func do(ctx context.Context, t *testing.T, what string, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	limited, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := chromedp.Do(limited, actions...); err != nil {
		text, _ := chromedp.Run(ctx, chromedp.Text(chromedp.CSS("body"))) // says more, when it can be read
		t.Fatalf("%s: %v; the page says: %s", what, err, text)
	}
}

// arrived redeems the code that came back and returns what the token says.
func (w *world) arrived(t *testing.T, redirect string, got chan url.Values) identity.Claims {
	t.Helper()
	select {
	case values := <-got:
		status, answer := w.redeem(t, values.Get("code"), "redirect_uri", redirect)
		if status != http.StatusOK {
			t.Fatalf("%v: %d %v", values, status, answer)
		}
		return claimsOf(t, answer["access_token"])
	case <-time.After(2 * time.Minute):
		t.Fatal("the browser didn't come back")
	}
	return identity.Claims{}
}

// authenticator is a device with a passkey's hardware in it, whose user always agrees.
func authenticator() chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		if _, err := cdp.Call(ctx, target, webauthn.Enable, webauthn.EnableParams{}); err != nil {
			return err
		}
		_, err := cdp.Call(ctx, target, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{Options: &webauthn.VirtualAuthenticatorOptions{
			Protocol: "ctap2", Transport: "internal", HasResidentKey: true, HasUserVerification: true, IsUserVerified: true, AutomaticPresenceSimulation: true}})
		return err
	})
}

// read is what an action finds out.
func read[T any](ctx context.Context, t *testing.T, action chromedp.Action[T]) T {
	t.Helper()
	limited, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	value, err := chromedp.Run(limited, action)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// TestInABrowser goes through the sign-in as a person does: password, an
// authenticator app set up because a policy asks for it, a passkey set up by
// themselves, and then the passkey alone.
func TestInABrowser(t *testing.T) {
	w := startAs(t, "login.example.com")
	ctx := w.chromium(t)
	redirect, got := here(t)
	path := w.url + w.authorizePath("redirect_uri", redirect)

	w.policy(needMFA)
	do(ctx, t, "password", chromedp.Navigate(path), w.typed())
	do(ctx, t, "authenticator app", press("begin:confirm"), chromedp.WaitVisible(chromedp.CSS("img")))
	secret := read(ctx, t, chromedp.Text(chromedp.CSS("#secret")))
	if width := read(ctx, t, chromedp.Evaluate[int](`document.querySelector("img").naturalWidth`)); width != 240 {
		t.Errorf("the QR code is %d pixels wide: does the policy of the page let it through?", width)
	}
	do(ctx, t, "first code", chromedp.SendKeys(chromedp.CSS(`input[name="code"]`), w.otp(t, secret)), press("confirm"), chromedp.WaitVisible(chromedp.CSS("#arrived")))
	if c := w.arrived(t, redirect, got); !slices.Equal(c.AMR, []string{"pwd", "otp", "mfa"}) {
		t.Errorf("amr %v", c.AMR)
	}

	do(ctx, t, "passkey", chromedp.Navigate(w.url+"/security"), press("begin:register"),
		chromedp.Click(chromedp.CSS(`form[data-options] button`)), chromedp.WaitVisible(chromedp.Search(`//p[contains(., "Passkey, since")]`)))
	w.pass(time.Minute) // the code of this minute was used
	do(ctx, t, "other account", chromedp.Navigate(path+"&prompt=select_account"), press("other"))
	do(ctx, t, "passkey alone", press("begin:passkey"), chromedp.Click(chromedp.CSS(`form[data-options] button`)), chromedp.WaitVisible(chromedp.CSS("#arrived")))
	if c := w.arrived(t, redirect, got); !slices.Equal(c.AMR, []string{"fido", "mfa"}) || c.UPN != w.first.Administrator {
		t.Errorf("amr %v of %s", c.AMR, c.UPN)
	}

	// Only a passkey will do, after a password.
	w.policy(func(identity.SignIn) identity.Verdict { return identity.Verdict{NeedsMFA: true, NeedsPasskey: true} })
	do(ctx, t, "password first", chromedp.Navigate(path+"&prompt=login"), w.typed())
	do(ctx, t, "passkey second", press("begin:factor"), chromedp.Click(chromedp.CSS(`form[data-options] button`)), chromedp.WaitVisible(chromedp.CSS("#arrived")))
	if c := w.arrived(t, redirect, got); !slices.Contains(c.AMR, "fido") || !slices.Contains(c.AMR, "pwd") {
		t.Errorf("amr %v", c.AMR)
	}
}

// TestConsentInABrowser is a web application's first use.
func TestConsentInABrowser(t *testing.T) {
	w := startAs(t, "login.example.com")
	w.api(t)
	redirect, got := here(t)
	app, _, secret := w.registered(t, identity.Application{DisplayName: "shop", WebRedirectURIs: []string{redirect}})
	ctx := w.chromium(t)
	do(ctx, t, "consent", chromedp.Navigate(w.url+w.webPath(app, "response_mode", "form_post", "redirect_uri", redirect)), w.typed(),
		chromedp.WaitVisible(chromedp.Search(`//li[contains(., "Read your orders")]`)), press("consent"), chromedp.WaitVisible(chromedp.Search(`//h1[.="Continue"]`)))
	code := read(ctx, t, chromedp.Evaluate[string](`document.querySelector("input[name=code]").value`))
	status, answer := w.redeem(t, code, "client_id", app.AppID, "client_secret", secret, "redirect_uri", redirect, "code_verifier", "")
	if status != http.StatusOK || claimsOf(t, answer["access_token"]).Scope != "Orders.Read" {
		t.Errorf("%d %v", status, answer)
	}
	do(ctx, t, "posted to the application", chromedp.Click(chromedp.CSS("main button")), chromedp.WaitVisible(chromedp.CSS("#arrived")))
	<-got
}
