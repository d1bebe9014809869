// SPDX-License-Identifier: Apache-2.0

//go:build bench

package bench

import (
	"fmt"
	"net/http"
	"net/netip"
	"time"
)

// The crowd: so many policies, and so many pods' addresses in their sets.
const crowd = 1_000

// benchPolicies shuts a pod out by a policy and lets it in by another, with
// these policies alone, and in a crowd.
func (s *scene) benchPolicies() error {
	only := map[string]any{"matchLabels": map[string]any{"app": "far"}}
	deny := policy("deny", only, []string{"Ingress"}, nil, nil)
	allow := policy("allow", only, []string{"Ingress"}, []any{map[string]any{
		"from":  []any{map[string]any{"podSelector": map[string]any{"matchLabels": map[string]any{"app": "near"}}}},
		"ports": []any{map[string]any{"protocol": "TCP", "port": webPort}}}}, nil)
	if err := s.policyTurns("", deny, false); err != nil {
		return err
	}
	if err := s.post(policiesPath, deny); err != nil {
		return err
	}
	if err := s.policyTurns("", allow, true); err != nil {
		return err
	}
	begin := time.Now()
	if err := s.crowd(); err != nil {
		return err
	}
	say("%d policies and pods: made in %.1f s", crowd, time.Since(begin).Seconds())
	time.Sleep(2 * time.Second) // the agents have them, and the controllers come to rest
	return s.policyTurns(" among 1,000 with 1,000 pods", allow, true)
}

// policyTurns creates a policy and deletes it, again and again; while it is
// there the pod is let in, or not.
func (s *scene) policyTurns(among string, object map[string]any, allows bool) error {
	name := object["metadata"].(map[string]any)["name"].(string)
	ip, err := netip.ParseAddr(s.far.ip)
	if err != nil {
		return err
	}
	var created, deleted []turn
	for range turns {
		for _, there := range []bool{true, false} {
			t, err := watch(s.near.namespace, netip.AddrPortFrom(ip, webPort), there == allows, false, func() error {
				if there {
					return s.post(policiesPath, object)
				}
				return s.delete(policiesPath + "/" + name)
			})
			if err != nil {
				return err
			}
			if there {
				created = append(created, t)
			} else {
				deleted = append(deleted, t)
			}
		}
	}
	what := map[bool]string{true: "that allows", false: "that denies"}[allows]
	s.addTurns("NetworkPolicy "+what+among+", created to enforced, p95", 150, "", created)
	s.addTurns("NetworkPolicy "+what+among+", deleted to no longer enforced, p95", 150, "", deleted)
	return nil
}

// crowd makes a thousand pods, which nobody runs but which have addresses, and a
// thousand policies that let them in.
func (s *scene) crowd() error {
	if err := s.post("/api/v1/namespaces", map[string]any{"metadata": map[string]any{"name": "crowd"}}); err != nil {
		return err
	}
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) { // pods need it
		_, err := s.kube.send(http.MethodGet, "/api/v1/namespaces/crowd/serviceaccounts/default", nil)
		if err == nil {
			break
		}
		if time.Since(begin) > 10*time.Second {
			return err
		}
	}
	err := parallel(crowd, func(i int) error {
		const path = "/api/v1/namespaces/crowd/pods"
		name := fmt.Sprintf("p%d", i)
		err := s.post(path, map[string]any{"metadata": map[string]any{"name": name, "labels": map[string]any{"group": fmt.Sprint(i % 100)}},
			"spec": map[string]any{"schedulerName": "nobody", "automountServiceAccountToken": false,
				"containers": []any{map[string]any{"name": "c", "image": webImage}}}})
		if err != nil {
			return err
		}
		ip := fmt.Sprintf("10.245.%d.%d", i/250, 1+i%250)
		_, err = s.kube.send(http.MethodPatch, path+"/"+name+"/status", map[string]any{"status": map[string]any{
			"phase": "Running", "podIP": ip, "podIPs": []any{map[string]any{"ip": ip}}}})
		return err
	})
	if err != nil {
		return err
	}
	return parallel(crowd, func(i int) error {
		pods := map[string]any{"matchLabels": map[string]any{"group": fmt.Sprint(i % 100)}}
		if i%10 == 0 {
			pods = map[string]any{}
		}
		peer := map[string]any{"namespaceSelector": map[string]any{"matchLabels": map[string]any{"kubernetes.io/metadata.name": "crowd"}}, "podSelector": pods}
		return s.post(policiesPath, policy(fmt.Sprintf("crowd%d", i), map[string]any{}, []string{"Ingress"}, []any{map[string]any{
			"from": []any{peer}, "ports": []any{map[string]any{"protocol": "TCP", "port": 20_000 + i}}}}, nil))
	})
}
