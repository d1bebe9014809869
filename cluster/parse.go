// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"

	aks "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"

	"bastide.dev/fault"
	"bastide.dev/resource"
)

// parser turns a body into a Desired and collects every problem on the way.
type parser struct {
	versions Versions
	location string // the instance's
	domain   string
	tenant   string
	guard    string // where API servers' webhooks are answered
	hasImage func(version string) bool
	subnets  map[string]Subnet // the user's that the body names, by key
	overlays []overlay         // of other clusters in the same network
	problems []*fault.Error
	version  resource.APIVersion // of the request; "" of what isn't one
}

// bad records a problem with the property at target.
func (p *parser) bad(code, target, format string, args ...any) {
	p.problems = append(p.problems, fault.New(fault.Invalid, code, format, args...).At(target))
}

// decode reads a typed model of the SDK; a property of the wrong type is the client's fault.
func decode(body map[string]any, into any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return fault.New(fault.Invalid, "InvalidRequestContent", "The request content can't be read.").Because(err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		path, reason := wrongType(body, err)
		return fault.New(fault.Invalid, "InvalidRequestContent",
			"The request content was invalid and could not be deserialized: %s %s.", path, reason).At(path).Because(err)
	}
	return nil
}

// fieldForm finds the fields that the SDK's models name in their errors.
var fieldForm = regexp.MustCompile(`struct field (\w+)`)

// wrongType says which property of body couldn't be read, and why, without Go's names.
func wrongType(body map[string]any, err error) (path, reason string) {
	var names []string
	for _, found := range fieldForm.FindAllStringSubmatch(err.Error(), -1) {
		name := member(body, found[1])
		names = append(names, name)
		switch inner := body[name].(type) {
		case map[string]any:
			body = inner
		case []any:
			// The models don't say which element: the first serves to spell the next name.
			if len(inner) > 0 {
				body, _ = inner[0].(map[string]any)
			}
		}
	}
	reason = "has a value of the wrong type"
	if _, after, found := strings.Cut(err.Error(), "cannot unmarshal "); found {
		kind, _, _ := strings.Cut(after, " ")
		reason = "can't be a " + kind
	}
	return strings.Join(names, "."), reason
}

// cluster reads a whole body; name and group are the resource's. old is what
// the cluster was so far, nil when it is new: what a body leaves out stays.
func (p *parser) cluster(body map[string]any, id resource.ID, old *Desired) Desired {
	var model aks.ManagedCluster
	if err := decode(body, &model); err != nil {
		p.problems = append(p.problems, fault.From(err))
		return Desired{}
	}
	if model.Properties == nil {
		model.Properties = &aks.ManagedClusterProperties{}
	}
	d := Desired{Location: resource.NormalizeLocation(value(model.Location))}
	props := model.Properties
	p.base(&d, props, id, old)
	p.identity(&d, id, &model, old)
	p.linux(&d, props.LinuxProfile, old)
	p.network(&d, props.NetworkProfile, old)
	p.outbound(&d, props.NetworkProfile, old)
	p.access(&d, props.APIServerAccessProfile, value(props.FqdnSubdomain), old)
	p.integration(&d, props, old)
	p.issuer(&d, props, old)
	p.podAccess(&d, body, old)
	p.override(&d, props.UpgradeSettings, old)
	p.channels(&d, props.AutoUpgradeProfile, old)
	p.autoScaler(&d, props.AutoScalerProfile, old)
	p.pools(&d, props.AgentPoolProfiles, old)
	if model.SKU != nil && model.SKU.Tier != nil && !slices.Contains(tiers(), strings.ToLower(string(*model.SKU.Tier))) {
		p.bad("InvalidParameter", "sku.tier", "The tier %q isn't one of Free, Standard or Premium.", *model.SKU.Tier)
	}
	return d
}

// tiers are the billing tiers, Paid by its name before 2023.
func tiers() []string { return []string{"free", "standard", "paid", "premium"} }

func (p *parser) base(d *Desired, props *aks.ManagedClusterProperties, id resource.ID, old *Desired) {
	const prefix = "properties."
	d.DNSPrefix = value(props.DNSPrefix)
	d.NodeGroup = value(props.NodeResourceGroup)
	version := value(props.KubernetesVersion)
	if old != nil {
		d.DNSPrefix = or(d.DNSPrefix, old.DNSPrefix)
		d.NodeGroup = or(d.NodeGroup, old.NodeGroup)
		d.Location = or(d.Location, old.Location)
		if version == "" || version == old.Version.MinorString() {
			version = old.Version.String()
		}
	}
	d.NodeGroup = or(d.NodeGroup, nodeGroup(id, d.Location))
	if found, ok := p.versions.Find(version); ok {
		d.Version = found
	} else if old != nil && version == old.Version.String() {
		d.Version = old.Version // its bundle went away; the cluster didn't
	} else {
		p.problems = append(p.problems, p.versions.unknown(version, p.location, prefix+"kubernetesVersion"))
	}
	if d.DNSPrefix == "" {
		p.bad("InvalidParameter", prefix+"dnsPrefix", "The value of parameter dnsPrefix is invalid. It is required.")
	}
}

// nodeGroup is AKS's name for a cluster's own resource group, cut to ARM's 80 characters.
func nodeGroup(id resource.ID, location string) string {
	name := "MC_" + id.Group() + "_" + id.Name() + "_" + location
	return name[:min(len(name), 80)]
}

func (p *parser) linux(d *Desired, profile *aks.LinuxProfile, old *Desired) {
	if profile != nil {
		d.Admin = value(profile.AdminUsername)
		if profile.SSH != nil {
			for _, key := range profile.SSH.PublicKeys {
				if key != nil {
					d.Keys = append(d.Keys, strings.TrimSpace(value(key.KeyData)))
				}
			}
		}
	} else if old != nil {
		d.Admin, d.Keys = old.Admin, old.Keys
	}
	d.Admin = or(d.Admin, defaultAdmin)
}

func value[T any](p *T) T {
	if p == nil {
		return *new(T)
	}
	return *p
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
