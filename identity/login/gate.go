// SPDX-License-Identifier: Apache-2.0

package login

import (
	"context"

	"bastide.dev/identity"
)

// Gate is asked right before any token is issued, in every flow and at every
// refresh. It is called concurrently; an error means that nothing is issued.
type Gate interface {
	Judge(ctx context.Context, attempt identity.SignIn) (identity.Verdict, error)
}

// Journal remembers each attempt to sign in, with what became of it: err is nil
// when a token was issued. It must neither wait nor fail.
type Journal interface {
	Record(attempt identity.SignIn, verdict identity.Verdict, err error)
}

// Federation checks assertions that another issuer signed for one of our
// principals. It returns the principal and the id of the federated credential
// that matched; a refusal is a fault with an AADSTS code.
type Federation interface {
	CheckFederated(ctx context.Context, appID, assertion string) (identity.ServicePrincipal, string, error)
}
