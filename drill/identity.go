// SPDX-License-Identifier: Apache-2.0

package drill

import (
	"context"
	"errors"
	"net/url"
	"time"
)

func identityDrills() []Drill {
	return []Drill{
		{ID: "identity-expired-secret", Title: "A stolen client secret is worth nothing after its end", Control: "az ad app credential reset --end-date",
			Explains: "A client secret was copied from a build server years ago. One that never ends still opens everything its application may do; " +
				"one that has ended gets no token, and a token that was bought with it in time ends with it.",
			Setup: expiredSecret},
		{ID: "identity-removed-member", Title: "Who leaves a group loses its rights at once", Control: "az ad group member remove",
			Explains: "Rights come from a group. Its member has signed in and holds tokens for an hour, with the group's id in them. Taken out of the " +
				"group, the member gets nothing more out of Resource Manager and the cluster with them.",
			Setup: removedMember},
		{ID: "identity-forged-token", Title: "Only the tenant's own signature counts", Control: "verification of tokens",
			Explains: "The attacker knows what a token looks like, has the public keys, and runs a tenant of their own. Tokens without a signature, signed with " +
				"the public key as if it were a secret, by a key of the attacker's (in the header, at an address, under a known name), by another tenant, " +
				"or with other contents under a true signature, are refused by Resource Manager and by the cluster.",
			Setup: forgedToken},
		{ID: "identity-local-accounts", Title: "Without local accounts an old admin certificate is worth nothing", Control: "az aks update --disable-local-accounts",
			Explains: "Somebody once ran get-credentials --admin and kept the file: a certificate of cluster-admin that no directory knows of. When local " +
				"accounts are switched off, the API server takes it no longer, and nobody is given a new one.",
			// The API server starts anew, and what others have of the cluster ends.
			Alone: true, Setup: localAccounts},
		{ID: "identity-blocked-location", Title: "No token for somebody at a blocked place", Control: "conditional access: locations",
			Explains: "A password was phished. With a policy that lets its owner sign in from the office alone, it gets no token anywhere else, and the owner still does.",
			Setup:    blockedLocation},
		{ID: "identity-just-in-time", Title: "A role that was for an hour ends in the middle of a session", Control: "Privileged Identity Management",
			Explains: "An operator has a role for a while and a session with a token that lives longer. When the activation ends, the next call is refused.",
			Setup:    justInTime},
	}
}

// expiredSecret: the secret that lives long, and the one that ends.
func expiredSecret(ctx context.Context, s *Stage) (*Scene, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	robot, err := s.Robot(ctx, "builder")
	if err != nil {
		return nil, err
	}
	if _, err := s.grant(ctx, robot.ID, "ServicePrincipal", roleReader, s.groupID()); err != nil {
		return nil, err
	}
	var secret, token string
	buy := func(ctx context.Context) (string, error) {
		return s.buy(ctx, url.Values{"grant_type": {"client_credentials"}, "client_id": {robot.AppID}, "client_secret": {secret},
			"scope": {s.Instance.ResourceManager() + "/.default"}}, nil)
	}
	take := func(ctx context.Context, ends time.Time) (err error) {
		if secret, err = s.secret(ctx, robot, ends); err == nil {
			token, err = buy(ctx)
		}
		return err
	}
	off := func(ctx context.Context) error { return take(ctx, time.Now().Add(90*24*time.Hour)) }
	if err := off(ctx); err != nil {
		return nil, err
	}
	who := "whoever has the secret of " + robot.Name
	return &Scene{Untimed: true,
		Attacks: []Attack{
			{From: who, To: "a token from the token service", Try: func(ctx context.Context) (Result, error) { return tokenResult(buy(ctx)) }},
			s.readsARM(who+", with a token bought in time", s.groupID(), groupVersion, func() string { return token }),
		},
		On: func(ctx context.Context) error {
			ends := time.Now().Add(3 * time.Second)
			if err := take(ctx, ends); err != nil {
				return err
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Until(ends)):
				return nil
			}
		},
		Off: off,
	}, nil
}

// tokenResult is an attempt to get a token.
func tokenResult(_ string, err error) (Result, error) {
	if errors.Is(err, errRefused) {
		return Result{Got: err.Error()}, nil
	}
	return Result{Worked: err == nil, Got: "a token"}, err
}

func removedMember(ctx context.Context, s *Stage) (*Scene, error) {
	c, err := s.Integrated(ctx)
	if err != nil {
		return nil, err
	}
	person, err := s.Person(ctx, "member")
	if err != nil {
		return nil, err
	}
	group, err := s.Circle(ctx, "operators")
	if err != nil {
		return nil, err
	}
	for role, scope := range map[string]string{roleReader: s.groupID(), roleKubeReader: c.ID} {
		if _, err := s.grant(ctx, group, "Group", role, scope); err != nil {
			return nil, err
		}
	}
	if err := s.join(ctx, group, person.ID); err != nil {
		return nil, err
	}
	arm, err := s.signIn(ctx, person, s.Instance.ResourceManager(), nil)
	if err != nil {
		return nil, err
	}
	kube, err := s.signIn(ctx, person, serverApplication, nil)
	if err != nil {
		return nil, err
	}
	return &Scene{
		Attacks: []Attack{
			s.readsARM(person.Who()+", with a token from before", s.groupID(), groupVersion, func() string { return arm }),
			c.asks(person.Who()+", with a token from before", "GET", "/api/v1/namespaces/default/pods", nil, func() string { return kube }),
		},
		On:  func(ctx context.Context) error { return s.leave(ctx, group, person.ID) },
		Off: func(ctx context.Context) error { return s.join(ctx, group, person.ID) },
	}, nil
}

// localAccounts: the certificate that was there, and the one that comes after.
func localAccounts(ctx context.Context, s *Stage) (*Scene, error) {
	c, err := s.Integrated(ctx)
	if err != nil {
		return nil, err
	}
	person, err := s.Person(ctx, "operator")
	if err != nil {
		return nil, err
	}
	if _, err := s.grant(ctx, person.ID, "User", roleKubeClusterAdmin, c.ID); err != nil {
		return nil, err
	}
	token, err := s.signIn(ctx, person, serverApplication, nil)
	if err != nil {
		return nil, err
	}
	set := func(ctx context.Context, off bool) error { return s.Set(ctx, c, "disableLocalAccounts", off) }
	back := func(ctx context.Context) error {
		if err := set(ctx, false); err != nil {
			return err
		}
		return c.credentials(ctx) // what was given out before stays worthless
	}
	s.Undo("switch local accounts on again", func(ctx context.Context) error { return set(ctx, false) })
	return &Scene{
		Attacks: []Attack{{From: "whoever has the administrator's kubeconfig", To: "kubectl get secrets --all-namespaces", Try: func(ctx context.Context) (Result, error) {
			_, err := c.Kubectl(ctx, "", "--request-timeout=5s", "get", "secrets", "--all-namespaces", "-o", "name")
			if err != nil {
				return Result{Got: lastLine(err.Error())}, nil
			}
			return Result{Worked: true, Got: "the secrets' names"}, nil
		}}},
		Wanted: []Attack{c.asks(person.Who(), "GET", "/api/v1/secrets", nil, func() string { return token })},
		On:     func(ctx context.Context) error { return set(ctx, true) }, Off: back,
	}, nil
}

// blockedLocation: sign-ins from two places.
func blockedLocation(ctx context.Context, s *Stage) (*Scene, error) {
	office, err := s.Terminal(ctx, "office")
	if err != nil {
		return nil, err
	}
	outsider, err := s.Terminal(ctx, "outsider")
	if err != nil {
		return nil, err
	}
	person, err := s.Person(ctx, "clerk")
	if err != nil {
		return nil, err
	}
	const path = "/identity/conditionalAccess"
	var place struct{ ID string }
	err = s.ask(ctx, "POST", path+"/namedLocations", object{"@odata.type": "#microsoft.graph.ipNamedLocation", "displayName": "office of " + person.Name, "isTrusted": false,
		"ipRanges": []any{object{"@odata.type": "#microsoft.graph.iPv4CidrRange", "cidrAddress": office.Address.String() + "/32"}}}, &place)
	if err != nil {
		return nil, err
	}
	s.Undo("remove the named location", func(ctx context.Context) error {
		return s.graph(ctx, "DELETE", path+"/namedLocations/"+place.ID, nil, nil)
	})
	var policy struct{ ID string }
	err = s.ask(ctx, "POST", path+"/policies", object{"displayName": "from the office alone", "state": "disabled",
		"conditions": object{"clientAppTypes": []any{"all"}, "applications": object{"includeApplications": []any{"All"}}, "users": object{"includeUsers": []any{person.ID}},
			"locations": object{"includeLocations": []any{"All"}, "excludeLocations": []any{place.ID}}},
		"grantControls": object{"operator": "OR", "builtInControls": []any{"block"}}}, &policy)
	if err != nil {
		return nil, err
	}
	s.Undo("remove the policy", func(ctx context.Context) error { return s.graph(ctx, "DELETE", path+"/policies/"+policy.ID, nil, nil) })
	state := func(value string) func(context.Context) error {
		return func(ctx context.Context) error {
			return s.ask(ctx, "PATCH", path+"/policies/"+policy.ID, object{"state": value}, nil)
		}
	}
	try := func(at *Terminal) Attack {
		return Attack{From: at.Who(), To: "sign in as " + person.Name, Try: func(ctx context.Context) (Result, error) {
			return tokenResult(s.signIn(ctx, person, s.Instance.ResourceManager(), at))
		}}
	}
	return &Scene{Attacks: []Attack{try(outsider)}, Wanted: []Attack{try(office)}, On: state("enabled"), Off: state("disabled")}, nil
}

// justInTime: an eligible operator, whose activation ends.
func justInTime(ctx context.Context, s *Stage) (*Scene, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	person, err := s.Person(ctx, "oncall")
	if err != nil {
		return nil, err
	}
	role := "/subscriptions/" + s.Instance.SubscriptionID + "/providers/Microsoft.Authorization/roleDefinitions/" + roleReader
	kind := func(name string) string { return s.groupID() + "/providers/Microsoft.Authorization/" + name + "/" }
	_, err = s.Put(ctx, kind("roleEligibilityScheduleRequests")+newGUID(), pimVersion, object{"properties": object{"principalId": person.ID, "roleDefinitionId": role,
		"requestType": "AdminAssign", "justification": "drill", "scheduleInfo": object{"expiration": object{"type": "AfterDuration", "duration": "PT8H"}}}})
	if err != nil {
		return nil, err
	}
	token, err := s.signIn(ctx, person, s.Instance.ResourceManager(), nil)
	if err != nil {
		return nil, err
	}
	request := func(how string, schedule any) func(context.Context) error {
		return func(ctx context.Context) error {
			properties := object{"principalId": person.ID, "roleDefinitionId": role, "requestType": how, "justification": "an incident"}
			if schedule != nil {
				properties["scheduleInfo"] = schedule
			}
			id := kind("roleAssignmentScheduleRequests") + newGUID() + "?api-version=" + pimVersion
			began := time.Now()
			answer, err := s.send(ctx, "PUT", s.Instance.ResourceManager()+id, token, object{"properties": properties}, nil)
			if err == nil && answer.Status/100 != 2 {
				err = errors.New(string(answer.Body))
			}
			s.did("PUT", id, properties, began, err)
			return err
		}
	}
	on := request("SelfActivate", object{"expiration": object{"type": "AfterDuration", "duration": "PT1H"}})
	if err := on(ctx); err != nil {
		return nil, err
	}
	return &Scene{Attacks: []Attack{s.readsARM(person.Who()+", in a session that goes on", s.groupID(), groupVersion, func() string { return token })},
		On: request("SelfDeactivate", nil), Off: on}, nil
}

const pimVersion = "2020-10-01"
