// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"slices"
	"strings"
)

// builtInGroups are Kubernetes' own API groups, whose resources have data
// actions of their own. All others are of custom resources and aggregated APIs.
func builtInGroups() []string {
	return []string{"admissionregistration.k8s.io", "apiextensions.k8s.io", "apiregistration.k8s.io", "apps", "authentication.k8s.io",
		"authorization.k8s.io", "autoscaling", "batch", "certificates.k8s.io", "coordination.k8s.io", "discovery.k8s.io", "events.k8s.io",
		"extensions", "flowcontrol.apiserver.k8s.io", "internal.apiserver.k8s.io", "metrics.k8s.io", "networking.k8s.io", "node.k8s.io",
		"policy", "rbac.authorization.k8s.io", "resource.k8s.io", "scheduling.k8s.io", "storage.k8s.io", "storagemigration.k8s.io"}
}

func builtIn(group string) bool {
	_, found := slices.BinarySearch(builtInGroups(), group)
	return found
}

// resourcesOf are a group's resources, for requests that mean all of them.
func resourcesOf(group string) []string {
	resources := map[string]string{
		"": `bindings componentstatuses configmaps endpoints events groups limitranges namespaces nodes persistentvolumeclaims
			persistentvolumes pods podtemplates replicationcontrollers resourcequotas secrets serviceaccounts services users`,
		"admissionregistration.k8s.io": `mutatingadmissionpolicies mutatingadmissionpolicybindings mutatingwebhookconfigurations
			validatingadmissionpolicies validatingadmissionpolicybindings validatingwebhookconfigurations`,
		"apiextensions.k8s.io":         "customresourcedefinitions",
		"apiregistration.k8s.io":       "apiservices",
		"apps":                         "controllerrevisions daemonsets deployments replicasets statefulsets",
		"authentication.k8s.io":        "selfsubjectreviews tokenreviews uids userextras",
		"authorization.k8s.io":         "localsubjectaccessreviews selfsubjectaccessreviews selfsubjectrulesreviews subjectaccessreviews",
		"autoscaling":                  "horizontalpodautoscalers",
		"batch":                        "cronjobs jobs",
		"certificates.k8s.io":          "certificatesigningrequests clustertrustbundles podcertificaterequests signers",
		"coordination.k8s.io":          "leasecandidates leases",
		"discovery.k8s.io":             "endpointslices",
		"events.k8s.io":                "events",
		"extensions":                   "daemonsets deployments ingresses networkpolicies podsecuritypolicies replicasets",
		"flowcontrol.apiserver.k8s.io": "flowschemas prioritylevelconfigurations",
		"internal.apiserver.k8s.io":    "storageversions",
		"metrics.k8s.io":               "nodes pods",
		"networking.k8s.io":            "ingressclasses ingresses ipaddresses networkpolicies servicecidrs",
		"node.k8s.io":                  "runtimeclasses",
		"policy":                       "poddisruptionbudgets podsecuritypolicies",
		"rbac.authorization.k8s.io":    "clusterrolebindings clusterroles rolebindings roles",
		"resource.k8s.io":              "deviceclasses devicetaintrules resourceclaims resourceclaimtemplates resourceslices",
		"scheduling.k8s.io":            "podgroups priorityclasses workloads",
		"storage.k8s.io":               "csidrivers csinodes csistoragecapacities storageclasses volumeattachments volumeattributesclasses",
		"storagemigration.k8s.io":      "storageversionmigrations",
	}
	if text, found := resources[group]; found {
		return strings.Fields(text)
	}
	return []string{"anything"}
}
