// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/connrotation"

	"bastide.dev/controlplane"
	"bastide.dev/pki"
)

const (
	host     = "https://127.0.0.1:443"
	userName = "bastide:agent"
	// A connection's certificate is issued here and kept in memory. Sessions end
	// long before it does, so that it is renewed between them.
	connectionLife = 365 * 24 * time.Hour
	sessionLife    = 90 * 24 * time.Hour
)

// connection is the clients to the API server. client-go keeps each one's
// transport for ever, so it is made once, and again only with another CA or a
// new certificate.
type connection struct {
	leaf    pki.Pair
	trust   []byte
	api     rest.Interface
	objects dynamic.Interface
	// hangUp ends what is open to an API server: an ending one answers as long as
	// somebody stays with it.
	hangUp func()
	// typed is for libraries that want it, and made when one does first: it is large.
	typed func() (*kubernetes.Clientset, error)
	http  *http.Client // what all of them are made of
}

// refuseRedirect is for http.Client.CheckRedirect. What a workload answers through
// the API server's proxy must not lead the agent's rights elsewhere.
func refuseRedirect(*http.Request, []*http.Request) error {
	return errors.New("a redirect isn't followed")
}

// connection is called by Run alone.
func (a *Agent) connection() (*connection, error) {
	keys := a.current().Keys
	ca, err := pki.OpenCA(pki.Pair(keys.CA))
	if err != nil {
		return nil, err
	}
	request := pki.Request{CommonName: userName, Organizations: []string{controlplane.MastersGroup}, Client: true, Lifetime: connectionLife}
	trust := keys.Trust().CA
	if a.connected != nil && bytes.Equal(a.connected.trust, trust) && ca.Current(a.connected.leaf, request, time.Now()) {
		return a.connected, nil
	}
	leaf, err := ca.Issue(request)
	if err != nil {
		return nil, err
	}
	dialer := connrotation.NewDialer(a.Dial)
	config := &rest.Config{Host: host, QPS: -1, UserAgent: userName, Dial: dialer.DialContext, WarningHandler: rest.NoWarnings{},
		TLSClientConfig: rest.TLSClientConfig{CAData: trust, CertData: leaf.Certificate, KeyData: leaf.Key},
		ContentConfig:   rest.ContentConfig{NegotiatedSerializer: serializer.NewCodecFactory(runtime.NewScheme()).WithoutConversion()}}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	client.CheckRedirect = refuseRedirect
	c := &connection{leaf: leaf, trust: trust, hangUp: dialer.CloseAll, http: client, typed: sync.OnceValues(func() (*kubernetes.Clientset, error) { return kubernetes.NewForConfigAndClient(config, client) })}
	if c.api, err = rest.UnversionedRESTClientForConfigAndClient(config, client); err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	if c.objects, err = dynamic.NewForConfigAndClient(config, client); err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	a.connected = c
	return c, nil
}
