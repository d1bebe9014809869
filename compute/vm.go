// SPDX-License-Identifier: Apache-2.0

package compute

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v7"
	"golang.org/x/crypto/ssh"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/machine"
	"bastide.dev/resource"
)

// power is what a virtual machine was asked to be.
type power string

// The states that actions lead to.
const (
	running     power = "running"
	stopped     power = "stopped"
	deallocated power = "deallocated"
)

// vmState is the private part of a virtual machine's document.
type vmState struct {
	Machine string      `json:"machine"` // network reads it
	Image   string      `json:"image"`
	Layers  []string    `json:"layers"`
	Power   power       `json:"power"`
	Boots   int64       `json:"boots,omitempty"`
	Images  int64       `json:"images,omitempty"`
	NIC     resource.ID `json:"nic"`
	Address netip.Addr  `json:"address"`

	Hostname string   `json:"hostname"`
	Size     string   `json:"size"`
	Admin    string   `json:"admin"`
	Keys     []string `json:"keys"`

	Identities identities `json:"identities,omitzero"`
}

func modelVM() any { return &armcompute.VirtualMachine{} }

func vmProperties() []arm.Property {
	rows := arm.Rows(arm.ReadOnly, "id", "name", "type", "etag", "managedBy", "resources", "systemData",
		"identity.principalId", "identity.tenantId", "properties.provisioningState", "properties.vmId", "properties.timeCreated", "properties.instanceView")
	rows = append(rows, arm.Rows(arm.Effective, "location", "properties.hardwareProfile.vmSize",
		"properties.osProfile.computerName", "properties.osProfile.adminUsername",
		"properties.osProfile.linuxConfiguration.ssh.publicKeys[]", "properties.storageProfile.imageReference",
		"properties.networkProfile.networkInterfaces[].id", "properties.networkProfile.networkInterfaces[].properties.primary")...)
	rows = append(rows, arm.Rows(arm.Plain, "tags", "properties.storageProfile.osDisk.name", "properties.storageProfile.osDisk.caching",
		"properties.storageProfile.osDisk.managedDisk.storageAccountType")...)
	return append(rows,
		arm.Property{Path: "properties.osProfile.linuxConfiguration.disablePasswordAuthentication", Treatment: arm.Fixed, Values: []any{true}, Note: "machines take SSH keys alone"},
		arm.Property{Path: "properties.osProfile.adminPassword", Treatment: arm.Refused, Note: "machines take SSH keys alone"},
		arm.Property{Path: "properties.osProfile.linuxConfiguration.provisionVMAgent", Treatment: arm.Fixed, Values: []any{false, true}},
		arm.Property{Path: "properties.osProfile.allowExtensionOperations", Treatment: arm.Fixed, Values: []any{false, true}},
		arm.Property{Path: "properties.osProfile.requireGuestProvisionSignal", Treatment: arm.Fixed, Values: []any{true}},
		arm.Property{Path: "properties.storageProfile.osDisk.createOption", Treatment: arm.Fixed, Values: []any{"FromImage"}},
		arm.Property{Path: "properties.storageProfile.osDisk.osType", Treatment: arm.Fixed, Values: []any{"Linux"}},
		arm.Property{Path: "properties.storageProfile.osDisk.deleteOption", Treatment: arm.Fixed, Values: []any{"Delete"}, Note: "a machine's disk goes with it"},
		arm.Property{Path: "properties.storageProfile.dataDisks", Treatment: arm.Refused, Note: "there are no data disks"},
		arm.Property{Path: "properties.networkProfile.networkInterfaces[].properties.deleteOption", Treatment: arm.Fixed, Values: []any{"Detach"}, Note: "delete the interface itself"},
		arm.Property{Path: "properties.priority", Treatment: arm.Fixed, Values: []any{"Regular"}},
		arm.Property{Path: "properties.diagnosticsProfile.bootDiagnostics.enabled", Treatment: arm.Fixed, Values: []any{false}},
		arm.Property{Path: "zones", Treatment: arm.Refused, Note: "there is one zone; leave it out"},
		arm.Property{Path: "identity.type", Treatment: arm.Effective, Note: "left out, the identities stay as they are"},
		arm.Property{Path: "identity.userAssignedIdentities", Treatment: arm.Effective, Note: "whoever names one needs the right to assign it"},
	)
}

func readOnlyVM() []string { return arm.ReadOnlyPaths(vmProperties()) }

var (
	hostForm  = regexp.MustCompile(`^[a-zA-Z0-9]([-a-zA-Z0-9]{0,62}[a-zA-Z0-9])?$`)
	adminForm = regexp.MustCompile(`^[a-z][-a-z0-9_]{0,31}$`)
)

// vmCheck collects what is wrong with a request.
type vmCheck struct{ problems []*fault.Error }

func (c *vmCheck) bad(code, target, format string, args ...any) {
	c.problems = append(c.problems, fault.New(fault.Invalid, code, format, args...).At(target))
}

// putVM creates or changes a virtual machine.
func (p *Provider) putVM(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	check := vmCheck{problems: arm.Judge(r.Body, vmProperties())}
	raw, err := json.Marshal(r.Body)
	if err != nil {
		return nil, err
	}
	var model armcompute.VirtualMachine
	if err := json.Unmarshal(raw, &model); err != nil {
		return nil, fault.New(fault.Invalid, "InvalidRequestContent", "The request content was invalid and could not be deserialized.").Because(err)
	}
	var old *vmState
	if r.Old != nil {
		old = &vmState{}
		if err := json.Unmarshal(r.Old.State, old); err != nil {
			return nil, fmt.Errorf("machine %s: state: %w", r.ID, err)
		}
	}
	if model.Properties == nil {
		model.Properties = &armcompute.VirtualMachineProperties{}
	}
	state := p.read(&check, r.ID, model.Properties, old)
	had := identities{}
	if old != nil {
		had = old.Identities
	}
	state.Identities = readIdentity(&check, r.Body, had, false)
	if err := errors.Join(p.attach(ctx, &check, r, model.Properties, &state, old), p.linkUsers(ctx, &check, r, state.Identities, had)); err != nil {
		return nil, err
	}
	if err := fault.Join(check.problems...); err != nil {
		return nil, err
	}
	if old == nil {
		if err := p.make(&state); err != nil {
			return nil, err
		}
	}
	arm.Drop(r.Body, "identity") // the view says it
	d, err := r.New()
	if err != nil {
		return nil, err
	}
	d.Type = vmType
	return p.planVM(ctx, r, d, state, had)
}

// make gives a new machine its name and its parts.
func (p *Provider) make(state *vmState) error {
	name := make([]byte, 6)
	_, _ = rand.Read(name)
	image, layers, err := p.Catalogue.Machine()
	if err != nil {
		return fmt.Errorf("parts of a machine: %w", err)
	}
	state.Machine, state.Image, state.Layers, state.Power = "vm"+hex.EncodeToString(name), image, layers, running
	return nil
}

// read turns a body into a state; what a body leaves out stays.
func (p *Provider) read(c *vmCheck, id resource.ID, props *armcompute.VirtualMachineProperties, old *vmState) vmState {
	var s vmState
	if old != nil {
		s = *old
	}
	if props.HardwareProfile != nil && props.HardwareProfile.VMSize != nil {
		s.Size = string(*props.HardwareProfile.VMSize)
	}
	if _, known := machine.SizeByName(s.Size); !known {
		c.bad("InvalidParameter", "properties.hardwareProfile.vmSize", "The value %q of parameter vmSize isn't one of the sizes there are: list them with az vm list-sizes.", s.Size)
	}
	if old == nil {
		s.Hostname = id.Name()
	}
	if os := props.OSProfile; os != nil {
		readOS(c, &s, os, old)
	}
	if !hostForm.MatchString(s.Hostname) {
		c.bad("InvalidParameter", "properties.osProfile.computerName", "%q isn't a host name.", s.Hostname)
	}
	if !adminForm.MatchString(s.Admin) || s.Admin == "root" {
		c.bad("InvalidParameter", "properties.osProfile.adminUsername", "%q can't be the administrator's name: lower-case letters, digits, - and _, not root.", s.Admin)
	}
	if len(s.Keys) == 0 {
		c.bad("InvalidParameter", "properties.osProfile.linuxConfiguration.ssh.publicKeys", "A machine needs an SSH key: passwords aren't offered.")
	}
	p.readImage(c, props.StorageProfile)
	return s
}

func readOS(c *vmCheck, s *vmState, os *armcompute.OSProfile, old *vmState) {
	const target = "properties.osProfile."
	keep := func(have *string, sent *string, name string) {
		if sent == nil || *sent == "" {
			return
		}
		if old != nil && *have != *sent {
			c.bad("PropertyChangeNotAllowed", target+name, "Changing property 'osProfile.%s' is not allowed.", name)
		}
		*have = *sent
	}
	keep(&s.Hostname, os.ComputerName, "computerName")
	keep(&s.Admin, os.AdminUsername, "adminUsername")
	if os.LinuxConfiguration == nil || os.LinuxConfiguration.SSH == nil {
		return
	}
	var keys []string
	for i, key := range os.LinuxConfiguration.SSH.PublicKeys {
		if key == nil || key.KeyData == nil {
			continue
		}
		text := strings.TrimSpace(*key.KeyData)
		if _, _, _, _, err := ssh.ParseAuthorizedKey([]byte(text)); err != nil {
			c.bad("InvalidParameter", fmt.Sprintf("%slinuxConfiguration.ssh.publicKeys[%d].keyData", target, i), "It isn't an SSH public key such as \"ssh-rsa AAAA…\".")
		}
		if want := "/home/" + s.Admin + "/.ssh/authorized_keys"; key.Path != nil && *key.Path != want {
			c.bad("InvalidParameter", fmt.Sprintf("%slinuxConfiguration.ssh.publicKeys[%d].path", target, i), "Destination path for SSH public keys is currently limited to its default value %s.", want)
		}
		keys = append(keys, text)
	}
	if old != nil && strings.Join(keys, "\n") != strings.Join(old.Keys, "\n") {
		c.bad("PropertyChangeNotAllowed", target+"linuxConfiguration.ssh.publicKeys", "Changing property 'linuxConfiguration.ssh.publicKeys' is not allowed.")
	}
	s.Keys = keys
}

// readImage takes the one image that there is, by Debian's names in Azure.
func (p *Provider) readImage(c *vmCheck, storage *armcompute.StorageProfile) {
	const target = "properties.storageProfile.imageReference"
	if storage == nil || storage.ImageReference == nil {
		return // the node image
	}
	i := storage.ImageReference
	text := func(s *string) string {
		if s == nil {
			return ""
		}
		return strings.ToLower(*s)
	}
	if text(i.ID) != "" || text(i.SharedGalleryImageID) != "" || text(i.CommunityGalleryImageID) != "" ||
		text(i.Publisher) != "debian" || text(i.Offer) != "debian-12" || !strings.HasPrefix(text(i.SKU), "12") || text(i.Version) != "latest" && text(i.Version) != "" {
		c.problems = append(c.problems, fault.New(fault.Unsupported, "ImageNotFound", "The image isn't there: machines run Debian:debian-12:12:latest, or leave imageReference out.").At(target))
	}
}

// attach finds the machine's interface.
func (p *Provider) attach(ctx context.Context, c *vmCheck, r *arm.Request, props *armcompute.VirtualMachineProperties, s, old *vmState) error {
	const target = "properties.networkProfile.networkInterfaces"
	var ids []string
	if props.NetworkProfile != nil {
		for _, n := range props.NetworkProfile.NetworkInterfaces {
			if n != nil && n.ID != nil {
				ids = append(ids, *n.ID)
			}
		}
	}
	if len(ids) == 0 && old != nil {
		return nil
	}
	if len(ids) != 1 {
		c.bad("InvalidParameter", target, "A machine has one network interface; these are %d.", len(ids))
		return nil
	}
	id, err := resource.ParseID(ids[0])
	if err != nil || !id.IsType("Microsoft.Network/networkInterfaces") {
		c.bad("LinkedInvalidPropertyId", target+"[0].id", "Property id '%s' at path '%s[0].id' is invalid.", ids[0], target)
		return nil
	}
	if old != nil && !id.Equal(old.NIC) {
		c.bad("PropertyChangeNotAllowed", target, "Changing the network interface of a machine is not allowed.")
		return nil
	}
	nic, err := p.Network.Interface(ctx, id)
	if fault.Is(err, fault.NotFound) {
		c.bad("InvalidResourceReference", target+"[0].id", "Resource %s referenced by resource %s was not found. Please make sure that the referenced resource exists, and that both resources are in the same region.", id, r.ID)
		return nil
	}
	if err != nil {
		return err
	}
	if !nic.Owner.IsRoot() && !nic.Owner.Equal(r.ID) {
		c.bad("NicInUse", target+"[0].id", "Network Interface %s is used by existing resource %s.", id, nic.Owner)
	}
	if location, _ := r.Body["location"].(string); location != "" && nic.Location != resource.NormalizeLocation(location) {
		c.bad("InvalidResourceReference", target+"[0].id", "The network interface is in %s, the machine in %s.", nic.Location, location)
	}
	s.NIC, s.Address = nic.ID, nic.Address
	return nil
}
