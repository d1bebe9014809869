// SPDX-License-Identifier: Apache-2.0

package cluster

// Property is the decision on one property, or on a whole object with all below
// it. Path is the JSON path; "[]" stands for the elements of a list.
type Property struct {
	Path      string
	Treatment Treatment
	Values    []any  // of Fixed
	Note      string // why, or what to do instead; part of the refusal
}

// poolObject is where an agent pool's properties stand in either resource.
const poolObject = "properties.agentPoolProfiles[]."

// ClusterProperties decides every property of a managed cluster.
func ClusterProperties() []Property {
	rows := []Property{
		{"id", ReadOnly, nil, ""},
		{"name", ReadOnly, nil, ""},
		{"type", ReadOnly, nil, ""},
		{"systemData", ReadOnly, nil, ""},
		{"eTag", ReadOnly, nil, ""},
		{"location", Effective, nil, ""},
		{"tags", Plain, nil, ""},
		{"kind", Fixed, []any{"Base"}, ""},
		{"extendedLocation", Refused, nil, "there are no edge zones"},
		{"sku.name", Fixed, []any{"Base", "Basic"}, ""},
		{"sku.tier", Plain, nil, ""},
		{"identity.type", Effective, nil, ""},
		{"identity.principalId", ReadOnly, nil, ""},
		{"identity.tenantId", ReadOnly, nil, ""},
		{"identity.userAssignedIdentities", Effective, nil, ""},
		{"identity.delegatedResources", Refused, nil, ""},
	}
	for _, group := range [][]Property{baseProperties(), autoScalerProperties(), networkProperties(), securityProperties(), issuerProperties()} {
		rows = append(rows, group...)
	}
	rows = append(rows, Property{poolObject + "name", Effective, nil, ""})
	for _, p := range poolProperties() {
		p.Path = poolObject + p.Path
		rows = append(rows, p)
	}
	return rows
}

// PoolProperties decides every property of an agent pool.
func PoolProperties() []Property {
	rows := []Property{
		{"id", ReadOnly, nil, ""},
		{"name", ReadOnly, nil, ""},
		{"type", ReadOnly, nil, ""},
		{"location", ReadOnly, nil, ""},
		{"properties.name", ReadOnly, nil, ""},
	}
	for _, p := range poolProperties() {
		p.Path = "properties." + p.Path
		rows = append(rows, p)
	}
	return rows
}

func baseProperties() []Property {
	return []Property{
		{"properties.kubernetesVersion", Effective, nil, ""},
		{"properties.currentKubernetesVersion", ReadOnly, nil, ""},
		{"properties.dnsPrefix", Effective, nil, ""},
		{"properties.fqdnSubdomain", Effective, nil, ""},
		{"properties.fqdn", ReadOnly, nil, ""},
		{"properties.privateFQDN", ReadOnly, nil, ""},
		{"properties.azurePortalFQDN", ReadOnly, nil, ""},
		{"properties.provisioningState", ReadOnly, nil, ""},
		{"properties.powerState", ReadOnly, nil, "the actions start and stop change it"},
		{"properties.maxAgentPools", ReadOnly, nil, ""},
		{"properties.resourceUID", ReadOnly, nil, ""},
		{"properties.status", ReadOnly, nil, ""},
		{"properties.privateLinkResources", ReadOnly, nil, ""},
		{"properties.nodeResourceGroup", Effective, nil, ""},
		{"properties.nodeResourceGroupProfile.restrictionLevel", Fixed, []any{"Unrestricted"}, ""},
		{"properties.linuxProfile.adminUsername", Effective, nil, ""},
		{"properties.linuxProfile.ssh.publicKeys[].keyData", Effective, nil, ""},
		{"properties.windowsProfile.enableCSIProxy", Fixed, []any{true}, "there are no Windows nodes"},
		{"properties.windowsProfile", Refused, nil, "there are no Windows nodes"},
		{"properties.servicePrincipalProfile.clientId", Effective, nil, ""},
		{"properties.servicePrincipalProfile.secret", Effective, nil, ""},
		{"properties.identityProfile", Effective, nil, ""},
		{"properties.supportPlan", Fixed, []any{"KubernetesOfficial"}, ""},
		{"properties.autoUpgradeProfile.upgradeChannel", Effective, nil, ""},
		{"properties.autoUpgradeProfile.nodeOSUpgradeChannel", Effective, nil, ""},
		{"properties.upgradeSettings.overrideSettings.forceUpgrade", Effective, nil, ""},
		{"properties.upgradeSettings.overrideSettings.until", Effective, nil, "a forced upgrade begins before it"},
		{"properties.upgradeSettings", Refused, nil, ""},
		{"properties.autoScalerProfile.daemonset-eviction-for-empty-nodes", Fixed, []any{false}, "pods of DaemonSets end with their node"},
		{"properties.autoScalerProfile.daemonset-eviction-for-occupied-nodes", Fixed, []any{false}, "pods of DaemonSets end with their node"},
		{"properties.nodeProvisioningProfile.mode", Fixed, []any{"Manual"}, ""},
		{"properties.nodeProvisioningProfile.defaultNodePools", Fixed, []any{"None"}, ""},
		{"properties.bootstrapProfile.artifactSource", Fixed, []any{"Direct"}, ""},
		{"properties.bootstrapProfile.containerRegistryId", Refused, nil, ""},
		{"properties.addonProfiles", Refused, nil, "no add-on of that name is offered"},
		{"properties.storageProfile", Refused, nil, "there are no storage drivers"},
		{"properties.workloadAutoScalerProfile", Refused, nil, ""},
		{"properties.ingressProfile", Refused, nil, ""},
		{"properties.serviceMeshProfile.mode", Fixed, []any{"Disabled"}, ""},
		{"properties.serviceMeshProfile.istio", Refused, nil, ""},
		{"properties.azureMonitorProfile", Refused, nil, ""},
		{"properties.metricsProfile", Refused, nil, ""},
		{"properties.aiToolchainOperatorProfile", Refused, nil, ""},
		{"properties.httpProxyConfig", Refused, nil, ""},
	}
}

func networkProperties() []Property {
	const n = "properties.networkProfile."
	return []Property{
		{n + "networkPlugin", Effective, nil, ""},
		{n + "networkPluginMode", Effective, nil, ""},
		{n + "networkPolicy", Effective, nil, ""},
		{n + "networkDataplane", Fixed, []any{"azure"}, ""},
		{n + "networkMode", Refused, nil, ""},
		{n + "podCidr", Effective, nil, ""},
		{n + "podCidrs[]", Effective, nil, ""},
		{n + "serviceCidr", Effective, nil, ""},
		{n + "serviceCidrs[]", Effective, nil, ""},
		{n + "dnsServiceIP", Effective, nil, ""},
		// Nodes run containerd; there is no Docker bridge whose range could be set.
		{n + "dockerBridgeCidr", Fixed, []any{"172.17.0.1/16"}, "nodes have no Docker bridge; leave it out"},
		{n + "ipFamilies[]", Fixed, []any{"IPv4"}, ""},
		{n + "outboundType", Effective, nil, ""},
		{n + "loadBalancerSku", Fixed, []any{"standard"}, ""},
		{n + "loadBalancerProfile.managedOutboundIPs.count", Effective, nil, ""},
		{n + "loadBalancerProfile.managedOutboundIPs.countIPv6", Fixed, []any{0}, ""},
		{n + "loadBalancerProfile.effectiveOutboundIPs", ReadOnly, nil, ""},
		{n + "loadBalancerProfile.backendPoolType", Effective, nil, ""},
		{n + "loadBalancerProfile.outboundIPs.publicIPs[].id", Effective, nil, ""},
		{n + "loadBalancerProfile.outboundIPPrefixes.publicIPPrefixes[].id", Effective, nil, ""},
		{n + "loadBalancerProfile.allocatedOutboundPorts", Effective, nil, ""},
		{n + "loadBalancerProfile.idleTimeoutInMinutes", Effective, nil, ""},
		{n + "loadBalancerProfile", Refused, nil, ""},
		{n + "natGatewayProfile.managedOutboundIPProfile.count", Effective, nil, ""},
		{n + "natGatewayProfile.idleTimeoutInMinutes", Effective, nil, ""},
		{n + "natGatewayProfile.effectiveOutboundIPs", ReadOnly, nil, ""},
		{n + "natGatewayProfile", Refused, nil, ""},
		{n + "staticEgressGatewayProfile", Refused, nil, ""},
		{n + "advancedNetworking", Refused, nil, ""},
		{n + "kubeProxyConfig", Refused, nil, ""},
		{n + "podLinkLocalAccess", Effective, nil, "None closes the metadata address to pods that have a network of their own"},
		{"properties.publicNetworkAccess", Fixed, []any{"Enabled"}, "API servers have a public address"},
		{"properties.apiServerAccessProfile.disableRunCommand", Fixed, []any{true}, "command invoke isn't offered"},
		{"properties.apiServerAccessProfile.authorizedIPRanges[]", Effective, nil, ""},
		{"properties.apiServerAccessProfile.enablePrivateCluster", Effective, nil, ""},
		{"properties.apiServerAccessProfile.enablePrivateClusterPublicFQDN", Effective, nil, ""},
		{"properties.apiServerAccessProfile.privateDNSZone", Effective, nil, ""},
		{"properties.apiServerAccessProfile", Refused, nil, "every API server is in its cluster's virtual network anyway"},
	}
}

func securityProperties() []Property {
	return []Property{
		{"properties.enableRBAC", Fixed, []any{true}, "every cluster authorises with Kubernetes RBAC"},
		{"properties.disableLocalAccounts", Effective, nil, ""},
		{"properties.aadProfile.managed", Effective, nil, ""},
		{"properties.aadProfile.enableAzureRBAC", Effective, nil, ""},
		{"properties.aadProfile.adminGroupObjectIDs[]", Effective, nil, ""},
		{"properties.aadProfile.tenantID", Effective, nil, ""},
		{"properties.aadProfile.clientAppID", Refused, nil, "the integration is managed; set aadProfile.managed"},
		{"properties.aadProfile.serverAppID", Refused, nil, "the integration is managed; set aadProfile.managed"},
		{"properties.aadProfile.serverAppSecret", Refused, nil, "the integration is managed; set aadProfile.managed"},
		{"properties.aadProfile", Refused, nil, ""},
		{"properties.securityProfile", Refused, nil, ""},
		{"properties.diskEncryptionSetID", Refused, nil, ""},
		{"properties.enablePodSecurityPolicy", Refused, nil, "Kubernetes removed it; label namespaces for Pod Security admission"},
	}
}

func poolProperties() []Property { return append(poolKnown(), poolUnknown()...) }

// poolKnown are the properties that a pool has, with some value at least.
func poolKnown() []Property {
	return []Property{
		{"count", Effective, nil, ""},
		{"vmSize", Effective, nil, ""},
		{"mode", Effective, nil, ""},
		{"orchestratorVersion", Effective, nil, ""},
		{"currentOrchestratorVersion", ReadOnly, nil, ""},
		{"nodeLabels", Effective, nil, ""},
		{"nodeTaints[]", Effective, nil, ""},
		{"maxPods", Effective, nil, ""},
		{"tags", Plain, nil, "bastide-node-image keeps the pool at a node image"},
		{"osType", Fixed, []any{"Linux"}, "nodes are Linux machines"},
		{"osSKU", Fixed, []any{"Debian"}, "nodes run Debian; leave it out"},
		{"osDiskSizeGB", Fixed, []any{0}, "a node has no disk of its own size; leave it out"},
		{"osDiskType", Fixed, []any{"Managed"}, ""},
		{"kubeletDiskType", Fixed, []any{"OS"}, ""},
		{"type", Fixed, []any{"VirtualMachineScaleSets"}, ""},
		{"scaleDownMode", Fixed, []any{"Delete"}, "a node that is scaled away is deleted"},
		{"scaleSetPriority", Fixed, []any{"Regular"}, "there are no spot machines"},
		{"scaleSetEvictionPolicy", Fixed, []any{"Delete"}, "there are no spot machines"},
		{"spotMaxPrice", Fixed, []any{-1}, "there are no spot machines"},
		{"enableAutoScaling", Effective, nil, ""},
		{"minCount", Effective, nil, ""},
		{"maxCount", Effective, nil, ""},
		{"availabilityZones", Refused, nil, "there is one zone; leave it out"},
		{"enableEncryptionAtHost", Refused, nil, ""},
		{"enableFIPS", Refused, nil, ""},
		{"enableNodePublicIP", Refused, nil, "nodes have no public addresses"},
		{"nodePublicIPPrefixID", Refused, nil, "nodes have no public addresses"},
		{"enableUltraSSD", Refused, nil, ""},
		{"vnetSubnetID", Effective, nil, ""},
		{"podSubnetID", Refused, nil, "pods get addresses from the node's subnet or podCidr"},
		{"podIPAllocationMode", Refused, nil, ""},
		{"upgradeSettings.maxSurge", Effective, nil, ""},
		{"upgradeSettings.maxUnavailable", Effective, nil, ""},
		{"upgradeSettings.drainTimeoutInMinutes", Effective, nil, ""},
		{"upgradeSettings.nodeSoakDurationInMinutes", Effective, nil, ""},
		{"upgradeSettings.undrainableNodeBehavior", Effective, nil, ""},
		{"upgradeSettings", Refused, nil, ""},
		{"workloadRuntime", Fixed, []any{"OCIContainer"}, ""},
		{"powerState.code", Fixed, []any{"Running"}, "a pool stops with its cluster, or scales to zero"},
		{"securityProfile.sshAccess", Fixed, []any{"LocalUser"}, ""},
		{"securityProfile", Refused, nil, ""},
		{"nodeImageVersion", ReadOnly, nil, ""},
		{"provisioningState", ReadOnly, nil, ""},
		{"status", ReadOnly, nil, ""},
		{"eTag", ReadOnly, nil, ""},
		{"virtualMachineNodesStatus", ReadOnly, nil, ""},
	}
}

// poolUnknown are AKS's properties that no pool can have.
func poolUnknown() []Property {
	return []Property{
		{"virtualMachinesProfile", Refused, nil, ""},
		{"capacityReservationGroupID", Refused, nil, ""},
		{"creationData", Refused, nil, "there are no snapshots"},
		{"gatewayProfile", Refused, nil, ""},
		{"gpuInstanceProfile", Refused, nil, "machines have no GPU"},
		{"gpuProfile", Refused, nil, "machines have no GPU"},
		{"hostGroupID", Refused, nil, ""},
		{"kubeletConfig", Refused, nil, ""},
		{"linuxOSConfig", Refused, nil, ""},
		{"localDNSProfile", Refused, nil, ""},
		{"messageOfTheDay", Refused, nil, ""},
		{"networkProfile", Refused, nil, ""},
		{"proximityPlacementGroupID", Refused, nil, ""},
		{"windowsProfile", Refused, nil, "there are no Windows nodes"},
	}
}
