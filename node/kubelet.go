// SPDX-License-Identifier: Apache-2.0

package node

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"bastide.dev/netpolicy"
)

// The way in to the registry: kubelet's configuration, and what the program is called with.
const (
	credentialsPath = "/etc/kubernetes/credential-provider.json"
	pullCommand     = "pull-credentials"
)

// kubeletConfig is a KubeletConfiguration. Figures without another reason are
// those of AKS ("Customize node configuration", "Node resource reservations").
func kubeletConfig(c Config) map[string]any {
	return map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",

		"address": "0.0.0.0", "port": kubeletPort, "readOnlyPort": 0,
		"authentication": map[string]any{
			"anonymous": map[string]any{"enabled": false},
			"webhook":   map[string]any{"enabled": true},
			"x509":      map[string]any{"clientCAFile": CAPath},
		},
		"authorization":      map[string]any{"mode": "Webhook"},
		"rotateCertificates": true, "serverTLSBootstrap": true,
		"tlsMinVersion": "VersionTLS12",
		"tlsCipherSuites": []string{
			"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
			"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
			"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
		},
		"streamingConnectionIdleTimeout": "4h",

		"clusterDNS": []string{c.ClusterDNS.String()}, "clusterDomain": c.ClusterDomain, "resolvConf": ResolvConfPath,
		"containerRuntimeEndpoint": "unix://" + ContainerdSocket,
		"providerID":               c.ProviderID, "registerWithTaints": taints(c.Taints),
		"maxPods": c.MaxPods, "seccompDefault": true, "serializeImagePulls": false,
		"containerLogMaxSize": "50Mi", "containerLogMaxFiles": containerLogFiles,
		"imageGCHighThresholdPercent": 85, "imageGCLowThresholdPercent": 80,

		// The machine sees its own part of each hierarchy as the root.
		"cgroupDriver": "cgroupfs", "cgroupRoot": "/", "cgroupsPerQOS": true, "enforceNodeAllocatable": []string{"pods"},
		"failCgroupV1": false,
		// Memory and its limits are the machine's; that the computer swaps isn't its business.
		"failSwapOn": false,
		// Root of a user namespace can't set the kernel's own settings.
		"featureGates":          map[string]any{"KubeletInUserNamespace": true},
		"protectKernelDefaults": false, "makeIPTablesUtilChains": false,

		"evictionHard": map[string]any{
			"memory.available": fmt.Sprintf("%dMi", evictionMemory), "nodefs.available": "10%", "nodefs.inodesFree": "5%", "imagefs.available": fmt.Sprintf("%d%%", EvictionDisk), "pid.available": "2000",
		},
		"kubeReserved": map[string]any{
			"cpu":    fmt.Sprintf("%dm", reservedCPU(c.CPUs)),
			"memory": fmt.Sprintf("%dMi", reservedMemory(c.Memory, c.MaxPods)),
			"pid":    "1000",
		},
		"volumePluginDir": "/etc/kubernetes/volumeplugins",
	}
}

// reservedCPU is what AKS keeps for itself, in thousandths of a CPU.
func reservedCPU(cpus int) int {
	switch {
	case cpus <= 1:
		return 60
	case cpus <= 2:
		return 100
	case cpus <= 4:
		return 140
	case cpus <= 8:
		return 180
	case cpus <= 16:
		return 260
	case cpus <= 32:
		return 420
	}
	return 740
}

// taints reads key=value:Effect.
func taints(texts []string) []any {
	list := []any{}
	for _, text := range texts {
		rest, effect, _ := strings.Cut(text, ":")
		key, value, _ := strings.Cut(rest, "=")
		list = append(list, map[string]any{"key": key, "value": value, "effect": effect})
	}
	return list
}

// BootIDPath holds an id that is drawn at each boot of the machine: the kernel's
// own is that of the machine that all machines run on, and tells no reboot.
const BootIDPath = "/run/bastide/boot_id"

// KubeletArgs are kubelet's arguments.
func KubeletArgs(c Config) []string {
	var labels []string
	for _, key := range slices.Sorted(maps.Keys(c.Labels)) {
		labels = append(labels, key+"="+c.Labels[key])
	}
	args := []string{
		"--config=" + KubeletConfigPath, "--kubeconfig=" + KubeconfigPath, "--cert-dir=/var/lib/kubelet/pki",
		"--hostname-override=" + c.Hostname, "--node-ip=" + c.Address.String(), "--node-labels=" + strings.Join(labels, ","),
		"--boot-id-file=" + BootIDPath,
	}
	if c.Registry != "" {
		args = append(args, "--image-credential-provider-config="+credentialsPath, "--image-credential-provider-bin-dir="+path.Dir(netpolicy.ProgramPath))
	}
	if c.BootstrapToken != "" {
		args = append(args, "--bootstrap-kubeconfig="+BootstrapPath)
	}
	return args
}

// credentials is the CredentialProviderConfig by which kubelet signs in to the
// instance's registry as the identity that the node has (package pull).
func credentials(c Config) map[string]any {
	return map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1", "kind": "CredentialProviderConfig",
		"providers": []any{map[string]any{
			"name": netpolicy.ProgramName, "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
			"matchImages": []string{c.Registry}, "defaultCacheDuration": "5m",
			"args": []string{pullCommand, c.Registry, instanceCAPath},
		}},
	}
}

// ProxyArgs are kube-proxy's arguments.
func ProxyArgs() []string { return []string{"--config=" + ProxyConfigPath} }

// proxyConfig is a KubeProxyConfiguration.
func proxyConfig(c Config) map[string]any {
	var ranges []string
	for _, prefix := range c.ClusterCIDR {
		ranges = append(ranges, prefix.String())
	}
	config := map[string]any{
		"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
		"mode": "nftables", "hostnameOverride": c.Hostname,
		"clientConnection":   map[string]any{"kubeconfig": proxyKubeconfig},
		"healthzBindAddress": proxyHealthAddress, "metricsBindAddress": "127.0.0.1:10249",
		// A load balancer's address comes a moment after its Service: the default
		// pause of a second after each change would be the most of its wait.
		"nftables": map[string]any{"minSyncPeriod": "100ms"},
		// The table of connections is the computer's; its size isn't a machine's to set. The
		// timeouts are the machine's own, and kube-proxy's defaults.
		"conntrack": map[string]any{"maxPerCore": 0, "min": 0},
	}
	if len(ranges) > 0 {
		config["clusterCIDR"] = strings.Join(ranges, ",")
		config["detectLocalMode"] = "ClusterCIDR"
	}
	return config
}
