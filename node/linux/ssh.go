// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"sync"
	"time"

	"bastide.dev/node"
)

const (
	homes       = "/home"
	maxSessions = 64 // of all addresses, so that strangers' attempts can't fill the node
	maxPerPeer  = 16 // of one address, so that one stranger's can't keep out everybody
)

// door is the way in for the admin user's keys. It listens itself and starts a
// daemon for each connection: one that waits would take 7 MiB of every node.
type door struct {
	services *services

	sessions sync.WaitGroup

	mu     sync.Mutex // guards what follows
	config node.Config
	peers  map[netip.Addr]int
	total  int
}

func newDoor(config node.Config, s *services) *door {
	return &door{config: config, services: s, peers: map[netip.Addr]int{}}
}

func (d *door) now() node.Config {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.config
}

// change takes on other keys of the same admin user. Who came in with one that
// isn't among them stays in.
func (d *door) change(config node.Config) error {
	d.mu.Lock()
	d.config = config
	d.mu.Unlock()
	err := authorize(config)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the user is made when the door opens
	}
	return err
}

// keep holds the door open until ctx ends, and returns when nobody is in any more.
func (d *door) keep(ctx context.Context) {
	d.awaitNode(ctx)
	logFile, closeLog := d.services.openLog("sshd")
	defer closeLog()
	defer d.sessions.Wait()
	for pause := firstPause; ctx.Err() == nil; pause = min(2*pause, lastPause) {
		if err := d.open(ctx, logFile); err != nil && ctx.Err() == nil {
			d.services.log.Warn("no way in by ssh", "error", err)
		}
		sleep(ctx, pause)
	}
}

// awaitNode waits until the node has joined, so as to delay nothing, but not
// for long: who can't join is when somebody wants to come in and look. A plain
// machine joins nothing.
func (d *door) awaitNode(ctx context.Context) {
	if d.now().Role == node.RoleVM {
		return
	}
	limited, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for limited.Err() == nil {
		if _, err := os.Stat(node.KubeconfigPath); err == nil {
			return
		}
		sleep(limited, 100*time.Millisecond)
	}
}

// open listens until ctx ends or listening fails; who is in stays in.
func (d *door) open(ctx context.Context, logFile io.Writer) error {
	if err := prepareSSH(d.now(), d.services.kids); err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", node.SSHAddress(d.now()).String())
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { listener.Close() })()
	defer listener.Close()
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		peer, leave := d.enter(conn)
		if leave == nil {
			fmt.Fprintf(logFile, "too many connections, %s has to wait\n", peer)
			conn.Close()
			continue
		}
		d.sessions.Go(func() {
			defer leave()
			if err := d.serve(ctx, conn, logFile); err != nil {
				fmt.Fprintf(logFile, "connection of %s: %v\n", peer, err)
			}
		})
	}
}

// enter counts the connection; leave is nil when there are too many.
func (d *door) enter(conn net.Conn) (peer netip.Addr, leave func()) {
	from, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return peer, nil
	}
	peer = from.Addr()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.total >= maxSessions || d.peers[peer] >= maxPerPeer {
		return peer, nil
	}
	d.total++
	d.peers[peer]++
	return peer, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.total--
		if d.peers[peer]--; d.peers[peer] == 0 {
			delete(d.peers, peer)
		}
	}
}

// serve gives the connection to a daemon of its own.
func (d *door) serve(ctx context.Context, conn net.Conn, logFile io.Writer) error {
	file, err := conn.(*net.TCPConn).File()
	conn.Close() // file is another descriptor of it
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = d.services.once(ctx, service{
		name: "sshd", args: []string{"sshd", "-i", "-e", "-f", node.SSHConfigPath}, conn: file, grace: 200 * time.Millisecond,
	}, logFile)
	return err
}

// prepareSSH makes the admin user, its keys and the node's own key, as far as
// they aren't there.
func prepareSSH(config node.Config, kids *reaper) error {
	if err := makeAdmin(config.AdminUser, kids); err != nil {
		return fmt.Errorf("admin user: %w", err)
	}
	if err := authorize(config); err != nil {
		return fmt.Errorf("authorized keys: %w", err)
	}
	if err := makeHostKey(config.Hostname, kids); err != nil {
		return fmt.Errorf("host key: %w", err)
	}
	return os.MkdirAll("/run/sshd", 0o755) // where sshd locks itself up before it knows who comes
}

// makeAdmin adds the user with a password that nothing matches. ("!" instead
// of "*" would lock the account, and sshd would refuse its keys too.)
func makeAdmin(name string, kids *reaper) error {
	known, err := user.Lookup(name)
	if err == nil {
		if known.Uid != strconv.Itoa(node.AdminUID) {
			return fmt.Errorf("%q is one of the system's own users", name)
		}
		return nil
	}
	if unknown := user.UnknownUserError(""); !errors.As(err, &unknown) {
		return err
	}
	return runTool(kids, "useradd", "--badname", "--uid", strconv.Itoa(node.AdminUID), "--user-group", "--create-home",
		"--key", "HOME_MODE=0700", "--base-dir", homes, "--shell", "/bin/bash", "--password", "*", name)
}

// authorize writes the admin user's keys. The home is the user's, so that links
// in it may lead anywhere: an os.Root follows none out of it.
func authorize(config node.Config) error {
	home, err := os.OpenRoot(homes + "/" + config.AdminUser)
	if err != nil {
		return err
	}
	const path, temporary = ".ssh/authorized_keys", ".ssh/authorized_keys.new"
	return errors.Join(
		home.MkdirAll(".ssh", 0o700),
		home.Chown(".ssh", node.AdminUID, node.AdminUID),
		home.WriteFile(temporary, config.AuthorizedKeysFile(), 0o600),
		home.Chown(temporary, node.AdminUID, node.AdminUID),
		home.Rename(temporary, path),
		home.Close(),
	)
}

// makeHostKey makes the one kind of key that takes no time to make. It gets its
// name when it is whole.
func makeHostKey(hostname string, kids *reaper) error {
	if _, err := os.Stat(node.SSHHostKeyPath); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	const temporary = node.SSHHostKeyPath + ".new"
	for _, path := range []string{temporary, temporary + ".pub"} {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	if err := runTool(kids, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "root@"+hostname, "-f", temporary); err != nil {
		return err
	}
	if err := os.Rename(temporary+".pub", node.SSHHostKeyPath+".pub"); err != nil {
		return err
	}
	return os.Rename(temporary, node.SSHHostKeyPath)
}

// runTool runs a program to its end; what it says goes to the console.
func runTool(kids *reaper, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	ended, err := kids.start(cmd)
	if err != nil {
		return err
	}
	if status := <-ended; status.ExitStatus() != 0 {
		return fmt.Errorf("%s ended with status %d, see the console log", name, status.ExitStatus())
	}
	return nil
}
