// SPDX-License-Identifier: Apache-2.0

package controlplane

import "fmt"

// authorization is Node, then RBAC. Where principals of the directory come in, a
// webhook is asked first, of them alone: it denies those who have ended since
// their token was signed, allows what Azure's roles grant, and leaves the rest
// to RBAC. When it doesn't answer, the cluster goes on by RBAC.
func (c *compiler) authorization() object {
	authorizers := []object{{"type": "Node", "name": "node"}, {"type": "RBAC", "name": "rbac"}}
	if c.Directory != nil {
		authorizers = append([]object{guardAuthorizer(c.file(APIServer, "authorize.kubeconfig"))}, authorizers...)
	}
	return object{
		"apiVersion":  "apiserver.config.k8s.io/v1",
		"kind":        "AuthorizationConfiguration",
		"authorizers": authorizers,
	}
}

// guardAuthorizer keeps no answer: a role that is taken away ends with the next
// request. The times are required all the same.
func guardAuthorizer(kubeconfig string) object {
	return object{
		"type": "Webhook",
		"name": "guard",
		"webhook": object{
			"authorizedTTL": "1s", "cacheAuthorizedRequests": false,
			"unauthorizedTTL": "1s", "cacheUnauthorizedRequests": false,
			"timeout":                    "2s",
			"subjectAccessReviewVersion": "v1",
			"matchConditionSubjectAccessReviewVersion": "v1",
			"failurePolicy":   "NoOpinion",
			"connectionInfo":  object{"type": "KubeConfigFile", "kubeConfigFile": kubeconfig},
			"matchConditions": []object{{"expression": fmt.Sprintf("has(request.extra) && '%s' in request.extra", ExtraPrincipal)}},
		},
	}
}
