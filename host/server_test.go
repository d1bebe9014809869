// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"bastide.dev/host"
	"bastide.dev/pki"
	"bastide.dev/store"
	"bastide.dev/store/memory"
)

// wire is serve's side on a real TLS listener, and the CA of its hosts.
type wire struct {
	store store.Store
	url   string
	ca    *pki.CA
}

func newWire(t *testing.T) *wire {
	t.Helper()
	pair, err := pki.NewCA("test", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := pki.OpenCA(pair)
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{store: memory.New(memory.DefaultHistory), ca: ca}
	server := httptest.NewUnstartedServer(host.NewServer(w.store, slog.New(slog.DiscardHandler)))
	server.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(), Certificates: []tls.Certificate{w.leaf(t, "localhost", true)}}
	server.StartTLS()
	t.Cleanup(server.Close)
	w.url = server.URL
	return w
}

func (w *wire) leaf(t *testing.T, name string, server bool) tls.Certificate {
	t.Helper()
	pair, err := w.ca.Issue(pki.Request{CommonName: name, DNS: []string{"localhost"}, Server: server, Client: !server, Lifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := pair.TLS()
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}

func (w *wire) link(t *testing.T, path, subject string) host.Link {
	t.Helper()
	return host.NewLink(w.url, path, &tls.Config{RootCAs: w.ca.Pool(), ServerName: "localhost", Certificates: []tls.Certificate{w.leaf(t, subject, false)}})
}

func (w *wire) put(t *testing.T, key string, value []byte) {
	t.Helper()
	if _, err := w.store.Put(t.Context(), key, value, store.Any); err != nil {
		t.Fatal(err)
	}
}

func TestStreamListsThenFollows(t *testing.T) {
	w := newWire(t)
	w.put(t, host.UnitKey("a", host.VNetUnit, "v1"), []byte(`{"id":"v1"}`))
	w.put(t, host.UnitKey("b", host.VNetUnit, "other"), []byte(`{"id":"other"}`))
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan host.Unit, 10)
	done := make(chan error, 1)
	go func() { done <- w.link(t, "a", host.HostSubject("a")).Units(ctx, func(u host.Unit) { got <- u }) }()
	if u := <-got; u.Name != "v1" || u.Deleted || string(u.Spec) != `{"id":"v1"}` {
		t.Errorf("first %+v", u)
	}
	if u := <-got; !u.Synced {
		t.Errorf("then %+v", u)
	}
	w.put(t, host.UnitKey("a", host.MachineUnit, "m1"), []byte(`{"id":"m1"}`))
	if u := <-got; u.Kind != host.MachineUnit || u.Name != "m1" {
		t.Errorf("a change: %+v", u)
	}
	w.put(t, host.UnitKey("a", host.VNetUnit, "v1"), host.Tombstone)
	if u := <-got; u.Name != "v1" || !u.Deleted {
		t.Errorf("a tombstone: %+v", u)
	}
	cancel()
	if err := <-done; err == nil {
		t.Error("a broken stream is no error")
	}
}

func TestHostSeesItsOwnUnitsOnly(t *testing.T) {
	w := newWire(t)
	for _, subject := range []string{host.HostSubject("b"), "a", "serve"} {
		err := w.link(t, "a", subject).Units(t.Context(), func(host.Unit) { t.Error("a unit of another host") })
		if err == nil || !strings.Contains(err.Error(), "403") {
			t.Errorf("%s: %v", subject, err)
		}
	}
	stranger, err := pki.NewCA("stranger", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := pki.OpenCA(stranger)
	if err != nil {
		t.Fatal(err)
	}
	forged := (&wire{ca: ca}).leaf(t, host.HostSubject("a"), false)
	link := host.NewLink(w.url, "a", &tls.Config{RootCAs: w.ca.Pool(), ServerName: "localhost", Certificates: []tls.Certificate{forged}})
	if err := link.Units(t.Context(), func(host.Unit) {}); err == nil {
		t.Error("a certificate of another authority is taken")
	}
}

func TestLateReportOfADeletedUnitIsDropped(t *testing.T) {
	w := newWire(t)
	link := w.link(t, "a", host.HostSubject("a"))
	w.put(t, host.UnitKey("a", host.VNetUnit, "v1"), []byte(`{}`))
	reports := []host.Report{{Kind: host.VNetUnit, Name: "v1", Applied: true}, {Kind: host.VNetUnit, Name: "gone", Applied: true}}
	if err := link.Report(t.Context(), reports); err != nil {
		t.Fatal(err)
	}
	record, err := w.store.Get(t.Context(), host.ReportKey("a", host.VNetUnit, "v1"))
	if err != nil {
		t.Fatal(err)
	}
	var kept host.Report
	if err := json.Unmarshal(record.Value, &kept); err != nil || !kept.Applied {
		t.Errorf("%+v %v", kept, err)
	}
	if _, err := w.store.Get(t.Context(), host.ReportKey("a", host.VNetUnit, "gone")); err == nil {
		t.Error("the report brought a deleted unit's record back")
	}
}
