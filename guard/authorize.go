// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"
	authorization "k8s.io/api/authorization/v1"

	"bastide.dev/fault"
)

// Question is whether a principal may do something inside of a cluster.
type Question struct {
	Principal  string
	Groups     []string
	Action     string              // a data action, in Azure's names
	Scope      string              // the cluster's ARM id, or a namespace below it
	Attributes map[string][]string // of custom resources, for conditions
}

// Roles knows what roles grant. It answers from memory.
type Roles interface {
	// Grants tells whether any role grants what is asked, and which one.
	Grants(ctx context.Context, q Question) (granted bool, reason string, err error)
}

// What an API server, and by it the user, reads of a decision.
const (
	reasonRevoked = "The token of the directory doesn't count any more: its principal is deleted or disabled, or its sessions are revoked. Sign in again."
	reasonGroups  = "The token of the directory names a group that its principal has left since. Sign in again (kubelogin remove-tokens)."
	reasonForm    = "The request's principal isn't one of the directory's."
)

// authorize denies principals that have ended since their token was signed, and
// allows what roles of Azure grant, where the cluster asks them. It has no
// opinion of the rest, which Kubernetes' own roles decide.
func (s *Service) authorize(ctx context.Context, c Cluster, review *authorization.SubjectAccessReview) error {
	spec := review.Spec
	review.Spec = authorization.SubjectAccessReviewSpec{} // nobody reads it back
	review.Status = authorization.SubjectAccessReviewStatus{}
	deny := func(reason string) error {
		review.Status.Denied, review.Status.Reason = true, reason
		return nil
	}
	if !c.Directory {
		return deny("The cluster doesn't take principals of the directory.")
	}
	token, ok := tokenOf(spec.Extra)
	if !ok {
		return deny(reasonForm)
	}
	p, err := s.Directory.Standing(ctx, token)
	if fault.Is(err, fault.Unauthorized) {
		return deny(reasonRevoked)
	}
	if err != nil {
		return err
	}
	if left(spec.Groups, p.Groups) {
		return deny(reasonGroups)
	}
	if !c.AzureRBAC {
		return nil
	}
	return s.byRoles(ctx, c, p, &spec, &review.Status)
}

// byRoles asks for every data action that a request amounts to.
func (s *Service) byRoles(ctx context.Context, c Cluster, p Principal, spec *authorization.SubjectAccessReviewSpec, status *authorization.SubjectAccessReviewStatus) error {
	actions, ok := actionsOf(spec)
	if !ok {
		return nil // a request in no form that Azure names: no role grants it
	}
	scope, ok := scopeOf(c, spec.ResourceAttributes)
	if !ok {
		return nil
	}
	for _, a := range actions {
		granted, reason, err := s.Roles.Grants(ctx, Question{Principal: p.ID, Groups: p.Groups, Action: a.name, Scope: scope, Attributes: a.attributes})
		if err != nil {
			return err
		}
		if !granted {
			return nil
		}
		status.Reason = reason
	}
	status.Allowed = true
	return nil
}

// tokenOf reads back what the API server knows of a token from its extras. Each
// key has one value: two would let the second hide behind the first.
func tokenOf(extra map[string]authorization.ExtraValue) (Token, bool) {
	one := func(key string) string {
		if v := extra[key]; len(v) == 1 {
			return v[0]
		}
		return ""
	}
	t := Token{Principal: one(ExtraPrincipal), Tenant: one(ExtraTenant), App: one(ExtraApp), Kind: one(ExtraKind), Credential: one(ExtraCredential)}
	seconds, err := strconv.ParseInt(one(ExtraIssued), 10, 64)
	if err != nil || uuid.Validate(t.Principal) != nil || uuid.Validate(t.Tenant) != nil || t.Kind != kindUser && t.Kind != kindApp ||
		len(extra[ExtraCredential]) > 1 {
		return Token{}, false
	}
	t.Issued = time.Unix(seconds, 0)
	return t, true
}

// left tells whether a request is in a group of the directory that its principal
// isn't in now. Groups of the directory are GUIDs; Kubernetes' own are not.
func left(named, now []string) bool {
	return slices.ContainsFunc(named, func(group string) bool {
		return len(group) == 36 && uuid.Validate(group) == nil && !slices.Contains(now, group)
	})
}
