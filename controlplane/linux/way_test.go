// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"bastide.dev/controlplane"
)

// TestServiceOfTheAPIServer looks at what pods find the API server by.
func TestServiceOfTheAPIServer(t *testing.T) {
	for _, version := range []string{"1.36.3", "1.35.4", "1.34.4"} {
		t.Run(version, func(t *testing.T) {
			r := newRig(t)
			spec := r.spec("a-service")
			spec.Version = version
			r.apply(spec)
			r.until(spec.ID, "ready", ready)
			admin := r.admin(spec)
			const slice = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes"
			eventually(t, "the address is told", func() bool { return leadsTo(t, admin, slice) == "[10.224.0.4]:443" })
			admin.must("DELETE", slice, nil)
			eventually(t, "it is told again", func() bool { return leadsTo(t, admin, slice) == "[10.224.0.4]:443" })
			var service struct {
				Spec struct {
					ClusterIP string
					Ports     []struct{ Port, TargetPort int }
				}
			}
			eventually(t, "the service has a port that is there", func() bool {
				code, body := admin.do("GET", "/api/v1/namespaces/default/services/kubernetes", nil)
				return code == 200 && json.Unmarshal(body, &service) == nil && service.Spec.ClusterIP == "10.0.0.1" && len(service.Spec.Ports) == 1 &&
					service.Spec.Ports[0].TargetPort == 443
			})
			eventually(t, "the older form is there, too", func() bool {
				code, body := admin.do("GET", "/api/v1/namespaces/default/endpoints/kubernetes", nil)
				return code == 200 && strings.Contains(string(body), `"ip":"10.224.0.4"`)
			})
			all := admin.must("GET", "/apis/discovery.k8s.io/v1/endpointslices?labelSelector=kubernetes.io/service-name%3Dkubernetes", nil)
			if n := strings.Count(string(all), `"addressType"`); n != 1 {
				t.Errorf("%d slices: %s", n, all)
			}
		})
	}
}

func leadsTo(t *testing.T, u *user, path string) string {
	t.Helper()
	code, body := u.do("GET", path, nil)
	if code != 200 {
		return ""
	}
	var slice struct {
		Endpoints []struct{ Addresses []string }
		Ports     []struct{ Port int }
	}
	if err := json.Unmarshal(body, &slice); err != nil || len(slice.Endpoints) != 1 || len(slice.Ports) != 1 {
		return ""
	}
	return fmt.Sprintf("%v:%d", slice.Endpoints[0].Addresses, slice.Ports[0].Port)
}

// TestWay has an address in the namespace that isn't its loopback's, from which
// the API server's own port isn't reached.
func TestWay(t *testing.T) {
	r := newRig(t)
	spec := r.spec("a-way")
	r.apply(spec)
	r.until(spec.ID, "ready", ready)
	netns := filepath.Join(r.dir, spec.Namespace)
	dial := func(address string) error {
		conn, err := Dialer(netns)(t.Context(), "tcp", address)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	for _, address := range []string{"127.0.0.1:443", "10.224.0.4:443", "127.0.0.1:6443"} {
		if err := dial(address); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
	if err := lead(netns, way{to: controlplane.SecondSlot}); err != nil {
		t.Fatal(err)
	}
	if err := dial("127.0.0.1:443"); err == nil {
		t.Error("the way leads to a slot that is empty, and somebody answers")
	}
	if err := lead(netns, way{}); err != nil {
		t.Fatal(err)
	}
	if err := dial("127.0.0.1:443"); err != nil {
		t.Error(err)
	}
}
