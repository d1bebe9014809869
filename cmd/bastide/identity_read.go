// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"bastide.dev/client"
	"bastide.dev/cluster"
	"bastide.dev/compute"
	"bastide.dev/managedidentity"
)

// The API versions that findings are read with.
const (
	identityVersion   = "2023-01-31"
	assignmentVersion = "2022-04-01"
	machineVersion    = "2024-07-01"
	mostIDs           = 1000 // Graph's bound of getByIds
)

// holderView is a resource that may have identities.
type holderView struct {
	ID       string `json:"id"`
	Identity struct {
		User map[string]any `json:"userAssignedIdentities"`
	} `json:"identity"`
	Properties struct {
		Profile map[string]struct {
			ResourceID string `json:"resourceId"`
		} `json:"identityProfile"`
	} `json:"properties"`
}

// readDirectory reads what findings are made of, with the caller's rights.
func readDirectory(ctx context.Context, c *client.Client, subscription string) (*directoryView, error) {
	d := &directoryView{known: map[string]bool{}, gone: map[string]bool{}, users: map[string][]string{}, federated: map[string]bool{}, used: map[string]time.Time{}}
	var err error
	if d.applications, err = client.GraphList[applicationView](ctx, c, "/v1.0/applications"); err != nil {
		return nil, err
	}
	if d.principals, err = client.GraphList[principalView](ctx, c, "/v1.0/servicePrincipals"); err != nil {
		return nil, err
	}
	scope := "/subscriptions/" + subscription
	if d.assignments, err = client.List[assignmentView](ctx, c, scope+"/providers/Microsoft.Authorization/roleAssignments", assignmentVersion); err != nil {
		return nil, err
	}
	if d.clusters, err = client.List[clusterView](ctx, c, scope+"/providers/"+cluster.Namespace+"/managedClusters", aksVersion); err != nil {
		return nil, err
	}
	for _, read := range []func(context.Context, *client.Client, string) error{d.readKnown, d.readGone, d.readHolders, d.readFederated, d.readUses} {
		if err := read(ctx, c, scope); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// readKnown asks which of the principals with roles there are.
func (d *directoryView) readKnown(ctx context.Context, c *client.Client, _ string) error {
	var ids []string
	seen := map[string]bool{}
	for _, a := range d.assignments {
		if id := strings.ToLower(a.Properties.PrincipalID); !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	for len(ids) > 0 {
		some := ids[:min(len(ids), mostIDs)]
		ids = ids[len(some):]
		answer, err := client.GraphPost[struct {
			Value []struct {
				ID string `json:"id"`
			} `json:"value"`
		}](ctx, c, "/v1.0/directoryObjects/getByIds", map[string]any{"ids": some})
		if err != nil {
			return err
		}
		for _, found := range answer.Value {
			d.known[strings.ToLower(found.ID)] = true
		}
	}
	return nil
}

// readGone asks for the resource of each managed identity. Only one that the
// front door says isn't there is gone: one that the caller may not read may be.
func (d *directoryView) readGone(ctx context.Context, c *client.Client, _ string) error {
	for i := range d.principals {
		id := d.principals[i].resource()
		if id == "" {
			continue
		}
		_, err := client.Get[struct{}](ctx, c, id, versionOf(id))
		var refused *azcore.ResponseError
		switch {
		case err == nil:
		case errors.As(err, &refused) && refused.StatusCode == http.StatusNotFound:
			d.gone[strings.ToLower(id)] = true
		case errors.As(err, &refused) && refused.StatusCode == http.StatusForbidden:
		default:
			return err
		}
	}
	return nil
}

// versionOf is an API version of a resource that may have an identity.
func versionOf(id string) string {
	lower := strings.ToLower(id)
	switch {
	case strings.Contains(lower, "/providers/"+strings.ToLower(cluster.Namespace)+"/"):
		return aksVersion
	case strings.Contains(lower, "/providers/"+strings.ToLower(managedidentity.Namespace)+"/"):
		return identityVersion
	}
	return machineVersion
}

// readHolders finds who has which user-assigned identity.
func (d *directoryView) readHolders(ctx context.Context, c *client.Client, scope string) error {
	for path, version := range map[string]string{
		cluster.Namespace + "/managedClusters":         aksVersion,
		compute.Namespace + "/virtualMachines":         machineVersion,
		compute.Namespace + "/virtualMachineScaleSets": machineVersion,
	} {
		holders, err := client.List[holderView](ctx, c, scope+"/providers/"+path, version)
		if err != nil {
			return err
		}
		for _, h := range holders {
			for id := range h.Identity.User {
				d.users[strings.ToLower(id)] = append(d.users[strings.ToLower(id)], h.ID)
			}
			for _, profile := range h.Properties.Profile {
				id := strings.ToLower(profile.ResourceID)
				d.users[id] = append(d.users[id], h.ID)
			}
		}
	}
	return nil
}

// readFederated finds who takes other issuers' tokens.
func (d *directoryView) readFederated(ctx context.Context, c *client.Client, _ string) error {
	for i := range d.principals {
		id := d.principals[i].resource()
		if !strings.Contains(strings.ToLower(id), "/providers/"+strings.ToLower(managedidentity.Type)+"/") || d.gone[strings.ToLower(id)] {
			continue
		}
		found, err := client.List[struct{}](ctx, c, id+"/federatedIdentityCredentials", identityVersion)
		var refused *azcore.ResponseError
		if errors.As(err, &refused) && refused.StatusCode == http.StatusForbidden {
			d.federated[strings.ToLower(id)] = true // who may not look doesn't say that there are none
			continue
		}
		if err != nil {
			return err
		}
		d.federated[strings.ToLower(id)] = len(found) > 0
	}
	for _, a := range d.applications {
		found, err := client.GraphList[struct{}](ctx, c, "/v1.0/applications/"+a.ID+"/federatedIdentityCredentials")
		if err != nil {
			return err
		}
		d.federated[strings.ToLower(a.ID)] = len(found) > 0
	}
	return nil
}

// readUses reads when credentials were last used; what isn't there wasn't.
func (d *directoryView) readUses(ctx context.Context, c *client.Client, _ string) error {
	uses, err := client.GraphList[useView](ctx, c, "/beta/reports/appCredentialSignInActivities")
	var refused *azcore.ResponseError
	if errors.As(err, &refused) && refused.StatusCode == http.StatusForbidden {
		d.blind = true
		return nil
	}
	if err != nil {
		return err
	}
	for _, u := range uses {
		for _, id := range []string{u.KeyID, u.Principal} {
			if id = strings.ToLower(id); id != "" && u.Activity.Last.After(d.used[id]) {
				d.used[id] = u.Activity.Last
			}
		}
	}
	return nil
}
