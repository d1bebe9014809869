// SPDX-License-Identifier: Apache-2.0

package testcloud_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// workload runs the echo program in n pods of an app, on as many nodes as there are.
func (k *kube) workload(t testing.TB, app string, n int32, ports ...string) {
	t.Helper()
	labels := map[string]string{"app": app}
	if _, err := k.client.AppsV1().Deployments("default").Create(t.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: app},
		Spec: appsv1.DeploymentSpec{
			Replicas: &n, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{
				TerminationGracePeriodSeconds: to.Ptr[int64](0),
				TopologySpreadConstraints: []corev1.TopologySpreadConstraint{{MaxSkew: 1, TopologyKey: "kubernetes.io/hostname",
					WhenUnsatisfiable: corev1.DoNotSchedule, LabelSelector: &metav1.LabelSelector{MatchLabels: labels}}},
				Containers: []corev1.Container{{Name: "echo", Image: k.Env["BASTIDE_REGISTRY"] + "/echo:1",
					Env: []corev1.EnvVar{{Name: "PORTS", Value: strings.Join(append([]string{"8080"}, ports...), ",")},
						{Name: "NODE", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "spec.nodeName"}}}},
					ReadinessProbe: &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/health", Port: intstr.FromInt32(8080)}}}}},
			}},
		},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	k.rolledOut(t, app)
}

// rolledOut waits for an app's pods; when they don't come it tells what is known of them.
func (k *kube) rolledOut(t testing.TB, app string) {
	t.Helper()
	if _, stderr, err := k.Try(t.Context(), "kubectl", "--kubeconfig", k.config, "rollout", "status", "deployment/"+app, "--timeout=60s"); err != nil {
		t.Fatalf("%s: %v %s\n%s\n%s", app, err, stderr, k.kubectl(t, "get", "pods,nodes", "-A", "-o", "wide"), k.kubectl(t, "get", "events", "-A"))
	}
}

// pods are an app's running ones.
func (k *kube) pods(t testing.TB, app string) []corev1.Pod {
	t.Helper()
	list, err := k.client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{LabelSelector: "app=" + app})
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil })
}

// service is a Service of type LoadBalancer, and what was made of it.
type service struct {
	*kube
	name string
	id   string // what its rules' names begin with
}

const azureAnnotation = "service.beta.kubernetes.io/azure-"

// service makes one of port 80 over the pods of app echo; annotations are key=value.
func (k *kube) service(t testing.TB, name string, edit func(*corev1.Service), annotations ...string) *service {
	t.Helper()
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Selector: map[string]string{"app": "echo"},
			Ports: []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromInt32(8080)}}},
	}
	annotate(s, annotations...)
	if edit != nil {
		edit(s)
	}
	made, err := k.client.CoreV1().Services("default").Create(t.Context(), s, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return &service{k, name, ("a" + strings.ReplaceAll(string(made.UID), "-", ""))[:32]}
}

func annotate(s *corev1.Service, annotations ...string) {
	if s.Annotations == nil {
		s.Annotations = map[string]string{}
	}
	for _, a := range annotations {
		key, value, _ := strings.Cut(a, "=")
		if !strings.Contains(key, "/") {
			key = azureAnnotation + key
		}
		s.Annotations[key] = value
	}
}

// change edits it until that meets no conflict.
func (s *service) change(t testing.TB, edit func(*corev1.Service)) {
	t.Helper()
	services := s.client.CoreV1().Services("default")
	soon(t, func() error {
		have, err := services.Get(t.Context(), s.name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		edit(have)
		_, err = services.Update(t.Context(), have, metav1.UpdateOptions{})
		return err
	})
}

// address waits for the Service's first address that ok likes.
func (s *service) addressLike(t testing.TB, ok func(string) bool) (address string) {
	t.Helper()
	soonWithin(t, patienceOfServices, func() error {
		have, err := s.client.CoreV1().Services("default").Get(t.Context(), s.name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		ingress := have.Status.LoadBalancer.Ingress
		if len(ingress) == 0 || !ok(ingress[0].IP) {
			return fmt.Errorf("service %s has %v; %s", s.name, ingress, s.events(t.Context()))
		}
		address = ingress[0].IP
		return nil
	})
	return address
}

func (s *service) address(t testing.TB) string {
	t.Helper()
	return s.addressLike(t, func(string) bool { return true })
}

// events are what was said of the Service, in one text.
func (s *service) events(ctx context.Context) string {
	list, err := s.client.CoreV1().Events("default").List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.kind=Service,involvedObject.name=" + s.name})
	if err != nil {
		return err.Error()
	}
	var text strings.Builder
	for _, e := range list.Items {
		fmt.Fprintf(&text, "%s %s: %s\n", e.Type, e.Reason, e.Message)
	}
	return text.String()
}

// delete waits until Kubernetes has forgotten it: the cloud controller is done then.
func (s *service) delete(t testing.TB) {
	t.Helper()
	if err := s.client.CoreV1().Services("default").Delete(t.Context(), s.name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	soonWithin(t, patienceOfServices, func() error {
		if _, err := s.client.CoreV1().Services("default").Get(t.Context(), s.name, metav1.GetOptions{}); err == nil {
			return fmt.Errorf("service %s isn't gone; %s", s.name, s.events(t.Context()))
		}
		return nil
	})
}

// made is what a Service has in a load balancer and in the cluster's security group.
type made struct {
	fronts []*armnetwork.FrontendIPConfiguration
	rules  []*armnetwork.LoadBalancingRule
	probes []*armnetwork.Probe
}

// in reads it of the load balancer `kubernetes` or `kubernetes-internal`.
func (s *service) in(t testing.TB, balancer string) (m made) {
	t.Helper()
	lb, err := s.network.NewLoadBalancersClient().Get(t.Context(), s.group, balancer, nil)
	if err != nil {
		if strings.Contains(err.Error(), "ResourceNotFound") {
			return m
		}
		t.Fatal(err)
	}
	mine := func(name *string) bool { return strings.HasPrefix(*name, s.id) }
	for _, f := range lb.Properties.FrontendIPConfigurations {
		if mine(f.Name) {
			m.fronts = append(m.fronts, f)
		}
	}
	for _, r := range lb.Properties.LoadBalancingRules {
		if mine(r.Name) {
			m.rules = append(m.rules, r)
		}
	}
	for _, p := range lb.Properties.Probes {
		if mine(p.Name) {
			m.probes = append(m.probes, p)
		}
	}
	return m
}

// one is its only rule and probe.
func (s *service) one(t testing.TB, balancer string) (*armnetwork.LoadBalancingRulePropertiesFormat, *armnetwork.ProbePropertiesFormat) {
	t.Helper()
	m := s.in(t, balancer)
	if len(m.rules) != 1 || len(m.probes) != 1 || len(m.fronts) != 1 {
		t.Fatalf("%s: %d front ends, %d rules, %d probes", s.name, len(m.fronts), len(m.rules), len(m.probes))
	}
	return m.rules[0].Properties, m.probes[0].Properties
}

// securityGroup is the cluster's.
func (k *kube) securityGroup(t testing.TB) *armnetwork.SecurityGroup {
	t.Helper()
	pager := k.network.NewSecurityGroupsClient().NewListPager(k.group, nil)
	page, err := pager.NextPage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(page.Value) != 1 {
		t.Fatalf("%d security groups in %s", len(page.Value), k.group)
	}
	return page.Value[0]
}

// rulesTo are the security rules that name an address, as "priority access protocol sources ports".
func (k *kube) rulesTo(t testing.TB, address string) (found []string) {
	t.Helper()
	for _, r := range k.securityGroup(t).Properties.SecurityRules {
		p := r.Properties
		to := append(texts(p.DestinationAddressPrefixes), text(p.DestinationAddressPrefix))
		if !slices.Contains(to, address) && !slices.Contains(to, address+"/32") {
			continue
		}
		from := slices.DeleteFunc(append(texts(p.SourceAddressPrefixes), text(p.SourceAddressPrefix)), func(s string) bool { return s == "" })
		ports := slices.DeleteFunc(append(texts(p.DestinationPortRanges), text(p.DestinationPortRange)), func(s string) bool { return s == "" })
		slices.Sort(from)
		found = append(found, fmt.Sprintf("%s %s %s %s", *p.Access, *p.Protocol, strings.Join(from, ","), strings.Join(ports, ",")))
	}
	slices.Sort(found)
	return found
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func texts(list []*string) (all []string) {
	for _, s := range list {
		all = append(all, text(s))
	}
	return all
}

// publicIPs are the names of a group's public addresses.
func (r *rig) publicIPs(t testing.TB, group string) (names []string) {
	t.Helper()
	for pager := r.network.NewPublicIPAddressesClient().NewListPager(group, nil); pager.More(); {
		page, err := pager.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, ip := range page.Value {
			names = append(names, *ip.Name)
		}
	}
	return names
}

// taken tells whether a public address is somebody's in the node resource group.
func (s *service) taken(t testing.TB, address string) bool {
	t.Helper()
	pager := s.network.NewPublicIPAddressesClient().NewListPager(s.group, nil)
	for pager.More() {
		page, err := pager.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, ip := range page.Value {
			if ip.Properties.IPAddress != nil && *ip.Properties.IPAddress == address {
				return true
			}
		}
	}
	return false
}

// publicIP makes a static public address, and returns it.
func (r *rig) publicIP(t testing.TB, group, name string) string {
	t.Helper()
	var view struct{ Properties struct{ IPAddress string } }
	body := props(object{"publicIPAllocationMethod": "Static", "publicIPAddressVersion": "IPv4"})
	body["sku"] = object{"name": "Standard"}
	r.put(t, r.id(group, "Microsoft.Network/publicIPAddresses/"+name), networkVersion, body, &view)
	return view.Properties.IPAddress
}

// gone checks that nothing of a deleted Service is left.
func (s *service) gone(t testing.TB, address string) {
	t.Helper()
	for _, lb := range []string{"kubernetes", "kubernetes-internal"} {
		if m := s.in(t, lb); len(m.fronts)+len(m.rules)+len(m.probes) > 0 {
			t.Errorf("left in %s: %d front ends, %d rules, %d probes", lb, len(m.fronts), len(m.rules), len(m.probes))
		}
	}
	// A public address that became free may be another Service's by now, with its rules.
	if rules := s.rulesTo(t, address); len(rules) > 0 && !s.taken(t, address) {
		t.Errorf("left in the security group: %v", rules)
	}
	if slices.Contains(s.publicIPs(t, s.group), "kubernetes-"+s.id) {
		t.Error("its public address is still there")
	}
}

func nodePort(s *corev1.Service) string { return strconv.Itoa(int(s.Spec.Ports[0].NodePort)) }
