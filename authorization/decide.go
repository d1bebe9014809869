// SPDX-License-Identifier: Apache-2.0

package authorization

import (
	"context"
	"strings"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/rbac"
	"bastide.dev/resource"
)

// Decide answers a request; Now is set when it isn't.
func (p *Provider) Decide(ctx context.Context, r rbac.Request) (rbac.Decision, error) {
	if err := p.feed.load(ctx); err != nil {
		return rbac.Decision{Reason: "Role assignments can't be read."}, err
	}
	if r.Now.IsZero() {
		r.Now = p.now()
	}
	return p.table.Decide(r), nil
}

// Authorize is nil when who may do action on scope, and else a Forbidden fault
// with ARM's own code and wording. What no assignment grants is denied.
func (p *Provider) Authorize(ctx context.Context, who rbac.Subject, name, action, scope string) error {
	return p.authorize(ctx, name, rbac.Request{Subject: who, Action: action, Scope: scope})
}

func (p *Provider) authorize(ctx context.Context, name string, r rbac.Request) error {
	decision, err := p.Decide(ctx, r)
	if err != nil || decision.Allowed || p.implied(r) {
		return err
	}
	return forbidden(name, r, decision)
}

func forbidden(name string, r rbac.Request, d rbac.Decision) error {
	scope := r.Scope
	if len(scope) > 1 {
		scope = strings.TrimSuffix(scope, "/")
	}
	message := "The client '%s' with object id '%s' does not have authorization to perform action '%s' over scope '%s' or the scope is invalid. If access was recently granted, please refresh your credentials."
	if r.Attributes != nil && strings.HasPrefix(d.Reason, "The condition") {
		message = "The client '%s' with object id '%s' has permission to perform action '%s' on scope '%s'; however, it does not have the required permission because the ABAC condition of its role assignment isn't met."
	}
	return fault.New(fault.Forbidden, "AuthorizationFailed", message, name, r.ID, printable(r.Action), printable(scope))
}

// AuthorizeRequest is Authorize for the front door of ARM, which asks before
// anybody has looked into the request: conditions on the role assignment that a
// request writes or deletes are judged by this package's own hooks. elevateAccess
// is for Global Administrators, whatever roles they have.
func (p *Provider) AuthorizeRequest(ctx context.Context, who arm.Principal, action string, scope resource.ID) error {
	if strings.EqualFold(action, actionElevate) && scope.IsRoot() {
		return p.mayElevate(ctx, who)
	}
	if scope.IsType(OwnNamespace + "/questions") {
		action, scope = TypeAssignment+"/read", scope.Parent()
	}
	r := rbac.Request{Subject: subjectOf(who), Action: action, Scope: scope.String()}
	r.Open = scope.IsType(TypeAssignment) && (strings.EqualFold(action, actionAssign) || strings.EqualFold(action, actionRevoke))
	return p.authorize(ctx, who.Name, r)
}

// Related tells whether a principal has a role on a scope, above or below it: of
// what is there he is then shown what he may read.
func (p *Provider) Related(ctx context.Context, who arm.Principal, scope resource.ID) (bool, error) {
	if err := p.feed.load(ctx); err != nil {
		return false, err
	}
	return p.table.Related(subjectOf(who), scope.String(), p.now()), nil
}

// implied are reads that need no role of their own: whoever has a role anywhere
// in a subscription may see that it is there, and everybody which operations and
// built-in roles there are, and what he may do himself.
func (p *Provider) implied(r rbac.Request) bool {
	is := func(actions ...string) bool {
		for _, a := range actions {
			if strings.EqualFold(a, r.Action) {
				return true
			}
		}
		return false
	}
	switch {
	case r.Data:
		return false
	case is("Microsoft.Resources/subscriptions/read", "Microsoft.Resources/subscriptions/locations/read", "Microsoft.Resources/subscriptions/providers/read"):
		return p.table.Below(r.Subject, r.Scope, p.now())
	case is(Namespace + "/permissions/read"):
		return p.table.Related(r.Subject, r.Scope, p.now())
	case is(Namespace+"/providerOperations/read", Namespace+"/operations/read", TypeDefinition+"/read"):
		id, err := resource.ParseID(r.Scope)
		return err == nil && (id.IsRoot() || id.Parent().IsRoot())
	}
	return false
}

// printable keeps what a client sent fit for a message.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f {
			return -1
		}
		return r
	}, s)
	if len(s) > 512 {
		s = strings.ToValidUTF8(s[:512], "") + "…"
	}
	return s
}
