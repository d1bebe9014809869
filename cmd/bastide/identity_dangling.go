// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"bastide.dev/client"
)

// soonEnds is how long before its end a credential is listed.
const soonEnds = 30 * 24 * time.Hour

// dangling is one finding.
type dangling struct {
	Kind    string `json:"kind"` // managedIdentity, application, credential, cluster or roleAssignment
	Name    string `json:"name"`
	ID      string `json:"id"`
	Problem string `json:"problem"`
	Command string `json:"command"`
}

// credentialView is a secret or a certificate as Graph shows it.
type credentialView struct {
	KeyID string    `json:"keyId"`
	Name  string    `json:"displayName"`
	Start time.Time `json:"startDateTime"`
	End   time.Time `json:"endDateTime"`
}

type applicationView struct {
	ID      string           `json:"id"`
	AppID   string           `json:"appId"`
	Name    string           `json:"displayName"`
	Public  bool             `json:"isFallbackPublicClient"`
	Created time.Time        `json:"createdDateTime"`
	Secrets []credentialView `json:"passwordCredentials"`
	Keys    []credentialView `json:"keyCredentials"`
}

type principalView struct {
	ID        string    `json:"id"`
	AppID     string    `json:"appId"`
	Name      string    `json:"displayName"`
	Type      string    `json:"servicePrincipalType"`
	Created   time.Time `json:"createdDateTime"`
	Alternate []string  `json:"alternativeNames"`
}

// resource is the id of the resource that a managed identity is of; "" when it is none.
func (p *principalView) resource() string {
	for _, name := range p.Alternate {
		if p.Type == "ManagedIdentity" && strings.HasPrefix(strings.ToLower(name), "/subscriptions/") {
			return name
		}
	}
	return ""
}

type assignmentView struct {
	ID         string `json:"id"`
	Properties struct {
		PrincipalID string `json:"principalId"`
		Scope       string `json:"scope"`
	} `json:"properties"`
}

// useView is the last use of a credential.
type useView struct {
	Principal string `json:"servicePrincipalObjectId"`
	KeyID     string `json:"keyId"`
	Activity  struct {
		Last time.Time `json:"lastSignInDateTime"`
	} `json:"signInActivity"`
}

// directoryView is all that the findings are made of.
type directoryView struct {
	applications []applicationView
	principals   []principalView
	assignments  []assignmentView
	known        map[string]bool      // object ids that there are
	gone         map[string]bool      // ids of resources that there aren't, in lower case
	users        map[string][]string  // id of an identity, in lower case → the resources that have it
	federated    map[string]bool      // ids, in lower case, of identities and applications with federated credentials
	used         map[string]time.Time // key id, or principal's object id → last use
	blind        bool                 // the caller may not read when credentials were used
	clusters     []clusterView
}

// dangling are the findings, the gravest kinds first.
func (d *directoryView) dangling(now time.Time, unused time.Duration) []dangling {
	found := []dangling{}
	for _, c := range d.clusters {
		if problem := c.Properties.Status.ProvisioningError.Message; problem != "" {
			found = append(found, dangling{"cluster", c.Name, c.ID, problem,
				fmt.Sprintf("az aks update-credentials -g %s -n %s --reset-service-principal --service-principal … --client-secret …", quoted(groupOf(c.ID)), quoted(c.Name))})
		}
	}
	for i := range d.principals {
		if f, is := d.identity(&d.principals[i], now, unused); is {
			found = append(found, f)
		}
	}
	for i := range d.applications {
		found = append(found, d.application(&d.applications[i], now, unused)...)
	}
	for _, a := range d.assignments {
		if !d.known[strings.ToLower(a.Properties.PrincipalID)] {
			found = append(found, dangling{"roleAssignment", a.Properties.PrincipalID, a.ID, "its principal is gone; it has a role on " + a.Properties.Scope,
				"az role assignment delete --ids " + quoted(a.ID)})
		}
	}
	return found
}

// identity judges a managed identity.
func (d *directoryView) identity(p *principalView, now time.Time, unused time.Duration) (dangling, bool) {
	id := p.resource()
	if id == "" {
		return dangling{}, false
	}
	key := strings.ToLower(id)
	if d.gone[key] {
		return dangling{"managedIdentity", p.Name, p.ID, "its resource is gone: " + id, "az ad sp delete --id " + p.ID}, true
	}
	if !strings.Contains(key, "/providers/microsoft.managedidentity/userassignedidentities/") || len(d.users[key]) > 0 || d.federated[key] {
		return dangling{}, false
	}
	last := d.last(p.ID, p.Created)
	if d.blind || now.Sub(last) < unused {
		return dangling{}, false
	}
	return dangling{"managedIdentity", p.Name, id, "no cluster and no machine has it, and it wasn't used since " + day(last),
		"az identity delete --ids " + quoted(id)}, true
}

// application judges an application and its credentials.
func (d *directoryView) application(a *applicationView, now time.Time, unused time.Duration) []dangling {
	var found []dangling
	all := slices.Concat(a.Secrets, a.Keys)
	good := d.federated[strings.ToLower(a.ID)]
	for _, c := range all {
		ended, last := !now.Before(c.End), d.last(c.KeyID, c.Start, a.Created)
		good = good || !ended
		problem := ""
		switch {
		case ended:
			problem = "it expired on " + day(c.End)
		case c.End.Sub(now) < soonEnds:
			problem = "it expires on " + day(c.End)
		case !d.blind && now.Sub(last) >= unused:
			problem = "it wasn't used since " + day(last)
		}
		if problem != "" {
			flag := ""
			if slices.Contains(a.Keys, c) {
				flag = " --cert"
			}
			found = append(found, dangling{"credential", a.Name, c.KeyID, problem,
				fmt.Sprintf("az ad app credential delete --id %s --key-id %s%s", a.AppID, c.KeyID, flag)})
		}
	}
	if !good && !a.Public {
		found = append(found, dangling{"application", a.Name, a.AppID, "it has no credential that is good", "az ad app delete --id " + a.AppID})
	}
	return found
}

// last is the last use of a credential or principal; without any it counts from when it was made.
func (d *directoryView) last(id string, made ...time.Time) time.Time {
	if at, known := d.used[strings.ToLower(id)]; known {
		return at
	}
	for _, at := range made {
		if !at.IsZero() {
			return at
		}
	}
	return time.Time{}
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// quoted is an argument for a shell to paste: ids hold names that others chose.
func quoted(text string) string { return client.Quote(client.Sh, text) }
