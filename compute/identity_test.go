// SPDX-License-Identifier: Apache-2.0

package compute

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"bastide.dev/metadata"
)

func vmBody(identity any) object {
	body := object{"location": "eastus", "tags": object{"env": "test"}, "properties": object{
		"hardwareProfile": object{"vmSize": "Standard_B1s"},
		"osProfile": object{"adminUsername": "azureuser", "linuxConfiguration": object{"ssh": object{"publicKeys": []any{
			object{"keyData": sshKey, "path": "/home/azureuser/.ssh/authorized_keys"}}}}},
		"networkProfile": object{"networkInterfaces": []any{object{"id": nicID}}},
	}}
	if identity != nil {
		body["identity"] = identity
	}
	return body
}

// clients are the client ids of a machine's identities, its own with a star.
func clients(m metadata.Machine) string {
	var all []string
	for _, i := range m.Identities {
		name := i.ClientID
		if i.System {
			name += "*"
		}
		if i.Secret != "secret of "+i.PrincipalID {
			name += " without its secret"
		}
		all = append(all, name)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// What an operation that ended Succeeded has given or taken, the host has.
func TestIdentitiesOfAMachine(t *testing.T) {
	f := newFront(t)
	a, b := f.user("a"), f.user("b")
	users := func(ids ...string) object {
		o := object{}
		for _, id := range ids {
			o[id] = object{}
		}
		return o
	}
	for _, step := range []struct {
		what, method string
		identity     any
		kind         any
		clients      string
	}{
		{"none", "PUT", nil, nil, ""},
		{"its own", "PUT", object{"type": "SystemAssigned"}, "SystemAssigned", "c-jump*"},
		{"as it was", "PUT", nil, "SystemAssigned", "c-jump*"},
		{"both", "PUT", object{"type": "SystemAssigned, UserAssigned", "userAssignedIdentities": users(a)}, "SystemAssigned, UserAssigned", "c-a c-jump*"},
		{"one more", "PATCH", object{"type": "systemassigned,userassigned", "userAssignedIdentities": users(b)}, "SystemAssigned, UserAssigned", "c-a c-b c-jump*"},
		{"one less", "PATCH", object{"type": "SystemAssigned, UserAssigned", "userAssignedIdentities": object{a: nil}}, "SystemAssigned, UserAssigned", "c-b c-jump*"},
		{"users' alone", "PUT", object{"type": "UserAssigned", "userAssignedIdentities": users(strings.ToUpper(b))}, "UserAssigned", "c-b"},
		{"its own again", "PATCH", object{"type": "SystemAssigned"}, "SystemAssigned", "c-jump*"},
		{"None", "PATCH", object{"type": "None"}, nil, ""},
		{"its own at the end", "PUT", object{"type": "SystemAssigned"}, "SystemAssigned", "c-jump*"},
	} {
		body := any(vmBody(step.identity))
		if step.method == "PATCH" {
			body = object{"identity": step.identity}
		}
		f.do(step.method, jump, body, 200, 201, 202)
		view := f.do("GET", jump, nil, 200)
		if got := at(view, "identity", "type"); got != step.kind {
			t.Errorf("%s: type is %v", step.what, got)
		}
		if state := at(view, "properties", "provisioningState"); state != "Succeeded" {
			t.Fatalf("%s: %v", step.what, state)
		}
		machine := fmt.Sprint(at(view, "properties", "vmId"))
		told := f.told()[machine]
		if got := clients(told); got != step.clients {
			t.Errorf("%s: the host has %q, want %q", step.what, got, step.clients)
		}
		own := strings.Contains(step.clients, "*")
		if f.principal("p-jump") != own || own && (at(view, "identity", "principalId") != "p-jump" || at(view, "identity", "tenantId") != testTenant) {
			t.Errorf("%s: the directory has its own: %v; it shows %v", step.what, f.principal("p-jump"), view["identity"])
		}
		if told.Compute.Name != "jump" || told.Compute.Size != "Standard_B1s" || told.TokenURL != "https://login.test/"+testTenant+"/oauth2/token" ||
			len(told.Compute.Tags) != 1 || told.Compute.Group != "rg1" || told.Compute.ResourceID != jump {
			t.Errorf("%s: it is told %+v", step.what, told)
		}
	}
	f.do("PATCH", jump, object{"tags": object{"env": "changed"}}, 200, 202)
	f.soon("the new tag", func() bool {
		for _, m := range f.told() {
			return len(m.Compute.Tags) == 1 && m.Compute.Tags[0].Value == "changed"
		}
		return false
	})
	f.do("DELETE", jump, nil, 200, 202, 204)
	f.soon("nothing is left", func() bool { return len(f.told()) == 0 && f.units() == 0 && !f.principal("p-jump") })
}

func TestBadIdentities(t *testing.T) {
	f := newFront(t)
	f.user("a")
	theirs := f.user("foreign")
	id := group + "/providers/" + identityType + "/"
	f.do("PUT", jump, vmBody(nil), 201, 202)
	for what, c := range map[string]struct {
		identity any
		status   int
		code     string
	}{
		"of nobody's kind":       {object{"type": "Some"}, 400, "InvalidParameter"},
		"without a type":         {object{"userAssignedIdentities": object{id + "a": object{}}}, 400, "InvalidParameter"},
		"users' with none":       {object{"type": "UserAssigned"}, 400, "InvalidParameter"},
		"one that isn't there":   {object{"type": "UserAssigned", "userAssignedIdentities": object{id + "missing": object{}}}, 400, "FailedIdentityOperation"},
		"of another type":        {object{"type": "UserAssigned", "userAssignedIdentities": object{jump: object{}}}, 400, "InvalidParameter"},
		"its own and a user's":   {object{"type": "SystemAssigned", "userAssignedIdentities": object{id + "a": object{}}}, 400, "InvalidParameter"},
		"one that I can't give":  {object{"type": "UserAssigned", "userAssignedIdentities": object{theirs: object{}}}, 403, "LinkedAuthorizationFailed"},
		"another, for all I see": {object{"type": "UserAssigned", "userAssignedIdentities": object{id + "foreign-and-missing": object{}}}, 403, "LinkedAuthorizationFailed"},
	} {
		for method, body := range map[string]any{"PUT": vmBody(c.identity), "PATCH": object{"identity": c.identity}} {
			answer := f.do(method, jump, body, c.status)
			if got := at(answer, "error", "code"); got != c.code {
				t.Errorf("%s, %s: %v", method, what, answer)
			}
		}
	}
	if answer := f.do("PATCH", jump, object{"properties": object{"hardwareProfile": object{"vmSize": "Standard_B2s"}}}, 400, 405); at(answer, "error", "code") != "PropertyChangeNotAllowed" {
		t.Errorf("a PATCH of more: %v", answer)
	}
	for _, m := range f.told() {
		if len(m.Identities) != 0 {
			t.Errorf("it has %s", clients(m))
		}
	}
}

// A scale set's instances have the set's identities, and lose them with it, with
// the identity, or with themselves.
func TestIdentitiesOfInstances(t *testing.T) {
	f := newFront(t)
	kubelet := f.user("kubelet")
	set := group + "/providers/Microsoft.Compute/virtualMachineScaleSets/aks-np-1-vmss"
	body := object{"sku": object{"capacity": 1}, "identity": object{"type": "UserAssigned", "userAssignedIdentities": object{kubelet: object{}}}}
	f.document(set, body, nil)
	for _, n := range []string{"0", "1"} {
		f.document(set+"/virtualMachines/"+n, object{"properties": object{"vmId": "id-" + n, "hardwareProfile": object{"vmSize": "Standard_D2s_v5"},
			"osProfile": object{"computerName": "aks-np-" + n}}}, object{"machine": "c1-np-" + n, "address": "10.224.0.4"})
	}
	f.soon("both are told", func() bool {
		told := f.told()
		return clients(told["c1-np-0"]) == "c-kubelet" && clients(told["c1-np-1"]) == "c-kubelet"
	})
	if c := f.told()["c1-np-1"].Compute; c.Name != "aks-np-1-vmss_1" || c.ScaleSet != "aks-np-1-vmss" || c.ScaleSetID != set || c.VMID != "id-1" ||
		c.Hostname != "aks-np-1" || c.Size != "Standard_D2s_v5" || c.ResourceID != set+"/virtualMachines/1" {
		t.Errorf("it is told %+v", c)
	}
	f.gone(kubelet)
	f.soon("the identity is gone", func() bool { return clients(f.told()["c1-np-0"]) == "" && clients(f.told()["c1-np-1"]) == "" })
	f.user("kubelet")
	f.soon("it is back", func() bool { return clients(f.told()["c1-np-0"]) == "c-kubelet" })
	delete(body, "identity")
	f.document(set, body, nil)
	f.soon("the set has none", func() bool { return clients(f.told()["c1-np-0"]) == "" && clients(f.told()["c1-np-1"]) == "" })
	f.gone(set + "/virtualMachines/0")
	f.soon("an instance is gone", func() bool { _, there := f.told()["c1-np-0"]; return !there && f.units() == 1 })
}
