// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"bastide.dev/controlplane"
)

// prometheus serves in the control plane's namespace, as a service of the
// cluster, and answers as the test says.
func (l *leaver) prometheus(answer *atomic.Pointer[http.HandlerFunc]) {
	l.rig.t.Helper()
	listener, err := Listener(filepath.Join(l.dir, l.spec.Namespace))("tcp", "10.224.0.4:9090")
	if err != nil {
		l.rig.t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*answer.Load())(w, r) })}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	l.rig.t.Cleanup(func() {
		if err := server.Close(); err != nil {
			l.rig.t.Error(err)
		}
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			l.rig.t.Error(err)
		}
	})
	l.pod("prometheus", "node-2", nil) // the proxy reaches pods alone
	l.must("PATCH", "/api/v1/namespaces/default/pods/prometheus/status", object{"status": object{"podIP": "10.224.0.4", "podIPs": []any{object{"ip": "10.224.0.4"}}}},
		"Content-Type", "application/merge-patch+json")
	l.must("POST", "/api/v1/namespaces/default/services", object{"metadata": object{"name": "prometheus"}, "spec": object{"ports": []any{object{"port": 9090}}}})
	l.must("POST", "/api/v1/namespaces/default/endpoints", object{"metadata": object{"name": "prometheus"}, "subsets": []any{object{
		"addresses": []any{object{"ip": "10.224.0.4",
			"targetRef": object{"kind": "Pod", "namespace": "default", "name": "prometheus"}}}, "ports": []any{object{"port": 9090}}}}})
}

// TestAlertsBlockReboots: real alerts block; a Prometheus that is somebody's trap
// blocks too, and gets nothing.
func TestAlertsBlockReboots(t *testing.T) {
	l := newLeaver(t, "alerts")
	var answer atomic.Pointer[http.HandlerFunc]
	var asked, led atomic.Int64
	serve := func(f http.HandlerFunc) { answer.Store(&f) }
	alerts := func(names ...string) {
		serve(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/prom/api/v1/query" || r.URL.Query().Get("query") != "ALERTS" || r.Header.Get("Authorization") != "" || r.TLS != nil {
				http.Error(w, "no", http.StatusBadRequest)
				return
			}
			asked.Add(1)
			var some []string
			for _, name := range names {
				some = append(some, fmt.Sprintf(`{"metric":{"alertname":%q,"alertstate":"firing"},"value":[1,"1"]}`, name))
			}
			fmt.Fprintf(w, `{"status":"success","data":{"resultType":"vector","result":[%s]}}`, strings.Join(some, ","))
		})
	}
	alerts("DiskFull", "Watchdog")
	l.prometheus(&answer)
	l.must("POST", "/api/v1/namespaces/kube-system/configmaps", object{"metadata": object{"name": "bastide-reboots"},
		"data": object{"period": "1s", "prometheus-url": "http://prometheus.default.svc:9090/prom", "alert-filter-regexp": "^Watchdog$"}})
	l.wants(&controlplane.Reboots{Waiting: []string{"node-1"}, Claims: []string{"node-1"}})
	blocked := func(what, by string) {
		t.Helper()
		l.rebootsAre(what, func(s *controlplane.RebootsStatus) bool {
			return len(s.Nodes) == 1 && len(s.Nodes[0].Blocked) == 1 && strings.Contains(s.Nodes[0].Blocked[0], by) && len(s.Locked.Granted) == 0
		})
	}
	blocked("an alert blocks", `"DiskFull"`)
	serve(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/trap" {
			led.Add(1)
		}
		http.Redirect(w, r, "/api/v1/namespaces/default/services/http:prometheus:9090/proxy/trap", http.StatusFound)
	})
	blocked("a redirect blocks", "redirect")
	if led.Load() != 0 {
		t.Error("the redirect was followed")
	}
	serve(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		for chunk := bytes.Repeat([]byte("x"), 1<<16); ; {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	blocked("an endless failure blocks", "answers 500")
	serve(func(w http.ResponseWriter, _ *http.Request) {
		for chunk := bytes.Repeat([]byte(" "), 1<<16); ; {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	blocked("an endless answer blocks", "too long")
	alerts("Watchdog")
	l.rebootsAre("nothing blocks", func(s *controlplane.RebootsStatus) bool { return len(s.Locked.Granted) == 1 })
	if asked.Load() < 2 {
		t.Errorf("asked %d times", asked.Load())
	}
}
