// SPDX-License-Identifier: Apache-2.0

package drill

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"bastide.dev/client"
)

// lifecycleDrills are about what time brings: certificates that end, authorities
// and keys that are rotated, packages that grow old, nodes that have to go.
func lifecycleDrills() []Drill {
	return []Drill{
		{ID: "lifecycle-expired-certificate", Title: "A certificate that has ended opens nothing", Control: "bastide kubeconfig --lifetime",
			Explains: "A client certificate can't be revoked one by one, so that its end is all that stops whoever found it. One for an emergency, made for " +
				"seconds, is used before its end and after.",
			Setup: expiredCertificate},
		{ID: "lifecycle-unpatched", Title: "A vulnerable package is found, and gone after the night", Control: "security updates of nodes (nodeOSUpgradeChannel), and reboots",
			Explains: "The nodes are of an image of Debian's release alone: everything found since then is open in them. The night's order installs what Debian's " +
				"security team has published, and what needs a reboot gets one, one node at a time, while people use the app and the API. Then the same search finds nothing.",
			Turn: life, Setup: unpatched},
		{ID: "lifecycle-old-authority", Title: "What an old authority signed opens nothing after rotation", Control: "az aks rotate-certs",
			Explains: "The administrator's certificate of before is in somebody's hands. The rotation of the cluster's certificates ends it, and neither those who use " +
				"the app nor those who use the API, trusting the authority of the first day, notice.",
			Turn: life, Setup: oldAuthority},
		{ID: "lifecycle-nobody-notices", Title: "Nobody notices that nodes go", Control: "az aks upgrade, az aks nodepool delete-machines",
			Explains: "A node that is just restarted costs requests: that is seen first. Then control plane and nodes become a newer Kubernetes, and a node is " +
				"deleted and replaced, as the platform does that: out of the load balancers, drained, and only then gone. Every request of a stream is counted, and none may fail.",
			Turn: life, Setup: nobodyNotices},
		{ID: "lifecycle-old-signing-key", Title: "Tokens of an old signing key open nothing", Control: "az aks oidc-issuer rotate-signing-keys, twice",
			Explains: "A service account's token was copied. One rotation lets tokens of the key before live for a day; a second one ends them at once.",
			Turn:     life, Setup: oldSigningKey},
	}
}

// kubectlWith is the attack of using a kubeconfig, from the machine itself.
func (c *Cluster) kubectlWith(who string, config func() string) Attack {
	return Attack{From: who, To: "kubectl get nodes", Try: func(ctx context.Context) (Result, error) {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		out, err := exec.CommandContext(ctx, c.kubectl, "--kubeconfig", config(), "--request-timeout=5s", "get", "nodes", "-o", "name").CombinedOutput()
		var exited *exec.ExitError
		switch {
		case err == nil:
			return Result{Worked: true, Got: fmt.Sprintf("%d nodes", strings.Count(string(out), "node/"))}, nil
		case errors.As(err, &exited) && ctx.Err() == nil:
			return refusedBy(string(out))
		}
		return Result{}, fmt.Errorf("kubectl: %w: %s", err, out)
	}}
}

// refusedBy is the result of kubectl's complaint: an API server's no. That
// nobody answered isn't one.
func refusedBy(out string) (Result, error) {
	for _, no := range []string{"Unauthorized", "must be logged in", "Forbidden", "asked for the client to provide credentials"} {
		if strings.Contains(out, no) {
			return Result{Got: lastLine(out)}, nil
		}
	}
	return Result{}, errors.New("kubectl: " + lastLine(out))
}

// shortLife is how long the drill's certificate lasts: long enough to be used.
const shortLife = 12 * time.Second

func expiredCertificate(ctx context.Context, s *Stage) (*Scene, error) {
	c, err := s.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	path := s.file(s.Name + ".kubeconfig")
	var ends time.Time
	issue := func(ctx context.Context) error {
		text, err := s.BreakGlass(ctx, c.ID, shortLife)
		if err != nil {
			return err
		}
		ends = time.Now().Add(shortLife)
		return os.WriteFile(path, text, 0o600)
	}
	if err := issue(ctx); err != nil {
		return nil, err
	}
	return &Scene{
		Untimed: true,
		Attacks: []Attack{c.kubectlWith("who has the certificate", func() string { return path })},
		Wanted:  []Attack{c.kubectlWith("the administrator", func() string { return c.Kubeconfig })},
		On: func(ctx context.Context) error {
			s.note(fmt.Sprintf("The certificate was made for %s; nothing but time changed.", shortLife))
			return sleep(ctx, time.Until(ends.Add(time.Second))) // certificates count in seconds
		},
		Off: issue,
	}, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func oldAuthority(ctx context.Context, s *Stage) (*Scene, error) {
	l, err := s.Living(ctx)
	if err != nil {
		return nil, err
	}
	former := s.file(s.Name + ".kubeconfig")
	text, err := readFile(l.Kubeconfig)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(former, text, 0o600); err != nil {
		return nil, err
	}
	pods, err := l.pods(ctx)
	if err != nil {
		return nil, err
	}
	now := former
	return &Scene{
		Attacks: []Attack{l.kubectlWith("the administrator, by the certificate of before", func() string { return now })},
		Wanted: []Attack{
			l.asks("a service account that trusts the first day's authority", "GET", "/api/v1/namespaces/"+life+"/pods", nil, func() string { return l.token }),
			{From: "the app's pods", To: "go on as they were", Try: func(ctx context.Context) (Result, error) {
				after, err := l.pods(ctx)
				return Result{Worked: after == pods, Got: after}, err
			}}},
		On: func(ctx context.Context) error {
			err := s.unnoticed(ctx, l, "the rotation of certificates", nil, func(ctx context.Context) error { return s.Post(ctx, l.ID+"/rotateClusterCertificates", clusterVersion) })
			return errors.Join(err, l.credentials(ctx))
		},
		Untimed: true,
		Off:     func(context.Context) error { now = l.Kubeconfig; return nil },
	}, nil
}

// pods names the app's pods with their restarts.
func (l *Life) pods(ctx context.Context) (string, error) {
	out, err := l.Kubectl(ctx, "", "get", "pods", "--namespace", life, "-l", "app=web", "--sort-by=.metadata.name",
		"-o", `jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[0].restartCount} restarts, {end}`)
	return strings.Trim(out, ", "), err
}

func oldSigningKey(ctx context.Context, s *Stage) (*Scene, error) {
	l, err := s.Living(ctx)
	if err != nil {
		return nil, err
	}
	text, err := s.BreakGlass(ctx, l.ID, time.Hour)
	if err != nil {
		return nil, err
	}
	config, err := configTLS(text)
	if err != nil {
		return nil, err
	}
	// Pods of before have tokens of before, as on AKS, where one restarts them.
	s.Undo("give pods new tokens", func(ctx context.Context) (err error) {
		if l.token, err = l.newToken(ctx); err != nil {
			return err
		}
		_, err = l.Kubectl(ctx, "", "rollout", "restart", "deployment", "--namespace", "kube-system")
		return err
	})
	now := l.token
	rotate := func(ctx context.Context) error {
		return s.Post(ctx, l.ID+"/rotateServiceAccountSigningKeys", clusterVersion)
	}
	return &Scene{
		Attacks: []Attack{l.asks("who copied a service account's token", "GET", "/api/v1/namespaces/"+life+"/configmaps", nil, func() string { return now })},
		Wanted:  []Attack{l.kubectlWith("the administrator", func() string { return l.Kubeconfig })},
		On: func(ctx context.Context) error {
			return s.unnoticed(ctx, l, "two rotations of the signing keys", &config.Certificates[0], func(ctx context.Context) error {
				if err := rotate(ctx); err != nil {
					return err
				}
				return rotate(ctx)
			})
		},
		Untimed: true,
		Off: func(ctx context.Context) (err error) {
			now, err = l.newToken(ctx)
			return err
		},
	}, nil
}

func nobodyNotices(ctx context.Context, s *Stage) (*Scene, error) {
	l, err := s.Living(ctx)
	if err != nil {
		return nil, err
	}
	ways := []way{{"a restart of a node", s.restart}}
	turn := 0
	return &Scene{
		Tries:   2,
		Untimed: true,
		Attacks: []Attack{{From: "users of the app and of the API", To: "notice that a node goes", Try: func(ctx context.Context) (Result, error) {
			if err := l.whole(ctx); err != nil {
				return Result{}, err
			}
			now := ways[turn%len(ways)]
			turn++
			app, api, err := s.attended(ctx, l, nil, func(ctx context.Context) error { return now.take(ctx, l) })
			return Result{Worked: app.Failed+api.Failed > 0, Got: fmt.Sprintf("%s: the app: %s; the API: %s", now.name, app, api)}, err
		}}},
		On: func(context.Context) error {
			ways, turn = []way{{"an upgrade of control plane and nodes", s.upgrade}, {"the deletion of a node, and another in its place", s.replace}}, 0
			return nil
		},
		Off: func(context.Context) error {
			ways, turn = []way{{"a restart of a node", s.restart}}, 0
			return nil
		},
	}, nil
}

// way is how a node goes.
type way struct {
	name string
	take func(ctx context.Context, l *Life) error
}

// busiest is a node on which a pod of the app runs.
func (l *Life) busiest(ctx context.Context) (name, boot string, err error) {
	name, err = l.Kubectl(ctx, "", "get", "pods", "--namespace", life, "-l", "app=web", "-o", "jsonpath={.items[0].spec.nodeName}")
	if err != nil {
		return "", "", err
	}
	members, err := l.members(ctx)
	for _, m := range members {
		if m.Metadata.Name == name {
			boot = m.Status.NodeInfo.BootID
		}
	}
	return name, boot, err
}

// restart restarts a node's machine, as one does in the portal: nothing is drained.
func (s *Stage) restart(ctx context.Context, l *Life) error {
	name, boot, err := l.busiest(ctx)
	if err != nil {
		return err
	}
	machine, err := l.machineOf(ctx, name)
	if err != nil {
		return err
	}
	return errors.Join(s.Post(ctx, machine+"/restart", computeVersion), l.rebooted(ctx, name, boot))
}

// upgrade makes the whole cluster the next release.
func (s *Stage) upgrade(ctx context.Context, l *Life) error {
	profile, err := client.Get[struct {
		Properties struct {
			ControlPlaneProfile struct {
				Upgrades []struct{ KubernetesVersion string }
			}
		}
	}](ctx, s.Client, l.ID+"/upgradeProfiles/default", clusterVersion)
	if err != nil {
		return fmt.Errorf("upgrades of %s: %w", l.Name, err)
	}
	all := profile.Properties.ControlPlaneProfile.Upgrades
	if len(all) == 0 {
		return errors.New("there is no newer Kubernetes on this machine to upgrade to: `bastide bundle build` makes the releases")
	}
	return s.become(ctx, l, all[len(all)-1].KubernetesVersion)
}

// become asks for a release of the control plane and of the nodes.
func (s *Stage) become(ctx context.Context, l *Life, version string) error {
	if err := s.Set(ctx, l.Cluster, "kubernetesVersion", version); err != nil {
		return err
	}
	_, err := s.Put(ctx, l.ID+"/agentPools/nodes", clusterVersion, object{"properties": l.pool(object{"orchestratorVersion": version})})
	return err
}

// pool is the body of the cluster's pool, with something changed.
func (l *Life) pool(change object) object {
	properties := merged(l.body["properties"].(object)["agentPoolProfiles"].([]any)[0].(object), change)
	delete(properties, "name")
	return properties
}

// replace has a node deleted, and another made in its place.
func (s *Stage) replace(ctx context.Context, l *Life) error {
	name, _, err := l.busiest(ctx)
	if err != nil {
		return err
	}
	id, body := l.ID+"/agentPools/nodes", object{"machineNames": []any{name}}
	began := time.Now()
	_, err = client.Post[object](ctx, s.Client, id+"/deleteMachines", clusterVersion, body)
	s.did("POST", id+"/deleteMachines?api-version="+clusterVersion, body, began, err)
	if err != nil {
		return fmt.Errorf("delete node %s: %w", name, err)
	}
	if _, err := s.Put(ctx, id, clusterVersion, object{"properties": l.pool(nil)}); err != nil {
		return err
	}
	return l.whole(ctx)
}
