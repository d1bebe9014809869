// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"fmt"

	"sigs.k8s.io/yaml"
)

type object = map[string]any

func (c *compiler) files() ([]File, error) {
	trust := c.Keys.Trust()
	files := []File{
		{Etcd, "ca.crt", trust.Etcd},
		{APIServer, "ca.crt", trust.CA},
		{APIServer, "client-ca.crt", c.Keys.clientTrust()},
		{APIServer, "etcd-ca.crt", trust.Etcd},
		{APIServer, "front-proxy-ca.crt", trust.FrontProxy},
		{APIServer, "sa.key", c.Keys.ServiceAccounts},
		{ControllerManager, "ca.crt", trust.CA},
		{ControllerManager, "signer.crt", c.Keys.own().CA},
		{ControllerManager, "signer.key", c.Keys.CA.Key},
		{ControllerManager, "sa.key", c.Keys.ServiceAccounts},
		{Scheduler, "ca.crt", trust.CA},
	}
	for name, o := range map[string]object{
		"authentication.yaml": c.authentication(),
		"authorization.yaml":  c.authorization(),
		"encryption.yaml":     encryption(c.Keys.SecretsEncryption),
		"audit-policy.yaml":   auditPolicy(),
	} {
		data, err := yaml.Marshal(o)
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", name, err)
		}
		files = append(files, File{APIServer, name, data})
	}
	cloud, err := c.cloudFiles()
	if err != nil {
		return nil, err
	}
	files = append(files, cloud...)
	files = append(files, c.issuerFiles()...)
	guard, err := c.guardFiles()
	if err != nil {
		return nil, fmt.Errorf("encode the way to the webhooks: %w", err)
	}
	files = append(files, guard...)
	for _, program := range c.Spec.Programs() {
		if program == Etcd || program == APIServer {
			continue
		}
		data, err := kubeconfig{Cluster: c.ID, User: program, Server: "https://127.0.0.1:443", trustFile: c.file(program, "ca.crt"),
			user: object{"client-certificate": c.file(program, "client.crt"), "client-key": c.file(program, "client.key")}}.encode()
		if err != nil {
			return nil, err
		}
		files = append(files, File{program, "kubeconfig", data})
	}
	return files, nil
}

// encryption seals Secrets with XSalsa20 and Poly1305, whose random nonces are
// long enough for any number of writes. The key's name tells it from the next.
func encryption(key []byte) object {
	return object{
		"apiVersion": "apiserver.config.k8s.io/v1",
		"kind":       "EncryptionConfiguration",
		"resources": []object{{
			"resources": []string{"secrets"},
			"providers": []object{
				{"secretbox": object{"keys": []object{{"name": EncryptionKeyName(key), "secret": key}}}},
				{"identity": object{}},
			},
		}},
	}
}

// auditPolicy follows what AKS's kube-audit records, with one difference: the
// bodies of what may hold secrets are never written down.
func auditPolicy() object {
	rule := func(level string, more object) object {
		more["level"] = level
		return more
	}
	group := func(name string, resources ...string) object { return object{"group": name, "resources": resources} }
	return object{
		"apiVersion": "audit.k8s.io/v1",
		"kind":       "Policy",
		"omitStages": []string{"RequestReceived"},
		"rules": []object{
			rule("None", object{"nonResourceURLs": []string{"/healthz*", "/livez*", "/readyz*", "/version", "/metrics"}}),
			// What the control plane itself reads over and over, and leases.
			rule("None", object{"verbs": []string{"get", "list", "watch"}, "users": []string{"system:kube-controller-manager", "system:kube-scheduler", CloudControllerUser, "system:apiserver", "system:kube-proxy"}}),
			rule("None", object{"resources": []object{group("coordination.k8s.io", "leases")}, "users": []string{CloudControllerUser, "system:apiserver"}}),
			rule("None", object{"resources": []object{group("coordination.k8s.io", "leases")}, "userGroups": []string{NodesGroup}}),
			rule("None", object{"resources": []object{group("", "events"), group("events.k8s.io", "events")}}),
			rule("Metadata", object{"resources": []object{group("", "secrets", "configmaps", "serviceaccounts/token"), group("authentication.k8s.io", "tokenreviews"),
				group("certificates.k8s.io", "certificatesigningrequests")}}),
			rule("RequestResponse", object{"resources": []object{group("rbac.authorization.k8s.io"), group("admissionregistration.k8s.io"), group("networking.k8s.io", "networkpolicies")},
				"verbs": []string{"create", "update", "patch", "delete", "deletecollection"}}),
			rule("RequestResponse", object{"resources": []object{group("", "pods/exec", "pods/attach", "pods/portforward", "pods/ephemeralcontainers", "services/proxy", "nodes/proxy")}}),
			rule("Metadata", object{}),
		},
	}
}
