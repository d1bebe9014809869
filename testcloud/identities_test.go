// SPDX-License-Identifier: Apache-2.0

package testcloud_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	aks "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v6"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/msi/armmsi"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bastide.dev/testcloud"
)

const (
	operatorRole = "f1a07417-d97a-45cb-824c-7a7467783830"
	pullRole     = "7f951dda-4ed3-4680-a7ca-43fe172d538d"
)

// TestIdentities leads a cluster through all that it can act as. What acts is
// seen by what it does: its controllers give a Service an address, as whoever
// the cluster is at the moment, and as nobody else any more.
func TestIdentities(t *testing.T) {
	r := &rig{Cloud: testcloud.Start(t, "e-ids", "--registry-anonymous-pull=false")}
	r.sdk = newSDK(t, r.Cloud)
	r.program(t, "echo", filepath.Join(t.TempDir(), "echo"))
	r.group(t, "rg")
	identities := must(armmsi.NewUserAssignedIdentitiesClient(r.sub, r.cred, r.options))
	made := func(name string) armmsi.Identity {
		t.Helper()
		answer, err := identities.CreateOrUpdate(t.Context(), "rg", name, armmsi.Identity{Location: to.Ptr("eastus")}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return answer.Identity
	}
	one, kubelet := made("one"), made("kub")

	id, secret := r.Env["AZURE_CLIENT_ID"], r.Env["AZURE_CLIENT_SECRET"]
	k, err := r.cluster(t.Context(), t, "c", func(c *aks.ManagedCluster) {
		c.Identity = nil
		c.Properties.ServicePrincipalProfile = &aks.ManagedClusterServicePrincipalProfile{ClientID: &id, Secret: &secret}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Run("as a service principal", func(t *testing.T) { k.acts(t, "sp") })
	t.Run("reset", func(t *testing.T) {
		reset(t, k, id, secret)
		k.acts(t, "reset")
	})
	t.Run("as the system's identity", func(t *testing.T) {
		k.change(t, func(c *aks.ManagedCluster) {
			c.Identity = &aks.ManagedClusterIdentity{Type: to.Ptr(aks.ResourceIdentityTypeSystemAssigned)}
		})
		k.acts(t, "system")
	})
	t.Run("as the user's", func(t *testing.T) {
		k.change(t, func(c *aks.ManagedCluster) { c.Identity = userAssigned(*one.ID) })
		k.acts(t, "user")
		if got := k.get(t).Identity.UserAssignedIdentities[*one.ID]; got == nil || *got.PrincipalID != *one.Properties.PrincipalID {
			t.Errorf("the cluster shows %+v", got)
		}
	})
	t.Run("nodes' identity", func(t *testing.T) { kubeletIdentity(t, r, k, one, kubelet) })
	t.Run("pulls", func(t *testing.T) { pulls(t, k, *kubelet.Properties.PrincipalID) })
	t.Run("dangling", func(t *testing.T) { danglingIdentities(t, r, identities) })
}

func userAssigned(id string) *aks.ManagedClusterIdentity {
	return &aks.ManagedClusterIdentity{Type: to.Ptr(aks.ResourceIdentityTypeUserAssigned),
		UserAssignedIdentities: map[string]*aks.ManagedServiceIdentityUserAssignedIdentitiesValue{id: {}}}
}

func (k *kube) get(t testing.TB) aks.ManagedCluster {
	t.Helper()
	got, err := k.clusters(t).Get(t.Context(), "rg", k.name, nil)
	if err != nil {
		t.Fatal(err)
	}
	return got.ManagedCluster
}

// acts sees a Service get an address, and lose it.
func (k *kube) acts(t *testing.T, name string) {
	t.Helper()
	services := k.client.CoreV1().Services("default")
	k.service(t, name, nil)
	soon(t, func() error {
		s, err := services.Get(t.Context(), name, metav1.GetOptions{})
		if err == nil && len(s.Status.LoadBalancer.Ingress) == 0 {
			err = errors.New("the Service has no address")
		}
		return err
	})
	if err := services.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	soon(t, func() error {
		if _, err := services.Get(t.Context(), name, metav1.GetOptions{}); err == nil {
			return errors.New("the Service isn't cleaned up")
		}
		return nil
	})
}

func reset(t *testing.T, k *kube, id, secret string) {
	clients := k.clusters(t)
	begin := func(secret string) error {
		poller, err := clients.BeginResetServicePrincipalProfile(t.Context(), "rg", k.name, aks.ManagedClusterServicePrincipalProfile{ClientID: &id, Secret: &secret}, nil)
		if err != nil {
			return err
		}
		_, err = poller.PollUntilDone(t.Context(), everySecond)
		return err
	}
	if err := begin("wrong"); err == nil || !strings.Contains(err.Error(), "ServicePrincipalValidationClientError") {
		t.Errorf("a wrong secret: %v", err)
	}
	if err := begin(secret); err != nil {
		t.Fatal(err)
	}
}

// kubeletIdentity gives the nodes an identity of the user's, which the cluster's
// own must be allowed to assign.
func kubeletIdentity(t *testing.T, r *rig, k *kube, one, kubelet armmsi.Identity) {
	profile := map[string]*aks.UserAssignedIdentity{"kubeletidentity": {ResourceID: kubelet.ID}}
	clients := k.clusters(t)
	want := k.get(t)
	made := *want.Properties.IdentityProfile["kubeletidentity"].ResourceID
	want.Properties.IdentityProfile = profile
	if _, err := clients.BeginCreateOrUpdate(t.Context(), "rg", k.name, want, nil); err == nil || !strings.Contains(err.Error(), "CustomKubeletIdentityMissingPermissionError") {
		t.Fatalf("without the role: %v", err)
	}
	r.grant(t, *kubelet.ID, operatorRole, *one.Properties.PrincipalID)
	k.change(t, func(c *aks.ManagedCluster) { c.Properties.IdentityProfile = profile })
	if got := k.get(t).Properties.IdentityProfile["kubeletidentity"]; *got.ObjectID != *kubelet.Properties.PrincipalID {
		t.Errorf("nodes are %s", *got.ObjectID)
	}
	if err := r.rest(t.Context(), http.MethodGet, made, "2023-01-31", nil, nil); err == nil {
		t.Error("the identity that the cluster made is left")
	}
	var sets struct {
		Value []struct {
			Identity struct{ UserAssignedIdentities map[string]any }
		}
	}
	if err := r.rest(t.Context(), http.MethodGet, "/subscriptions/"+r.sub+"/resourceGroups/"+k.group+"/providers/Microsoft.Compute/virtualMachineScaleSets", computeAPI, nil, &sets); err != nil {
		t.Fatal(err)
	}
	if len(sets.Value) != 1 || sets.Value[0].Identity.UserAssignedIdentities[*kubelet.ID] == nil {
		t.Errorf("scale sets have %+v", sets.Value)
	}
}

// pulls sees nodes get images from a registry that lets nobody in without a
// role: with the role of their identity, and without it not.
func pulls(t *testing.T, k *kube, principal string) {
	image := k.Env["BASTIDE_REGISTRY"] + "/echo:1"
	pods := k.client.CoreV1().Pods("default")
	start := func(name string) {
		t.Helper()
		k.kubectl(t, "run", name, "--image="+image, "--image-pull-policy=Always")
	}
	start("before")
	soon(t, func() error {
		pod, err := pods.Get(t.Context(), "before", metav1.GetOptions{})
		if err == nil && (len(pod.Status.ContainerStatuses) == 0 || pod.Status.ContainerStatuses[0].State.Waiting == nil ||
			!strings.Contains(pod.Status.ContainerStatuses[0].State.Waiting.Reason, "ImagePull")) {
			err = fmt.Errorf("the image isn't refused: %+v", pod.Status.ContainerStatuses)
		}
		return err
	})
	k.grant(t, "/subscriptions/"+k.sub, pullRole, principal)
	start("after")
	k.kubectl(t, "wait", "--for=condition=Ready", "pod/after", "--timeout=60s")
}

// danglingIdentities looks for what the test leaves behind on purpose.
func danglingIdentities(t *testing.T, r *rig, identities *armmsi.UserAssignedIdentitiesClient) {
	idle, err := identities.CreateOrUpdate(t.Context(), "rg", "idle", armmsi.Identity{Location: to.Ptr("eastus")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var found []struct{ Kind, ID string }
	out, err := r.Bastide(ctx, "identity", "dangling", "--unused", "0d", "-o", "json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &found)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	listed := fmt.Sprint(found)
	if !strings.Contains(listed, *idle.ID) || strings.Contains(listed, "/userAssignedIdentities/kub") || strings.Contains(listed, "/userAssignedIdentities/one") {
		t.Errorf("dangling are %s", listed)
	}
}
