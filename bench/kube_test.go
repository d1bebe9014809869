// SPDX-License-Identifier: Apache-2.0

//go:build bench

package bench

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// kube speaks to a cluster's API server as its administrator.
type kube struct {
	http *http.Client
	base string
}

func (o *outsider) kube(name string) (*kube, error) {
	o.t.Helper()
	path, err := o.kubeconfig(name)
	if err != nil {
		return nil, err
	}
	out, stderr, err := o.cloud.Try(o.t.Context(), "kubectl", "--kubeconfig="+path, "config", "view", "--raw", "-o", "json")
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w %s", err, stderr)
	}
	var config struct {
		Clusters []struct {
			Cluster struct {
				Server string
				CA     []byte `json:"certificate-authority-data"`
			}
		}
		Users []struct {
			User struct {
				Certificate []byte `json:"client-certificate-data"`
				Key         []byte `json:"client-key-data"`
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &config); err != nil || len(config.Clusters) == 0 || len(config.Users) == 0 {
		return nil, fmt.Errorf("kubeconfig of %s: %w", name, err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(config.Clusters[0].Cluster.CA)
	pair, err := tls.X509KeyPair(config.Users[0].User.Certificate, config.Users[0].User.Key)
	if err != nil {
		return nil, err
	}
	return &kube{base: config.Clusters[0].Cluster.Server,
		http: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: tlsConfig(roots, pair), MaxIdleConnsPerHost: 32}}}, nil
}

// send returns what the API server answered with success.
func (k *kube) send(method, path string, body any) ([]byte, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequest(method, k.base+path, bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		req.Header.Set("Content-Type", "application/merge-patch+json")
	}
	resp, err := k.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s %s", method, path, resp.Status, answer)
	}
	return answer, err
}

func (k *kube) post(path string, body any) error {
	_, err := k.send(http.MethodPost, path, body)
	return err
}

func (k *kube) delete(path string) error {
	_, err := k.send(http.MethodDelete, path, nil)
	return err
}

// await reads an object until it is as wanted.
func (k *kube) await(path string, object any, as func() bool) error {
	for begin := time.Now(); time.Since(begin) < time.Minute; time.Sleep(5 * time.Millisecond) {
		answer, err := k.send(http.MethodGet, path, nil)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(answer, object); err != nil {
			return err
		}
		if as() {
			return nil
		}
	}
	return fmt.Errorf("%s isn't as wanted after a minute", path)
}

// parallel does a thing count times, sixteen at once.
func parallel(count int, do func(i int) error) error {
	var group sync.WaitGroup
	var next atomic.Int64
	failed := make(chan error, 16)
	for range 16 {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < count; i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	group.Wait()
	close(failed)
	var all []error
	for err := range failed {
		all = append(all, err)
	}
	return errors.Join(all...)
}

// pod is one that runs, with what the kernel knows of it.
type pod struct {
	name, ip, namespace string // the last is of the network
}

const webPort = 8080

// run starts a pod of the web app on a node and waits until it is ready.
func (k *kube) run(namespace, name, node string) (pod, error) {
	path := "/api/v1/namespaces/" + namespace + "/pods"
	err := k.post(path, map[string]any{"metadata": map[string]any{"name": name, "labels": map[string]any{"app": name}},
		"spec": map[string]any{"nodeName": node, "terminationGracePeriodSeconds": 0,
			"containers": []any{map[string]any{"name": "web", "image": webImage}}}})
	if err != nil {
		return pod{}, err
	}
	var state struct {
		Metadata struct{ UID string }
		Status   struct {
			PodIP      string
			Conditions []struct{ Type, Status string }
		}
	}
	err = k.await(path+"/"+name, &state, func() bool {
		for _, c := range state.Status.Conditions {
			if c.Type == "Ready" && c.Status == "True" {
				return true
			}
		}
		return false
	})
	if err != nil {
		return pod{}, err
	}
	ns, err := podNamespace(state.Metadata.UID)
	return pod{name: name, ip: state.Status.PodIP, namespace: ns}, err
}

// nodes are a cluster's, by name.
func (k *kube) nodes() ([]string, error) {
	answer, err := k.send(http.MethodGet, "/api/v1/nodes", nil)
	if err != nil {
		return nil, err
	}
	var list struct {
		Items []struct{ Metadata struct{ Name string } }
	}
	if err := json.Unmarshal(answer, &list); err != nil {
		return nil, err
	}
	var names []string
	for _, n := range list.Items {
		names = append(names, n.Metadata.Name)
	}
	return names, nil
}

// moreFiles lets the prober have many sockets open.
func moreFiles() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	limit.Cur = limit.Max
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
}
