// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"bastide.dev/controlplane"
	"bastide.dev/pki"
)

const (
	// While authorities are rotated the cluster is looked at that often; else now and then.
	inspectSoon  = 300 * time.Millisecond
	inspectLater = 10 * time.Minute
	// shakeTime bounds one handshake, and shakes how many there are at once.
	shakeTime = 2 * time.Second
	shakes    = 32

	kubeletPort = 10250
	// trustMap is where an API server publishes whose certificates it accepts.
	trustMap = "extension-apiserver-authentication"
)

// inspect looks which authorities count until ctx ends.
func (s *session) inspect(ctx context.Context) error {
	for ctx.Err() == nil {
		wait := inspectLater
		seen, err := s.authorities(ctx)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			s.Logger.Debug("authorities not seen", "error", err)
			wait = time.Second
		default:
			s.found(func(st *State) { st.Authorities = seen })
			if s.unsettled(seen) {
				wait = inspectSoon
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-s.respecified:
		}
		timer.Stop()
	}
	return ctx.Err()
}

// unsettled tells whether what was seen isn't yet what the spec asks for, or is
// to change once more.
func (s *session) unsettled(seen *controlplane.Authorities) bool {
	spec := s.current()
	return !spec.Keys.Former.IsZero() || seen.Server != pki.Name(spec.Keys.CA.Certificate) || !slices.Equal(seen.Clients, spec.Keys.ClientNames())
}

// authorities is one look at the API server and the nodes.
func (s *session) authorities(ctx context.Context) (*controlplane.Authorities, error) {
	server, err := s.shake(ctx, "127.0.0.1:443")
	if err != nil {
		return nil, fmt.Errorf("see API server's certificate: %w", err)
	}
	published, err := s.published(ctx)
	if err != nil {
		return nil, err
	}
	clients := append(server.clients, published...)
	slices.Sort(clients)
	return &controlplane.Authorities{Server: server.authority, Clients: slices.Compact(clients), Kubelets: s.kubelets(ctx)}, nil
}

// published are the authorities of which the API server tells others. It only
// ever adds to them, so what is there beyond the spec's is taken away whole: it
// comes again with what is true.
func (s *session) published(ctx context.Context) ([]string, error) {
	maps := s.client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).Namespace(system)
	o, err := maps.Get(ctx, trustMap, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("see whom the API server trusts: %w", err)
	}
	data, _, _ := unstructured.NestedStringMap(o.Object, "data")
	names := controlplane.AuthorityNames([]byte(data["client-ca-file"]), []byte(data["requestheader-client-ca-file"]))
	wanted := s.current().Keys.ClientNames()
	if !slices.ContainsFunc(names, func(n string) bool { return !slices.Contains(wanted, n) }) {
		return names, nil
	}
	uid := o.GetUID()
	version := o.GetResourceVersion()
	err = maps.Delete(ctx, trustMap, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &version}})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return nil, fmt.Errorf("take old authorities from what the API server publishes: %w", err)
	}
	return names, nil
}

// kubelets are those of the spec's nodes that answer.
func (s *session) kubelets(ctx context.Context) []controlplane.KubeletAuthority {
	var mu sync.Mutex // guards seen
	var seen []controlplane.KubeletAuthority
	var wait sync.WaitGroup
	slots := make(chan struct{}, shakes)
	for _, n := range s.current().Nodes {
		if n.Removed {
			continue
		}
		slots <- struct{}{}
		wait.Go(func() {
			defer func() { <-slots }()
			shown, err := s.shake(ctx, netip.AddrPortFrom(n.Address, kubeletPort).String())
			if err != nil {
				return // it isn't there, or has no certificate yet
			}
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, controlplane.KubeletAuthority{Node: n.Name, Authority: shown.authority, Ends: shown.ends})
		})
	}
	wait.Wait()
	slices.SortFunc(seen, func(a, b controlplane.KubeletAuthority) int { return cmp.Compare(a.Node, b.Node) })
	return seen
}

// shown is what a server shows in a handshake.
type shown struct {
	authority string // that signed its certificate
	ends      time.Time
	clients   []string // authorities whose clients it asks for
}

var errNotOurs = errors.New("its certificate isn't one of the cluster's authorities")

// shake meets a server without saying anything to it. Names can be forged, so
// the certificate has to be one that the cluster's trust verifies; what is asked
// for besides is who of those signed it.
func (s *session) shake(ctx context.Context, address string) (shown, error) {
	ctx, cancel := context.WithTimeout(ctx, shakeTime)
	defer cancel()
	conn, err := s.Dial(ctx, "tcp", address)
	if err != nil {
		return shown{}, err
	}
	defer conn.Close()
	trust := x509.NewCertPool()
	trust.AppendCertsFromPEM(s.current().Keys.Trust().CA)
	return meet(ctx, conn, trust)
}

func meet(ctx context.Context, conn net.Conn, trust *x509.CertPool) (shown, error) {
	var seen shown
	client := tls.Client(conn, &tls.Config{
		MinVersion: tls.VersionTLS12,
		// The name isn't looked at, since nothing is said: who signed it is, below.
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection verifies the chain
		VerifyConnection: func(state tls.ConnectionState) error {
			leaf := state.PeerCertificates[0]
			intermediates := x509.NewCertPool()
			for _, c := range state.PeerCertificates[1:] {
				intermediates.AddCert(c)
			}
			if _, err := leaf.Verify(x509.VerifyOptions{Roots: trust, Intermediates: intermediates}); err != nil {
				return fmt.Errorf("%w: %w", errNotOurs, err)
			}
			seen.authority, seen.ends = leaf.Issuer.CommonName, leaf.NotAfter
			return nil
		},
		GetClientCertificate: func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			for _, raw := range r.AcceptableCAs {
				if name := commonName(raw); name != "" {
					seen.clients = append(seen.clients, name)
				}
			}
			return &tls.Certificate{}, nil
		},
	})
	err := client.HandshakeContext(ctx)
	return seen, err
}

// commonName reads the name in an encoded subject.
func commonName(raw []byte) string {
	var sequence pkix.RDNSequence
	if rest, err := asn1.Unmarshal(raw, &sequence); err != nil || len(rest) > 0 {
		return ""
	}
	var name pkix.Name
	name.FillFromRDNSequence(&sequence)
	return name.CommonName
}
