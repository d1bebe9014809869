// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const adminUser = "azureuser"

// sshKey makes the key pair NAME_key and returns its public half.
func (w *world) sshKey(name string) string {
	w.t.Helper()
	path := filepath.Join(w.dir, name+"_key")
	out, err := exec.CommandContext(w.t.Context(), "ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", path).CombinedOutput()
	if err != nil {
		w.t.Fatalf("ssh-keygen: %v %s", err, out)
	}
	public, err := os.ReadFile(path + ".pub")
	w.check(err)
	return strings.TrimSpace(string(public))
}

// ssh is a person's client, on the other end of the wire.
func (w *world) ssh(user, key string, args ...string) (string, error) {
	cmd := exec.CommandContext(w.t.Context(), "ssh", append([]string{
		"-F", "none", "-i", filepath.Join(w.dir, key+"_key"), "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "BatchMode=yes",
		"-o", "ConnectTimeout=5", "-o", "StrictHostKeyChecking=accept-new", "-o", "UserKnownHostsFile=" + filepath.Join(w.dir, "known_hosts"),
		user + "@" + w.address.String()}, args...)...)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// comeIn: the admin user's key opens the node, and nothing else does.
func (w *world) comeIn() {
	w.eventually("the key opens the node", 20*time.Second, func() bool {
		_, err := w.ssh(adminUser, "admin", "true")
		return err == nil
	})
	script := `id -un; id -u; hostname; stat -c '%a %U' ~ ~/.ssh ~/.ssh/authorized_keys; sudo -n id -un; sudo -n cat /etc/machine-id | wc -c`
	want := strings.Join([]string{adminUser, "1000", nodeName, "700 " + adminUser, "700 " + adminUser, "600 " + adminUser, "root", "33"}, "\n")
	if out, err := w.ssh(adminUser, "admin", script); err != nil || out != want {
		w.t.Errorf("%v\n%s", err, out)
	}
	if out, err := w.ssh(adminUser, "admin", "-tt", "tty"); err != nil || !strings.Contains(out, "/dev/pts/") {
		w.t.Errorf("no terminal: %v %s", err, out)
	}
	w.sshKey("stranger")
	refused := "Permission denied (publickey)"
	for _, try := range []struct{ what, user, key, want string }{
		{"another key", adminUser, "stranger", refused},
		{"root", "root", "admin", refused},
		{"a user of the system", "daemon", "admin", refused},
	} {
		if out, err := w.ssh(try.user, try.key, "id"); err == nil || !strings.Contains(out, try.want) {
			w.t.Errorf("%s: %v %s", try.what, err, out)
		}
	}
	// What the daemon offers is keys alone: it never asks for a password.
	out, err := w.ssh(adminUser, "admin", "-o", "PreferredAuthentications=password,keyboard-interactive", "id")
	if err == nil || !strings.Contains(out, refused) {
		w.t.Errorf("password: %v %s", err, out)
	}
	// No way through the node for connections of others.
	out, err = w.ssh(adminUser, "admin", "-o", "ExitOnForwardFailure=yes", "-W", w.server.String()+":6443")
	if err == nil || !strings.Contains(out, "administratively prohibited") {
		w.t.Errorf("forwarding: %v %s", err, out)
	}
	w.crowd()
}

// crowd: one address can't take all of the door, and it opens again when they go.
func (w *world) crowd() {
	dial := func() (net.Conn, bool) {
		conn, err := net.DialTimeout("tcp", w.address.String()+":22", 5*time.Second)
		w.check(err)
		w.check(conn.SetReadDeadline(time.Now().Add(10 * time.Second)))
		banner := make([]byte, 4)
		_, err = io.ReadFull(conn, banner)
		return conn, err == nil && string(banner) == "SSH-"
	}
	var crowd []net.Conn
	for range maxPerPeer {
		conn, ok := dial()
		defer conn.Close()
		if !ok {
			w.t.Fatalf("connection %d isn't let in", len(crowd))
		}
		crowd = append(crowd, conn)
	}
	conn, ok := dial()
	conn.Close()
	if ok {
		w.t.Error("one more than the limit is let in")
	}
	for _, conn := range crowd {
		conn.Close()
	}
	w.eventually("the key opens the node again", 10*time.Second, func() bool {
		_, err := w.ssh(adminUser, "admin", "true")
		return err == nil
	})
}
