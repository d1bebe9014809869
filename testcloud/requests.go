// SPDX-License-Identifier: Apache-2.0

package testcloud

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	typed "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"bastide.dev/supervise"
)

// API is a request to a cluster's API server, for a stream: by turns it reads
// an object, and changes it. It repeats nothing: what isn't answered well is an
// error. The certificate authorities are those of the kubeconfig.
func API(ctx context.Context, kubeconfig []byte) (func(ctx context.Context) error, error) {
	config, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	const object = "/api/v1/namespaces/default/configmaps"
	send := func(ctx context.Context, method, path, kind, body string) error {
		req, err := http.NewRequestWithContext(ctx, method, config.Host+path, bytes.NewReader([]byte(body)))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", kind)
		return answered(client, req)
	}
	begin := fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"stream-%d"}}`, time.Now().UnixNano())
	if err := send(ctx, http.MethodPost, object, "application/json", begin); err != nil {
		return nil, err
	}
	var named struct{ Metadata struct{ Name string } }
	if err := json.Unmarshal([]byte(begin), &named); err != nil {
		return nil, err
	}
	var turn atomic.Int64
	return func(ctx context.Context) error {
		n := turn.Add(1)
		if n%2 == 0 {
			return send(ctx, http.MethodGet, object+"/"+named.Metadata.Name, "", "")
		}
		return send(ctx, http.MethodPatch, object+"/"+named.Metadata.Name, "application/merge-patch+json", fmt.Sprintf(`{"data":{"turn":"%d"}}`, n))
	}, nil
}

// Web is a request of a web page, each in a connection of its own, from within
// a network namespace.
func Web(netns, address string) func(ctx context.Context) error {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (conn net.Conn, err error) {
			err = supervise.InNetns(netns, func() error {
				conn, err = new(net.Dialer).DialContext(ctx, network, address)
				return err
			})
			return conn, err
		}}}
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/", nil)
		if err != nil {
			return err
		}
		return answered(client, req)
	}
}

func answered(client *http.Client, req *http.Request) error {
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("%s %s: answer: %w", req.Method, req.URL.Path, err)
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %.200s", req.Method, req.URL.Path, resp.Status, text)
	}
	return nil
}

// Watcher follows a cluster's ConfigMaps as every controller does: where a watch
// ends, another begins. It counts the versions that it saw.
type Watcher struct {
	seen atomic.Int64
	stop context.CancelFunc
	done chan struct{}
	err  error
}

// Watch begins to follow; Stop ends it.
func Watch(ctx context.Context, kubeconfig []byte) (*Watcher, error) {
	config, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	maps := client.CoreV1().ConfigMaps("default")
	list, err := maps.List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	w := &Watcher{stop: stop, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		for version := list.ResourceVersion; ctx.Err() == nil && w.err == nil; {
			version, w.err = w.once(ctx, maps, version)
		}
	}()
	return w, nil
}

// once follows one watch to its end; what lies between two isn't lost as long
// as the server still has it, and else that is an error.
func (w *Watcher) once(ctx context.Context, maps typed.ConfigMapInterface, version string) (string, error) {
	following, err := maps.Watch(ctx, metav1.ListOptions{ResourceVersion: version})
	if err != nil {
		return version, ignoreEnd(ctx, err)
	}
	defer following.Stop()
	for event := range following.ResultChan() {
		switch o := event.Object.(type) {
		case *corev1.ConfigMap:
			w.seen.Add(1)
			version = o.ResourceVersion
		case *metav1.Status:
			return version, ignoreEnd(ctx, fmt.Errorf("watch: %s", o.Message))
		}
	}
	return version, nil
}

func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Seen is how many versions of objects the watch has brought so far.
func (w *Watcher) Seen() int64 { return w.seen.Load() }

// Stop ends the watch; an error says that it couldn't be followed.
func (w *Watcher) Stop() error {
	w.stop()
	<-w.done
	return w.err
}
