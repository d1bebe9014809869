// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"bastide.dev/fault"
)

// status is the one table from a fault's kind to HTTP.
func status(kind fault.Kind) int {
	switch kind {
	case fault.Invalid, fault.Unsupported:
		return http.StatusBadRequest
	case fault.Unauthorized:
		return http.StatusUnauthorized
	case fault.Forbidden:
		return http.StatusForbidden
	case fault.NotFound:
		return http.StatusNotFound
	case fault.NotAllowed:
		return http.StatusMethodNotAllowed
	case fault.Conflict:
		return http.StatusConflict
	case fault.Precondition:
		return http.StatusPreconditionFailed
	case fault.TooLarge:
		return http.StatusRequestEntityTooLarge
	case fault.Exhausted:
		return http.StatusTooManyRequests
	case fault.Unavailable:
		return http.StatusServiceUnavailable
	case fault.Internal:
		return http.StatusInternalServerError
	}
	return http.StatusInternalServerError
}

// respond writes a JSON answer.
func respond(w http.ResponseWriter, code int, body any) error {
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(body); err != nil {
		return fmt.Errorf("arm: encode answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(buffer.Len()))
	w.WriteHeader(code)
	_, _ = w.Write(buffer.Bytes()) // the client went away: there is no one to tell
	return nil
}

// respondError writes ARM's error body.
func (h *Handler) respondError(w http.ResponseWriter, c *call, err error) {
	f := fault.From(err)
	wire := NewWireError(f)
	code := status(f.Kind)
	var size *http.MaxBytesError
	if errors.As(err, &size) {
		code = http.StatusRequestEntityTooLarge
		wire = &WireError{Code: "RequestContentTooLarge", Message: fmt.Sprintf("The request content is larger than the limit of %d bytes.", size.Limit)}
	}
	header := w.Header()
	header.Set("x-ms-error-code", wire.Code)
	switch code {
	case http.StatusUnauthorized:
		header.Set("WWW-Authenticate", fmt.Sprintf(`Bearer authorization_uri="%s/%s", error="invalid_token", error_description=%q`,
			strings.TrimSuffix(h.config.Endpoints.Login, "/"), h.config.Tenant.ID, asciiOnly(wire.Message)))
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		header.Set("Retry-After", "1")
	}
	if c.request.Method == http.MethodHead {
		w.WriteHeader(code)
		return
	}
	if err := respond(w, code, map[string]*WireError{"error": wire}); err != nil {
		h.log.Error("answer", "error", err)
	}
}

// asciiOnly keeps a message fit for a header.
func asciiOnly(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e {
			return -1
		}
		return r
	}, s)
}
