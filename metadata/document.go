// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"bastide.dev/dataplane"
)

// object is a JSON object.
type object = map[string]any

// instance is the whole document of a machine.
func instance(c *Compute, from dataplane.Sender, mac string) object {
	return object{"compute": compute(c), "network": network(from, mac)}
}

func compute(c *Compute) object {
	texts, list := make([]string, len(c.Tags)), make([]any, len(c.Tags))
	for i, t := range c.Tags {
		texts[i], list[i] = t.Name+":"+t.Value, object{"name": t.Name, "value": t.Value}
	}
	keys := make([]any, len(c.Keys))
	for i, k := range c.Keys {
		keys[i] = object{"keyData": k, "path": "/home/" + c.Admin + "/.ssh/authorized_keys"}
	}
	d := object{
		"azEnvironment": "AzurePublicCloud", "customData": "", "evictionPolicy": "", "licenseType": "", "placementGroupId": "",
		"platformFaultDomain": "0", "platformUpdateDomain": "0", "priority": "Regular", "provider": "Microsoft.Compute",
		"isHostCompatibilityLayerVm": "false", "userData": "", "zone": "", "version": "", "offer": "", "publisher": "", "sku": "",
		"plan":            object{"name": "", "product": "", "publisher": ""},
		"securityProfile": object{"secureBootEnabled": "false", "virtualTpmEnabled": "false", "encryptionAtHost": "false", "securityType": ""},
		"location":        c.Location, "name": c.Name, "osType": "Linux", "resourceGroupName": c.Group, "resourceId": c.ResourceID,
		"subscriptionId": c.SubscriptionID, "vmId": c.VMID, "vmScaleSetName": c.ScaleSet, "vmSize": c.Size,
		"osProfile":  object{"adminUsername": c.Admin, "computerName": c.Hostname, "disablePasswordAuthentication": "true"},
		"publicKeys": keys, "tags": strings.Join(texts, ";"), "tagsList": list,
		"virtualMachineScaleSet": object{"id": c.ScaleSetID},
	}
	return d
}

// network is the machine's one interface, as the data plane has made it.
func network(from dataplane.Sender, mac string) object {
	one := object{"ipv4": object{
		"ipAddress": []any{object{"privateIpAddress": text(from.Address), "publicIpAddress": text(from.Public)}},
		"subnet":    []any{object{"address": text(from.Subnet.Masked().Addr()), "prefix": strconv.Itoa(from.Subnet.Bits())}},
	}, "ipv6": object{"ipAddress": []any{}}, "macAddress": strings.ToUpper(strings.ReplaceAll(mac, ":", ""))}
	return object{"interface": []any{one}}
}

func text(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// find walks down a document by the parts of a path.
func find(v any, path []string) (any, bool) {
	for _, name := range path {
		switch at := v.(type) {
		case object:
			key := ""
			for k := range at {
				if strings.EqualFold(k, name) {
					key = k
				}
			}
			if key == "" {
				return nil, false
			}
			v = at[key]
		case []any:
			i, err := strconv.ParseUint(name, 10, 16)
			if err != nil || int(i) >= len(at) {
				return nil, false
			}
			v = at[i]
		default:
			return nil, false
		}
	}
	return v, true
}

// listing is a part of a document as text: a value itself, else the names in it,
// those that lead on with a slash.
func listing(v any) string {
	var names []string
	mark := func(name string, inner any) {
		if _, leaf := inner.(string); !leaf {
			name += "/"
		}
		names = append(names, name)
	}
	switch at := v.(type) {
	case string:
		return at
	case object:
		for name, inner := range at {
			mark(name, inner)
		}
		slices.Sort(names)
	case []any:
		for i, inner := range at {
			mark(strconv.Itoa(i), inner)
		}
	}
	return strings.Join(names, "\n")
}
