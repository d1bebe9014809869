// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"

	"bastide.dev/identity"
)

// signIns is the token service's gate and journal as long as no policy can be
// written: it lets through what the directory let through, and logs each attempt.
type signIns struct{ log *slog.Logger }

func (signIns) Judge(context.Context, identity.SignIn) (identity.Verdict, error) {
	return identity.Verdict{}, nil
}

func (s signIns) Record(a identity.SignIn, _ identity.Verdict, err error) {
	level, result := slog.LevelInfo, "success"
	if err != nil {
		level, result = slog.LevelWarn, err.Error()
	}
	s.log.Log(context.Background(), level, "sign-in", "result", result, "flow", a.Flow, "kind", a.Kind, "principal", a.Principal,
		"name", a.Name, "client", a.ClientID, "resource", a.ResourceID, "address", a.Address, "methods", a.Methods, "correlation", a.Correlation)
}
