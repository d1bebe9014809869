// SPDX-License-Identifier: Apache-2.0

// Package fault is the one error type of Bastide: a kind, a message fit for the
// person who asked, the property it is about, and a private cause for the log.
//
// Every package may import it; it imports the standard library alone. Front
// doors turn a fault into their protocol's error body through one table.
package fault

import (
	"errors"
	"fmt"
	"strings"
)

// Kind says what went wrong, coarsely; the front door maps it to a status.
type Kind string

// The kinds. An error that isn't a fault is Internal.
const (
	Internal     Kind = "Internal"     // 500
	Invalid      Kind = "Invalid"      // 400
	Unauthorized Kind = "Unauthorized" // 401
	Forbidden    Kind = "Forbidden"    // 403
	NotFound     Kind = "NotFound"     // 404
	NotAllowed   Kind = "NotAllowed"   // 405
	Conflict     Kind = "Conflict"     // 409
	Precondition Kind = "Precondition" // 412: an etag that doesn't match
	TooLarge     Kind = "TooLarge"     // 413
	Unsupported  Kind = "Unsupported"  // 400: a property that isn't implemented, refused by name
	Exhausted    Kind = "Exhausted"    // 429 or a failed operation: no address, disk, memory left
	Unavailable  Kind = "Unavailable"  // 503
)

// Error is a fault. Only Kind, Code, Message, Target and Details are ever shown to a client.
type Error struct {
	Kind    Kind
	Code    string // the wire code, AKS's own where it has one; empty: the kind's default
	Message string
	Target  string   // the property or resource it is about, such as "properties.dnsPrefix"
	Details []*Error // every problem of the request, when there are several
	Cause   error    // private
}

// New makes a fault with a formatted public message.
func New(kind Kind, code, format string, args ...any) *Error {
	return &Error{Kind: kind, Code: code, Message: fmt.Sprintf(format, args...)}
}

// At returns the fault with its target set.
func (e *Error) At(target string) *Error {
	e.Target = target
	return e
}

// Because returns the fault with its private cause set.
func (e *Error) Because(cause error) *Error {
	e.Cause = cause
	return e
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.Code != "" {
		b.WriteString(e.Code + ": ")
	}
	b.WriteString(e.Message)
	if e.Target != "" {
		b.WriteString(" (" + e.Target + ")")
	}
	if e.Cause != nil {
		b.WriteString(": " + e.Cause.Error())
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Cause }

// From finds the fault in err's chain; any other error becomes Internal with a
// generic message and err as its private cause. From(nil) is nil.
func From(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Kind: Internal, Code: "InternalServerError", Message: "The service met an unexpected condition.", Cause: err}
}

// Is tells whether err is a fault of that kind.
func Is(err error, kind Kind) bool {
	var e *Error
	return errors.As(err, &e) && e.Kind == kind
}

// Join makes one fault of all problems of a request: nil of none, the fault itself
// of one, and of several the first one's kind and code with all as details.
func Join(problems ...*Error) error {
	problems = compact(problems)
	switch len(problems) {
	case 0:
		return nil
	case 1:
		return problems[0]
	}
	messages := make([]string, len(problems))
	for i, p := range problems {
		messages[i] = p.Message
	}
	first := problems[0]
	return &Error{Kind: first.Kind, Code: first.Code, Target: first.Target,
		Message: fmt.Sprintf("%d problems: %s", len(problems), strings.Join(messages, " ")), Details: problems}
}

func compact(problems []*Error) []*Error {
	var kept []*Error
	for _, p := range problems {
		if p != nil {
			kept = append(kept, p)
		}
	}
	return kept
}
