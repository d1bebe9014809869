// SPDX-License-Identifier: Apache-2.0

package bundle

// The versions that the checkout pins, for those who must name a bundle without
// having the checkout. A test compares them with the module files.
const (
	RuntimeVersion         = "2.4.2" // containerd's; runc and the CNI plugins come with it
	EtcdVersion            = "3.6.16"
	CoreDNSVersion         = "1.15.0"
	MetricsServerVersion   = "0.9.0"
	CloudControllerVersion = "1.34.3" // cloud-provider-azure's
	KubeloginVersion       = "0.2.22"
	PauseVersion           = "3.10" // the upstream release whose behaviour ours has
	WebVersion             = "1"
	E2EVersion             = "1.35.4" // of the Kubernetes release whose tests they are
)

// KubernetesVersions are the releases that are built here, the newest first.
// List tells which are on this machine, imported ones too.
func KubernetesVersions() []string { return []string{"1.36.3", "1.35.4", "1.34.4"} }
