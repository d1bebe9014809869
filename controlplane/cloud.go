// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"encoding/json"
	"fmt"
	"strings"
)

// How nodes join the back-end pool of a cluster's load balancers.
const (
	NodeIPConfiguration = "nodeIPConfiguration" // by their network interface
	NodeIP              = "nodeIP"              // by their address
)

// CloudClusterName is what every AKS cluster is called towards the cloud: its
// load balancers are "kubernetes" and "kubernetes-internal".
const CloudClusterName = "kubernetes"

// maxRules is Azure's limit of load-balancing rules of one load balancer.
const maxRules = 250

// validate tells what is missing; no cloud misses nothing.
func (c *Cloud) validate(need func(ok bool, target string)) {
	if c == nil {
		return
	}
	for target, value := range map[string]string{"bundle": c.Bundle, "subscription": c.Subscription, "clientID": c.ClientID, "secret": c.Secret,
		"location": c.Location, "group": c.Group, "vnetGroup": c.VNetGroup, "vnet": c.VNet, "subnet": c.Subnet, "nsg": c.NSG, "scaleSet": c.ScaleSet} {
		need(value != "", "cloud."+target)
	}
	need(strings.HasPrefix(c.Endpoint, "https://"), "cloud.endpoint")
	need(strings.HasPrefix(c.Login, "https://"), "cloud.login")
	need(len(c.CA) > 0, "cloud.ca")
	need(c.BackendPoolType == NodeIPConfiguration || c.BackendPoolType == NodeIP, "cloud.backendPoolType")
	if c.Routes {
		need(c.RouteTable != "", "cloud.routeTable")
		need(c.ClusterCIDR.IsValid(), "cloud.clusterCIDR")
	}
}

// cloudController is cloud-provider-azure as it is. Of its controllers those
// run that have work: kubelets name their instance themselves, and the agent
// gives nodes their pod ranges.
func (c *compiler) cloudController() Program {
	f := func(name string) string { return c.file(CloudController, name) }
	controllers := "cloud-node-lifecycle-controller,service-lb-controller"
	args := []string{
		"--cloud-provider=azure",
		"--cloud-config=" + f("azure.json"),
		"--cluster-name=" + CloudClusterName,
		"--kubeconfig=" + f("kubeconfig"),
		// It elects no leader, as the other controllers; nor does it look up who
		// asks for its health.
		"--leader-elect=false",
		"--authentication-skip-lookup=true",
		"--allocate-node-cidrs=false",
		"--concurrent-service-syncs=1", // it takes no other value
		"--kube-api-qps=100",
		"--kube-api-burst=200",
		"--bind-address=127.0.0.1",
		"--secure-port=10258",
		"--tls-cert-file=" + f("server.crt"),
		"--tls-private-key-file=" + f("server.key"),
		"--tls-min-version=VersionTLS12",
		"--tls-cipher-suites=" + ciphers,
		"--profiling=false",
		"--v=2",
	}
	if c.Cloud.Routes {
		controllers += ",node-route-controller"
		// It looks at the nodes that often, and has no other way to hear of one.
		args = append(args, "--route-reconciliation-period=1s", "--cluster-cidr="+c.Cloud.ClusterCIDR.String())
	}
	args = append(args, fmt.Sprintf("--configure-cloud-routes=%t", c.Cloud.Routes), "--controllers="+controllers)
	env := append(runtimeEnv(), "AZURE_ENVIRONMENT_FILEPATH="+f("environment.json"), "SSL_CERT_FILE="+f("cloud-ca.crt"))
	return c.program(CloudController, "cloud-controller-manager", c.Cloud.Bundle, "", env, args...)
}

func (c *compiler) cloudFiles() ([]File, error) {
	if c.Cloud == nil {
		return nil, nil
	}
	files := []File{{CloudController, "ca.crt", c.Keys.Trust().CA}, {CloudController, "cloud-ca.crt", c.Cloud.CA}}
	for name, o := range map[string]object{"azure.json": c.Cloud.config(), "environment.json": c.Cloud.environment()} {
		data, err := json.MarshalIndent(o, "", "  ")
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", name, err)
		}
		files = append(files, File{CloudController, name, data})
	}
	return files, nil
}

// environment names the endpoints. With it the provider need not ask Resource
// Manager for them, which it would do dozens of times, one after another.
func (c *Cloud) environment() object {
	return object{
		"name":                      "AzureStackCloud",
		"resourceManagerEndpoint":   c.Endpoint,
		"serviceManagementEndpoint": c.Endpoint,
		"tokenAudience":             c.Endpoint,
		"activeDirectoryEndpoint":   strings.TrimSuffix(c.Login, "/") + "/",
	}
}

// config is the provider's configuration. AzureStackCloud is the one name under
// which it takes endpoints from a file; that it isn't an Azure Stack lets it
// speak the newest API versions it knows.
func (c *Cloud) config() object {
	o := object{
		"cloud":                       "AzureStackCloud",
		"disableAzureStackCloud":      true,
		"subscriptionId":              c.Subscription,
		"tenantId":                    "adfs", // the one authority that it doesn't have confirmed by Microsoft first; it is our tenant's
		"aadClientId":                 c.ClientID,
		"aadClientSecret":             c.Secret,
		"cloudConfigType":             "file",
		"useManagedIdentityExtension": false,
		"userAssignedIdentityID":      "",
		"useInstanceMetadata":         false,
		"location":                    c.Location,
		"resourceGroup":               c.Group,
		"vnetResourceGroup":           c.VNetGroup,
		"vnetName":                    c.VNet,
		"subnetName":                  c.Subnet,
		"securityGroupResourceGroup":  c.Group,
		"securityGroupName":           c.NSG,
		"vmType":                      "vmss",
		"primaryScaleSetName":         c.ScaleSet,
		"disableAvailabilitySetNodes": true,
		"loadBalancerSku":             "standard",
		"loadBalancerBackendPoolConfigurationType": c.BackendPoolType,
		"excludeMasterFromStandardLB":              true,
		"disableOutboundSNAT":                      true, // outbound has rules of its own
		"maximumLoadBalancerRuleCount":             maxRules,
	}
	if c.RouteTable != "" {
		o["routeTableName"], o["routeTableResourceGroup"] = c.RouteTable, c.RouteTableGroup
		if c.RouteTableGroup == "" {
			o["routeTableResourceGroup"] = c.Group
		}
	}
	for name, value := range nearby() {
		o[name] = value
	}
	return o
}

// nearby are the provider's patience and caches, made for a server that is far
// away and slow, as they should be for one that answers in milliseconds. What it
// remembers for long it writes back in vain when another hand was faster, and
// then waits five seconds.
func nearby() object {
	o := object{
		"cloudProviderRateLimit":                         false,
		"cloudProviderBackoff":                           true,
		"cloudProviderBackoffRetries":                    6,
		"cloudProviderBackoffExponent":                   1.5,
		"cloudProviderBackoffDuration":                   1,
		"cloudProviderBackoffJitter":                     0.1,
		"putVMSSVMBatchSize":                             32,
		"routeUpdateIntervalInSeconds":                   1,
		"routeUpdateWaitingInSeconds":                    1,
		"loadBalancerBackendPoolUpdateIntervalInSeconds": 1,
	}
	for _, cache := range []string{"vmss", "vmssVirtualMachines", "loadBalancer", "nsg", "publicIP", "vm", "nonVmssUniformNodes"} {
		o[cache+"CacheTTLInSeconds"] = 1
	}
	// These are asked for over and over with nothing to do.
	o["routeTableCacheTTLInSeconds"], o["plsCacheTTLInSeconds"] = 10, 10
	return o
}
