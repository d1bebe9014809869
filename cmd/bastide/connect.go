// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"

	"bastide.dev/client"
	"bastide.dev/fault"
	"bastide.dev/instance"
)

// connect is a client of the instance's front door, as its service principal.
func (g *global) connect() (*client.Client, *instance.Instance, error) {
	in, err := g.load()
	if err != nil {
		return nil, nil, err
	}
	view, err := client.LoadInstance(in.StateDir)
	if err != nil {
		return nil, nil, err
	}
	secrets, err := client.LoadSecrets(in.StateDir)
	if err != nil {
		return nil, nil, err
	}
	c, err := client.New(client.Config{Instance: view, Secrets: secrets})
	return c, in, err
}

// answered makes a fault of what the front door refused, so that people read
// its message alone and the exit code is right.
func answered(err error) error {
	var refused *azcore.ResponseError
	if !errors.As(err, &refused) || refused.RawResponse == nil {
		return err
	}
	body, readErr := runtime.Payload(refused.RawResponse)
	var wire struct {
		Error struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
	}
	if readErr != nil || json.Unmarshal(body, &wire) != nil || wire.Error.Message == "" {
		return err
	}
	kind := fault.Conflict
	switch refused.StatusCode {
	case http.StatusBadRequest:
		kind = fault.Invalid
	case http.StatusNotFound:
		kind = fault.NotFound
	case http.StatusForbidden, http.StatusUnauthorized:
		kind = fault.Forbidden
	case http.StatusServiceUnavailable:
		kind = fault.Unavailable
	}
	return fault.New(kind, wire.Error.Code, "%s", wire.Error.Message)
}
