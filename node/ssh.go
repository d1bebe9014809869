// SPDX-License-Identifier: Apache-2.0

package node

import (
	"net/netip"
	"regexp"
	"strings"
)

// Where a node's SSH daemon finds what belongs to it. Debian's own sshd_config
// stays as it is: a patch of the package must find nothing changed.
const (
	SSHConfigPath  = "/etc/bastide/sshd_config"
	SSHHostKeyPath = "/etc/ssh/ssh_host_ed25519_key" // made at the first boot, kept until the next reimage
	sudoersPath    = "/etc/sudoers.d/90-bastide-admin"
	sshPort        = 22
)

// AdminUID is the admin user's id, and its group's.
const AdminUID = 1000

// adminForm is what AKS accepts as linuxProfile.adminUsername. It also keeps
// the name from saying more in sshd's and sudo's files than a name.
var adminForm = regexp.MustCompile(`^[A-Za-z][-A-Za-z0-9_]{0,31}$`)

// SSH tells whether anybody may come in: without keys no daemon runs.
func (c Config) SSH() bool { return len(c.AuthorizedKeys) > 0 }

// SSHAddress is where the node listens for its admin user.
func SSHAddress(c Config) netip.AddrPort { return netip.AddrPortFrom(c.Address, sshPort) }

// AuthorizedKeysFile is the content of the admin user's authorized_keys.
func (c Config) AuthorizedKeysFile() []byte {
	return []byte(strings.Join(c.AuthorizedKeys, "\n") + "\n")
}

// sshFiles are those of the daemon, and the right to become root, which AKS's
// admin user has too.
func sshFiles(c Config) []File {
	if !c.SSH() {
		return nil
	}
	return []File{
		{SSHConfigPath, 0o600, sshConfig(c)},
		{sudoersPath, 0o440, []byte(c.AdminUser + " ALL=(ALL:ALL) NOPASSWD:ALL\n")},
	}
}

// sshTemplate: keys only, one user only, and a shell only: who may forward
// connections through a node is past the network's rules. No PAM: there is no
// password, and no session manager, that it could ask.
const sshTemplate = `HostKey {{.HostKey}}
PidFile none
AllowUsers {{.User}}
PermitRootLogin no
AuthenticationMethods publickey
PubkeyAuthentication yes
PasswordAuthentication no
KbdInteractiveAuthentication no
HostbasedAuthentication no
PermitEmptyPasswords no
UsePAM no
StrictModes yes
AuthorizedKeysFile .ssh/authorized_keys
PermitUserEnvironment no
PermitUserRC no
AllowTcpForwarding {{.Forward}}
AllowStreamLocalForwarding no
AllowAgentForwarding no
X11Forwarding no
PermitTunnel no
GatewayPorts no
LoginGraceTime 30
MaxAuthTries 4
ClientAliveInterval 120
ClientAliveCountMax 3
UseDNS no
KexAlgorithms sntrup761x25519-sha512@openssh.com,curve25519-sha256,curve25519-sha256@libssh.org,ecdh-sha2-nistp384,ecdh-sha2-nistp521
Ciphers chacha20-poly1305@openssh.com,aes256-gcm@openssh.com,aes128-gcm@openssh.com,aes256-ctr,aes128-ctr
MACs hmac-sha2-256-etm@openssh.com,hmac-sha2-512-etm@openssh.com
LogLevel VERBOSE
AcceptEnv LANG LC_*
Subsystem sftp internal-sftp
`

func sshConfig(c Config) []byte {
	forward := "no"
	if c.Role == RoleVM {
		forward = "yes" // what a jump host is for
	}
	return render(sshTemplate, map[string]string{
		"HostKey": SSHHostKeyPath, "User": c.AdminUser, "Forward": forward,
	})
}
