// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
)

// most of an answer that Exchange reads.
const most = 4 << 20

// Exchange is one request to a host of the instance, or to an API server of it,
// by whoever the token belongs to, and from wherever Dial starts. It is for those
// who want to see any answer as it comes.
type Exchange struct {
	Method      string
	Address     string // https URL
	Bearer      string // "" for none
	ContentType string
	Body        []byte
	// Roots, PEM, are trusted beside the instance's CA.
	Roots []byte
	// Dial, when set, makes the connection to the address of a host of the instance.
	Dial func(ctx context.Context, address string) (net.Conn, error)
}

// Answer is what came back.
type Answer struct {
	Status int
	Body   []byte
}

// Do sends the request once, over a connection of its own. An answer of any
// status is no error.
func (i Instance) Do(ctx context.Context, e Exchange) (Answer, error) {
	s, err := i.Session(e.Roots, nil)
	if err != nil {
		return Answer{}, err
	}
	s.transport.DisableKeepAlives = true
	if e.Dial != nil {
		s.transport.DialContext = func(ctx context.Context, _, address string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			return e.Dial(ctx, net.JoinHostPort(i.Address.String(), port))
		}
	}
	return s.Do(ctx, e)
}

// Session sends exchanges over connections that it keeps, as most programs do.
type Session struct{ transport *http.Transport }

// Session begins one. Roots, PEM, are trusted beside the instance's CA;
// certificate, which may be nil, is shown to the server.
func (i Instance) Session(roots []byte, certificate *tls.Certificate) (*Session, error) {
	transport, err := i.Transport()
	if err != nil {
		return nil, err
	}
	if len(roots) > 0 {
		transport.TLSClientConfig.RootCAs = transport.TLSClientConfig.RootCAs.Clone()
		if !transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(roots) {
			return nil, errors.New("exchange: no certificate in the further roots")
		}
	}
	if certificate != nil {
		transport.TLSClientConfig.Certificates = []tls.Certificate{*certificate}
	}
	return &Session{transport}, nil
}

// Close closes the connections that are idle.
func (s *Session) Close() { s.transport.CloseIdleConnections() }

// Do sends the request; the exchange's Roots and Dial are not looked at, but the
// session's. A request that can't do harm twice is sent again when a kept
// connection turns out to be closed, as net/http does. An answer of any status
// is no error.
func (s *Session) Do(ctx context.Context, e Exchange) (Answer, error) {
	request, err := http.NewRequestWithContext(ctx, e.Method, e.Address, bytes.NewReader(e.Body))
	if err != nil {
		return Answer{}, fmt.Errorf("%s %s: %w", e.Method, e.Address, err)
	}
	if e.Bearer != "" {
		request.Header.Set("Authorization", "Bearer "+e.Bearer)
	}
	if e.ContentType != "" {
		request.Header.Set("Content-Type", e.ContentType)
	}
	answer, err := (&http.Client{Transport: s.transport}).Do(request)
	if err != nil {
		return Answer{}, fmt.Errorf("%s %s: %w", e.Method, e.Address, err)
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(answer.Body, most))
	if err != nil {
		return Answer{}, fmt.Errorf("%s %s: %w", e.Method, e.Address, err)
	}
	return Answer{Status: answer.StatusCode, Body: body}, nil
}
