// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"bastide.dev/mirror"
	"bastide.dev/node"
	"bastide.dev/nodeimage"
)

// TestPatch installs Debian's real security updates in a machine made of the
// release alone, which reaches the archive through a mirror and by no other way.
func TestPatch(t *testing.T) {
	image, err := nodeimage.Build(t.Context(), nodeimage.Config{Cache: cacheDir, Variant: nodeimage.Unpatched})
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	w.prepareWire()
	w.spec.Image = image.Version
	config := node.Config{Role: node.RoleVM, Hostname: nodeName, Address: w.address, CPUs: 4, Memory: 2 << 30, Mirror: w.serveMirror()}
	w.spec.Files[0].Data, err = json.Marshal(config)
	w.check(err)
	w.up()
	w.eventually("the node tells of itself", 10*time.Second, func() bool { return w.says().Ready })

	w.change(func(c *node.Config) { c.Look = "1" })
	w.eventually("it knows what is waiting", 2*time.Minute, func() bool { return !w.says().Looked.IsZero() })
	waiting := w.says().Upgradable
	if !slices.ContainsFunc(waiting, func(u node.Update) bool { return u.Package == "libssl3" && u.From != "" && u.To != u.From }) {
		t.Fatalf("libssl3 isn't among what is waiting: %+v", waiting)
	}
	// A conffile that somebody changed, and a service that a package would start.
	_, err = w.in("sh", "-c", "echo '# mine' >> /etc/ssl/openssl.cnf; echo '# mine' >> /etc/ssh/sshd_config")
	w.check(err)

	begin := time.Now()
	w.change(func(c *node.Config) { c.Patch = &node.Patch{Token: "night 1", Until: time.Now().Add(time.Hour)} })
	// The machine is stopped in the middle: it goes on when it is back.
	w.eventually("it installs", 2*time.Minute, func() bool {
		_, err := w.in("grep", "-q", "^Setting up", aptLog)
		return err == nil
	})
	w.spec.Boots++
	w.up()
	w.eventually("it is patched", 5*time.Minute, func() bool {
		s := w.says()
		return s.Patch != nil && s.Patch.Token == "night 1" && !s.Patch.Ended.IsZero()
	})
	s := w.says()
	t.Logf("%d packages in %v", len(s.Patch.Installed), time.Since(begin))
	if s.Patch.Error != "" || s.Patch.Partial || len(s.Patch.Installed) < len(waiting) || len(s.Upgradable) != 0 {
		t.Errorf("%+v, left %+v", s.Patch, s.Upgradable)
	}
	for _, u := range waiting {
		if !slices.Contains(s.Patch.Installed, u) {
			t.Errorf("%+v was waiting and wasn't installed", u)
		}
		if out, err := w.in("dpkg-query", "-W", "-f", "${Version} ${db:Status-Status}", u.Package); err != nil || out != u.To+" installed" {
			t.Errorf("%s: %s %v", u.Package, out, err)
		}
	}
	if !s.RebootRequired || !slices.Contains(s.RebootPackages, "libssl3") {
		t.Errorf("no reboot is wanted: %+v", s)
	}
	if out, err := w.in("cat", "/var/run/reboot-required"); err != nil || out != "*** System restart required ***" {
		t.Errorf("%s %v", out, err)
	}
	for _, path := range []string{"/etc/ssl/openssl.cnf", "/etc/ssh/sshd_config"} {
		if out, err := w.in("tail", "-1", path); err != nil || out != "# mine" {
			t.Errorf("the change of %s is lost: %s", path, out)
		}
	}
	if pid := w.pidof("sshd"); pid != "" {
		t.Error("a package started its service")
	}
	w.patchedOnce(s)
}

// patchedOnce: a token is done once, over reboots too; and the machine that
// comes up has what was installed, and wants no reboot any more.
func (w *world) patchedOnce(before node.Status) {
	w.spec.Boots++
	w.up()
	w.eventually("it is back", 10*time.Second, func() bool { s := w.says(); return s.Ready && s.Patch != nil && !s.RebootRequired })
	if s := w.says(); !s.Patch.Begun.Equal(before.Patch.Begun) || len(s.Patch.Installed) != len(before.Patch.Installed) {
		w.t.Errorf("%+v, before %+v", s.Patch, before.Patch)
	}
	// A window that has passed: nothing is begun, and nothing is an error.
	w.change(func(c *node.Config) { c.Patch = &node.Patch{Token: "night 2", Until: time.Now().Add(-time.Second)} })
	w.eventually("the second night is over", 10*time.Second, func() bool {
		s := w.says()
		return s.Patch != nil && s.Patch.Token == "night 2" && !s.Patch.Ended.IsZero()
	})
	if s := w.says(); !s.Patch.Partial || len(s.Patch.Installed) != 0 || s.RebootRequired {
		w.t.Errorf("%+v", s.Patch)
	}
	w.change(func(c *node.Config) { c.Mirror, c.Look = "http://"+net.JoinHostPort(w.server.String(), "9"), "2" })
	w.eventually("a mirror that doesn't answer is told", 2*time.Minute, func() bool { return strings.Contains(w.says().LookError, "apt-get update") })
}

// serveMirror is the mirror at our end of the wire.
func (w *world) serveMirror() string {
	w.t.Helper()
	handler, err := mirror.New(mirror.Config{Upstream: nodeimage.DefaultMirror, Dir: w.dir + "/mirror", Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	w.check(err)
	listener, err := (&net.ListenConfig{}).Listen(w.t.Context(), "tcp", net.JoinHostPort(w.server.String(), "0"))
	w.check(err)
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	w.t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return "http://" + listener.Addr().String()
}
