// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"strings"

	"bastide.dev/resource"
)

// endpointDoc is the private endpoint by which a private cluster's API server is
// in the network. Its address is the API server's own: no second interface.
func (w *whole) endpointDoc() azureDoc {
	names := []any{}
	if name := or(w.privateName(), w.publicName()); name != "" {
		names = append(names, object{"fqdn": name, "ipAddresses": []any{w.state.Server.String()}})
	}
	return azureDoc{id: w.own("privateEndpoints", "kube-apiserver"), body: object{"properties": object{
		"subnet": ref(w.state.ServerSubnet), "customDnsConfigs": names,
		"privateLinkServiceConnections": []any{named("kube-apiserver", object{
			"privateLinkServiceId": w.doc.ID.String(), "groupIds": []any{"management"}})},
	}}}
}

// zoneDocs are a private cluster's endpoint, and its private DNS zone or the
// record in the user's.
func (w *whole) zoneDocs() []azureDoc {
	a := &w.state.Desired.Access
	if !a.Private || !w.state.Server.IsValid() {
		return nil
	}
	docs := []azureDoc{w.endpointDoc()}
	if a.Zone == noZone {
		return docs
	}
	zone := w.zoneID()
	record := azureDoc{id: zone.Child("A", w.privateLabel()), body: object{"properties": object{
		"ttl": 300, "aRecords": []any{object{"ipv4Address": w.state.Server.String()}}}}}
	record.merge = func(body object) bool {
		before, _ := json.Marshal(body)
		set(body, "properties.aRecords", []any{object{"ipv4Address": w.state.Server.String()}})
		after, _ := json.Marshal(body)
		return string(before) != string(after)
	}
	if a.Zone == systemZone {
		docs = append(docs, azureDoc{id: zone, location: "global", body: object{"properties": object{}}})
	}
	link := azureDoc{id: zone.Child("virtualNetworkLinks", w.state.ID), location: "global", body: object{"properties": object{
		"virtualNetwork": ref(w.state.ServerSubnet.Parent()), "registrationEnabled": false}}}
	return append(docs, link, record)
}

// zoneID is the private DNS zone of a private cluster's name; the root: there is none.
func (w *whole) zoneID() resource.ID {
	switch a := &w.state.Desired.Access; a.Zone {
	case systemZone:
		return w.own("privateDnsZones", uuidOf(w.state.UID, "zone")+".privatelink."+w.state.Desired.Location+"."+w.state.Domain)
	case noZone, "":
		return resource.ID{}
	default:
		id, err := resource.ParseID(a.Zone)
		if err != nil {
			return resource.ID{} // validation has seen to it
		}
		return id
	}
}

// privateName is the name of a private cluster inside its networks; "" without a zone.
func (w *whole) privateName() string {
	if !w.state.Desired.Access.Private {
		return ""
	}
	zone := w.zoneID()
	if zone.IsRoot() {
		return ""
	}
	return w.privateLabel() + "." + strings.ToLower(zone.Name())
}

// publicName is the name that everybody can ask for; "" when a private cluster has none.
func (w *whole) publicName() string {
	if a := &w.state.Desired.Access; a.Private && !a.PublicName {
		return ""
	}
	return w.state.FQDN
}
