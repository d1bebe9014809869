// SPDX-License-Identifier: Apache-2.0

package testcloud_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// ownAddresses are Services at public addresses of the user's.
func ownAddresses(t *testing.T, k *kube, _ *vm) {
	byIP, byName := k.publicIP(t, k.group, "mine-ip"), k.publicIP(t, k.group, "mine-name")
	more := k.publicIP(t, k.group, "mine-more")
	services := map[string]*service{
		byIP:   k.service(t, "own-ip", func(s *corev1.Service) { s.Spec.LoadBalancerIP = byIP }),
		byName: k.service(t, "own-name", nil, "pip-name=mine-name", "additional-public-ips="+more),
	}
	for address, s := range services {
		s.addressLike(t, func(a string) bool { return a == address })
		k.here.reaches(t, address+":80")
		if slices.Contains(k.publicIPs(t, k.group), "kubernetes-"+s.id) {
			t.Errorf("%s has an address of the controller's beside its own", s.name)
		}
	}
	if got := k.rulesTo(t, more); !slices.Equal(got, []string{"Allow Tcp Internet 80"}) {
		t.Errorf("additional address: security rules %v", got)
	}
	for address, s := range services {
		s.delete(t)
		s.gone(t, address)
	}
	if got := k.publicIPs(t, k.group); !slices.Contains(got, "mine-ip") || !slices.Contains(got, "mine-name") {
		t.Errorf("the user's addresses went with the Services; left: %v", got)
	}
}

func sourceRanges(t *testing.T, k *kube, _ *vm) {
	s := k.service(t, "ranges", func(s *corev1.Service) { s.Spec.LoadBalancerSourceRanges = []string{k.here.address + "/32"} })
	address := s.address(t)
	k.here.reaches(t, address+":80")
	k.far.refused(t, address+":80")
	if got := k.rulesTo(t, address); !slices.Equal(got, []string{"Allow Tcp " + k.here.address + "/32 80"}) {
		t.Errorf("security rules %v", got)
	}
	s.change(t, func(s *corev1.Service) {
		s.Spec.LoadBalancerSourceRanges = nil
		annotate(s, "allowed-ip-ranges="+k.far.address+"/32", "deny-all-except-load-balancer-source-ranges=true")
	})
	k.far.reaches(t, address+":80")
	k.here.refused(t, address+":80")
	got := k.rulesTo(t, address)
	if len(got) != 2 || !slices.Contains(got, "Allow Tcp "+k.far.address+"/32 80") || !strings.HasPrefix(got[1], "Deny * *") {
		t.Errorf("security rules %v", got)
	}
	s.change(t, func(s *corev1.Service) { s.Annotations = nil })
	k.here.reaches(t, address+":80")
	s.delete(t)
	s.gone(t, address)
}

func serviceTags(t *testing.T, k *kube, jump *vm) {
	outside := k.service(t, "tags", nil, "allowed-service-tags=AzureLoadBalancer")
	inside := k.service(t, "tags-inside", nil, "load-balancer-internal=true", "allowed-service-tags=VirtualNetwork")
	address := outside.address(t)
	soon(t, func() error {
		if got := k.rulesTo(t, address); !slices.Equal(got, []string{"Allow Tcp AzureLoadBalancer 80"}) {
			return fmt.Errorf("security rules %v", got)
		}
		return nil
	})
	k.here.refused(t, address+":80")
	outside.change(t, func(s *corev1.Service) { annotate(s, "allowed-service-tags=AzureLoadBalancer,Internet") })
	k.here.reaches(t, address+":80")
	jump.reaches(t, inside.address(t)+":80")
}

// unmet are Services that can't be as they say: an event says why, and nothing is half made.
func unmet(t *testing.T, k *kube, _ *vm) {
	for _, bad := range []struct {
		name, annotation, says string
		edit                   func(*corev1.Service)
	}{
		{"unmet-name", "pip-name=nowhere", "nowhere", nil},
		{"unmet-subnet", "load-balancer-internal-subnet=nowhere", "nowhere", func(s *corev1.Service) { annotate(s, "load-balancer-internal=true") }},
		{"unmet-address", "load-balancer-ipv4=10.99.0.1", "10.99.0.1", func(s *corev1.Service) { annotate(s, "load-balancer-internal=true") }},
		{"unmet-node", "load-balancer-ipv4=10.60.0.1", "10.60.0.1", func(s *corev1.Service) { annotate(s, "load-balancer-internal=true") }},
		{"unmet-label", "dns-label-name=-not-a-label-", "not-a-label", nil},
		{"unmet-group", "load-balancer-resource-group=nowhere", "nowhere", func(s *corev1.Service) { s.Spec.LoadBalancerIP = "192.88.99.77" }},
		// The cluster may do nothing with addresses there, so that it sees none.
		{"unmet-right", "load-balancer-resource-group=rg", "cannot find public ip", func(s *corev1.Service) { s.Spec.LoadBalancerIP = "192.88.99.77" }},
		{"unmet-timeout", "load-balancer-tcp-idle-timeout=3", "idle", nil},
	} {
		t.Run(bad.name, func(t *testing.T) {
			t.Parallel()
			s := k.service(t, bad.name, bad.edit, bad.annotation)
			soonWithin(t, patienceOfServices, func() error {
				events := s.events(t.Context())
				if !strings.Contains(events, "SyncLoadBalancerFailed") || !strings.Contains(strings.ToLower(events), bad.says) {
					return fmt.Errorf("no event says why: %s", events)
				}
				return nil
			})
			for _, lb := range []string{"kubernetes", "kubernetes-internal"} {
				if m := s.in(t, lb); len(m.fronts)+len(m.rules)+len(m.probes) > 0 {
					t.Errorf("half made in %s: %+v", lb, m)
				}
			}
			s.delete(t)
			s.gone(t, "none")
		})
	}
}

func protocols(t *testing.T, k *kube, jump *vm) {
	s := k.service(t, "mixed", func(s *corev1.Service) {
		s.Spec.Ports = []corev1.ServicePort{
			{Name: "dns-udp", Port: 53, Protocol: corev1.ProtocolUDP}, {Name: "dns-tcp", Port: 53, Protocol: corev1.ProtocolTCP},
			{Name: "http", Port: 80, TargetPort: port(8080)}, {Name: "https", Port: 443, TargetPort: port(8443)}}
	})
	address := s.address(t)
	for _, p := range []string{":80", ":443", ":53"} {
		k.here.reaches(t, address+p)
	}
	soon(t, func() error { _, err := k.here.askUDP(t.Context(), address+":53"); return err })
	if a, err := k.here.ask(t.Context(), address+":8080"); err == nil {
		t.Errorf("a port that isn't the Service's answers: %+v", a)
	}
	if m := s.in(t, "kubernetes"); len(m.rules) != 4 || len(m.fronts) != 1 {
		t.Errorf("%d rules, %d front ends", len(m.rules), len(m.fronts))
	}
	if got := k.rulesTo(t, address); len(got) != 2 {
		t.Errorf("security rules %v", got)
	}
	s.change(t, func(s *corev1.Service) { s.Spec.Ports = s.Spec.Ports[2:] })
	k.here.refused(t, address+":53")
	k.here.reaches(t, address+":443")
}
