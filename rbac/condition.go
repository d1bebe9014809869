// SPDX-License-Identifier: Apache-2.0

package rbac

import (
	"slices"
	"strings"
	"time"
)

// Condition is a parsed expression of Azure's role assignment conditions, version 2.0.
type Condition struct {
	root node
	used []string // keys of the attributes named, in the order of the text
}

// Attributes are the keys of the attributes that the condition names, such as
// "@request[microsoft.authorization/roleassignments:principalid]".
func (c *Condition) Attributes() []string { return slices.Clone(c.used) }

// Where attributes come from.
const (
	OfRequest     = "Request"
	OfResource    = "Resource"
	OfPrincipal   = "Principal"
	OfEnvironment = "Environment"
)

// The attributes that requests to this service have.
const (
	CustomResourceGroup = "Microsoft.ContainerService/managedClusters/customResources:group"
	CustomResourceKind  = "Microsoft.ContainerService/managedClusters/customResources:kind"
	AssignedRole        = "Microsoft.Authorization/roleAssignments:RoleDefinitionId"
	AssignedPrincipal   = "Microsoft.Authorization/roleAssignments:PrincipalId"
	AssignedType        = "Microsoft.Authorization/roleAssignments:PrincipalType"
	UtcNow              = "UtcNow"

	// SubOperation is no attribute: under this key of a Request's attributes are its sub-operations.
	SubOperation = "suboperation"
)

// Attribute is the key of an attribute in a Request's attributes.
func Attribute(source, name string) string { return strings.ToLower("@" + source + "[" + name + "]") }

// Unsupported lists the attributes of a condition that no request to this
// service has: they could only ever deny.
func (c *Condition) Unsupported() []string {
	known := []string{
		Attribute(OfRequest, CustomResourceGroup), Attribute(OfRequest, CustomResourceKind),
		Attribute(OfRequest, AssignedRole), Attribute(OfRequest, AssignedPrincipal), Attribute(OfRequest, AssignedType),
		Attribute(OfResource, AssignedRole), Attribute(OfResource, AssignedPrincipal), Attribute(OfResource, AssignedType),
		Attribute(OfEnvironment, UtcNow),
	}
	var unknown []string
	for _, key := range c.used {
		if !slices.Contains(known, key) && !slices.Contains(unknown, key) {
			unknown = append(unknown, key)
		}
	}
	return unknown
}

// Met tells whether the condition holds for a request. What it says of an
// attribute that the request doesn't have isn't known, and so isn't met.
func (c *Condition) Met(r Request) bool {
	return c.root.eval(&evaluation{request: &r, action: strings.ToLower(r.Action)}) == yes
}

// truth has a third value, of what hangs on an attribute that isn't there:
// a negation of it must not become a yes.
type truth int8

const (
	no truth = iota
	unknown
	yes
)

func truthOf(b bool) truth {
	if b {
		return yes
	}
	return no
}

type evaluation struct {
	request *Request
	action  string // in lower case
}

// values are an attribute's; nil when the request doesn't have it.
func (e *evaluation) values(key string) []string {
	if v, ok := e.request.Attributes[key]; ok {
		return v
	}
	if key == "@environment[utcnow]" && !e.request.Now.IsZero() {
		return []string{e.request.Now.UTC().Format(time.RFC3339Nano)}
	}
	return nil
}

type node interface{ eval(e *evaluation) truth }

type (
	either  struct{ left, right node }
	both    struct{ left, right node }
	negated struct{ inner node }
	acts    struct{ patterns []pattern }
	suboper struct{ names []string }
	exists  struct{ key string }
)

func (n either) eval(e *evaluation) truth {
	if left := n.left.eval(e); left != yes {
		return max(left, n.right.eval(e))
	}
	return yes
}

func (n both) eval(e *evaluation) truth {
	if left := n.left.eval(e); left != no {
		return min(left, n.right.eval(e))
	}
	return no
}

func (n negated) eval(e *evaluation) truth { return yes - n.inner.eval(e) }

func (n acts) eval(e *evaluation) truth { return truthOf(fits(n.patterns, e.action)) }

func (n suboper) eval(e *evaluation) truth {
	return truthOf(slices.ContainsFunc(e.request.Attributes[SubOperation], func(have string) bool {
		return slices.ContainsFunc(n.names, func(name string) bool { return strings.EqualFold(have, name) })
	}))
}

func (n exists) eval(e *evaluation) truth {
	if len(e.values(n.key)) == 0 && e.request.Open {
		return unknown
	}
	return truthOf(len(e.values(n.key)) > 0)
}

// operand is one side of a comparison: an attribute or literals.
type operand struct {
	key      string // of an attribute; "" of literals
	literals []string
}

func (o operand) values(e *evaluation) []string {
	if o.key != "" {
		return e.values(o.key)
	}
	return o.literals
}

// comparison holds values of both sides against each other.
type comparison struct {
	left, right operand
	crossed     bool // a ForXOfYValues: prefix is there
	allLeft     bool
	allRight    bool
	fits        func(left, right string) bool
}

func (n comparison) eval(e *evaluation) truth {
	left, right := n.left.values(e), n.right.values(e)
	if len(left) == 0 || len(right) == 0 {
		return unknown
	}
	if !n.crossed && (len(left) > 1 || len(right) > 1) {
		return unknown // which of them is meant isn't said
	}
	one := func(l string) bool { return quantified(right, n.allRight, func(r string) bool { return n.fits(l, r) }) }
	return truthOf(quantified(left, n.allLeft, one))
}

// quantified tells whether all, or any, of some values hold.
func quantified(values []string, all bool, holds func(string) bool) bool {
	if all {
		return !slices.ContainsFunc(values, func(v string) bool { return !holds(v) })
	}
	return slices.ContainsFunc(values, holds)
}
