// SPDX-License-Identifier: Apache-2.0

package login

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"bastide.dev/fault"
	"bastide.dev/identity"
)

// oauthError is an answer of RFC 6749 with Entra ID's number.
type oauthError struct {
	code    string
	number  int
	status  int
	message string
	sub     string // suberror: what a client can do about it
}

func (e oauthError) Error() string {
	return fmt.Sprintf("%s: AADSTS%d: %s", e.code, e.number, e.message)
}

// refuse is an oauthError with status 400, which nearly all have.
func refuse(code string, number int, format string, args ...any) oauthError {
	return oauthError{code: code, number: number, status: http.StatusBadRequest, message: fmt.Sprintf(format, args...)}
}

// codes says which OAuth error a fault of the directory becomes.
func oauthCode(faultCode string) (string, int) {
	switch faultCode {
	case identity.CodeWrongSecret, identity.CodeExpiredSecret, identity.CodeNotPublic:
		return "invalid_client", http.StatusUnauthorized
	case identity.CodeUnknownClient:
		return "unauthorized_client", http.StatusBadRequest
	case identity.CodeUnknownResource:
		return "invalid_resource", http.StatusBadRequest
	}
	return "invalid_grant", http.StatusBadRequest
}

// asOAuth finds the answer for any error; nil when there is none fit to be shown.
func asOAuth(err error) *oauthError {
	if err == nil {
		return nil
	}
	var direct oauthError
	if errors.As(err, &direct) {
		return &direct
	}
	f := fault.From(err)
	if f.Kind == fault.Unavailable {
		return &oauthError{code: "temporarily_unavailable", number: 90033, status: http.StatusServiceUnavailable, message: "A transient error has occurred. Please try again."}
	}
	number, ok := strings.CutPrefix(f.Code, "AADSTS")
	if !ok {
		return nil
	}
	n, parseErr := strconv.Atoi(number)
	if parseErr != nil {
		return nil
	}
	code, status := oauthCode(f.Code)
	return &oauthError{code: code, number: n, status: status, message: f.Message}
}

// fail answers with an error and writes down what is nobody's fault but ours.
func (s *Service) fail(w http.ResponseWriter, r *http.Request, err error) {
	trace := uuid.NewString()
	correlation := r.Header.Get("client-request-id")
	if uuid.Validate(correlation) != nil {
		correlation = uuid.NewString()
	}
	e := asOAuth(err)
	if e == nil {
		s.log.Error("sign-in failed", "path", r.URL.Path, "trace", trace, "error", err)
		e = &oauthError{code: "server_error", number: 90033, status: http.StatusInternalServerError, message: "A transient error has occurred. Please try again."}
	}
	now := s.now().UTC().Format("2006-01-02 15:04:05Z")
	w.Header().Set("client-request-id", correlation)
	if e.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Basic realm="token"`)
	}
	if e.status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	answer := map[string]any{
		"error": e.code,
		"error_description": fmt.Sprintf("AADSTS%d: %s Trace ID: %s Correlation ID: %s Timestamp: %s",
			e.number, e.message, trace, correlation, now),
		"error_codes": []int{e.number}, "timestamp": now, "trace_id": trace, "correlation_id": correlation,
		"error_uri": s.directory.Endpoints().Authority + "/error?code=" + strconv.Itoa(e.number),
	}
	if e.sub != "" {
		answer["suberror"] = e.sub
	}
	writeJSON(w, e.status, answer)
}

// printable makes foreign text fit for a message.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
	return s[:min(len(s), 200)]
}

// expiry is when something that lives for d from now ends.
func (s *Service) expiry(d time.Duration) time.Time { return s.now().UTC().Add(d) }
