// SPDX-License-Identifier: Apache-2.0

package testcloud_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v7"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"
	"golang.org/x/crypto/ssh"
)

// vm is a virtual machine with a public address, driven over SSH from a terminal.
type vm struct {
	*rig
	name            string
	public, private string
	key             string // the private key's path
}

const administrator = "azureuser"

// keyPair makes an SSH key; it returns the private one's path and the public one.
func keyPair(dir, name string) (path, authorized string, err error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", "", err
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return "", "", err
	}
	shown, err := ssh.NewPublicKey(public)
	if err != nil {
		return "", "", err
	}
	path = filepath.Join(dir, name)
	return path, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(shown))), os.WriteFile(path, pem.EncodeToMemory(block), 0o600)
}

// jump makes the jump host: a public address, a security group that lets SSH in
// from one terminal, an interface, the machine; by the SDK, as its users do.
func (r *rig) jump(t testing.TB) (*vm, error) {
	ctx := t.Context()
	m := &vm{rig: r, name: "jump"}
	path, key, err := keyPair(t.TempDir(), "id")
	if err != nil {
		return nil, err
	}
	m.key = path
	location := to.Ptr("eastus")
	pip, err := r.network.NewPublicIPAddressesClient().BeginCreateOrUpdate(ctx, "rg", "jump", armnetwork.PublicIPAddress{Location: location,
		SKU:        &armnetwork.PublicIPAddressSKU{Name: to.Ptr(armnetwork.PublicIPAddressSKUNameStandard)},
		Properties: &armnetwork.PublicIPAddressPropertiesFormat{PublicIPAllocationMethod: to.Ptr(armnetwork.IPAllocationMethodStatic)}}, nil)
	if err != nil {
		return nil, err
	}
	address, err := pip.PollUntilDone(ctx, everySecond)
	if err != nil {
		return nil, err
	}
	m.public = *address.Properties.IPAddress
	nsg, err := r.network.NewSecurityGroupsClient().BeginCreateOrUpdate(ctx, "rg", "jump", armnetwork.SecurityGroup{Location: location,
		Properties: &armnetwork.SecurityGroupPropertiesFormat{SecurityRules: []*armnetwork.SecurityRule{{Name: to.Ptr("ssh"),
			Properties: &armnetwork.SecurityRulePropertiesFormat{Priority: to.Ptr[int32](100), Direction: to.Ptr(armnetwork.SecurityRuleDirectionInbound),
				Access: to.Ptr(armnetwork.SecurityRuleAccessAllow), Protocol: to.Ptr(armnetwork.SecurityRuleProtocolTCP), SourceAddressPrefix: to.Ptr(r.here.address),
				SourcePortRange: to.Ptr("*"), DestinationAddressPrefix: to.Ptr("*"), DestinationPortRange: to.Ptr("22")}}}}}, nil)
	if err != nil {
		return nil, err
	}
	group, err := nsg.PollUntilDone(ctx, everySecond)
	if err != nil {
		return nil, err
	}
	nic, err := r.network.NewInterfacesClient().BeginCreateOrUpdate(ctx, "rg", "jump", armnetwork.Interface{Location: location,
		Properties: &armnetwork.InterfacePropertiesFormat{NetworkSecurityGroup: &armnetwork.SecurityGroup{ID: group.ID},
			IPConfigurations: []*armnetwork.InterfaceIPConfiguration{{Name: to.Ptr("ipconfig1"), Properties: &armnetwork.InterfaceIPConfigurationPropertiesFormat{
				Subnet: &armnetwork.Subnet{ID: to.Ptr(r.nid("virtualNetworks/net/subnets/vms"))}, PublicIPAddress: &armnetwork.PublicIPAddress{ID: address.ID}}}}}}, nil)
	if err != nil {
		return nil, err
	}
	link, err := nic.PollUntilDone(ctx, everySecond)
	if err != nil {
		return nil, err
	}
	m.private = *link.Properties.IPConfigurations[0].Properties.PrivateIPAddress
	if err := r.machine(ctx, "jump", *link.ID, key); err != nil {
		return nil, err
	}
	return m, await(ctx, time.Minute, func() error { return m.install(ctx, r.echo) })
}

// machine makes a virtual machine with an interface.
func (r *rig) machine(ctx context.Context, name, nic, key string) error {
	poller, err := r.compute.NewVirtualMachinesClient().BeginCreateOrUpdate(ctx, "rg", name, armcompute.VirtualMachine{Location: to.Ptr("eastus"),
		Properties: &armcompute.VirtualMachineProperties{
			HardwareProfile: &armcompute.HardwareProfile{VMSize: to.Ptr(armcompute.VirtualMachineSizeTypesStandardB1S)},
			StorageProfile: &armcompute.StorageProfile{ImageReference: &armcompute.ImageReference{
				Publisher: to.Ptr("Debian"), Offer: to.Ptr("debian-12"), SKU: to.Ptr("12"), Version: to.Ptr("latest")},
				OSDisk: &armcompute.OSDisk{CreateOption: to.Ptr(armcompute.DiskCreateOptionTypesFromImage)}},
			OSProfile: &armcompute.OSProfile{ComputerName: to.Ptr(name), AdminUsername: to.Ptr(administrator),
				LinuxConfiguration: &armcompute.LinuxConfiguration{DisablePasswordAuthentication: to.Ptr(true), SSH: &armcompute.SSHConfiguration{
					PublicKeys: []*armcompute.SSHPublicKey{{Path: to.Ptr("/home/" + administrator + "/.ssh/authorized_keys"), KeyData: &key}}}}},
			NetworkProfile: &armcompute.NetworkProfile{NetworkInterfaces: []*armcompute.NetworkInterfaceReference{{ID: &nic}}},
		}}, nil)
	if err != nil {
		return fmt.Errorf("machine %s: %w", name, err)
	}
	if _, err = poller.PollUntilDone(ctx, everySecond); err != nil {
		return fmt.Errorf("machine %s: %w", name, err)
	}
	return nil
}

// install puts the echo program into the machine, when SSH answers.
func (m *vm) install(ctx context.Context, program string) error {
	data, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	_, err = m.run(ctx, m.here.space, data, "cat > echo && chmod +x echo")
	return err
}

// run runs a command in the machine, by ssh from a namespace.
func (m *vm) run(ctx context.Context, from space, input []byte, command string) (string, error) {
	return sshTo(ctx, from, m.key, administrator+"@"+m.public, input, command)
}

// sshTo runs the real ssh.
func sshTo(ctx context.Context, from space, key, target string, input []byte, command string, options ...string) (string, error) {
	args := append([]string{"--net=" + string(from), "ssh", "-i", key, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "ConnectTimeout=3",
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"}, options...)
	cmd := exec.CommandContext(ctx, "nsenter", append(args, target, command)...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("ssh %s %s: %w: %s%s", target, command, err, &out, &errs)
	}
	return out.String(), nil
}

// sh runs a command from the terminal that may.
func (m *vm) sh(t testing.TB, command string) string {
	t.Helper()
	out, err := m.run(t.Context(), m.here.space, nil, command)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// ask sends an HTTP request from the machine.
func (m *vm) ask(ctx context.Context, address string) (said, error) {
	var a said
	out, err := m.run(ctx, m.here.space, nil, "./echo get http://"+address+"/")
	if err != nil {
		return a, err
	}
	return a, json.Unmarshal([]byte(out), &a)
}

func (m *vm) reaches(t testing.TB, address string) (a said) {
	t.Helper()
	soon(t, func() (err error) { a, err = m.ask(t.Context(), address); return err })
	return a
}

func (m *vm) refused(t testing.TB, address string) {
	t.Helper()
	soon(t, func() error {
		if a, err := m.ask(t.Context(), address); err == nil {
			return fmt.Errorf("%s answers the machine: %+v", address, a)
		}
		return nil
	})
}
