// SPDX-License-Identifier: Apache-2.0

package drill

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"bastide.dev/client"
)

// identityClusterDrills are about who may do what inside a cluster.
func identityClusterDrills() []Drill {
	roles := Drill{ID: "identity-kubernetes-roles", Title: "Each built-in role may do what it says, and nothing more", Control: "Azure RBAC for Kubernetes",
		Explains: "Somebody who administers the cluster is given a smaller role instead: RBAC Admin, Writer, Reader. With kubectl's own requests they try " +
			"what the larger role could do. Each role keeps what Azure's definition of it names."}
	for _, r := range kubeRoles() {
		roles.Parts = append(roles.Parts, Drill{ID: r.name, Title: r.title, Control: "role " + r.title, Explains: roles.Explains,
			Setup: func(ctx context.Context, s *Stage) (*Scene, error) { return s.smallerRole(ctx, r) }})
	}
	return []Drill{roles,
		{ID: "identity-node-from-pod", Title: "A pod doesn't become its node", Control: "networkProfile.podLinkLocalAccess: None",
			Explains: "Every machine gets tokens of its own identity from the metadata address, and so does whoever breaks into a pod on it. With the metadata " +
				"address closed to pods, only the node itself gets an answer.",
			Setup: nodeFromPod}}
}

// Integrated is the lab's cluster that the directory's people may use: one node.
func (l *Lab) Integrated(ctx context.Context) (*Cluster, error) {
	return l.integrated.get(func() (*Cluster, error) {
		if err := l.base(ctx); err != nil {
			return nil, err
		}
		c, err := l.makeCluster(ctx, "people", 1, l.subnet("people"), object{"aadProfile": object{"managed": true, "enableAzureRBAC": true},
			"networkProfile": merged(labNetwork(), object{"podCidr": "10.246.0.0/16"})})
		if err != nil {
			return nil, err
		}
		if err := c.meet(ctx); err != nil {
			return nil, err
		}
		c.roots, err = c.authority(ctx)
		return c, err
	})
}

// authority is who signs for the cluster's API server, as its kubeconfig says.
func (c *Cluster) authority(ctx context.Context) ([]byte, error) {
	encoded, err := c.Kubectl(ctx, "", "config", "view", "--raw", "-o", "jsonpath={.clusters[0].cluster.certificate-authority-data}")
	if err != nil {
		return nil, err
	}
	roots, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, fmt.Errorf("CA of %s: %w", c.Name, err)
	}
	return roots, nil
}

// asks is a request to the API server with a token.
func (c *Cluster) asks(who, method, path string, body any, token func() string) Attack {
	return Attack{From: who, To: method + " " + path + " from the API server", Try: func(ctx context.Context) (Result, error) {
		answer, err := c.send(ctx, method, path, body, token())
		if err != nil {
			return Result{}, err
		}
		return answered(answer), nil
	}}
}

func (c *Cluster) send(ctx context.Context, method, path string, body any, token string) (client.Answer, error) {
	e := client.Exchange{Method: method, Address: "https://" + c.FQDN + path, Bearer: token, Roots: c.roots}
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return client.Answer{}, fmt.Errorf("%s %s: %w", method, path, err)
		}
		e.Body, e.ContentType = text, "application/json"
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return c.lab.Instance.Do(ctx, e)
}

// kubeRole is a built-in role, and what of the administrator's deeds it keeps.
type kubeRole struct {
	name, title, id string
	keeps           []string
}

func kubeRoles() []kubeRole {
	writer := []string{"list pods", "read secrets", "make a ConfigMap", "delete a Deployment", "exec"}
	return []kubeRole{
		{"admin", "Azure Kubernetes Service RBAC Admin", roleKubeAdmin, append(writer, "bind a role")},
		{"writer", "Azure Kubernetes Service RBAC Writer", roleKubeWriter, writer},
		{"reader", "Azure Kubernetes Service RBAC Reader", roleKubeReader, []string{"list pods"}},
	}
}

// smallerRole gives somebody the smaller role, in one namespace, in place of
// the administrator's.
func (s *Stage) smallerRole(ctx context.Context, r kubeRole) (*Scene, error) {
	c, err := s.Integrated(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.Namespace(ctx, c, s.Name); err != nil {
		return nil, err
	}
	person, err := s.Person(ctx, r.name)
	if err != nil {
		return nil, err
	}
	token, err := s.signIn(ctx, person, serverApplication, nil)
	if err != nil {
		return nil, err
	}
	all := func(ctx context.Context) (func(context.Context) error, error) {
		return s.grant(ctx, person.ID, "User", roleKubeClusterAdmin, c.ID)
	}
	if _, err := s.grant(ctx, person.ID, "User", r.id, c.ID+"/namespaces/"+s.Name); err != nil {
		return nil, err
	}
	revoke, err := all(ctx)
	if err != nil {
		return nil, err
	}
	scene := &Scene{On: func(ctx context.Context) error { return revoke(ctx) },
		Off: func(ctx context.Context) (err error) { revoke, err = all(ctx); return err }}
	for _, d := range deeds(s.Name) {
		attack := c.asks(person.Who()+", to "+d.name, d.method, d.path, d.body, func() string { return token })
		if slices.Contains(r.keeps, d.name) {
			scene.Wanted = append(scene.Wanted, attack)
		} else {
			scene.Attacks = append(scene.Attacks, attack)
		}
	}
	return scene, nil
}

// deed is something that an administrator can do.
type deed struct {
	name, method, path string
	body               any
}

func deeds(namespace string) []deed {
	in := "/api/v1/namespaces/" + namespace
	thing := func(version, kind string, more object) object {
		return merged(object{"apiVersion": version, "kind": kind, "metadata": object{"name": "drill"}}, more)
	}
	return []deed{
		{"list pods", "GET", in + "/pods", nil},
		{"read secrets", "GET", in + "/secrets", nil},
		{"make a ConfigMap", "POST", in + "/configmaps?dryRun=All", thing("v1", "ConfigMap", nil)},
		{"delete a Deployment", "DELETE", "/apis/apps/v1/namespaces/" + namespace + "/deployments/drill", nil},
		{"exec", "POST", in + "/pods/drill/exec?command=id&stdout=true", nil},
		{"bind a role", "POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/" + namespace + "/rolebindings?dryRun=All",
			thing("rbac.authorization.k8s.io/v1", "RoleBinding", object{"roleRef": object{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}})},
		{"raise a quota", "POST", in + "/resourcequotas?dryRun=All", thing("v1", "ResourceQuota", nil)},
		{"list other namespaces' pods", "GET", "/api/v1/namespaces/kube-system/pods", nil},
		{"list nodes", "GET", "/api/v1/nodes", nil},
		{"make a namespace", "POST", "/api/v1/namespaces?dryRun=All", thing("v1", "Namespace", nil)},
	}
}

// nodeFromPod: the metadata address, asked from a pod.
func nodeFromPod(ctx context.Context, s *Stage) (*Scene, error) {
	c, err := s.Integrated(ctx)
	if err != nil {
		return nil, err
	}
	box, err := s.box(ctx, c, s.Name)
	if err != nil {
		return nil, err
	}
	const question = "timeout 3 wget -q -O - --header 'Metadata: true' 'http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fmanagement.azure.com'"
	set := func(ctx context.Context, access string) error {
		return s.Set(ctx, c, "networkProfile", merged(labNetwork(), object{"podCidr": "10.246.0.0/16", "podLinkLocalAccess": access}))
	}
	s.Undo("open the metadata address again", func(ctx context.Context) error { return set(ctx, "IMDS") })
	return &Scene{
		Attacks: []Attack{{From: box.Who(), To: "a token of the node's identity from 169.254.169.254", Try: func(ctx context.Context) (Result, error) {
			out, code, err := box.shell.run(ctx, question)
			if err != nil {
				return Result{}, err
			}
			var said struct {
				Token string `json:"access_token"`
			}
			if json.Unmarshal([]byte(out), &said) == nil && said.Token != "" {
				return Result{Worked: true, Got: "a token"}, nil
			}
			return Result{Got: fmt.Sprintf("no token, exit code %d", code)}, nil
		}}},
		Wanted: []Attack{{From: "the nodes", To: "stay Ready", Try: func(ctx context.Context) (Result, error) { return s.nodesReady(ctx, c) }}},
		On:     func(ctx context.Context) error { return set(ctx, "None") },
		Off:    func(ctx context.Context) error { return set(ctx, "IMDS") },
	}, nil
}
