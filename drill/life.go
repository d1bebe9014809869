// SPDX-License-Identifier: Apache-2.0

package drill

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"bastide.dev/client"
	"bastide.dev/drill/linux"
	"bastide.dev/stream"
)

// life is the turn, the namespace and the name of what drills of lifecycle share.
const life = "life"

const (
	// requestsPerSecond are those of each kind of user.
	requestsPerSecond = 20
	// userPatience is how long a user waits for an answer.
	userPatience = 5 * time.Second
	// lifePatience is how long a node, or what runs on it, may take to be back.
	lifePatience = 5 * time.Minute
)

// Life is a cluster that is upgraded, patched and rotated while people use it:
// two nodes of an image without security updates, and a web app of two pods that
// has customers. Its API is used by a service account, with what it knew on the
// first day.
type Life struct {
	*Cluster
	app       string // the app's public address with its port
	customers *Terminal
	token     string // the service account's
}

// Living is the lab's cluster for drills of lifecycle.
func (s *Stage) Living(ctx context.Context) (*Life, error) {
	l, err := s.living.get(func() (*Life, error) { return s.makeLife(ctx) })
	if err != nil {
		return nil, err
	}
	return l, l.whole(ctx) // however the drill before ended
}

func (s *Stage) makeLife(ctx context.Context) (*Life, error) {
	image, err := s.Unpatched(ctx)
	if err != nil {
		return nil, fmt.Errorf("a node image without updates: %w", err)
	}
	if err := s.base(ctx); err != nil {
		return nil, err
	}
	l := &Life{}
	if l.customers, err = s.Terminal(ctx, "customers"); err != nil {
		return nil, err
	}
	l.Cluster, err = s.makeCluster(ctx, life, 2, s.subnet(life), object{
		"networkProfile":    merged(labNetwork(), object{"podCidr": "10.247.0.0/16"}),
		"oidcIssuerProfile": object{"enabled": true},
		"agentPoolProfiles": []any{object{"name": "nodes", "mode": "System", "count": 2, "vmSize": "Standard_D2s_v5", "vnetSubnetID": s.subnet(life),
			"tags": object{"bastide-node-image": image}, "upgradeSettings": object{"maxSurge": "1"}}}})
	if err != nil {
		return nil, err
	}
	if err := l.meet(ctx); err != nil {
		return nil, err
	}
	return l, errors.Join(s.open(ctx, l), l.remember(ctx))
}

// open starts the app.
func (s *Stage) open(ctx context.Context, l *Life) error {
	manifest, err := jsonText(object{"apiVersion": "v1", "kind": "List", "items": l.manifest()})
	if err != nil {
		return err
	}
	if _, err := l.Kubectl(ctx, manifest, "apply", "-f", "-"); err != nil {
		return err
	}
	address, err := l.Ingress(ctx, life, "web", netip.Addr{})
	if err != nil {
		return err
	}
	l.app = onPort(address, "80")
	return l.until(ctx, "the app answers", l.visit)
}

// manifest is the app as its documentation would have it: pods apart from each
// other, a budget, and a pause between the end of its endpoint and its own.
func (l *Life) manifest() []any {
	meta := object{"name": "web", "namespace": life}
	labels := object{"app": "web"}
	pod := object{"terminationGracePeriodSeconds": 10,
		"topologySpreadConstraints": []any{object{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": object{"matchLabels": labels}}},
		"containers": []any{object{"name": "web", "image": l.web, "ports": []any{object{"containerPort": webPort}},
			"lifecycle":      object{"preStop": object{"sleep": object{"seconds": 3}}},
			"readinessProbe": object{"httpGet": object{"path": "/healthz", "port": webPort}, "periodSeconds": 1},
			"resources":      object{"requests": object{"cpu": "10m", "memory": "16Mi"}}}}}
	return []any{
		object{"apiVersion": "v1", "kind": "Namespace", "metadata": object{"name": life}},
		object{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": object{"replicas": 2, "selector": object{"matchLabels": labels},
			"template": object{"metadata": object{"labels": labels}, "spec": pod}}},
		object{"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": meta, "spec": object{"maxUnavailable": 1, "selector": object{"matchLabels": labels}}},
		service(life, "web", nil, nil),
		object{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": object{"name": "user", "namespace": life}},
		object{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": object{"name": "user", "namespace": life},
			"roleRef":  object{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
			"subjects": []any{object{"kind": "ServiceAccount", "name": "user", "namespace": life}}},
		object{"apiVersion": "v1", "kind": "ConfigMap", "metadata": object{"name": "notes", "namespace": life}},
		// What blocks reboots is looked at soon: a drill has no minute to lose.
		object{"apiVersion": "v1", "kind": "ConfigMap", "metadata": object{"name": "bastide-reboots", "namespace": "kube-system"}, "data": object{"period": "2s"}},
	}
}

// remember gets what the service account has on its first day.
func (l *Life) remember(ctx context.Context) (err error) {
	if l.roots, err = l.authority(ctx); err != nil {
		return err
	}
	l.token, err = l.newToken(ctx)
	return err
}

func (l *Life) newToken(ctx context.Context) (string, error) {
	out, err := l.Kubectl(ctx, "", "create", "token", "user", "--namespace", life, "--duration=2h")
	return strings.TrimSpace(out), err
}

// visit is a customer's look at the app.
func (l *Life) visit(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, userPatience)
	defer cancel()
	conn, err := linux.Dial(ctx, l.customers.path, l.app)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	body, err := askPage(ctx, conn)
	if err != nil {
		return err
	}
	if r := page(body); !r.Worked {
		return errors.New(r.Got)
	}
	return nil
}

// use is a request of the API by turns: a look at an object, a change of it.
func (l *Life) use(session *client.Session, token string) func(ctx context.Context) error {
	const notes = "/api/v1/namespaces/" + life + "/configmaps/notes"
	var turn atomic.Int64
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, userPatience)
		defer cancel()
		e := client.Exchange{Method: "GET", Address: "https://" + l.FQDN + notes, Bearer: token}
		if n := turn.Add(1); n%2 == 1 {
			e.Method, e.ContentType = "PATCH", "application/merge-patch+json"
			e.Body = fmt.Appendf(nil, `{"data":{"turn":"%d"}}`, n)
		}
		answer, err := session.Do(ctx, e)
		if err == nil && answer.Status != 200 {
			err = fmt.Errorf("%s: %s", e.Method, answered(answer).Got)
		}
		return err
	}
}

// unnoticed does something while people use the app and the API, and fails when
// they noticed. What they saw is evidence.
func (s *Stage) unnoticed(ctx context.Context, l *Life, what string, certificate *tls.Certificate, do func(ctx context.Context) error) error {
	app, api, err := s.attended(ctx, l, certificate, do)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	s.note(fmt.Sprintf("During %s, users of the app: %s.", what, app))
	s.note(fmt.Sprintf("During %s, users of the API: %s.", what, api))
	for who, tally := range map[string]stream.Tally{"the app": app, "the API": api} {
		if tally.Failed > 0 || tally.Sent == 0 {
			err = errors.Join(err, fmt.Errorf("%s was noticed by users of %s: %s", what, who, tally))
		}
	}
	return err
}

// attended does something while people use the app and the API, and returns how
// they fared. The API's users show their token, or the certificate when there is one.
func (s *Stage) attended(ctx context.Context, l *Life, certificate *tls.Certificate, do func(ctx context.Context) error) (app, api stream.Tally, err error) {
	session, err := s.Instance.Session(l.roots, certificate)
	if err != nil {
		return app, api, err
	}
	defer session.Close()
	token := l.token
	if certificate != nil {
		token = ""
	}
	customers, users := stream.Begin(ctx, requestsPerSecond, l.visit), stream.Begin(ctx, requestsPerSecond, l.use(session, token))
	err = do(ctx)
	return customers.End(), users.End(), err
}

// member is a node as the cluster shows it.
type member struct {
	Metadata struct{ Name string }
	Spec     struct{ Unschedulable bool }
	Status   struct {
		NodeInfo   struct{ BootID, KubeletVersion string }
		Conditions []struct{ Type, Status string }
	}
}

func (m *member) ready() bool {
	return !m.Spec.Unschedulable && slices.ContainsFunc(m.Status.Conditions, func(c struct{ Type, Status string }) bool { return c.Type == "Ready" && c.Status == "True" })
}

func (l *Life) members(ctx context.Context) ([]member, error) {
	var list struct{ Items []member }
	err := l.get(ctx, &list, "nodes")
	return list.Items, err
}

// whole waits until both nodes take pods and the app has both of its own, apart
// from each other if that is possible.
func (l *Life) whole(ctx context.Context) error {
	return l.until(ctx, "nodes and app are whole", func(ctx context.Context) error {
		members, err := l.members(ctx)
		if err != nil {
			return err
		}
		for _, m := range members {
			if !m.ready() {
				return fmt.Errorf("node %s isn't ready", m.Metadata.Name)
			}
		}
		out, err := l.Kubectl(ctx, "", "get", "deployment", "--namespace", life, "web", "-o", "jsonpath={.status.availableReplicas} {.status.replicas}")
		if err == nil && (len(members) != 2 || out != "2 2") {
			err = fmt.Errorf("%d nodes, pods of the app (ready, all): %s", len(members), out)
		}
		return err
	})
}

// until asks again and again until there is no error.
func (l *Life) until(ctx context.Context, what string, ask func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, lifePatience)
	defer cancel()
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w", what, err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// rebooted waits until a node is back that was started before as boot.
func (l *Life) rebooted(ctx context.Context, name, boot string) error {
	return l.until(ctx, "node "+name+" is back", func(ctx context.Context) error {
		members, err := l.members(ctx)
		if err != nil {
			return err
		}
		for _, m := range members {
			if m.Metadata.Name == name && m.Status.NodeInfo.BootID != boot && m.ready() {
				return nil
			}
		}
		return errors.New("it isn't yet")
	})
}

// machineOf is the ID of a node's machine in its scale set.
func (l *Life) machineOf(ctx context.Context, node string) (string, error) {
	sets, err := client.List[struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	}](ctx, l.lab.Client, l.Resources+"/providers/Microsoft.Compute/virtualMachineScaleSets", computeVersion)
	if err != nil {
		return "", fmt.Errorf("scale sets of %s: %w", l.Name, err)
	}
	for _, set := range sets {
		if number, found := strings.CutPrefix(node, set.Name); found { // as Azure names them: the instance in base 36
			n, err := strconv.ParseInt(number, 36, 64)
			if err != nil {
				return "", fmt.Errorf("node %s: %w", node, err)
			}
			return set.ID + "/virtualMachines/" + strconv.FormatInt(n, 10), nil
		}
	}
	return "", fmt.Errorf("node %s is in no scale set", node)
}

// Post asks for an action, on record.
func (s *Stage) Post(ctx context.Context, id, version string) error {
	began := time.Now()
	_, err := client.Post[object](ctx, s.Client, id, version, object{})
	s.did("POST", id+"?api-version="+version, nil, began, err)
	if err != nil {
		return fmt.Errorf("POST %s: %w", short(id), err)
	}
	return nil
}
