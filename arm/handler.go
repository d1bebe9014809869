// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/uuid"

	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// The defaults of Config's durations.
const (
	DefaultWait      = 300 * time.Millisecond
	DefaultLongPoll  = 9 * time.Second
	DefaultRetention = 90 * 24 * time.Hour
)

// Tenant is the directory that the front door serves.
type Tenant struct {
	ID          string
	DisplayName string
	Domain      string // the default one, such as "contoso.example"
}

// Subscription is one that exists in this instance.
type Subscription struct {
	ID          string
	DisplayName string
}

// Config is what the front door needs. All but the durations, Now and Logger is required.
type Config struct {
	Store         store.Store
	Authenticator Authenticator
	Authorizer    Authorizer
	Providers     []Provider
	Tenant        Tenant
	Subscriptions []Subscription
	Endpoints     Endpoints

	// Committed hears of each transaction of the front door, when it is written;
	// before the request is answered. nil: nobody does.
	Committed func(changes []store.Change, revision int64)

	Logger    *slog.Logger
	Now       func() time.Time
	Wait      time.Duration // how long a write waits for its operation to end
	LongPoll  time.Duration // how long a read of an operation's status waits for its end
	Retention time.Duration // of activity-log records; ended operations are kept a day
}

// Handler is the front door. Run does its background work.
type Handler struct {
	config     Config
	store      store.Store
	operations *Operations
	table      *table
	log        *slog.Logger
	now        func() time.Time
}

// New checks the table of types and makes the front door.
func New(c Config) (*Handler, error) {
	if c.Store == nil || c.Authenticator == nil || c.Authorizer == nil {
		return nil, errors.New("arm: Store, Authenticator and Authorizer are required")
	}
	if err := c.Endpoints.check(); err != nil {
		return nil, err
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Committed == nil {
		c.Committed = func([]store.Change, int64) {}
	}
	c.Wait = orDefault(c.Wait, DefaultWait)
	c.LongPoll = orDefault(c.LongPoll, DefaultLongPoll)
	c.Retention = orDefault(c.Retention, DefaultRetention)
	h := &Handler{config: c, store: c.Store, operations: NewOperations(c.Store, c.Now), log: c.Logger, now: c.Now}
	rows, err := newTable(append(h.builtin(), c.Providers...))
	if err != nil {
		return nil, err
	}
	h.table = rows
	return h, nil
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

// call is one request on its way through.
type call struct {
	request     *http.Request
	path        resource.Path
	version     resource.APIVersion
	who         Principal
	query       url.Values
	address     string
	correlation string
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{request: r, query: r.URL.Query(), address: hostOf(r.RemoteAddr)}
	h.setHeaders(w, c)
	start := h.now()
	err := h.guarded(w, c)
	if err != nil {
		h.respondError(w, c, err)
	}
	level := slog.LevelDebug
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		level = slog.LevelInfo
	}
	attributes := []any{"method", r.Method, "path", r.URL.Path, "who", c.who.ID, "from", c.address,
		"correlation", c.correlation, "took", h.now().Sub(start)}
	if err != nil {
		attributes = append(attributes, "error", err.Error())
		if f := fault.From(err); f.Kind == fault.Internal {
			level = slog.LevelError
		}
	}
	h.log.Log(r.Context(), level, "request", attributes...)
}

// guarded turns a panic into an error, so that one bad request ends nothing but itself.
func (h *Handler) guarded(w http.ResponseWriter, c *call) (err error) {
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler { //nolint:errorlint // net/http compares it so, too
				panic(p)
			}
			err = fmt.Errorf("arm: panic: %v\n%s", p, debug.Stack())
		}
	}()
	return h.serve(w, c)
}

// setHeaders answers the ids by which a request is found in logs.
func (h *Handler) setHeaders(w http.ResponseWriter, c *call) {
	in, out := c.request.Header, w.Header()
	c.correlation = in.Get("x-ms-correlation-request-id")
	if uuid.Validate(c.correlation) != nil {
		c.correlation = uuid.NewString()
	}
	out.Set("x-ms-request-id", uuid.NewString())
	out.Set("x-ms-correlation-request-id", c.correlation)
	if strings.EqualFold(in.Get("x-ms-return-client-request-id"), "true") {
		if id := in.Get("x-ms-client-request-id"); uuid.Validate(id) == nil {
			out.Set("x-ms-client-request-id", id)
		}
	}
	out.Set("Cache-Control", "no-cache")
	out.Set("Strict-Transport-Security", "max-age=31536000; includeSubDomains")
	out.Set("X-Content-Type-Options", "nosniff")
}

func (h *Handler) serve(w http.ResponseWriter, c *call) error {
	path := strings.Trim(strings.ToLower(c.request.URL.Path), "/")
	if path == "metadata/endpoints" {
		return h.serveEndpoints(w, c)
	}
	if err := h.authenticate(c); err != nil {
		return err
	}
	if err := c.parse(); err != nil {
		return err
	}
	return h.route(w, c)
}

// authenticate sets who asks.
func (h *Handler) authenticate(c *call) error {
	header := c.request.Header.Get("Authorization")
	scheme, token, _ := strings.Cut(header, " ")
	switch {
	case header == "":
		return fault.New(fault.Unauthorized, "AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing.")
	case !strings.EqualFold(scheme, "Bearer") || token == "":
		return fault.New(fault.Unauthorized, "AuthenticationFailedInvalidHeader",
			"Authentication failed. The 'Authorization' header is provided in an invalid format.")
	}
	who, err := h.config.Authenticator.Authenticate(c.request.Context(), strings.TrimSpace(token))
	c.who = who
	return err
}

// parse takes the path and the API version apart.
func (c *call) parse() error {
	path, err := resource.ParsePath(c.request.URL.Path)
	if err != nil {
		return fault.New(fault.Invalid, "InvalidRequestUri", "The request path isn't valid: it isn't the id of a resource, collection or action.").Because(err)
	}
	c.path = path
	text := ""
	for name, values := range c.query {
		if strings.EqualFold(name, "api-version") && len(values) > 0 {
			text = values[0]
		}
	}
	if text == "" {
		return fault.New(fault.Invalid, "MissingApiVersionParameter", "The api-version query parameter (?api-version=) is required for all requests.")
	}
	c.version, err = resource.ParseAPIVersion(text)
	if err != nil {
		return fault.New(fault.Invalid, "InvalidApiVersionParameter",
			"The api-version '%s' is invalid. It must have the form 'YYYY-MM-DD' or 'YYYY-MM-DD-preview'.", text)
	}
	return nil
}

// param is a query parameter, its name compared as ARM does.
func (c *call) param(name string) string {
	for key, values := range c.query {
		if strings.EqualFold(key, name) && len(values) > 0 {
			return values[0]
		}
	}
	return ""
}

func (h *Handler) authorize(ctx context.Context, c *call, action string, scope resource.ID) error {
	return h.config.Authorizer.Authorize(ctx, c.who, action, scope)
}

func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return host
}
