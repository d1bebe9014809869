// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"

	"bastide.dev/fault"
)

// As with ACR, a token of the token service is exchanged for one of the
// registry's own, which lives for hours and buys the short ones that allow
// something. It is what az acr login and nodes' kubelets sign in with.
const (
	exchangePath    = "/oauth2/exchange"
	refreshLifetime = 3 * time.Hour
	// TokenUser is the name under which such a token is sent as a password.
	TokenUser = "00000000-0000-0000-0000-000000000000"
)

// exchange answers POST /oauth2/exchange.
func (r *Registry) exchange(w http.ResponseWriter, request *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	request.Body = http.MaxBytesReader(w, request.Body, 64<<10)
	token, err := r.exchanged(request)
	if err != nil {
		r.refuse(w, request, access{}, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]string{"refresh_token": token}) // a client that went away is no error of ours
}

func (r *Registry) exchanged(request *http.Request) (string, error) {
	if request.Method != http.MethodPost {
		return "", fault.New(fault.NotAllowed, "UNSUPPORTED", "Use POST.")
	}
	if err := request.ParseForm(); err != nil {
		return "", fault.New(fault.Invalid, "UNSUPPORTED", "The form can't be read.")
	}
	if grant := request.PostForm.Get("grant_type"); grant != "access_token" {
		return "", fault.New(fault.Invalid, "UNSUPPORTED", "The grant_type must be 'access_token'.")
	}
	if service := request.PostForm.Get("service"); service != "" && service != hostOf(r.config.URL) {
		return "", fault.New(fault.Invalid, "UNSUPPORTED", "The service must be '%s'.", hostOf(r.config.URL))
	}
	subject, err := r.config.Directory.Bearer(request.Context(), request.PostForm.Get("access_token"))
	if err != nil {
		return "", err
	}
	c := claims{Audience: r.config.URL, Expires: time.Now().Add(refreshLifetime).Unix(), Subject: subject, Refresh: true, Access: []access{}}
	signed, err := jwt.Signed(r.signer).Claims(c).Serialize()
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return signed, nil
}

// refreshed is who has a token of exchange's.
func (r *Registry) refreshed(token string) (Subject, error) {
	if c, ok := r.ownToken(token); ok && c.Refresh && c.Subject.ID != "" {
		return c.Subject, nil
	}
	return Subject{}, unauthorized("The refresh token isn't good, or isn't any more.")
}

// basic is who sent a name and a password, which may be a token of exchange's.
func (r *Registry) basic(request *http.Request, name, password string) (Subject, error) {
	if name == TokenUser {
		if s, err := r.refreshed(password); err == nil {
			return s, nil
		}
	}
	return r.config.Directory.Basic(request.Context(), name, password, address(request))
}
