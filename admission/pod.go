// SPDX-License-Identifier: Apache-2.0

package admission

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"bastide.dev/fault"
)

// What pods and service accounts say of workload identity, as upstream's webhook
// names it.
const (
	UseLabel             = "azure.workload.identity/use"
	clientIDAnnotation   = "azure.workload.identity/client-id"
	tenantIDAnnotation   = "azure.workload.identity/tenant-id"
	expirationAnnotation = "azure.workload.identity/service-account-token-expiration"
	skipAnnotation       = "azure.workload.identity/skip-containers"
	proxyAnnotation      = "azure.workload.identity/inject-proxy-sidecar"
)

const (
	// Audience is what projected tokens are for.
	Audience    = "api://AzureADTokenExchange"
	tokenVolume = "azure-identity-token"
	tokenPath   = "azure-identity-token"
	tokenMount  = "/var/run/secrets/azure/tokens"

	defaultExpiration = 3600
	minExpiration     = 3600
	maxExpiration     = 86400
)

// pod is a v1 Pod, as far as it decides about its identity.
type pod struct {
	Metadata struct {
		Labels      map[string]string `json:"labels"`
		Annotations map[string]string `json:"annotations"`
	} `json:"metadata"`
	Spec struct {
		ServiceAccountName string      `json:"serviceAccountName"`
		Containers         []container `json:"containers"`
		InitContainers     []container `json:"initContainers"`
		Volumes            []struct {
			Name string `json:"name"`
		} `json:"volumes"`
	} `json:"spec"`
}

type container struct {
	Name string `json:"name"`
	Env  []struct {
		Name string `json:"name"`
	} `json:"env"`
	Mounts []struct {
		Name string `json:"name"`
		Path string `json:"mountPath"`
	} `json:"volumeMounts"`
}

// Operation is one of a JSON patch (RFC 6902); only "add" is used.
type Operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

type object = map[string]any

func parsePod(raw []byte) (*pod, error) {
	p := &pod{}
	if err := json.Unmarshal(raw, p); err != nil {
		return nil, fault.New(fault.Invalid, "", "The object isn't a v1 Pod.").Because(err)
	}
	return p, nil
}

// Mutate says what to add to a pod (JSON of v1 Pod) whose service account has
// some annotations. It is pure, adds nothing twice, and changes nothing that is set.
func Mutate(raw []byte, account map[string]string, s Settings) ([]Operation, error) {
	p, err := parsePod(raw)
	if err != nil {
		return nil, err
	}
	return p.mutate(account, s)
}

func (p *pod) mutate(account map[string]string, s Settings) ([]Operation, error) {
	if _, asks := p.Metadata.Annotations[proxyAnnotation]; asks {
		return nil, fault.New(fault.Unsupported, "", "The annotation %s isn't offered: the proxy for pod-managed identities needs a privileged container in each pod. "+
			"Use an SDK that reads AZURE_FEDERATED_TOKEN_FILE, or leave the annotation out.", proxyAnnotation)
	}
	expiration, err := p.expiration(account)
	if err != nil {
		return nil, err
	}
	ca, err := newTrust(s.CA)
	if err != nil {
		return nil, err
	}
	env := s.environment(account)
	b := builder{}
	skipped := p.skipped()
	for list, containers := range map[string][]container{"initContainers": p.Spec.InitContainers, "containers": p.Spec.Containers} {
		for i, c := range containers {
			if !slices.Contains(skipped, c.Name) {
				b.container("/spec/"+list+"/"+strconv.Itoa(i), c, slices.Concat(env, ca.environment(c)), ca != nil)
			}
		}
	}
	b.volumes(p, expiration, ca)
	slices.SortStableFunc(b.operations, func(x, y Operation) int { return strings.Compare(x.Path, y.Path) }) // a map's order is none
	return b.operations, nil
}

// expiration is how long a token lives, in seconds: as the pod says, else its account.
func (p *pod) expiration(account map[string]string) (int, error) {
	text := p.Metadata.Annotations[expirationAnnotation]
	if text == "" {
		text = account[expirationAnnotation]
	}
	if text == "" {
		return defaultExpiration, nil
	}
	seconds, err := strconv.Atoi(text)
	if err != nil || seconds < minExpiration || seconds > maxExpiration {
		return 0, fault.New(fault.Invalid, "", "The annotation %s must be %d to %d seconds, it is %q.", expirationAnnotation, minExpiration, maxExpiration, text)
	}
	return seconds, nil
}

func (p *pod) skipped() []string {
	names := strings.Split(p.Metadata.Annotations[skipAnnotation], ";")
	for i := range names {
		names[i] = strings.TrimSpace(names[i])
	}
	return names
}

type variable struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// environment is what Azure's SDKs look for. Without a client id they take the
// one that the program names.
func (s Settings) environment(account map[string]string) []variable {
	var env []variable
	if id := account[clientIDAnnotation]; id != "" {
		env = append(env, variable{"AZURE_CLIENT_ID", id})
	}
	tenant := account[tenantIDAnnotation]
	if tenant == "" {
		tenant = s.Tenant
	}
	return append(env, variable{"AZURE_TENANT_ID", tenant},
		variable{"AZURE_FEDERATED_TOKEN_FILE", tokenMount + "/" + tokenPath}, variable{"AZURE_AUTHORITY_HOST", s.Authority})
}

// builder collects operations.
type builder struct{ operations []Operation }

func (b *builder) add(path string, value any) {
	b.operations = append(b.operations, Operation{"add", path, value})
}

// list adds elements to a list that may not be there yet.
func (b *builder) list(path string, exists bool, elements []any) {
	switch {
	case len(elements) == 0:
	case !exists:
		b.add(path, elements)
	default:
		for _, e := range elements {
			b.add(path+"/-", e)
		}
	}
}

func (b *builder) container(path string, c container, env []variable, ca bool) {
	var variables, mounts []any
	for _, v := range env {
		if !c.sets(v.Name) {
			variables = append(variables, v)
		}
	}
	wanted := []object{{"name": tokenVolume, "mountPath": tokenMount, "readOnly": true}}
	if ca {
		wanted = append(wanted, object{"name": trustVolume, "mountPath": trustMount, "readOnly": true})
	}
	for _, m := range wanted {
		if !c.mounts(m["name"].(string), m["mountPath"].(string)) {
			mounts = append(mounts, m)
		}
	}
	b.list(path+"/env", len(c.Env) > 0, variables)
	b.list(path+"/volumeMounts", len(c.Mounts) > 0, mounts)
}

func (c *container) sets(name string) bool {
	for _, e := range c.Env {
		if e.Name == name {
			return true
		}
	}
	return false
}

func (c *container) mounts(name, path string) bool {
	for _, m := range c.Mounts {
		if m.Name == name || strings.TrimRight(m.Path, "/") == path {
			return true
		}
	}
	return false
}

// volumes adds the token, and the certificate of who signs for the token service.
func (b *builder) volumes(p *pod, expiration int, ca *trust) {
	have := func(name string) bool {
		for _, v := range p.Spec.Volumes {
			if v.Name == name {
				return true
			}
		}
		return false
	}
	var wanted []any
	if !have(tokenVolume) {
		token := object{"serviceAccountToken": object{"audience": Audience, "expirationSeconds": expiration, "path": tokenPath}}
		wanted = append(wanted, object{"name": tokenVolume, "projected": object{"sources": []any{token}}})
	}
	if ca != nil && !have(trustVolume) {
		wanted = append(wanted, ca.volume())
	}
	b.list("/spec/volumes", len(p.Spec.Volumes) > 0, wanted)
	if ca == nil || p.Metadata.Annotations[trustAnnotation] == string(ca.pem) {
		return
	}
	if len(p.Metadata.Annotations) == 0 {
		b.add("/metadata/annotations", object{trustAnnotation: string(ca.pem)})
		return
	}
	b.add("/metadata/annotations/"+strings.NewReplacer("~", "~0", "/", "~1").Replace(trustAnnotation), string(ca.pem))
}
