// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	aks "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
)

// A cluster acts as an identity (its controllers do) and its nodes as another
// (their kubelets pull images with it). Either may be the user's.

const (
	userAssigned     = "UserAssigned"
	identityType     = "Microsoft.ManagedIdentity/userAssignedIdentities"
	assignAction     = identityType + "/assign/action"
	joinSubnetAction = "Microsoft.Network/virtualNetworks/subnets/join/action"
	readSubnetAction = "Microsoft.Network/virtualNetworks/subnets/read"
	kubeletProfile   = "kubeletidentity" // AKS's one name in identityProfile
)

// Assigned is an identity of the user's, as its document says.
type Assigned struct {
	ID          resource.ID
	PrincipalID string
	ClientID    string
}

func (a Assigned) none() bool { return a.ID.IsRoot() }

// Roles is what clusters ask of role assignments beyond giving them. It is safe
// for concurrent use.
type Roles interface {
	// May tells whether an identity may do an action at a scope.
	May(ctx context.Context, principalID, action, scope string) (bool, error)
	// Revoke takes back a role that Directory.Assign gave; what isn't there is no error.
	Revoke(ctx context.Context, principalID, roleID, scope string) error
}

// identity reads who a cluster and its nodes shall be.
func (p *parser) identity(d *Desired, id resource.ID, model *aks.ManagedCluster, old *Desired) {
	if old != nil {
		d.Identity, d.ClientID, d.User, d.Kubelet = old.Identity, old.ClientID, old.User, old.Kubelet
	}
	if sp := model.Properties.ServicePrincipalProfile; sp != nil && value(sp.ClientID) != "" && value(sp.ClientID) != managedClientID {
		d.Secret = value(sp.Secret)
		if old == nil || d.Secret != "" {
			d.Identity, d.ClientID = byPrincipal, value(sp.ClientID)
		} else if old.Identity == byPrincipal {
			d.ClientID = value(sp.ClientID)
		}
	}
	p.identityProfile(d, id, model.Properties.IdentityProfile)
	if model.Identity == nil || model.Identity.Type == nil {
		if d.Identity == "" {
			p.bad("InvalidParameter", "identity.type", "A cluster needs an identity: set identity.type to SystemAssigned or UserAssigned, or give properties.servicePrincipalProfile.")
		}
		return
	}
	p.identityType(d, model.Identity)
}

func (p *parser) identityType(d *Desired, identity *aks.ManagedClusterIdentity) {
	kind := string(*identity.Type)
	managed := strings.EqualFold(kind, systemAssigned) || strings.EqualFold(kind, userAssigned)
	switch {
	case managed && d.Secret != "":
		p.bad("InvalidParameter", "identity.type", "A cluster has a managed identity or a service principal, not both: leave out properties.servicePrincipalProfile, or identity.")
	case strings.EqualFold(kind, systemAssigned):
		d.Identity, d.ClientID, d.User = systemAssigned, "", Assigned{}
	case strings.EqualFold(kind, userAssigned):
		d.Identity, d.ClientID = userAssigned, ""
		p.userAssigned(d, identity.UserAssignedIdentities)
	case strings.EqualFold(kind, byPrincipal):
		d.Identity, d.User = byPrincipal, Assigned{}
		if d.ClientID == "" {
			p.bad("InvalidParameter", "identity.type", "Without a managed identity a cluster needs properties.servicePrincipalProfile.")
		}
	default:
		p.problems = append(p.problems, fault.New(fault.Unsupported, "PropertyNotSupported",
			"identity.type can't be %q here: only SystemAssigned, UserAssigned and None are possible.", kind).At("identity.type"))
	}
}

// userAssigned takes the one identity that a body names; without any, the old one stays.
func (p *parser) userAssigned(d *Desired, named map[string]*aks.ManagedServiceIdentityUserAssignedIdentitiesValue) {
	const target = "identity.userAssignedIdentities"
	var ids []string
	for _, id := range slices.Sorted(maps.Keys(named)) {
		if named[id] != nil {
			ids = append(ids, id)
		}
	}
	if len(named) == 0 && !d.User.none() {
		return
	}
	d.User = Assigned{}
	if len(ids) != 1 {
		p.bad("InvalidIdentityNumber", target, "A cluster with identity.type UserAssigned has exactly one identity: %d are given.", len(ids))
		return
	}
	d.User.ID = p.identityID(ids[0], target)
}

// identityID reads the id of a user-assigned identity; the root when it is none.
func (p *parser) identityID(text, target string) resource.ID {
	id, err := resource.ParseID(text)
	if err != nil || !id.IsType(identityType) {
		p.bad("InvalidParameter", target, "%q isn't the id of a user-assigned identity, such as /subscriptions/…/resourceGroups/…/providers/%s/NAME.", text, identityType)
		return resource.ID{}
	}
	return id
}

// identityProfile takes a kubelet identity of the user's; that which the cluster
// makes itself is what it has without one.
func (p *parser) identityProfile(d *Desired, id resource.ID, profile map[string]*aks.UserAssignedIdentity) {
	for _, name := range slices.Sorted(maps.Keys(profile)) {
		target := "properties.identityProfile." + name
		identity := profile[name]
		switch {
		case !strings.EqualFold(name, kubeletProfile):
			p.problems = append(p.problems, fault.New(fault.Unsupported, "PropertyNotSupported", "%s can't be set: there is only %s.", target, kubeletProfile).At(target))
		case identity == nil || value(identity.ResourceID) == "":
		case strings.EqualFold(value(identity.ResourceID), kubeletIdentityID(id, d).String()):
			d.Kubelet = Assigned{}
		default:
			d.Kubelet = Assigned{ID: p.identityID(value(identity.ResourceID), target+".resourceId"),
				PrincipalID: value(identity.ObjectID), ClientID: value(identity.ClientID)}
		}
	}
}

// kubeletIdentityID is the id of the identity that a cluster makes for its nodes.
func kubeletIdentityID(id resource.ID, d *Desired) resource.ID {
	return resource.GroupID(id.Subscription(), d.NodeGroup).Resource("Microsoft.ManagedIdentity", "userAssignedIdentities", id.Name()+"-agentpool")
}

// findIdentities looks up the identities of the user's that a cluster shall have,
// and whether they may do what a cluster's must.
func (p *Provider) findIdentities(ctx context.Context, ps *parser, r *arm.Request, d, old *Desired) error {
	var had Desired
	if old != nil {
		had = *old
	}
	if d.Identity == userAssigned && !d.User.none() {
		found, err := p.findIdentity(ctx, ps, r, Assigned{ID: d.User.ID}, had.User, "identity.userAssignedIdentities")
		if err != nil {
			return err
		}
		d.User = found
	}
	if !d.Kubelet.none() {
		const target = "properties.identityProfile." + kubeletProfile
		if d.Identity != userAssigned {
			ps.bad("CustomKubeletIdentityOnlySupportedOnUserAssignedMSICluster", target,
				"A kubelet identity of yours needs a cluster whose identity.type is UserAssigned. Without one of yours, the cluster makes its own: set resourceId to that one's to have it back.")
			return nil
		}
		found, err := p.findIdentity(ctx, ps, r, d.Kubelet, had.Kubelet, target)
		if err != nil {
			return err
		}
		d.Kubelet = found
	}
	return p.checkRoles(ctx, ps, d, old)
}

// findIdentity reads an identity's document. What was said of its ids must be so.
// Who gives a cluster an identity gives its powers to all who work in the
// cluster: of one that it hasn't had that takes the right to assign it.
func (p *Provider) findIdentity(ctx context.Context, ps *parser, r *arm.Request, said, had Assigned, target string) (Assigned, error) {
	if !said.ID.Equal(had.ID) {
		err := p.Authorizer.Authorize(ctx, r.Who, assignAction, said.ID)
		if fault.Is(err, fault.Forbidden) { // also of one that isn't there: nobody learns which there are
			ps.problems = append(ps.problems, fault.New(fault.Forbidden, "LinkedAuthorizationFailed",
				"The client '%s' with object id '%s' has permission to perform action 'Microsoft.ContainerService/managedClusters/write' on scope '%s'; however, it does not have permission to perform action '%s' on the linked scope '%s' or the linked scope is invalid.",
				r.Who.Name, r.Who.ID, r.ID, assignAction, said.ID).At(target))
			return said, nil
		}
		if err != nil {
			return said, err
		}
	}
	doc, err := arm.GetDocument(ctx, p.Store, said.ID)
	if fault.Is(err, fault.NotFound) {
		ps.bad("FailedIdentityOperation", target, "The identity '%s' was not found.", said.ID)
		return said, nil
	}
	if err != nil {
		return said, fmt.Errorf("identity %s: %w", said.ID, err)
	}
	var body struct {
		Properties struct{ PrincipalID, ClientID string }
	}
	if err := json.Unmarshal(doc.Body, &body); err != nil {
		return said, fmt.Errorf("identity %s: body: %w", said.ID, err)
	}
	found := Assigned{ID: doc.ID, PrincipalID: body.Properties.PrincipalID, ClientID: body.Properties.ClientID}
	differs := func(said, is string) bool { return said != "" && !strings.EqualFold(said, is) }
	if differs(said.PrincipalID, found.PrincipalID) || differs(said.ClientID, found.ClientID) {
		ps.bad("InvalidParameter", target, "The identity '%s' has client id %s and object id %s: leave them out, or give these.", found.ID, found.ClientID, found.PrincipalID)
	}
	return found, nil
}

// checkRoles refuses an identity of the user's that couldn't do its work. The
// service gives it no role on what is the user's: its owner may use it elsewhere.
func (p *Provider) checkRoles(ctx context.Context, ps *parser, d, old *Desired) error {
	if d.Identity != userAssigned || d.User.PrincipalID == "" {
		return nil
	}
	check := func(action, scope, code, target, role string) error {
		may, err := p.Roles.May(ctx, d.User.PrincipalID, action, scope)
		if err != nil || may {
			return err
		}
		ps.bad(code, target, "The cluster's identity %s may not do %s on %s. Give it the role: az role assignment create --assignee-object-id %s --assignee-principal-type ServicePrincipal --role '%s' --scope %s",
			d.User.ID.Name(), action, scope, d.User.PrincipalID, role, scope)
		return nil
	}
	if !d.Kubelet.none() {
		if err := check(assignAction, d.Kubelet.ID.String(), "CustomKubeletIdentityMissingPermissionError", "properties.identityProfile."+kubeletProfile, "Managed Identity Operator"); err != nil {
			return err
		}
	}
	for _, subnet := range d.subnets() {
		if old != nil && old.User == d.User && slices.ContainsFunc(old.subnets(), subnet.Equal) {
			continue
		}
		for _, action := range []string{joinSubnetAction, readSubnetAction} {
			if err := check(action, subnet.String(), "ResourceMissingPermissionError", "properties.agentPoolProfiles.vnetSubnetID", "Network Contributor"); err != nil {
				return err
			}
		}
	}
	return nil
}

// changedIdentity records a change of identity that can't be: AKS doesn't lead
// back from a managed identity, and has an action for another service principal.
func (p *parser) changedIdentity(d, old *Desired) {
	switch {
	case d.Identity == byPrincipal && old.Identity != byPrincipal:
		p.bad("PropertyChangeNotAllowed", "identity.type", "Changing property 'identity.type' is not allowed: a cluster with a managed identity doesn't go back to a service principal.")
	case d.Identity == byPrincipal && d.ClientID != old.ClientID:
		p.bad("PropertyChangeNotAllowed", "properties.servicePrincipalProfile.clientId",
			"Changing property 'properties.servicePrincipalProfile.clientId' is not allowed: use the action resetServicePrincipalProfile (az aks update-credentials --reset-service-principal).")
	}
}

// fillIdentity completes what a body says of identities; the view adds who they are.
func fillIdentity(body object, d *Desired) {
	set(body, "identity.type", d.Identity)
	arm.Drop(body, "identity.userAssignedIdentities")
	if d.Identity == userAssigned {
		identity, _ := get(body, "identity").(object)
		identity["userAssignedIdentities"] = object{d.User.ID.String(): object{}}
	}
	arm.Drop(body, "properties.identityProfile")
	set(body, "properties.servicePrincipalProfile.clientId", or(d.ClientID, managedClientID))
}
