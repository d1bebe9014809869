// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"strconv"
	"strings"
	"time"

	authentication "k8s.io/api/authentication/v1"

	"bastide.dev/fault"
)

// Extra keys under which an API server knows a principal of the directory, with
// what can end before a token does. AuthenticationConfigurations of clusters
// write the same.
const (
	ExtraPrefix     = "directory.bastide.dev/"
	ExtraPrincipal  = ExtraPrefix + "oid"
	ExtraTenant     = ExtraPrefix + "tid"
	ExtraApp        = ExtraPrefix + "appid"
	ExtraKind       = ExtraPrefix + "idtyp"
	ExtraIssued     = ExtraPrefix + "iat"
	ExtraCredential = ExtraPrefix + "credential"
)

// Kinds of principals, as tokens name them.
const (
	kindUser = "user"
	kindApp  = "app"
)

// Token is what a verified token of the directory said.
type Token struct {
	Principal  string // object id
	Tenant     string
	App        string // the client it was given to
	Kind       string // user or app
	Issued     time.Time
	Credential string // what a client bought it with
}

// Principal is who stands behind a token now.
type Principal struct {
	ID     string
	Name   string   // a user's principal name
	Groups []string // object ids, through other groups too
	Token  Token
}

// Directory knows principals as they are now. It answers from memory.
type Directory interface {
	// Authenticate verifies a token for clusters; one that is wrong is an Unauthorized fault.
	Authenticate(ctx context.Context, token string) (Principal, error)
	// Standing finds the principal of a token that was verified elsewhere: an
	// Unauthorized fault when it is deleted, disabled or has its tokens revoked.
	Standing(ctx context.Context, token Token) (Principal, error)
}

// authenticate answers for tokens that an API server can't read for itself:
// those of principals with more groups than a token names.
func (s *Service) authenticate(ctx context.Context, c Cluster, review *authentication.TokenReview) error {
	token := review.Spec.Token
	review.Spec = authentication.TokenReviewSpec{} // it isn't sent back
	review.Status = authentication.TokenReviewStatus{}
	if !c.Directory {
		review.Status.Error = "the cluster doesn't take tokens of the directory"
		return nil
	}
	p, err := s.Directory.Authenticate(ctx, token)
	if fault.Is(err, fault.Unauthorized) {
		review.Status.Error = fault.From(err).Message
		return nil
	}
	if err != nil {
		return err
	}
	review.Status.Authenticated = true
	review.Status.User = authentication.UserInfo{Username: username(p), UID: p.ID, Groups: p.Groups, Extra: extra(p.Token)}
	return nil
}

// username is how AKS calls a principal in a cluster: a user by their principal
// name, all others by their object id.
func username(p Principal) string {
	if p.Token.Kind == kindUser {
		return strings.ToLower(p.Name)
	}
	return p.ID
}

func extra(t Token) map[string]authentication.ExtraValue {
	e := map[string]authentication.ExtraValue{
		ExtraPrincipal: {t.Principal}, ExtraTenant: {t.Tenant}, ExtraKind: {t.Kind}, ExtraApp: {t.App},
		ExtraIssued: {strconv.FormatInt(t.Issued.Unix(), 10)},
	}
	if t.Credential != "" {
		e[ExtraCredential] = authentication.ExtraValue{t.Credential}
	}
	return e
}
