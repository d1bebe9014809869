// SPDX-License-Identifier: Apache-2.0

package authorization

import (
	"context"
	"errors"
	"strings"
	"time"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/rbac"
	"bastide.dev/resource"
)

// QuestionsVersion is the API version of the questions about access.
const QuestionsVersion = "2026-11-01"

// Question is what can be asked with POST
// {scope}/providers/Bastide.Authorization/questions/default/{whoCan,explain}.
type Question struct {
	Principal string `json:"principal,omitempty"` // of explain: object id, user name or app id
	Action    string `json:"action"`
	Data      bool   `json:"data,omitempty"`
}

// WhoCan is the answer to whoCan.
type WhoCan struct {
	Action string   `json:"action"`
	Data   bool     `json:"data,omitempty"`
	Scope  string   `json:"scope"`
	Grants []Holder `json:"grants"`
}

// Holder is a principal that can, and by which assignment.
type Holder struct {
	PrincipalID   string    `json:"principalId"`
	PrincipalType string    `json:"principalType"`
	Name          string    `json:"name,omitempty"` // "" of one that is gone
	Role          string    `json:"role"`
	RoleID        string    `json:"roleId"`
	Scope         string    `json:"scope"`
	Assignment    string    `json:"assignment"`
	Condition     string    `json:"condition,omitempty"`
	Expires       time.Time `json:"expires,omitzero"`
	Members       []Member  `json:"members,omitempty"` // of a group, transitively
}

// Member is one who can because of a group.
type Member struct {
	ID   string `json:"id"`
	Type string `json:"type"`
	Name string `json:"name"`
}

// Explanation is the answer to explain.
type Explanation struct {
	Principal Member  `json:"principal"`
	Action    string  `json:"action"`
	Data      bool    `json:"data,omitempty"`
	Scope     string  `json:"scope"`
	Allowed   bool    `json:"allowed"`
	Grant     *Holder `json:"grant,omitempty"`
	Through   *Member `json:"through,omitempty"` // the group that holds the assignment
	Reason    string  `json:"reason"`
}

// questionsType answers questions about access to a scope. They need what it
// takes to read role assignments there (see AuthorizeRequest).
func (p *Provider) questionsType() arm.Type {
	return arm.Type{Name: "questions", Scope: arm.OnAny, Versions: []resource.APIVersion{QuestionsVersion}, Untracked: true,
		Actions: map[string]arm.Hook{"whoCan": p.whoCan, "explain": p.explain}}
}

// question reads and judges a question.
func (p *Provider) question(ctx context.Context, r *arm.Request) (Question, error) {
	var q Question
	if !strings.EqualFold(r.ID.Name(), "default") {
		return q, fault.New(fault.NotFound, "ResourceNotFound", "There are no questions '%s': they are named 'default'.", printable(r.ID.Name()))
	}
	if err := p.feed.load(ctx); err != nil {
		return q, err
	}
	if err := decodeBody(r.Body, &q); err != nil {
		return q, err
	}
	if len(q.Action) > 256 || strings.Contains(q.Action, "*") || !actionForm.MatchString(q.Action) {
		return q, fault.New(fault.Invalid, "InvalidAction", "'%s' isn't an action: it has the form Microsoft.Service/type/read.", printable(q.Action)).At("action")
	}
	return q, nil
}

func (p *Provider) whoCan(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	q, err := p.question(ctx, r)
	if err != nil {
		return nil, err
	}
	scope := r.ID.Parent().String()
	answer := WhoCan{Action: q.Action, Data: q.Data, Scope: scope, Grants: []Holder{}}
	for _, grant := range p.table.WhoCan(q.Action, q.Data, scope, p.now()) {
		holder := p.holder(ctx, grant.Assignment, grant.Role)
		if holder.PrincipalType == rbac.Group {
			for _, id := range p.config.Directory.Members(ctx, holder.PrincipalID) {
				holder.Members = append(holder.Members, p.member(ctx, id))
			}
		}
		answer.Grants = append(answer.Grants, holder)
	}
	return &arm.Plan{Answer: answer}, nil
}

func (p *Provider) holder(ctx context.Context, a *rbac.Assignment, role *rbac.Definition) Holder {
	return Holder{PrincipalID: a.PrincipalID, PrincipalType: a.PrincipalType, Name: p.member(ctx, a.PrincipalID).Name, Role: role.Name, RoleID: role.ID,
		Scope: a.Scope, Assignment: a.ID, Condition: a.Condition, Expires: a.Expires}
}

func (p *Provider) member(ctx context.Context, id string) Member {
	found, err := p.config.Directory.Principal(ctx, id)
	if err != nil {
		return Member{ID: id, Type: "Unknown"}
	}
	return Member{ID: found.ID, Type: found.Kind, Name: found.Name}
}

func (p *Provider) explain(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	q, err := p.question(ctx, r)
	if err != nil {
		return nil, err
	}
	who, err := p.config.Directory.Principal(ctx, q.Principal)
	var f *fault.Error
	if errors.As(err, &f) && f.Kind == fault.NotFound {
		return nil, fault.New(fault.NotFound, "PrincipalNotFound", "There is no user, group or service principal '%s'.", printable(q.Principal)).At("principal")
	}
	if err != nil {
		return nil, err
	}
	scope := r.ID.Parent().String()
	request := rbac.Request{Subject: rbac.Subject{ID: who.ID, Groups: p.config.Directory.Groups(ctx, who.ID)}, Action: q.Action, Data: q.Data, Scope: scope, Now: p.now()}
	decision := p.table.Decide(request)
	answer := Explanation{Principal: Member{who.ID, who.Kind, who.Name}, Action: q.Action, Data: q.Data, Scope: scope, Allowed: decision.Allowed, Reason: decision.Reason}
	if !decision.Allowed && p.implied(request) {
		answer.Allowed, answer.Reason = true, "Whoever has a role there may read this."
	}
	if decision.Assignment != nil {
		holder := p.holder(ctx, decision.Assignment, decision.Role)
		answer.Grant = &holder
	}
	if decision.Through != "" {
		group := p.member(ctx, decision.Through)
		answer.Through = &group
	}
	return &arm.Plan{Answer: answer}, nil
}
