// SPDX-License-Identifier: Apache-2.0

package drill

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"bastide.dev/drill/linux"
)

// admin is the user on machines and nodes.
const admin = "azureuser"

// Machine is a virtual machine with a public address, to which the lab's
// operator has SSH.
type Machine struct {
	Name    string
	ID      string
	NIC     string
	Address netip.Addr // in its subnet
	Public  netip.Addr
	shell   *shell
}

// makeKeys makes the lab's own SSH key and ssh's configuration: nothing of the
// user's is read or changed.
func (l *Lab) makeKeys() error {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("ssh key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(private, "bastide drill")
	if err != nil {
		return fmt.Errorf("ssh key: %w", err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return fmt.Errorf("ssh key: %w", err)
	}
	config := fmt.Sprintf("Host *\n  User %s\n  IdentityFile %s\n  IdentitiesOnly yes\n  UserKnownHostsFile %s\n  GlobalKnownHostsFile /dev/null\n"+
		"  StrictHostKeyChecking accept-new\n  BatchMode yes\n  ConnectTimeout 2\n  LogLevel ERROR\n", admin, l.file("key"), l.file("known_hosts"))
	for name, text := range map[string][]byte{"key": pem.EncodeToMemory(block), "key.pub": ssh.MarshalAuthorizedKey(key), "ssh_config": []byte(config)} {
		if err := os.WriteFile(l.file(name), text, 0o600); err != nil {
			return fmt.Errorf("ssh: %w", err)
		}
	}
	return nil
}

func (l *Lab) publicKey() (string, error) {
	text, err := os.ReadFile(l.file("key.pub"))
	if err != nil {
		return "", fmt.Errorf("ssh: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// Jump is the lab's jump host, App a machine in another subnet that answers
// HTTP on 8080 and 8081.
func (l *Lab) Jump(ctx context.Context) (*Machine, error) { return l.machineIn(ctx, "jump", "jump") }

// App is a machine in a subnet of its own that answers HTTP on two ports.
func (l *Lab) App(ctx context.Context) (*Machine, error) {
	m, err := l.machineIn(ctx, "app", "app")
	if err != nil {
		return nil, err
	}
	return m, m.serve(ctx, 8080, 8081)
}

// machineIn is the lab's machine of a name in a subnet of the lab's network.
func (l *Lab) machineIn(ctx context.Context, name, subnet string) (*Machine, error) {
	if err := l.base(ctx); err != nil {
		return nil, err
	}
	return l.Machine(ctx, name, l.subnet(subnet))
}

// Machine is the lab's machine of a name; it is made at the first call.
func (l *Lab) Machine(ctx context.Context, name, subnet string) (*Machine, error) {
	return keyed(&l.mu, l.hosts, name).get(func() (*Machine, error) { return l.makeMachine(ctx, name, subnet) })
}

// makeMachine makes a virtual machine in a subnet whose security group lets SSH in.
func (l *Lab) makeMachine(ctx context.Context, name, subnet string) (*Machine, error) {
	operator, err := l.Terminal(ctx, "operator")
	if err != nil {
		return nil, err
	}
	key, err := l.publicKey()
	if err != nil {
		return nil, err
	}
	m := &Machine{Name: name, ID: l.id("Microsoft.Compute/virtualMachines", name), NIC: l.network("networkInterfaces", name)}
	public, err := l.put(ctx, l.network("publicIPAddresses", name), networkVersion, object{"location": l.Instance.Location,
		"sku": object{"name": "Standard"}, "properties": object{"publicIPAllocationMethod": "Static"}})
	if err != nil {
		return nil, err
	}
	if m.Public, err = parseAddr(dig(public, "properties", "ipAddress"), "public address of "+name); err != nil {
		return nil, err
	}
	if m.Address, err = l.putNIC(ctx, m, subnet); err != nil {
		return nil, err
	}
	_, err = l.put(ctx, m.ID, computeVersion, object{"location": l.Instance.Location, "properties": object{
		"hardwareProfile": object{"vmSize": "Standard_B2s"},
		"osProfile": object{"computerName": name, "adminUsername": admin, "linuxConfiguration": object{"disablePasswordAuthentication": true,
			"ssh": object{"publicKeys": []any{object{"path": "/home/" + admin + "/.ssh/authorized_keys", "keyData": key}}}}},
		"networkProfile": object{"networkInterfaces": []any{ref(m.NIC)}}}})
	if err != nil {
		return nil, err
	}
	m.shell = &shell{start: func(cmd *exec.Cmd) error { return linux.Start(operator.path, cmd) },
		command: func() *exec.Cmd { return exec.Command("ssh", l.sshArgs(name, m.Public, "bash")...) }}
	l.closing(m.shell.Close)
	return m, m.await(ctx)
}

// await waits until the machine takes SSH: its server starts after the machine.
func (m *Machine) await(ctx context.Context) error {
	for end := time.Now().Add(setupPatience); ; {
		_, err := m.Must(ctx, "true")
		if err == nil || time.Now().After(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(between):
		}
	}
}

// putNIC makes a machine's interface.
func (l *Lab) putNIC(ctx context.Context, m *Machine, subnet string) (netip.Addr, error) {
	answer, err := l.put(ctx, m.NIC, networkVersion, l.nicBody(m.Name, subnet, nil))
	if err != nil {
		return netip.Addr{}, err
	}
	properties, _ := answer["properties"].(object)
	configs, _ := properties["ipConfigurations"].([]any)
	if len(configs) == 0 {
		return netip.Addr{}, fmt.Errorf("interface of %s has no address", m.Name)
	}
	return parseAddr(dig(configs[0], "properties", "privateIPAddress"), "address of "+m.Name)
}

// nicBody is an interface; extra are further properties.
func (l *Lab) nicBody(name, subnet string, extra object) object {
	properties := object{"ipConfigurations": []any{object{"name": "main", "properties": object{
		"subnet": ref(subnet), "publicIPAddress": ref(l.network("publicIPAddresses", name))}}}}
	for k, v := range extra {
		properties[k] = v
	}
	return object{"location": l.Instance.Location, "properties": properties}
}

// sshArgs are ssh's for a command on an address; alias names the host key.
func (l *Lab) sshArgs(alias string, to netip.Addr, command ...string) []string {
	return append([]string{"-F", l.file("ssh_config"), "-o", "HostKeyAlias=" + l.group + "-" + alias, to.String()}, command...)
}

// Who names the machine, with its address.
func (m *Machine) Who() string { return fmt.Sprintf("machine %s (%s)", m.Name, m.Address) }

// Run runs a bash command on the machine, as its administrator.
func (m *Machine) Run(ctx context.Context, command string) (string, int, error) {
	return m.shell.run(ctx, command)
}

// Must is Run where the command has to succeed.
func (m *Machine) Must(ctx context.Context, command string) (string, error) {
	out, code, err := m.Run(ctx, command)
	if err == nil && code != 0 {
		err = fmt.Errorf("on %s: %s: exit code %d: %s", m.Name, command, code, out)
	}
	return out, err
}

// serve answers HTTP on ports, with the machine's name, as long as it runs.
func (m *Machine) serve(ctx context.Context, ports ...int) error {
	for _, port := range ports {
		_, err := m.Must(ctx, fmt.Sprintf(`ss -Hltn 'sport = :%d' | grep -q . || { printf 'HTTP/1.0 200 OK\r\n\r\nhostname: %s\n' >/tmp/page; `+
			`setsid socat TCP-LISTEN:%d,fork,reuseaddr SYSTEM:'head -n1 >/dev/null; cat /tmp/page' >/dev/null 2>&1 & sleep 0.1; }`, port, m.Name, port))
		if err != nil {
			return err
		}
	}
	return nil
}

// HTTP asks for the page at an address with its port.
func (m *Machine) HTTP(ctx context.Context, address string) (Result, error) {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return Result{}, fmt.Errorf("page: %w", err)
	}
	out, code, err := m.Run(ctx, fmt.Sprintf(`timeout %g bash -c 'exec 3<>/dev/tcp/%s/%d && printf "GET / HTTP/1.0\r\n\r\n" >&3 && cat <&3'`, tryTime.Seconds(), at.Addr(), at.Port()))
	return fromShell(out, code), err
}

// TCP opens a connection to an address with its port, and closes it.
func (m *Machine) TCP(ctx context.Context, address string) (Result, error) {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return Result{}, fmt.Errorf("connect: %w", err)
	}
	out, code, err := m.Run(ctx, fmt.Sprintf("timeout %g bash -c 'exec 3<>/dev/tcp/%s/%d'", tryTime.Seconds(), at.Addr(), at.Port()))
	if err != nil || code != 0 {
		return fromShell(out, code), err
	}
	return Result{Worked: true, Got: "a connection"}, nil
}

// fromShell reads the outcome of a client that ran in a shell.
func fromShell(out string, code int) Result {
	if code == 0 && strings.TrimSpace(out) != "" {
		return page(out)
	}
	lower := strings.ToLower(out)
	for text, got := range map[string]string{"refused": "connection refused", "timed out": "no answer", "unreachable": "no route to host", "no route": "no route to host", "reset": "connection reset"} {
		if strings.Contains(lower, text) {
			return Result{Got: got}
		}
	}
	if code == 124 || code == 143 || strings.TrimSpace(out) == "" {
		return Result{Got: "no answer"}
	}
	return Result{Got: strings.TrimSpace(out)}
}

// SSH opens a session from a terminal to an address, through others if named,
// and runs a command there.
func (l *Lab) SSH(ctx context.Context, from *Terminal, alias string, to netip.Addr, via ...netip.Addr) (Result, error) {
	var jumps []string
	for _, v := range via {
		jumps = append(jumps, v.String())
	}
	args := l.sshArgs(alias, to, "hostname")
	if len(jumps) > 0 {
		args = append([]string{"-J", strings.Join(jumps, ",")}, args...)
	}
	out, code, err := from.Command(ctx, 4*time.Second, "ssh", args...)
	if err != nil {
		return Result{}, err
	}
	out = strings.TrimSpace(out)
	if code == 0 {
		return Result{Worked: true, Got: "a session on " + out, Body: out}, nil
	}
	if code != 255 && code != -1 {
		return Result{}, fmt.Errorf("ssh: exit code %d: %s", code, out)
	}
	if strings.Contains(out, "HOST IDENTIFICATION") || strings.Contains(out, "Host key verification") {
		return Result{}, fmt.Errorf("ssh: %s", out)
	}
	return Result{Got: lastLine(out)}, nil
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}
