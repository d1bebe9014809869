// SPDX-License-Identifier: Apache-2.0

package compute

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/host"
	"bastide.dev/machine"
	"bastide.dev/resource"
)

// object is a JSON object.
type object = map[string]any

// instanceState is the private part of an instance's document, as clusters write it.
type instanceState struct {
	Machine string     `json:"machine"`
	Address netip.Addr `json:"address"`
}

// managedActions are those of Azure on what a node pool manages: what its cluster
// does for it, and what it refuses.
func (p *Provider) managedActions() map[string]arm.Hook {
	actions := map[string]arm.Hook{}
	for _, name := range []string{"start", "powerOff", "deallocate", "delete", "manualupgrade", "runCommand"} {
		actions[name] = func(context.Context, *arm.Request) (*arm.Plan, error) { return nil, managed(name) }
	}
	for _, name := range []string{"restart", "reimage", "redeploy"} {
		actions[name] = p.actOnNodes(name)
	}
	return actions
}

func managed(what string) *fault.Error {
	return fault.New(fault.Conflict, "OperationNotAllowed",
		"%s isn't offered on the machines of a node pool: they are its cluster's. Use the cluster's own operations (az aks nodepool …).", what).At(what)
}

// deleteManaged refuses; documents of a pool go with the pool.
func (p *Provider) deleteManaged(context.Context, *arm.Request) (*arm.Plan, error) {
	return nil, managed("delete")
}

// putScaleSet takes a change of the network profile (which load balancers' pools
// the set is in) and of tags. cloud-provider-azure sends no more than it changes.
func (p *Provider) putScaleSet(_ context.Context, r *arm.Request) (*arm.Plan, error) {
	if r.Old == nil {
		return nil, fault.New(fault.Unsupported, "OperationNotAllowed", "Scale sets are made by node pools of clusters: add a pool with az aks nodepool add.")
	}
	if sku, ok := r.Body["sku"].(object); ok && sku["capacity"] != nil {
		have, err := bodyOf(r.Old)
		if err != nil {
			return nil, err
		}
		if fmt.Sprint(sku["capacity"]) != fmt.Sprint(at(have, "sku", "capacity")) {
			return nil, fault.New(fault.Conflict, "OperationNotAllowed", "The number of machines is the node pool's: use az aks nodepool scale.").At("sku.capacity")
		}
	}
	return p.mergeInterfaces(r, "properties", "virtualMachineProfile", "networkProfile", "networkInterfaceConfigurations")
}

// putInstance is putScaleSet for one machine: here it has its effect.
func (p *Provider) putInstance(_ context.Context, r *arm.Request) (*arm.Plan, error) {
	if r.Old == nil {
		return nil, fault.New(fault.Unsupported, "OperationNotAllowed", "Machines of a scale set are made by its node pool: use az aks nodepool scale.")
	}
	return p.mergeInterfaces(r, "properties", "networkProfileConfiguration", "networkInterfaceConfigurations")
}

// mergeInterfaces brings the pools, groups and application groups of a request's
// interface configurations into the stored ones. All else of them is the cluster's.
func (p *Provider) mergeInterfaces(r *arm.Request, path ...string) (*arm.Plan, error) {
	body, err := bodyOf(r.Old)
	if err != nil {
		return nil, err
	}
	sent, _ := at(r.Body, path...).([]any)
	have, _ := at(body, path...).([]any)
	for _, element := range sent {
		from, _ := element.(object)
		to := named(have, from)
		if to == nil {
			return nil, fault.New(fault.Unsupported, "OperationNotAllowed", "A node's machine has one network interface: %v can't be added.", at(from, "name")).At(strings.Join(path, "."))
		}
		if err := mergeInterface(from, to); err != nil {
			return nil, err
		}
	}
	d := *r.Old
	if tags, ok := r.Body["tags"].(object); ok {
		d.Tags = map[string]string{}
		for k, v := range tags {
			d.Tags[k] = fmt.Sprint(v)
		}
	}
	before := d.Body
	if err := d.SetBody(body); err != nil {
		return nil, err
	}
	if sameJSON(before, d.Body) {
		d.Body = before
	}
	return &arm.Plan{Document: &d}, nil
}

// mergeInterface copies what others than the cluster may say of an interface.
func mergeInterface(from, to object) error {
	sent, _ := at(from, "properties", "ipConfigurations").([]any)
	have, _ := at(to, "properties", "ipConfigurations").([]any)
	for _, element := range sent {
		source, _ := element.(object)
		target := named(have, source)
		if target == nil {
			return fault.New(fault.Unsupported, "OperationNotAllowed", "A node's interface has one IP configuration: %v can't be added.", at(source, "name"))
		}
		properties, _ := target["properties"].(object)
		given, _ := source["properties"].(object)
		if properties == nil || given == nil {
			continue
		}
		if subnet := at(given, "subnet", "id"); subnet != nil && !strings.EqualFold(fmt.Sprint(subnet), fmt.Sprint(at(properties, "subnet", "id"))) {
			return fault.New(fault.Conflict, "PropertyChangeNotAllowed", "The subnet of a node's interface can't change.").At("subnet")
		}
		for _, name := range []string{"loadBalancerBackendAddressPools", "applicationSecurityGroups"} {
			properties[name] = given[name]
			if given[name] == nil {
				delete(properties, name)
			}
		}
	}
	return nil
}

// named finds the element with the name of another.
func named(list []any, like object) object {
	for _, element := range list {
		o, ok := element.(object)
		if ok && strings.EqualFold(fmt.Sprint(o["name"]), fmt.Sprint(like["name"])) {
			return o
		}
	}
	return nil
}

func bodyOf(d *arm.Document) (object, error) {
	decoder := json.NewDecoder(bytes.NewReader(d.Body))
	decoder.UseNumber()
	body := object{}
	if err := decoder.Decode(&body); err != nil {
		return nil, fmt.Errorf("body of %s: %w", d.ID, err)
	}
	return body, nil
}

// at is the value below names; nil when there is none.
func at(v any, names ...string) any {
	for _, name := range names {
		o, ok := v.(object)
		if !ok {
			return nil
		}
		v = o[name]
	}
	return v
}

func sameJSON(a, b []byte) bool {
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	one, _ := json.Marshal(x)
	other, _ := json.Marshal(y)
	return bytes.Equal(one, other)
}

// etagged is a document's base view with the tag where compute has it.
func etagged(d *arm.Document) (object, error) {
	body, err := arm.ViewBase(d)
	if err != nil {
		return nil, err
	}
	delete(body, "eTag")
	if d.Etag != "" {
		body["etag"] = `"` + d.Etag + `"`
	}
	return body, nil
}

func (p *Provider) viewScaleSet(_ context.Context, d *arm.Document, _ resource.APIVersion) (any, error) {
	return etagged(d)
}

// viewInstance is an instance with its instance view, asked for or not.
func (p *Provider) viewInstance(ctx context.Context, d *arm.Document, _ resource.APIVersion) (any, error) {
	body, err := etagged(d)
	if err != nil {
		return nil, err
	}
	var state instanceState
	if err := json.Unmarshal(d.State, &state); err != nil {
		return nil, fmt.Errorf("instance %s: state: %w", d.ID, err)
	}
	body["name"] = d.ID.Parent().Name() + "_" + d.Name
	view, err := p.machineView(ctx, state.Machine)
	if err != nil {
		return nil, err
	}
	if properties, ok := body["properties"].(object); ok {
		properties["instanceView"] = view
		properties["provisioningState"] = "Succeeded"
	}
	return body, nil
}

// machineView is what the host says of a machine, in Azure's words.
func (p *Provider) machineView(ctx context.Context, name string) (object, error) {
	power, display := "PowerState/starting", "VM starting"
	record, err := p.Store.Get(ctx, host.ReportKey(p.Host, host.MachineUnit, name))
	if err != nil && !fault.Is(err, fault.NotFound) {
		return nil, err
	}
	var report host.Report
	if err == nil {
		if err := json.Unmarshal(record.Value, &report); err != nil {
			return nil, fmt.Errorf("report on %s: %w", name, err)
		}
	}
	if m := report.Machine; m != nil {
		switch m.Phase {
		case machine.Running:
			power, display = "PowerState/running", "VM running"
		case machine.Stopped, machine.Failed:
			power, display = "PowerState/stopped", "VM stopped"
		}
	}
	return object{"platformFaultDomain": 0, "platformUpdateDomain": 0, "statuses": []any{
		object{"code": "ProvisioningState/succeeded", "level": "Info", "displayStatus": "Provisioning succeeded"},
		object{"code": power, "level": "Info", "displayStatus": display},
	}}, nil
}

func (p *Provider) instanceView(ctx context.Context, r *arm.Request) (any, error) {
	if r.Parent == nil {
		return nil, fault.New(fault.NotFound, "ResourceNotFound", "The machine '%s' was not found.", r.ID)
	}
	var state instanceState
	if err := json.Unmarshal(r.Parent.State, &state); err != nil {
		return nil, fmt.Errorf("instance %s: state: %w", r.Parent.ID, err)
	}
	return p.machineView(ctx, state.Machine)
}

// interfaceOf is the one interface of an instance, as Microsoft.Network shows it.
func interfaceOf(d *arm.Document) (object, error) {
	body, err := bodyOf(d)
	if err != nil {
		return nil, err
	}
	var state instanceState
	if err := json.Unmarshal(d.State, &state); err != nil {
		return nil, fmt.Errorf("instance %s: state: %w", d.ID, err)
	}
	list, _ := at(body, "properties", "networkProfileConfiguration", "networkInterfaceConfigurations").([]any)
	if len(list) == 0 {
		return nil, fmt.Errorf("instance %s has no interface", d.ID)
	}
	config, _ := list[0].(object)
	name := fmt.Sprint(config["name"])
	id := d.ID.String() + "/networkInterfaces/" + name
	properties, _ := config["properties"].(object)
	configurations, _ := properties["ipConfigurations"].([]any)
	for _, element := range configurations {
		c, _ := element.(object)
		c["id"] = id + "/ipConfigurations/" + fmt.Sprint(c["name"])
		if inner, ok := c["properties"].(object); ok {
			inner["privateIPAddress"], inner["privateIPAllocationMethod"], inner["provisioningState"] = state.Address.String(), "Dynamic", "Succeeded"
		}
	}
	properties["provisioningState"] = "Succeeded"
	properties["virtualMachine"] = object{"id": d.ID.String()}
	return object{"name": name, "id": id, "location": d.Location, "type": "Microsoft.Compute/virtualMachineScaleSets/virtualMachines/networkInterfaces",
		"etag": `"` + d.Etag + `"`, "properties": properties}, nil
}

func (p *Provider) instanceInterfaces(_ context.Context, r *arm.Request) (any, error) {
	if r.Parent == nil {
		return nil, fault.New(fault.NotFound, "ResourceNotFound", "The machine of '%s' was not found.", r.ID)
	}
	nic, err := interfaceOf(r.Parent)
	return object{"value": []any{nic}}, err
}

func (p *Provider) instanceInterface(_ context.Context, r *arm.Request) (any, error) {
	if r.Parent == nil {
		return nil, fault.New(fault.NotFound, "ResourceNotFound", "The machine of '%s' was not found.", r.ID)
	}
	nic, err := interfaceOf(r.Parent)
	if err == nil && !strings.EqualFold(fmt.Sprint(nic["name"]), r.ID.Name()) {
		return nil, fault.New(fault.NotFound, "ResourceNotFound", "The network interface '%s' was not found.", r.ID)
	}
	return nic, err
}

// sizes are the machine sizes, as Azure lists them.
func (p *Provider) sizes(context.Context, *arm.Request) (any, error) {
	var list []any
	for _, s := range machine.Sizes() {
		list = append(list, object{"name": s.Name, "numberOfCores": s.CPUs, "memoryInMB": s.Memory >> 20, "maxDataDiskCount": 0,
			"osDiskSizeInMB": 0, "resourceDiskSizeInMB": 0})
	}
	return object{"value": list}, nil
}

// skus are the sizes again, in the newer list's form.
func (p *Provider) skus(context.Context, *arm.Request) (any, error) {
	var list []any
	for _, s := range machine.Sizes() {
		family, _, _ := strings.Cut(strings.TrimPrefix(s.Name, "Standard_"), "_")
		list = append(list, object{"resourceType": "virtualMachines", "name": s.Name, "tier": "Standard", "size": strings.TrimPrefix(s.Name, "Standard_"),
			"family": "standard" + family + "Family", "locations": []any{p.Location}, "restrictions": []any{},
			"locationInfo": []any{object{"location": p.Location, "zones": []any{}, "zoneDetails": []any{}}},
			"capabilities": []any{
				object{"name": "vCPUs", "value": fmt.Sprint(s.CPUs)}, object{"name": "MemoryGB", "value": fmt.Sprintf("%g", float64(s.Memory)/(1<<30))},
				object{"name": "MaxResourceVolumeMB", "value": "0"}, object{"name": "PremiumIO", "value": "False"}, object{"name": "HyperVGenerations", "value": "V2"},
			}})
	}
	return object{"value": list}, nil
}
