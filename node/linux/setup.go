// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"bastide.dev/cgroup"
	"bastide.dev/node"
)

// uplink is the interface that the data plane gives a machine.
const uplink = "eth0"

// setUp makes the machine ready for its services.
func setUp(ctx context.Context, config node.Config, kids *reaper) error {
	if err := raiseFiles(); err != nil {
		return err
	}
	files, err := node.Files(config)
	if err != nil {
		return err
	}
	for _, f := range append(files, bootID()) {
		if err := writeFile(f); err != nil {
			return err
		}
	}
	if config.Role == node.RoleVM {
		return setUpVM(ctx, config)
	}
	for _, dir := range []string{"/run/lock", "/run/containerd", "/etc/kubernetes/manifests", "/etc/kubernetes/volumeplugins", "/etc/cni/net.d"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := leaveRootGroup(); err != nil {
		return fmt.Errorf("control group: %w", err)
	}
	if err := makeView(config); err != nil {
		return fmt.Errorf("kubelet's view: %w", err)
	}
	if err := setKernel(); err != nil {
		return err
	}
	if rules := node.Masquerade(config); rules != "" {
		if err := nft(kids, rules); err != nil {
			return fmt.Errorf("masquerading: %w", err)
		}
	}
	return awaitAddress(ctx, config.Address)
}

// bootID is a new one, in the kernel's form.
func bootID() node.File {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return node.File{Path: node.BootIDPath, Mode: 0o644, Data: fmt.Appendf(nil, "%x-%x-%x-%x-%x\n", b[:4], b[4:6], b[6:8], b[8:10], b[10:])}
}

// setUpVM makes a plain machine ready: a way in is all that it has.
func setUpVM(ctx context.Context, config node.Config) error {
	if err := os.MkdirAll("/run/lock", 0o755); err != nil {
		return err
	}
	if err := leaveRootGroup(); err != nil {
		return fmt.Errorf("control group: %w", err)
	}
	return awaitAddress(ctx, config.Address)
}

// fitted gives pods the MTU of the node's own interface, which stands only when
// the node has its address, unless the config has another.
func fitted(config node.Config) (node.Config, error) {
	if config.Network.MTU != 0 || config.Network.Plugin == "none" || config.Role == node.RoleVM {
		return config, nil
	}
	link, err := netlink.LinkByName(uplink)
	if err != nil {
		return config, fmt.Errorf("MTU of pods: %w", err)
	}
	config.Network.MTU = link.Attrs().MTU
	return config, nil
}

func writeFile(f node.File) error {
	if err := os.MkdirAll(filepath.Dir(f.Path), 0o755); err != nil {
		return err
	}
	tmp := f.Path + ".new"
	if err := os.WriteFile(tmp, f.Data, 0o600); err != nil {
		return err
	}
	if err := os.Chmod(tmp, fs.FileMode(f.Mode)); err != nil {
		return err
	}
	return os.Rename(tmp, f.Path)
}

// raiseFiles gives containers the room for open files that AKS's have.
func raiseFiles() error {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return err
	}
	files.Cur = files.Max
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &files)
}

// leaveRootGroup moves PID 1, and so all services, into a group of their own:
// on cgroup v2 the root can't hold both processes and controllers for kubelet.
func leaveRootGroup() error {
	const group = "system"
	if err := cgroup.Create(group, cgroup.Limits{}); err != nil {
		return err
	}
	return cgroup.Add(group, os.Getpid())
}

// setKernel makes a router of the machine's network namespace. What this kernel
// doesn't have needs no setting.
func setKernel() error {
	for path, value := range map[string]string{
		"net/ipv4/ip_forward":                 "1",
		"net/ipv6/conf/all/forwarding":        "1",
		"net/ipv4/conf/all/rp_filter":         "0",
		"net/ipv4/conf/default/rp_filter":     "0",
		"net/ipv4/conf/all/route_localnet":    "0",
		"net/ipv4/ip_unprivileged_port_start": "1024",
		"net/core/somaxconn":                  "16384",
		"net/ipv4/tcp_max_syn_backlog":        "16384",
	} {
		err := os.WriteFile("/proc/sys/"+path, []byte(value), 0o644)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	return netlink.LinkSetUp(lo)
}

func nft(kids *reaper, rules string) error {
	in, out, err := os.Pipe()
	if err != nil {
		return err
	}
	defer in.Close()
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, os.Stdout, os.Stderr
	ended, err := kids.start(cmd)
	if err != nil {
		return errors.Join(err, out.Close())
	}
	_, err = io.WriteString(out, rules)
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	if status := <-ended; status.ExitStatus() != 0 {
		return fmt.Errorf("nft ended with status %d, see the console log", status.ExitStatus())
	}
	return nil
}

// awaitAddress waits until the data plane has given the node its address and a
// way out; it may come before or after the boot.
func awaitAddress(ctx context.Context, want netip.Addr) error {
	changes := make(chan netlink.RouteUpdate, 64)
	if err := netlink.RouteSubscribe(changes, ctx.Done()); err != nil {
		return fmt.Errorf("watch routes: %w", err)
	}
	for {
		ready, err := hasAddress(want)
		if err != nil || ready {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case _, open := <-changes:
			if !open {
				return errors.New("watch routes: it ended")
			}
		}
	}
}

func hasAddress(want netip.Addr) (bool, error) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return false, err
	}
	found := false
	for _, address := range addresses {
		prefix, err := netip.ParsePrefix(address.String())
		found = found || err == nil && prefix.Addr() == want
	}
	if !found {
		return false, nil
	}
	family := unix.AF_INET
	if want.Is6() {
		family = unix.AF_INET6
	}
	routes, err := netlink.RouteList(nil, family)
	if err != nil {
		return false, err
	}
	for _, route := range routes {
		if route.Dst == nil || route.Dst.IP.IsUnspecified() {
			return true, nil
		}
	}
	return false, nil
}
