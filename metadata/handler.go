// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"bastide.dev/dataplane"
)

// versions are the API versions of the instance document, oldest first.
func versions() []string {
	return []string{
		"2017-03-01", "2017-04-02", "2017-08-01", "2017-10-01", "2017-12-01", "2018-02-01", "2018-04-02", "2018-10-01",
		"2019-02-01", "2019-03-11", "2019-04-30", "2019-06-01", "2019-06-04", "2019-08-01", "2019-08-15", "2019-11-01",
		"2020-06-01", "2020-07-15", "2020-09-01", "2020-10-01", "2020-12-01", "2021-01-01", "2021-02-01", "2021-03-01",
		"2021-05-01", "2021-10-01", "2021-11-01", "2021-11-15", "2021-12-13", "2023-07-01", "2023-11-15", "2024-03-15", "2024-07-17", "2025-04-07",
	}
}

// firstIdentity is the oldest version of the token endpoint.
const firstIdentity = "2018-02-01"

func eventVersions() []string {
	return []string{"2017-03-01", "2017-08-01", "2017-11-01", "2019-01-01", "2019-04-01", "2019-08-01", "2020-07-01"}
}

// handler answers in one network.
type handler struct {
	*Service
	senders dataplane.Senders
}

// problem is an answer that refuses, in the form of both the instance and the
// token endpoints.
type problem struct {
	status      int
	Code        string   `json:"error"`
	Description string   `json:"error_description,omitempty"`
	Newest      []string `json:"newest-versions,omitempty"`
}

func bad(description string) *problem {
	return &problem{status: http.StatusBadRequest, Code: "invalid_request", Description: description}
}

func notFound() *problem { return &problem{status: http.StatusNotFound, Code: "Not found"} }

// ServeHTTP answers one request of a machine.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	from, known := h.whose(r)
	machine := h.box(from.Machine)
	if !known || machine == nil {
		// Whoever it is, it isn't a machine that has anything here. A machine that
		// is just being made asks again, as clients do after a 404.
		h.refuse(w, &problem{status: http.StatusNotFound, Code: "not_ready", Description: "Nothing is known of this machine yet."})
		return
	}
	if !machine.limiter.AllowN(h.Now(), 1) {
		h.refuse(w, tooMany())
		return
	}
	if p := genuine(r); p != nil {
		h.refuse(w, p)
		return
	}
	if p := h.route(w, r, machine, from); p != nil {
		h.refuse(w, p)
	}
}

func (h *handler) whose(r *http.Request) (dataplane.Sender, bool) {
	remote, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return dataplane.Sender{}, false
	}
	return h.senders.Sender(remote.Addr())
}

func tooMany() *problem {
	return &problem{status: http.StatusTooManyRequests, Code: "too_many_requests", Description: "Too many requests. Please try again later."}
}

// genuine refuses what a program on the machine was tricked into sending, or
// passes on for somebody else: it takes a header that no redirect, link or form
// can set, and none that proxies add, and the one name of the address.
func genuine(r *http.Request) *problem {
	if r.Method != http.MethodGet {
		return &problem{status: http.StatusMethodNotAllowed, Code: "Method not allowed"}
	}
	name := r.Host
	if host, port, err := net.SplitHostPort(r.Host); err == nil && port == "80" {
		name = host
	}
	if name != dataplane.MetadataAddress.String() {
		return bad("The Host header must be " + dataplane.MetadataAddress.String())
	}
	for header := range r.Header {
		if header == "Forwarded" || header == "Via" || strings.HasPrefix(header, "X-Forwarded-") {
			return bad("The request was forwarded: " + header + " must not be there")
		}
	}
	if sent := r.Header.Values("Metadata"); len(sent) != 1 || !strings.EqualFold(sent[0], "true") {
		return bad("Required metadata header not specified")
	}
	return nil
}

func (h *handler) route(w http.ResponseWriter, r *http.Request, machine *box, from dataplane.Sender) *problem {
	path := strings.FieldsFunc(r.URL.Path, func(c rune) bool { return c == '/' })
	for i := range path {
		path[i] = strings.ToLower(path[i])
	}
	if len(path) < 2 || path[0] != "metadata" {
		return notFound()
	}
	rest := path[2:]
	switch path[1] {
	case "versions":
		if len(rest) == 0 {
			return write(w, object{"apiVersions": versions()})
		}
	case "instance":
		if p := checkVersion(r, versions()); p != nil {
			return p
		}
		return h.instance(w, r, instance(&machine.machine.Compute, from, h.senders.MAC(from)), rest)
	case "identity":
		all := versions()
		if p := checkVersion(r, all[slices.Index(all, firstIdentity):]); p != nil {
			return p
		}
		return h.identity(w, r, machine, strings.Join(rest, "/"))
	case "scheduledevents":
		if p := checkVersion(r, eventVersions()); p != nil {
			return p
		}
		if len(rest) == 0 {
			return write(w, object{"DocumentIncarnation": 1, "Events": []any{}})
		}
	case "attested":
		return &problem{status: http.StatusNotFound, Code: "Not found", Description: "Attested documents aren't offered: nobody but Azure could sign them."}
	}
	return notFound()
}

func checkVersion(r *http.Request, known []string) *problem {
	sent := r.URL.Query()["api-version"]
	if len(sent) == 1 && slices.Contains(known, sent[0]) {
		return nil
	}
	newest := slices.Clone(known[max(0, len(known)-3):])
	slices.Reverse(newest)
	return &problem{status: http.StatusBadRequest, Newest: newest,
		Code: "Bad request. api-version is invalid or was not specified in the request. For more information refer to /metadata/versions"}
}

func (h *handler) instance(w http.ResponseWriter, r *http.Request, document object, path []string) *problem {
	part, there := find(document, path)
	if !there {
		return notFound()
	}
	_, leaf := part.(string)
	switch format := strings.ToLower(r.URL.Query().Get("format")); {
	case format == "text":
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte(listing(part))) // a client that is gone needs no answer
		return nil
	case format != "" && format != "json":
		return &problem{status: http.StatusBadRequest, Code: "Bad request. format must be json or text."}
	case leaf:
		return &problem{status: http.StatusBadRequest, Code: "Bad request. A single value needs format=text."}
	}
	return write(w, part)
}

func (h *handler) identity(w http.ResponseWriter, r *http.Request, machine *box, endpoint string) *problem {
	switch endpoint {
	case "info":
		return write(w, object{"tenantId": machine.machine.TenantID})
	case "oauth2/token":
		answer, p := h.token(r, machine)
		if p != nil {
			return p
		}
		return write(w, answer)
	}
	return notFound()
}

func write(w http.ResponseWriter, v any) *problem {
	data, err := json.Marshal(v)
	if err != nil {
		return &problem{status: http.StatusInternalServerError, Code: "internal_error"}
	}
	header(w)
	_, _ = w.Write(data) // a client that is gone needs no answer
	return nil
}

func (h *handler) refuse(w http.ResponseWriter, p *problem) {
	data, err := json.Marshal(p)
	if err != nil {
		data = []byte("{}")
	}
	header(w)
	if p.status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(p.status)
	_, _ = w.Write(data)
}

func header(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
}
