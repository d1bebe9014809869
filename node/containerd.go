// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"text/template"
)

// containerdTemplate: no out-of-memory score below the daemon's own (that
// needs a capability of the computer), no huge pages (not delegated), one
// snapshotter, and nothing that a node never calls. Its own statistics, by
// default each second from every shim, are for who has no cAdvisor; kubelet has.
const containerdTemplate = `version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.internal.v1.opt", "io.containerd.internal.v1.restart", "io.containerd.internal.v1.tracing",
  "io.containerd.monitor.container.v1.restart", "io.containerd.nri.v1.nri", "io.containerd.snapshotter.v1.native",
  "io.containerd.tracing.processor.v1.otlp",
]

[grpc]
  address = {{printf "%q" .Socket}}

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  stats_collect_period = 60
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = {{printf "%q" .Pause}}
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = {{printf "%q" .Registries}}

[plugins."io.containerd.cri.v1.runtime"]
  stats_collect_period = "1m"
  stats_retention_period = "5m"
  restrict_oom_score_adj = true
  disable_hugetlb_controller = true
  tolerate_missing_hugetlb_controller = true
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/opt/cni/bin"]
    conf_dir = "/etc/cni/net.d"
`

func containerdConfig(c Config) []byte {
	return render(containerdTemplate, map[string]string{"Socket": ContainerdSocket, "Pause": c.PauseImage, "Registries": registriesPath})
}

const registryTemplate = `server = {{printf "%q" .Server}}
ca = {{printf "%q" .CA}}

[host.{{printf "%q" .Server}}]
  capabilities = ["pull", "resolve"]
  ca = {{printf "%q" .CA}}
`

func registryHosts(c Config) []byte {
	return render(registryTemplate, map[string]string{"Server": "https://" + c.Registry, "CA": instanceCAPath})
}

func render(text string, values map[string]string) []byte {
	var b bytes.Buffer
	if err := template.Must(template.New("").Parse(text)).Execute(&b, values); err != nil {
		panic(err) // constant templates over maps of strings
	}
	return b.Bytes()
}
