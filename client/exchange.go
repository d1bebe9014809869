// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
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

// Do sends the request once. An answer of any status is no error.
func (i Instance) Do(ctx context.Context, e Exchange) (Answer, error) {
	transport, err := i.Transport()
	if err != nil {
		return Answer{}, err
	}
	transport.DisableKeepAlives = true
	if len(e.Roots) > 0 {
		transport.TLSClientConfig.RootCAs = transport.TLSClientConfig.RootCAs.Clone()
		if !transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(e.Roots) {
			return Answer{}, errors.New("exchange: no certificate in the further roots")
		}
	}
	if e.Dial != nil {
		transport.DialContext = func(ctx context.Context, _, address string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			return e.Dial(ctx, net.JoinHostPort(i.Address.String(), port))
		}
	}
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
	answer, err := (&http.Client{Transport: transport}).Do(request)
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
