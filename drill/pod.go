// SPDX-License-Identifier: Apache-2.0

package drill

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"time"
)

// Pod is a pod that is there to attack or to be attacked.
type Pod struct {
	Namespace, Name string
	Address         netip.Addr
	shell           *shell // of boxes
}

// Who names the pod, with its address.
func (p *Pod) Who() string { return fmt.Sprintf("pod %s/%s (%s)", p.Namespace, p.Name, p.Address) }

// HTTP asks for the page at an address with its port, or at a name.
func (p *Pod) HTTP(ctx context.Context, address string) (Result, error) {
	out, code, err := p.shell.run(ctx, fetch(address))
	if err != nil {
		return Result{}, err
	}
	return fromShell(out, code), nil
}

// fetch asks for a page in a busybox's shell. (The -T of Debian's busybox crashes.)
func fetch(address string) string { return "timeout 1 wget -q -O - http://" + address + "/" }

// At is the pod's address with a port.
func (p *Pod) At(port uint16) string { return netip.AddrPortFrom(p.Address, port).String() }

// webPort is where the demonstration app listens.
const webPort = 8080

// webPod is a pod of the demonstration app, boxPod one of tools to attack with.
func (c *Cluster) webPod(namespace, name string, node int) object {
	return c.pod(namespace, name, node, object{"name": "web", "image": c.web, "ports": []any{object{"containerPort": webPort}},
		"readinessProbe": object{"httpGet": object{"path": "/healthz", "port": webPort}, "periodSeconds": 1}})
}

func (c *Cluster) boxPod(namespace, name, image string, node int) object {
	return c.pod(namespace, name, node, object{"name": "box", "image": image, "command": []any{"sleep", "100000"}})
}

func (c *Cluster) pod(namespace, name string, node int, container object) object {
	return object{"apiVersion": "v1", "kind": "Pod",
		"metadata": object{"name": name, "namespace": namespace, "labels": object{"app": name}},
		"spec":     object{"nodeName": c.Nodes[node%len(c.Nodes)].Name, "terminationGracePeriodSeconds": 0, "containers": []any{container}}}
}

// Pods makes pods and waits until they are ready. Boxes get a shell.
func (s *Stage) Pods(ctx context.Context, c *Cluster, pods ...object) ([]*Pod, error) {
	items := make([]any, len(pods))
	for i, p := range pods {
		items[i] = p
	}
	if err := s.Apply(ctx, c, items...); err != nil {
		return nil, err
	}
	addresses, err := c.await(ctx, pods)
	if err != nil {
		return nil, err
	}
	made := make([]*Pod, len(pods))
	for i, o := range pods {
		p := &Pod{Namespace: dig(o, "metadata", "namespace"), Name: dig(o, "metadata", "name")}
		if p.Address, err = parseAddr(addresses[p.Namespace+"/"+p.Name], "pod "+p.Name); err != nil {
			return nil, err
		}
		p.shell = &shell{command: func() *exec.Cmd {
			return exec.Command(c.kubectl, "--kubeconfig", c.Kubeconfig, "exec", "-i", "--namespace", p.Namespace, p.Name, "--", "sh")
		}}
		s.Undo("close the shell in "+p.Name, func(context.Context) error { p.shell.Close(); return nil })
		made[i] = p
	}
	return made, nil
}

// await waits until pods are ready and returns their addresses, by namespace/name.
func (c *Cluster) await(ctx context.Context, pods []object) (map[string]string, error) {
	names := map[string][]string{}
	for _, o := range pods {
		namespace := dig(o, "metadata", "namespace")
		names[namespace] = append(names[namespace], "pod/"+dig(o, "metadata", "name"))
	}
	addresses := map[string]string{}
	for namespace, all := range names {
		args := append([]string{"wait", "--for=condition=Ready", "--timeout=60s", "--namespace", namespace}, all...)
		args = append(args, "-o", `jsonpath={.metadata.namespace}/{.metadata.name} {.status.podIP}{"\n"}`)
		out, err := c.Kubectl(ctx, "", args...)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(out) {
			if name, address, found := strings.Cut(strings.TrimSpace(line), " "); found {
				addresses[name] = address
			}
		}
	}
	return addresses, nil
}

// place is where an attack is made from.
type place interface {
	Who() string
	HTTP(ctx context.Context, address string) (Result, error)
}

// get is the attack of asking for a page.
func get(from place, to, address string) Attack {
	return Attack{From: from.Who(), To: fmt.Sprintf("GET http://%s/ (%s)", address, to),
		Try: func(ctx context.Context) (Result, error) { return from.HTTP(ctx, address) }}
}

// service makes a Service of type LoadBalancer for the app of a name.
func service(namespace, app string, annotations object, spec object) object {
	s := object{"type": "LoadBalancer", "selector": object{"app": app}, "ports": []any{object{"port": 80, "targetPort": webPort}}}
	for k, v := range spec {
		s[k] = v
	}
	return object{"apiVersion": "v1", "kind": "Service",
		"metadata": object{"name": app, "namespace": namespace, "annotations": annotations}, "spec": s}
}

// Ingress waits until a Service has an address other than old.
func (c *Cluster) Ingress(ctx context.Context, namespace, name string, old netip.Addr) (netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, switchPatience)
	defer cancel()
	for {
		out, err := c.Kubectl(ctx, "", "get", "service", "--namespace", namespace, name, "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}")
		if err != nil {
			return netip.Addr{}, err
		}
		if a, err := netip.ParseAddr(strings.TrimSpace(out)); err == nil && a != old {
			return a, nil
		}
		select {
		case <-ctx.Done():
			return netip.Addr{}, fmt.Errorf("service %s/%s has no new address: %w", namespace, name, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func onPort(a netip.Addr, port string) string { return net.JoinHostPort(a.String(), port) }
