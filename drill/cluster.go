// SPDX-License-Identifier: Apache-2.0

package drill

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"bastide.dev/client"
)

// Cluster is a cluster, with its administrator's kubeconfig.
type Cluster struct {
	Name       string
	ID         string
	FQDN       string
	Resources  string // the node resource group's ID
	Kubeconfig string // a file of the lab's
	Nodes      []Node // sorted by name
	body       object // what was PUT
	web        string // the demonstration app's image
	kubectl    string // the program
	lab        *Lab   // for SSH and questions
	roots      []byte // where tokens are used: what signs for its API server, PEM

	mu sync.Mutex // guards body and held while the cluster changes: AKS makes one change at a time
}

// Node is a node of a cluster.
type Node struct {
	Name    string
	Address netip.Addr
}

// Cluster is the lab's public cluster: two nodes in the lab's network.
func (l *Lab) Cluster(ctx context.Context) (*Cluster, error) {
	return l.cluster.get(func() (*Cluster, error) {
		if err := l.base(ctx); err != nil {
			return nil, err
		}
		c, err := l.makeCluster(ctx, "lab", 2, l.subnet("aks"), nil)
		if err != nil {
			return nil, err
		}
		return c, c.meet(ctx)
	})
}

// makeCluster makes a cluster; extra are further properties.
func (l *Lab) makeCluster(ctx context.Context, name string, nodes int, subnet string, extra object) (*Cluster, error) {
	if err := l.begin(ctx); err != nil {
		return nil, err
	}
	key, err := l.publicKey()
	if err != nil {
		return nil, err
	}
	pool := object{"name": "nodes", "mode": "System", "count": nodes, "vmSize": "Standard_D2s_v5", "vnetSubnetID": subnet}
	properties := object{"dnsPrefix": l.group + "-" + name, "agentPoolProfiles": []any{pool},
		"linuxProfile":   object{"adminUsername": admin, "ssh": object{"publicKeys": []any{object{"keyData": key}}}},
		"networkProfile": labNetwork()}
	maps.Copy(properties, extra)
	c := &Cluster{Name: name, ID: l.id("Microsoft.ContainerService/managedClusters", name), Kubeconfig: l.file(name + ".kubeconfig"),
		kubectl: filepath.Join(l.Instance.BinDir, "kubectl"), web: l.WebImage, lab: l,
		body: object{"location": l.Instance.Location, "identity": object{"type": "SystemAssigned"}, "properties": properties}}
	answer, err := l.put(ctx, c.ID, clusterVersion, c.body)
	if err != nil {
		return nil, err
	}
	c.FQDN = dig(answer, "properties", "fqdn")
	c.Resources = "/subscriptions/" + l.Instance.SubscriptionID + "/resourceGroups/" + dig(answer, "properties", "nodeResourceGroup")
	if private := dig(answer, "properties", "privateFQDN"); private != "" {
		c.FQDN = private
	}
	return c, c.credentials(ctx)
}

func labNetwork() object {
	return object{"networkPlugin": "azure", "networkPluginMode": "overlay", "networkPolicy": "calico"}
}

// Set changes one property of the cluster, as `az aks update` does: on record,
// with all the others as they were.
func (s *Stage) Set(ctx context.Context, c *Cluster, property string, value any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	properties := maps.Clone(c.body["properties"].(object))
	properties[property] = value
	body := maps.Clone(c.body)
	body["properties"] = properties
	if _, err := s.Put(ctx, c.ID, clusterVersion, body); err != nil {
		return err
	}
	c.body = body
	return nil
}

// credentials keeps the administrator's kubeconfig.
func (c *Cluster) credentials(ctx context.Context) error {
	answer, err := client.Post[struct {
		Kubeconfigs []struct {
			Value []byte `json:"value"`
		} `json:"kubeconfigs"`
	}](ctx, c.lab.Client, c.ID+"/listClusterAdminCredential", clusterVersion, nil)
	if err != nil {
		return fmt.Errorf("credentials of %s: %w", c.Name, err)
	}
	if len(answer.Kubeconfigs) == 0 {
		return errors.New("credentials of " + c.Name + ": there are none")
	}
	if err := os.WriteFile(c.Kubeconfig, answer.Kubeconfigs[0].Value, 0o600); err != nil {
		return fmt.Errorf("credentials of %s: %w", c.Name, err)
	}
	return nil
}

// meet learns the cluster's nodes and its API server's address.
func (c *Cluster) meet(ctx context.Context) error {
	var list struct {
		Items []struct {
			Metadata struct{ Name string }
			Status   struct {
				Addresses []struct{ Type, Address string }
			}
		}
	}
	if err := c.get(ctx, &list, "nodes"); err != nil {
		return err
	}
	for _, item := range list.Items {
		for _, a := range item.Status.Addresses {
			if a.Type != "InternalIP" {
				continue
			}
			address, err := parseAddr(a.Address, "node "+item.Metadata.Name)
			if err != nil {
				return err
			}
			c.Nodes = append(c.Nodes, Node{item.Metadata.Name, address})
		}
	}
	if len(c.Nodes) == 0 {
		return fmt.Errorf("cluster %s has no nodes", c.Name)
	}
	return nil
}

// Kubectl runs kubectl as the cluster's administrator, from the machine itself.
func (c *Cluster) Kubectl(ctx context.Context, stdin string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.kubectl, append([]string{"--kubeconfig", c.Kubeconfig}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// get reads objects as JSON.
func (c *Cluster) get(ctx context.Context, into any, args ...string) error {
	out, err := c.Kubectl(ctx, "", append([]string{"get", "-o", "json"}, args...)...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), into); err != nil {
		return fmt.Errorf("kubectl get %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// Apply applies objects, on record.
func (s *Stage) Apply(ctx context.Context, c *Cluster, objects ...any) error {
	list := object{"apiVersion": "v1", "kind": "List", "items": objects}
	text, err := json.Marshal(list)
	if err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	began := time.Now()
	_, err = c.Kubectl(ctx, string(text), "apply", "-f", "-")
	for _, o := range objects {
		s.did("kubectl apply", named(o), o, began, err)
	}
	return err
}

// Remove deletes an object, on record.
func (s *Stage) Remove(ctx context.Context, c *Cluster, o object) error {
	began := time.Now()
	args := []string{"delete", "--ignore-not-found", "--wait=false", fmt.Sprint(o["kind"]), dig(o, "metadata", "name")}
	if namespace := dig(o, "metadata", "namespace"); namespace != "" {
		args = append(args, "--namespace", namespace)
	}
	_, err := c.Kubectl(ctx, "", args...)
	s.did("kubectl delete", named(o), nil, began, err)
	return err
}

// objectSwitch is a switch that is an object of Kubernetes.
func (s *Stage) objectSwitch(c *Cluster, objects ...object) (on, off func(context.Context) error) {
	off = func(ctx context.Context) error {
		for _, o := range objects {
			if err := s.Remove(ctx, c, o); err != nil {
				return err
			}
		}
		return nil
	}
	on = func(ctx context.Context) error {
		all := make([]any, len(objects))
		for i, o := range objects {
			all[i] = o
		}
		s.Undo("remove "+named(objects[0]), off)
		return s.Apply(ctx, c, all...)
	}
	return on, off
}

func named(o any) string {
	m, _ := o.(object)
	return strings.Trim(fmt.Sprintf("%v %s/%s", m["kind"], dig(o, "metadata", "namespace"), dig(o, "metadata", "name")), "/")
}

// Namespace makes a namespace for the drill alone.
func (s *Stage) Namespace(ctx context.Context, c *Cluster, name string) error {
	o := object{"apiVersion": "v1", "kind": "Namespace", "metadata": object{"name": name, "labels": object{"drill": s.ID}}}
	s.Undo("remove namespace "+name, func(ctx context.Context) error {
		_, err := c.Kubectl(ctx, "", "delete", "namespace", name, "--wait=false", "--ignore-not-found")
		return err
	})
	return s.Apply(ctx, c, o)
}
