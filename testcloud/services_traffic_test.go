// SPDX-License-Identifier: Apache-2.0

package testcloud_test

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func port(n int32) intstr.IntOrString { return intstr.FromInt32(n) }

func healthProbes(t *testing.T, k *kube, _ *vm) {
	s := k.service(t, "probes", nil)
	address := s.address(t)
	k.here.reaches(t, address+":80")
	s.change(t, func(s *corev1.Service) {
		annotate(s, "load-balancer-health-probe-protocol=http", "load-balancer-health-probe-request-path=/nothing-here",
			"load-balancer-health-probe-interval=5", "load-balancer-health-probe-num-of-probe=2")
	})
	// Its path answers 404 everywhere, so no node is left.
	k.here.refused(t, address+":80")
	_, probe := s.one(t, "kubernetes")
	if *probe.Protocol != armnetwork.ProbeProtocolHTTP || *probe.RequestPath != "/nothing-here" || *probe.IntervalInSeconds != 5 || *probe.ProbeThreshold != 2 {
		t.Errorf("probe %v", string(must(probe.MarshalJSON())))
	}
	s.change(t, func(s *corev1.Service) {
		annotate(s, "load-balancer-health-probe-request-path=/health", "service.beta.kubernetes.io/port_80_health-probe_interval=6")
	})
	k.here.reaches(t, address+":80")
	_, probe = s.one(t, "kubernetes")
	if *probe.RequestPath != "/health" || *probe.IntervalInSeconds != 6 {
		t.Errorf("probe %v", string(must(probe.MarshalJSON())))
	}
	s.change(t, func(s *corev1.Service) { annotate(s, "service.beta.kubernetes.io/port_80_health-probe_port=8080") })
	soonWithin(t, patienceOfServices, func() error {
		have, err := k.client.CoreV1().Services("default").Get(t.Context(), s.name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		_, probe := s.one(t, "kubernetes")
		if want := nodePort(have); strconv.Itoa(int(*probe.Port)) != want && *probe.Port != 8080 {
			return fmt.Errorf("the probe's port is %d, the node port %s", *probe.Port, want)
		}
		return nil
	})
}

func timeouts(t *testing.T, k *kube, _ *vm) {
	s := k.service(t, "idle", nil, "load-balancer-tcp-idle-timeout=7", "load-balancer-disable-tcp-reset=true")
	plain := k.service(t, "idle-plain", nil)
	for service, bounds := range map[*service][2]int{s: {5 * 60, 7 * 60}, plain: {2 * 60, 4 * 60}} {
		address := service.address(t)
		k.here.reaches(t, address+":80")
		conn, err := k.here.dial(t.Context(), "tcp4", address+":80")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if got := k.lives(t, k.here.address, address); got <= bounds[0] || got > bounds[1] {
			t.Errorf("%s: the kernel gives a silent connection %d s", service.name, got)
		}
	}
	rule, _ := s.one(t, "kubernetes")
	if *rule.IdleTimeoutInMinutes != 7 || *rule.EnableTCPReset {
		t.Errorf("idle %d, reset %v", *rule.IdleTimeoutInMinutes, *rule.EnableTCPReset)
	}
	rule, _ = plain.one(t, "kubernetes")
	if *rule.IdleTimeoutInMinutes != 4 || !*rule.EnableTCPReset {
		t.Errorf("as AKS has it: idle %d, reset %v", *rule.IdleTimeoutInMinutes, *rule.EnableTCPReset)
	}
}

func noFloating(t *testing.T, k *kube, _ *vm) {
	s := k.service(t, "sunk", nil, "disable-load-balancer-floating-ip=true")
	address := s.address(t)
	k.here.reaches(t, address+":80")
	have, err := k.client.CoreV1().Services("default").Get(t.Context(), s.name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	rule, _ := s.one(t, "kubernetes")
	if *rule.EnableFloatingIP || strconv.Itoa(int(*rule.BackendPort)) != nodePort(have) {
		t.Errorf("floating %v, back-end port %d, node port %s", *rule.EnableFloatingIP, *rule.BackendPort, nodePort(have))
	}
}

func allPorts(t *testing.T, k *kube, jump *vm) {
	s := k.service(t, "all", func(s *corev1.Service) {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: "other", Port: 8443})
	}, "load-balancer-internal=true", "load-balancer-enable-high-availability-ports=true")
	address := s.address(t)
	jump.reaches(t, address+":80")
	jump.reaches(t, address+":8443")
	m := s.in(t, "kubernetes-internal")
	if len(m.rules) != 1 || *m.rules[0].Properties.Protocol != armnetwork.TransportProtocolAll || *m.rules[0].Properties.FrontendPort != 0 {
		t.Errorf("%d rules", len(m.rules))
	}
}

// localTraffic: the pod sees the client's own address, and only nodes with pods get any.
func localTraffic(t *testing.T, k *kube, _ *vm) {
	k.workload(t, "single", 1)
	s := k.service(t, "local", func(s *corev1.Service) {
		s.Spec.Selector = map[string]string{"app": "single"}
		s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	})
	address := s.address(t)
	a := k.here.reaches(t, address+":80")
	if a.from() != k.here.address {
		t.Errorf("the pod saw %s, the client is %s", a.Client, k.here.address)
	}
	have, err := k.client.CoreV1().Services("default").Get(t.Context(), s.name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, probe := s.one(t, "kubernetes")
	if *probe.Port != have.Spec.HealthCheckNodePort || *probe.Protocol != armnetwork.ProbeProtocolHTTP {
		t.Errorf("probe of port %d, health check node port %d", *probe.Port, have.Spec.HealthCheckNodePort)
	}
	if err := steady(t, k.here.space, address+":80", 20); err != nil {
		t.Error(err)
	}
	// The pod moves to the other node.
	if _, err := k.client.CoreV1().Nodes().Patch(t.Context(), a.Node, types.StrategicMergePatchType, []byte(`{"spec":{"unschedulable":true}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := k.client.CoreV1().Pods("default").Delete(t.Context(), k.pods(t, "single")[0].Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	k.rolledOut(t, "single")
	soon(t, func() error { return steady(t, k.here.space, address+":80", 20) })
	if b := k.here.reaches(t, address+":80"); b.Node == a.Node || b.from() != k.here.address {
		t.Errorf("moved from %s: %+v", a.Node, b)
	}
	if _, err := k.client.CoreV1().Nodes().Patch(t.Context(), a.Node, types.StrategicMergePatchType, []byte(`{"spec":{"unschedulable":false}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}

// steady is that n connections one after another are all answered.
func steady(t *testing.T, from space, address string, n int) error {
	for i := range n {
		if _, err := from.ask(t.Context(), address); err != nil {
			return fmt.Errorf("connection %d of %d: %w", i+1, n, err)
		}
	}
	return nil
}

func affinity(t *testing.T, k *kube, _ *vm) {
	s := k.service(t, "sticky", func(s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP })
	address := s.address(t)
	first := k.here.reaches(t, address+":80")
	for range 15 {
		if a := k.here.reaches(t, address+":80"); a.Pod != first.Pod {
			t.Fatalf("the same client is at %s, then at %s", first.Pod, a.Pod)
		}
	}
	rule, _ := s.one(t, "kubernetes")
	if *rule.LoadDistribution != armnetwork.LoadDistributionSourceIP {
		t.Errorf("distribution %s", *rule.LoadDistribution)
	}
}
