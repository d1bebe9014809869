// SPDX-License-Identifier: Apache-2.0

package testcloud_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"bastide.dev/network"
	"bastide.dev/resource"
)

const groupOfRules = "/providers/Microsoft.Network/networkSecurityGroups/rules"

// ruleChurn makes, changes and removes the rules of one security group, and
// remembers what was acknowledged.
type ruleChurn struct {
	*stubborn
	want map[string]int // port by rule
}

func (r *ruleChurn) run(ctx context.Context, calm *atomic.Bool) error {
	r.want = map[string]int{}
	if err := r.change(ctx, http.MethodPut, groupOfRules, object{"location": "eastus"}); err != nil {
		return err
	}
	for n := 0; !calm.Load(); n++ {
		name := fmt.Sprintf("r%d", n%7)
		if n%3 == 2 {
			if err := r.change(ctx, http.MethodDelete, groupOfRules+"/securityRules/"+name, nil); err != nil {
				return err
			}
			delete(r.want, name)
			continue
		}
		rule := object{"priority": 100 + n%7, "direction": "Inbound", "access": "Allow", "protocol": "Tcp", "sourceAddressPrefix": "*",
			"sourcePortRange": "*", "destinationAddressPrefix": "*", "destinationPortRange": fmt.Sprint(1000 + n)}
		if err := r.change(ctx, http.MethodPut, groupOfRules+"/securityRules/"+name, object{"properties": rule}); err != nil {
			return err
		}
		r.want[name] = 1000 + n
	}
	return nil
}

func (r *ruleChurn) check(ctx context.Context, t *testing.T) {
	a, err := r.send(ctx, http.MethodGet, r.address(groupOfRules), nil)
	if err != nil {
		t.Fatal(err)
	}
	var group struct {
		Properties struct {
			SecurityRules []struct {
				Name       string
				Properties struct{ DestinationPortRange string }
			}
		}
	}
	if err := json.Unmarshal(a.body, &group); err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for _, rule := range group.Properties.SecurityRules {
		port, err := strconv.Atoi(rule.Properties.DestinationPortRange)
		if err != nil {
			t.Error(err)
		}
		got[rule.Name] = port
	}
	if len(r.want) == 0 || !maps.Equal(got, r.want) {
		t.Errorf("rules %v, acknowledged %v", got, r.want)
	}
}

const exposed = `{"apiVersion":"v1","kind":"Service","metadata":{"name":"web","namespace":"default"},
	"spec":{"type":"LoadBalancer","selector":{"app":"web"},"ports":[{"port":80}]}}`

// expose gives a cluster a Service with a public address, however often the
// API server goes away.
func (s *stubborn) expose(ctx context.Context, cluster string) error {
	dir, err := os.MkdirTemp(s.dir, cluster)
	if err != nil {
		return err
	}
	manifest := filepath.Join(dir, "web.json")
	if err := os.WriteFile(manifest, []byte(exposed), 0o600); err != nil {
		return err
	}
	var last error
	for ctx.Err() == nil {
		kubectl, err := s.administrator(ctx, filepath.Join(dir, "config"), cluster)
		if err == nil {
			_, err = kubectl(ctx, "apply", "--request-timeout=10s", "-f", manifest)
		}
		if err == nil {
			return nil
		}
		last = err
		pause(ctx, 200*time.Millisecond)
	}
	return fmt.Errorf("a Service in %s: %w", cluster, last)
}

// served fails the test unless the cluster's Service has its address, and the
// load balancer a rule for it.
func (s *stubborn) served(t *testing.T, cluster string) {
	t.Helper()
	kubectl := s.kubectl(t, cluster)
	retry(t, func() error {
		address, err := kubectl("get", "service", "web", "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}")
		if err != nil || !strings.HasPrefix(address, "198.18.65.") {
			return fmt.Errorf("address %q: %w", address, err)
		}
		uid, err := kubectl("get", "service", "web", "-o", "jsonpath={.metadata.uid}")
		if err != nil {
			return err
		}
		group := "/subscriptions/" + s.sub + "/resourceGroups/MC_rg_" + cluster + "_eastus/providers/Microsoft.Network/loadBalancers/kubernetes"
		a, err := s.send(t.Context(), http.MethodGet, s.base+group+"?api-version="+networkVersion, nil)
		if err != nil {
			return err
		}
		// The cloud controller's own name: 32 characters.
		if rule := ("a" + strings.ReplaceAll(uid, "-", ""))[:32] + "-TCP-80"; !strings.Contains(string(a.body), rule) {
			return fmt.Errorf("the load balancer of %s has no rule %s", cluster, rule)
		}
		return nil
	})
}

// networks are the data plane's names of all virtual networks that ARM knows.
func (s *stubborn) networks(t *testing.T) []string {
	t.Helper()
	a, err := s.send(t.Context(), http.MethodGet, s.base+"/subscriptions/"+s.sub+"/providers/Microsoft.Network/virtualNetworks?api-version="+networkVersion, nil)
	if err != nil {
		t.Fatal(err)
	}
	var list struct{ Value []struct{ ID string } }
	if err := json.Unmarshal(a.body, &list); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, v := range list.Value {
		all = append(all, network.VNetID(must(resource.ParseID(v.ID))))
	}
	return slices.Compact(slices.Sorted(slices.Values(all)))
}
