// SPDX-License-Identifier: Apache-2.0

package drill

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

func policyDrills() []Drill {
	return []Drill{
		{ID: "policy-default-deny-ingress", Title: "A namespace that lets nobody in",
			Control:  "NetworkPolicy: default deny ingress",
			Explains: "Pods reach each other over all namespaces and nodes. A policy without any rule for ingress stops that for its namespace, and for no other.",
			Setup:    denyIngress},
		{ID: "policy-egress-deny", Title: "Pods that may not call out",
			Control:  "NetworkPolicy: deny egress",
			Explains: "A pod that was broken into calls home, or looks around in the cluster. A policy for egress stops both: the Internet and other pods.",
			Setup:    denyEgress},
		{ID: "policy-ipblock", Title: "The Internet but for one range",
			Control:  "NetworkPolicy: ipBlock with except",
			Explains: "A policy allows all addresses but one range. What is in the range is out of reach; the rest of the Internet is not.",
			Setup:    ipBlock},
		{ID: "policy-zero-trust", Title: "Zero trust for a namespace",
			Control:  "bastide policy zero-trust NAMESPACE",
			Explains: "The starter isolates a namespace: pods of others don't get in, its own don't get out. Within the namespace pods talk, and DNS works.",
			Setup:    zeroTrust},
		{ID: "policy-admin", Title: "The administrator's policy is above a developer's",
			Control:  "ClusterNetworkPolicy, tier Admin",
			Explains: "A developer's policy allows a namespace in. The administrator's cluster-wide policy denies it, and the developer can't allow it again.",
			Setup:    adminPolicy},
		{ID: "policy-first-packet", Title: "A new pod's first packet is stopped too",
			Control:  "NetworkPolicy, before a pod's first packet",
			Explains: "A pod that starts and connects at once may be faster than the policy engine. New pods try from their first moment on, again and again.",
			Setup:    firstPacket},
	}
}

func policy(namespace, name string, spec object) object {
	return object{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": object{"name": name, "namespace": namespace}, "spec": spec}
}

// box makes a namespace and a pod of tools in it.
func (s *Stage) box(ctx context.Context, c *Cluster, namespace string) (*Pod, error) {
	image, err := s.Toolbox(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.Namespace(ctx, c, namespace); err != nil {
		return nil, err
	}
	pods, err := s.Pods(ctx, c, c.boxPod(namespace, "box", image, 1))
	if err != nil {
		return nil, err
	}
	return pods[0], nil
}

// pair is what most policies are about: an app in a namespace of its own, an
// attacker in another on another node, and a friend beside the app.
type pair struct {
	cluster               *Cluster
	web, friend, attacker *Pod
	app, other            string // the namespaces
}

func (s *Stage) pair(ctx context.Context) (*pair, error) {
	c, err := s.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	image, err := s.Toolbox(ctx)
	if err != nil {
		return nil, err
	}
	p := &pair{cluster: c, app: s.Name, other: s.Name + "-other"}
	for _, namespace := range []string{p.app, p.other} {
		if err := s.Namespace(ctx, c, namespace); err != nil {
			return nil, err
		}
	}
	pods, err := s.Pods(ctx, c, c.webPod(p.app, "web", 0), c.boxPod(p.app, "friend", image, 1), c.boxPod(p.other, "attacker", image, 1))
	if err != nil {
		return nil, err
	}
	p.web, p.friend, p.attacker = pods[0], pods[1], pods[2]
	return p, nil
}

func (p *pair) question(from *Pod, to string) func() Question {
	at := "@" + p.cluster.Name
	return func() Question { return Question{"pod/" + from.Namespace + "/" + from.Name + at, to} }
}

func (p *pair) toWeb() string { return fmt.Sprintf("pod/%s/web@%s:%d", p.app, p.cluster.Name, webPort) }

func denyIngress(ctx context.Context, s *Stage) (*Scene, error) {
	p, err := s.pair(ctx)
	if err != nil {
		return nil, err
	}
	pods, err := s.Pods(ctx, p.cluster, p.cluster.webPod(p.other, "open", 0))
	if err != nil {
		return nil, err
	}
	on, off := s.objectSwitch(p.cluster, policy(p.app, "default-deny-ingress", object{"podSelector": object{}, "policyTypes": []any{"Ingress"}}))
	return &Scene{
		Attacks:  []Attack{get(p.attacker, "the app", p.web.At(webPort)), get(p.friend, "the app, from its own namespace", p.web.At(webPort))},
		Wanted:   []Attack{get(p.attacker, "another namespace's app", pods[0].At(webPort))},
		On:       on,
		Off:      off,
		Question: p.question(p.attacker, p.toWeb()),
	}, nil
}

func denyEgress(ctx context.Context, s *Stage) (*Scene, error) {
	p, err := s.pair(ctx)
	if err != nil {
		return nil, err
	}
	home, err := s.Partner(ctx, "partner")
	if err != nil {
		return nil, err
	}
	on, off := s.objectSwitch(p.cluster, policy(p.other, "deny-egress", object{"podSelector": object{}, "policyTypes": []any{"Egress"}}))
	return &Scene{
		Attacks:  []Attack{get(p.attacker, "a server on the Internet", home.Address.String()), get(p.attacker, "another namespace's app", p.web.At(webPort))},
		Wanted:   []Attack{get(p.friend, "the same server, from a namespace without the policy", home.Address.String()), get(p.friend, "the same app", p.web.At(webPort))},
		On:       on,
		Off:      off,
		Question: p.question(p.attacker, home.Address.String()),
	}, nil
}

func ipBlock(ctx context.Context, s *Stage) (*Scene, error) {
	c, err := s.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	forbidden, err := s.Partner(ctx, "forbidden")
	if err != nil {
		return nil, err
	}
	other, err := s.Partner(ctx, "partner")
	if err != nil {
		return nil, err
	}
	box, err := s.box(ctx, c, s.Name)
	if err != nil {
		return nil, err
	}
	on, off := s.objectSwitch(c, policy(s.Name, "all-but", object{"podSelector": object{}, "policyTypes": []any{"Egress"},
		"egress": []any{object{"to": []any{object{"ipBlock": object{"cidr": "0.0.0.0/0", "except": []any{forbidden.Address.Addr().String() + "/32"}}}}}}}))
	return &Scene{
		Attacks:  []Attack{get(box, "the server in the range", forbidden.Address.String())},
		Wanted:   []Attack{get(box, "another server on the Internet", other.Address.String())},
		On:       on,
		Off:      off,
		Question: func() Question { return Question{"pod/" + s.Name + "/box@" + c.Name, forbidden.Address.String()} },
	}, nil
}

func zeroTrust(ctx context.Context, s *Stage) (*Scene, error) {
	p, err := s.pair(ctx)
	if err != nil {
		return nil, err
	}
	pods, err := s.Pods(ctx, p.cluster, p.cluster.webPod(p.other, "open", 0))
	if err != nil {
		return nil, err
	}
	starter, err := documents(s.ZeroTrust(p.app, true))
	if err != nil {
		return nil, err
	}
	on, off := s.objectSwitch(p.cluster, starter...)
	return &Scene{
		Attacks: []Attack{get(p.attacker, "the app", p.web.At(webPort)), get(p.friend, "another namespace's app, from inside", pods[0].At(webPort))},
		Wanted: []Attack{get(p.friend, "the app, within its namespace", p.web.At(webPort)),
			{From: p.friend.Who(), To: "look up kubernetes.default.svc.cluster.local", Try: func(ctx context.Context) (Result, error) {
				out, code, err := p.friend.shell.run(ctx, "nslookup kubernetes.default.svc.cluster.local")
				return Result{Worked: err == nil && code == 0, Got: lastLine(out)}, err
			}}},
		On:       on,
		Off:      off,
		Question: p.question(p.attacker, p.toWeb()),
	}, nil
}

// documents reads YAML of several documents.
func documents(text string) ([]object, error) {
	var all []object
	for _, part := range strings.Split(text, "\n---\n") {
		var o object
		if err := yaml.Unmarshal([]byte(part), &o); err != nil {
			return nil, fmt.Errorf("starter: %w", err)
		}
		if len(o) > 0 {
			all = append(all, o)
		}
	}
	return all, nil
}

func adminPolicy(ctx context.Context, s *Stage) (*Scene, error) {
	p, err := s.pair(ctx)
	if err != nil {
		return nil, err
	}
	name := func(namespace string) object {
		return object{"matchLabels": object{"kubernetes.io/metadata.name": namespace}}
	}
	allow := policy(p.app, "allow-other", object{"podSelector": object{}, "policyTypes": []any{"Ingress"},
		"ingress": []any{object{"from": []any{object{"namespaceSelector": name(p.other)}, object{"podSelector": object{}}}}}})
	if err := s.Apply(ctx, p.cluster, allow); err != nil {
		return nil, err
	}
	on, off := s.objectSwitch(p.cluster, object{"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
		"metadata": object{"name": s.Name},
		"spec": object{"tier": "Admin", "priority": 10, "subject": object{"namespaces": name(p.app)},
			"ingress": []any{object{"name": "deny-other", "action": "Deny", "from": []any{object{"namespaces": name(p.other)}}}}}})
	return &Scene{
		Attacks:  []Attack{get(p.attacker, "the app, which its developer allows", p.web.At(webPort))},
		Wanted:   []Attack{get(p.friend, "the app, from its own namespace", p.web.At(webPort))},
		On:       on,
		Off:      off,
		Question: p.question(p.attacker, p.toWeb()),
	}, nil
}

// firstTries is how often a new pod tries at once.
const firstTries = 2

func firstPacket(ctx context.Context, s *Stage) (*Scene, error) {
	p, err := s.pair(ctx)
	if err != nil {
		return nil, err
	}
	image, err := s.Toolbox(ctx)
	if err != nil {
		return nil, err
	}
	n := 0
	try := func(ctx context.Context) (Result, error) {
		n++
		pod := p.cluster.boxPod(p.other, fmt.Sprintf("new-%d", n), image, 1)
		spec, _ := pod["spec"].(object)
		spec["restartPolicy"] = "Never"
		spec["containers"] = []any{object{"name": "box", "image": image, "command": []any{"sh", "-c", fmt.Sprintf(
			"i=0; while [ $i -lt %d ]; do %s && exit 0; i=$((i+1)); done; exit 1", firstTries, fetch(p.web.At(webPort)))}}}
		return p.cluster.runToEnd(ctx, pod)
	}
	on, off := s.objectSwitch(p.cluster, policy(p.app, "no-others", object{"podSelector": object{"matchLabels": object{"app": "web"}}, "policyTypes": []any{"Ingress"},
		"ingress": []any{object{"from": []any{object{"podSelector": object{}}}}}}))
	deny, allow := s.objectSwitch(p.cluster, policy(p.other, "no-egress", object{"podSelector": object{}, "policyTypes": []any{"Egress"}}))
	return &Scene{
		Attacks: []Attack{{From: "new pods in " + p.other, To: fmt.Sprintf("GET http://%s/ from their first moment on, %d times", p.web.At(webPort), firstTries), Try: try}},
		Wanted:  []Attack{get(p.friend, "the app, from its own namespace", p.web.At(webPort))},
		On:      both(on, deny),
		Off:     both(off, allow),
	}, nil
}

func both(a, b func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := a(ctx); err != nil {
			return err
		}
		return b(ctx)
	}
}

// runToEnd runs a pod until it ends and reads what it printed.
func (c *Cluster) runToEnd(ctx context.Context, pod object) (Result, error) {
	namespace, name := dig(pod, "metadata", "namespace"), dig(pod, "metadata", "name")
	text, err := json.Marshal(pod)
	if err != nil {
		return Result{}, fmt.Errorf("pod %s: %w", name, err)
	}
	if _, err := c.Kubectl(ctx, string(text), "create", "-f", "-"); err != nil {
		return Result{}, err
	}
	for end := time.Now().Add(switchPatience); ; {
		phase, err := c.Kubectl(ctx, "", "get", "pod", "--namespace", namespace, name, "-o", "jsonpath={.status.phase}")
		if err != nil {
			return Result{}, err
		}
		if phase == "Succeeded" || phase == "Failed" {
			out, err := c.Kubectl(ctx, "", "logs", "--namespace", namespace, name)
			if err != nil {
				return Result{}, err
			}
			code := 1
			if phase == "Succeeded" {
				code = 0
			}
			return fromShell(out, code), nil
		}
		if time.Now().After(end) {
			return Result{}, fmt.Errorf("pod %s/%s is %s and doesn't end", namespace, name, phase)
		}
		select {
		case <-ctx.Done():
			return Result{}, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func jsonText(o object) (string, error) {
	text, err := json.Marshal(o)
	if err != nil {
		return "", fmt.Errorf("object: %w", err)
	}
	return string(text), nil
}
