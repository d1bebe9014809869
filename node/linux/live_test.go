// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"bastide.dev/node"
)

// says is what the node says of itself.
func (w *world) says() node.Status {
	w.t.Helper()
	all, err := w.provider.Status(w.t.Context())
	w.check(err)
	var s node.Status
	if len(all[0].Guest) > 0 {
		w.check(json.Unmarshal(all[0].Guest, &s))
	}
	return s
}

// hand gives the running machine another config file.
func (w *world) hand(data []byte) {
	w.t.Helper()
	w.spec.Files[0].Data = data
	w.check(w.provider.Create(w.t.Context(), w.spec))
}

// change changes the config of the running node and waits until it is in effect.
func (w *world) change(change func(c *node.Config)) {
	w.t.Helper()
	var config node.Config
	w.check(json.Unmarshal(w.spec.Files[0].Data, &config))
	change(&config)
	data, err := json.Marshal(config)
	w.check(err)
	w.hand(data)
	w.eventually("the config is in effect", 20*time.Second, func() bool {
		s := w.says()
		return s.Config == node.Digest(data) && s.Ready && s.Error == ""
	})
}

func (w *world) pids(names ...string) []string {
	var pids []string
	for _, name := range names {
		pids = append(pids, w.pidof(name))
	}
	return pids
}

// changeLive: each part of a config that changes reaches the parts that it is
// about, at once, and neither another part nor a pod notices.
func (w *world) changeLive() {
	const began = "jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].state.running.startedAt}"
	pod := w.must("", "get", "pod", "web", "-o", began)
	all := []string{"containerd", "kubelet", "kube-proxy"}
	before := w.pids(all...)
	restarted := func(what string, names ...string) {
		w.t.Helper()
		now := w.pids(all...)
		for i, name := range all {
			if now[i] == "" || (now[i] != before[i]) != slices.Contains(names, name) {
				w.t.Errorf("%s: %s had pid %s, now %s", what, name, before[i], now[i])
			}
		}
		before = now
	}

	w.change(func(c *node.Config) { c.MaxPods = 50 })
	restarted("maxPods", "kubelet")
	w.eventually("the API server knows", 20*time.Second, func() bool {
		out, err := w.kubectl("", "get", "node", nodeName, "-o", "jsonpath={.status.capacity.pods}")
		return err == nil && out == "50"
	})
	w.change(func(c *node.Config) { c.Hostname, c.CPUs, c.ProviderID = "another", 64, "azure:///another" })
	restarted("what only a reboot brings")
	w.ready()

	public := w.sshKey("second")
	w.change(func(c *node.Config) { c.AuthorizedKeys = []string{public} })
	restarted("keys for ssh")
	if out, err := w.ssh(adminUser, "second", "id -un"); err != nil || out != adminUser {
		w.t.Errorf("the new key: %v %s", err, out)
	}
	if out, err := w.ssh(adminUser, "admin", "id -un"); err == nil {
		w.t.Errorf("the key that was taken away still opens: %s", out)
	}

	w.change(func(c *node.Config) { c.CA = append(slices.Clone(c.CA), c.CA...) })
	restarted("CA", "kubelet", "kube-proxy")
	w.ready()

	serial := func(kind string) string {
		out, _ := w.in("sha256sum", "/var/lib/kubelet/pki/kubelet-"+kind+"-current.pem")
		return strings.Fields(out + " -")[0]
	}
	client, server := serial("client"), serial("server")
	w.change(func(c *node.Config) { c.Authority = "second" })
	restarted("authority", "kubelet")
	w.eventually("kubelet has other certificates", time.Minute, func() bool {
		w.approve()
		c, s := serial("client"), serial("server")
		return len(c) == 64 && len(s) == 64 && c != client && s != server
	})
	w.ready()

	good := w.spec.Files[0].Data
	w.hand([]byte("{"))
	w.eventually("a config that is none is refused", 10*time.Second, func() bool { return w.says().Error != "" })
	w.spec.Files[0].Data = good
	w.change(func(c *node.Config) { c.Hostname, c.CPUs, c.ProviderID = nodeName, 4, "azure:///node-test" })
	restarted("a config that was none")

	w.eventually("the pod is as it was", 20*time.Second, func() bool {
		out, err := w.kubectl("", "get", "pod", "web", "-o", began)
		return err == nil && out == pod
	})
}

// wantReboot: whoever leaves Debian's sentinel is heard.
func (w *world) wantReboot() {
	if w.says().RebootRequired {
		w.t.Fatal("a reboot is wanted by nobody")
	}
	_, err := w.in("sh", "-c", "echo libc6 > /var/run/reboot-required.pkgs; echo openssl >> /var/run/reboot-required.pkgs; touch /var/run/reboot-required")
	w.check(err)
	w.eventually("a reboot is wanted", 10*time.Second, func() bool {
		s := w.says()
		return s.RebootRequired && slices.Equal(s.RebootPackages, []string{"libc6", "openssl"}) && !s.RebootSince.IsZero()
	})
}
