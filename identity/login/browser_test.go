// SPDX-License-Identifier: Apache-2.0

package login_test

import (
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

// browser is one without scripts: cookies, and the forms of the page it is at.
type browser struct {
	t      *testing.T
	w      *world
	client *http.Client
	origin string
	at     seen
}

// seen is a page, or where it led to.
type seen struct {
	status   int
	text     string
	location *url.URL
	header   http.Header
}

func (w *world) browser(t *testing.T) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := *w.client
	client.Jar = jar
	return &browser{t: t, w: w, client: &client, origin: w.url}
}

func (b *browser) get(path string) seen {
	b.t.Helper()
	return b.do(http.MethodGet, path, "")
}

func (b *browser) do(method, path, body string) seen {
	b.t.Helper()
	request, err := http.NewRequestWithContext(b.t.Context(), method, b.w.url+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	if method == http.MethodPost {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		request.Header.Set("Origin", b.origin)
	}
	answer, err := b.client.Do(request)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	b.at = seen{status: answer.StatusCode, text: string(data), header: answer.Header}
	if to := answer.Header.Get("Location"); to != "" {
		if b.at.location, err = url.Parse(to); err != nil {
			b.t.Fatal(err)
		}
	} else if csp := answer.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "frame-ancestors 'none'") || strings.Contains(csp, "unsafe") {
		b.t.Errorf("content security policy %q", csp)
	}
	return b.at
}

var (
	hiddenField = regexp.MustCompile(`<input type="hidden" name="([^"]+)" value="([^"]*)">`)
	formAction  = regexp.MustCompile(`<form method="post" action="([^"]*)"`)
)

// send fills the page's form in and presses the button of a step. The step's own
// fields come last and so win over another form's hidden ones.
func (b *browser) send(step string, pairs ...string) seen {
	b.t.Helper()
	action := formAction.FindStringSubmatch(b.at.text)
	if action == nil {
		b.t.Fatalf("no form for %q: %d\n%s", step, b.at.status, b.at.text)
	}
	form := url.Values{}
	for _, field := range hiddenField.FindAllStringSubmatch(b.at.text, -1) {
		form.Set(field[1], html.UnescapeString(field[2]))
	}
	form.Set("step", step)
	return b.do(http.MethodPost, html.UnescapeString(action[1]), with(form, pairs...).Encode())
}

func (b *browser) password(password string) seen {
	b.t.Helper()
	return b.send("password", "username", b.w.first.Administrator, "password", password)
}

// device enters a code, signs in and says yes.
func (b *browser) device(code string) int {
	b.t.Helper()
	b.get("/device")
	b.send("code", "user_code", code)
	b.password(b.w.first.Password)
	return b.send("approve").status
}

func (b *browser) signedIn() bool {
	u, _ := url.Parse(b.w.url)
	for _, c := range b.client.Jar.Cookies(u) {
		if c.Name == "__Host-bastide-session" {
			return true
		}
	}
	return false
}
