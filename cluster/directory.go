// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"reflect"
	"regexp"
	"slices"
	"strings"

	aks "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"

	"bastide.dev/arm"
	"bastide.dev/controlplane"
	"bastide.dev/fault"
)

// The applications of AKS's own integration: what tokens for clusters are for,
// and the client that kubelogin is.
const (
	serverApp = "6dae42f8-4368-4678-94ff-3960e28e3630"
	clientApp = "80faf920-1908-4b52-b5ef-a8e7bedfc67a"
)

// maxAdminGroups bounds a list whose limit AKS doesn't document.
const maxAdminGroups = 100

var guidForm = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// Integration is how principals of the directory come into a cluster.
type Integration struct {
	Enabled   bool     `json:"enabled,omitempty"`
	AzureRBAC bool     `json:"azureRBAC,omitempty"` // roles of Azure grant rights inside
	Admins    []string `json:"admins,omitempty"`    // groups whose members may do everything
}

// integration reads aadProfile and disableLocalAccounts. What a body leaves out stays.
func (p *parser) integration(d *Desired, props *aks.ManagedClusterProperties, old *Desired) {
	if old != nil {
		d.Integration, d.NoLocalAccounts = old.Integration, old.NoLocalAccounts
	}
	if props.DisableLocalAccounts != nil {
		d.NoLocalAccounts = *props.DisableLocalAccounts
	}
	profile := props.AADProfile
	if profile == nil {
		return
	}
	const prefix = "properties.aadProfile."
	i := &d.Integration
	switch {
	case i.Enabled && profile.Managed != nil && !*profile.Managed:
		p.bad("OperationNotAllowed", prefix+"managed", "Disabling the managed Microsoft Entra integration of a cluster is not allowed: once enabled it stays.")
	case !i.Enabled && !value(profile.Managed):
		p.bad("InvalidParameter", prefix+"managed", "The value of parameter aadProfile.managed is invalid: only the managed integration is possible, with true.")
	}
	if i.Enabled = true; p.guard == "" {
		p.bad("PropertyNotSupported", "properties.aadProfile", "This instance has no directory for clusters.")
	}
	if profile.EnableAzureRBAC != nil {
		i.AzureRBAC = *profile.EnableAzureRBAC
	}
	if profile.AdminGroupObjectIDs != nil {
		i.Admins = nil
		for _, id := range profile.AdminGroupObjectIDs {
			if id := strings.ToLower(value(id)); !slices.Contains(i.Admins, id) {
				i.Admins = append(i.Admins, id)
			}
		}
	}
	if tenant := value(profile.TenantID); tenant != "" && !strings.EqualFold(tenant, p.tenant) {
		p.bad("InvalidParameter", prefix+"tenantID", "The value of parameter aadProfile.tenantID is invalid: %q isn't the tenant of this subscription, %s.", tenant, p.tenant)
	}
}

func (p *parser) validateIntegration(d *Desired) {
	const prefix = "properties.aadProfile."
	if len(d.Integration.Admins) > maxAdminGroups {
		p.bad("InvalidParameter", prefix+"adminGroupObjectIDs", "The value of parameter aadProfile.adminGroupObjectIDs is invalid: it names %d groups, and %d are possible.", len(d.Integration.Admins), maxAdminGroups)
	}
	for _, id := range d.Integration.Admins {
		if !guidForm.MatchString(id) {
			p.bad("InvalidParameter", prefix+"adminGroupObjectIDs", "The value of parameter aadProfile.adminGroupObjectIDs is invalid: %q isn't the object id of a group.", id)
		}
	}
	if d.NoLocalAccounts && !d.Integration.Enabled {
		p.bad("InvalidParameter", "properties.disableLocalAccounts", "The value of parameter disableLocalAccounts is invalid: without local accounts nobody gets into a cluster that isn't integrated with Microsoft Entra ID (aadProfile).")
	}
}

// sameAccess tells whether two desired states let the same people in the same way.
func sameAccess(a, b *Desired) bool {
	return reflect.DeepEqual(a.Integration, b.Integration) && a.NoLocalAccounts == b.NoLocalAccounts
}

// fillIntegration completes what a body says of the directory.
func fillIntegration(body object, d *Desired, tenant string) {
	set(body, "properties.disableLocalAccounts", d.NoLocalAccounts)
	arm.Drop(body, "properties.aadProfile")
	if i := d.Integration; i.Enabled {
		set(body, "properties.aadProfile", object{"managed": true, "enableAzureRBAC": i.AzureRBAC, "adminGroupObjectIDs": append([]string{}, i.Admins...), "tenantID": tenant})
	}
}

// compileDirectory is how the API server lets the directory's principals in.
func (p *Provider) compileDirectory(w *whole, keys secrets) *controlplane.Directory {
	s := &w.state
	if !s.Desired.Integration.Enabled {
		return nil
	}
	return &controlplane.Directory{
		Issuer: p.Login + "/" + p.Tenant + "/", Tenant: p.Tenant, Audiences: []string{serverApp, "spn:" + serverApp}, CA: p.InstanceCA(),
		Guard: p.Guard + "/clusters/" + s.UID, Secret: keys.Access.Secret, Admins: s.Desired.Integration.Admins,
	}
}

// resetDirectory answers the action for integrations with applications of the
// user's own, which aren't offered: as AKS does for managed ones.
func (p *Provider) resetDirectory(_ context.Context, r *arm.Request) (*arm.Plan, error) {
	if r.Old == nil {
		return nil, notFound(r.ID)
	}
	return nil, fault.New(fault.Invalid, "OperationNotAllowed",
		"Resetting the AAD profile is not allowed: clusters have the managed integration (aadProfile.managed), which has no applications of your own.").At("resetAADProfile")
}
