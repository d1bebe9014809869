// SPDX-License-Identifier: Apache-2.0

package testcloud_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v7"
	aks "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v6"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"bastide.dev/testcloud"
)

// rig is an instance with a network of the user's, clients outside, and what
// tests of networks ask it with.
type rig struct {
	*testcloud.Cloud
	*sdk
	network *armnetwork.ClientFactory
	compute *armcompute.ClientFactory

	echo      string // the program's path
	here, far terminal
}

const networkVersion = "2024-05-01"

var everySecond = &runtime.PollUntilDoneOptions{Frequency: time.Second}

// newRig boots the instance and makes the network `net` and two terminals.
func newRig(t *testing.T, instance string, flags ...string) *rig {
	t.Helper()
	r := &rig{Cloud: testcloud.Start(t, instance, flags...)}
	r.sdk = newSDK(t, r.Cloud)
	r.network = must(armnetwork.NewClientFactory(r.sub, r.cred, r.options))
	r.compute = must(armcompute.NewClientFactory(r.sub, r.cred, r.options))
	r.group(t, "rg")
	r.here, r.far = r.terminal(t, "here"), r.terminal(t, "far")
	r.echo = filepath.Join(t.TempDir(), "echo")
	r.program(t, "echo", r.echo)
	return r
}

// program builds a program of testdata at path, and loads an image of it alone.
func (r *rig) program(t *testing.T, name, path string) {
	t.Helper()
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "./testdata/"+name)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	r.Must(t, "image", "load", programImage(t, name, path), name+":1")
}

// programImage is an image of a program alone, as a docker archive.
func programImage(t *testing.T, program, path string) string {
	t.Helper()
	data := must(os.ReadFile(path))
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	if err := w.WriteHeader(&tar.Header{Name: program, Mode: 0o755, Size: int64(len(data))}); err != nil {
		t.Fatal(err)
	}
	_, err := w.Write(data)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	opened := must(tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil }))
	image := must(mutate.AppendLayers(empty.Image, opened))
	image = must(mutate.ConfigFile(image, &v1.ConfigFile{Architecture: "amd64", OS: "linux", RootFS: must(image.ConfigFile()).RootFS,
		Config: v1.Config{Entrypoint: []string{"/" + program}}}))
	archive := filepath.Join(t.TempDir(), program+".tar")
	if err := tarball.WriteToFile(archive, must(name.ParseReference(program+":1")), image); err != nil {
		t.Fatal(err)
	}
	return archive
}

// id is a resource's, in a group; rest is Provider/type/name/….
func (r *rig) id(group, rest string) string {
	return "/subscriptions/" + r.sub + "/resourceGroups/" + group + "/providers/" + rest
}

// nid is an id of Microsoft.Network in rg.
func (r *rig) nid(rest string) string { return r.id("rg", "Microsoft.Network/"+rest) }

// rest sends a request and reads its answer; an error for any answer from 400 up.
func (r *rig) rest(ctx context.Context, method, id, version string, body, into any) error {
	var raw []byte
	if body != nil {
		raw = must(json.Marshal(body))
	}
	token, err := r.cred.GetToken(ctx, r.scope())
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, r.base+id+"?api-version="+version, bytes.NewReader(raw))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token.Token)
	resp, err := r.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(resp.Body); err != nil {
		return err
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("%s %s: %s %s", method, id, resp.Status, &text)
	}
	if into == nil || text.Len() == 0 {
		return nil
	}
	return json.Unmarshal(text.Bytes(), into)
}

// put creates a resource and waits for its end state.
func (r *rig) put(t testing.TB, id, version string, body, into any) {
	t.Helper()
	if err := r.rest(t.Context(), http.MethodPut, id, version, body, nil); err != nil {
		t.Fatal(err)
	}
	r.settle(t, id, version)
	if err := r.rest(t.Context(), http.MethodGet, id, version, nil, into); err != nil {
		t.Fatal(err)
	}
}

// settle waits until nothing of a resource is under way.
func (r *rig) settle(t testing.TB, id, version string) {
	t.Helper()
	soonWithin(t, 2*time.Minute, func() error {
		var view struct {
			Properties struct{ ProvisioningState string }
		}
		if err := r.rest(t.Context(), http.MethodGet, id, version, nil, &view); err != nil {
			return err
		}
		switch state := view.Properties.ProvisioningState; state {
		case "Succeeded", "":
			return nil
		case "Failed":
			t.Fatalf("%s: %s", id, state)
			return nil
		default:
			return fmt.Errorf("%s: %s", id, state)
		}
	})
}

// remove deletes a resource and waits until it is gone.
func (r *rig) remove(t testing.TB, id, version string) {
	t.Helper()
	if err := r.rest(t.Context(), http.MethodDelete, id, version, nil, nil); err != nil {
		t.Fatal(err)
	}
	soonWithin(t, time.Minute, func() error {
		err := r.rest(t.Context(), http.MethodGet, id, version, nil, nil)
		if err == nil || !strings.Contains(err.Error(), "404") {
			return fmt.Errorf("%s is still there %s", id, errorCode(err))
		}
		return nil
	})
}

type object = map[string]any

// props is a body with properties and the instance's region.
func props(properties object) object { return object{"location": "eastus", "properties": properties} }

func idRef(id string) object { return object{"id": id} }

// vnet makes a virtual network; subnets are name=prefix.
func (r *rig) vnet(t testing.TB, name, prefix string, subnets ...string) {
	t.Helper()
	var list []any
	for _, s := range subnets {
		label, cidr, _ := strings.Cut(s, "=")
		list = append(list, object{"name": label, "properties": object{"addressPrefix": cidr}})
	}
	r.put(t, r.nid("virtualNetworks/"+name), networkVersion, props(object{
		"addressSpace": object{"addressPrefixes": []string{prefix}}, "subnets": list}), nil)
}

// kube is a cluster as its administrator sees it.
type kube struct {
	*rig
	name, group string // group is the node resource group
	client      kubernetes.Interface
	config      string // the kubeconfig's path
}

// again fetches the administrator's credentials anew.
func (k *kube) again(t testing.TB) {
	t.Helper()
	creds, err := k.clusters(t).ListClusterAdminCredentials(t.Context(), "rg", k.name, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(k.config, creds.Kubeconfigs[0].Value, 0o600); err != nil {
		t.Fatal(err)
	}
	k.client = must(kubernetes.NewForConfig(must(clientcmd.RESTConfigFromKubeConfig(creds.Kubeconfigs[0].Value))))
}

// otherAuthorities rotates the cluster's certificates.
func (k *kube) otherAuthorities(t testing.TB) {
	t.Helper()
	poller, err := k.clusters(t).BeginRotateClusterCertificates(t.Context(), "rg", k.name, nil)
	if err == nil {
		_, err = poller.PollUntilDone(t.Context(), everySecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	k.again(t)
}

// cluster creates one and waits for it.
func (r *rig) cluster(ctx context.Context, t testing.TB, name string, edit func(*aks.ManagedCluster)) (*kube, error) {
	want := oneNode()
	want.Properties.DNSPrefix = to.Ptr(name)
	edit(&want)
	clients := r.clusters(t)
	poller, err := clients.BeginCreateOrUpdate(ctx, "rg", name, want, nil)
	if err != nil {
		return nil, fmt.Errorf("cluster %s: %w", name, err)
	}
	done, err := poller.PollUntilDone(ctx, everySecond)
	if err != nil {
		return nil, fmt.Errorf("cluster %s: %w", name, err)
	}
	k := &kube{rig: r, name: name, group: *done.Properties.NodeResourceGroup, config: filepath.Join(t.TempDir(), name)}
	creds, err := clients.ListClusterAdminCredentials(ctx, "rg", name, nil)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(k.config, creds.Kubeconfigs[0].Value, 0o600); err != nil {
		return nil, err
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(creds.Kubeconfigs[0].Value)
	if err != nil {
		return nil, err
	}
	// Go keeps what it read in the hosts file for five seconds. A private cluster's
	// name isn't there: who asks it anyway hears so then.
	if host := must(url.Parse(config.Host)).Hostname(); strings.Contains(host, ".hcp.") {
		_ = await(ctx, 7*time.Second, func() error {
			_, err := net.DefaultResolver.LookupHost(ctx, host)
			return err
		})
	}
	config.QPS, config.Burst = 200, 400
	k.client, err = kubernetes.NewForConfig(config)
	return k, err
}

// change updates a cluster and waits for the end.
func (k *kube) change(t testing.TB, edit func(*aks.ManagedCluster)) {
	t.Helper()
	clients := k.clusters(t)
	have, err := clients.Get(t.Context(), "rg", k.name, nil)
	if err != nil {
		t.Fatal(err)
	}
	edit(&have.ManagedCluster)
	poller, err := clients.BeginCreateOrUpdate(t.Context(), "rg", k.name, have.ManagedCluster, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := poller.PollUntilDone(t.Context(), everySecond); err != nil {
		t.Fatal(err)
	}
}

func (k *kube) kubectl(t testing.TB, args ...string) string {
	t.Helper()
	return k.Run(t, "kubectl", append([]string{"--kubeconfig", k.config}, args...)...)
}

// inPod runs the echo program's client in a pod.
func (k *kube) inPod(ctx context.Context, pod, address string) (said, error) {
	var a said
	out, stderr, err := k.Try(ctx, "kubectl", "--kubeconfig", k.config, "exec", pod, "--", "/echo", "get", "http://"+address+"/")
	if err != nil {
		return a, fmt.Errorf("%w: %s", err, stderr)
	}
	return a, json.Unmarshal([]byte(out), &a)
}
