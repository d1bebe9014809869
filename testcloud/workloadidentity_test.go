// SPDX-License-Identifier: Apache-2.0

package testcloud_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	aks "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v6"
	"github.com/go-jose/go-jose/v4"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const exchangeAudience = "api://AzureADTokenExchange"

// workloads is a cluster with an issuer, and an identity that trusts one of its
// service accounts.
type workloads struct {
	*kube
	issuer             string
	client, credential string // the identity's app id, and its federated credential
	target             string // what the identity may read
}

// TestWorkloadIdentity lets pods read from Resource Manager with no secret
// anywhere: DefaultAzureCredential as Azure's SDK for Go has it.
func TestWorkloadIdentity(t *testing.T) {
	r := newRig(t, "f-wi")
	r.program(t, "workload", filepath.Join(t.TempDir(), "workload"))
	k, err := r.cluster(t.Context(), t, "wi", func(m *aks.ManagedCluster) {
		m.Properties.OidcIssuerProfile = &aks.ManagedClusterOIDCIssuerProfile{Enabled: to.Ptr(true)}
		m.Properties.SecurityProfile = &aks.ManagedClusterSecurityProfile{WorkloadIdentity: &aks.ManagedClusterSecurityProfileWorkloadIdentity{Enabled: to.Ptr(true)}}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			out, _, _ := k.Try(context.WithoutCancel(t.Context()), "kubectl", "--kubeconfig", k.config, "get", "nodes,pods,events", "-A", "-o", "wide")
			t.Log(out)
		}
	})
	w := &workloads{kube: k, target: r.base + "/subscriptions/" + r.sub + "/resourceGroups/rg?api-version=2021-04-01"}
	w.trust(t)
	t.Run("the issuer is public", func(t *testing.T) { w.discovered(t) })
	w.pod(t, "good", "cart", true)
	w.pod(t, "unlabelled", "cart", false)
	w.pod(t, "other", "cash", true)
	w.reads(t, "good", "default", "200 ")
	t.Run("refused", func(t *testing.T) { w.refused(t) })
	t.Run("kubelogin", func(t *testing.T) { w.kubelogin(t) })
	t.Run("keys rotate under a running pod", func(t *testing.T) { w.rotates(t) })
	t.Run("authorities rotate under a running pod", func(t *testing.T) {
		w.otherAuthorities(t)
		w.reads(t, "new", "workload", "200 ")
		w.pod(t, "later", "cart", true) // the webhook that gives it an identity has another certificate
		w.reads(t, "later", "default", "200 ")
	})
	t.Run("trust ends", func(t *testing.T) {
		w.remove(t, w.credential, msiVersion)
		w.reads(t, "new", "workload", "AADSTS700211")
	})
}

// trust makes an identity that may read the group, service accounts that name
// it, and has it trust one of them.
func (w *workloads) trust(t *testing.T) {
	t.Helper()
	view, err := w.clusters(t).Get(t.Context(), "rg", w.name, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.issuer = *view.Properties.OidcIssuerProfile.IssuerURL
	var identity struct {
		Properties struct{ ClientID, PrincipalID string }
	}
	id := w.id("rg", "Microsoft.ManagedIdentity/userAssignedIdentities/cart")
	w.put(t, id, msiVersion, object{"location": "eastus"}, &identity)
	w.client, w.credential = identity.Properties.ClientID, id+"/federatedIdentityCredentials/cart"
	w.put(t, w.credential, msiVersion, object{"properties": object{"issuer": w.issuer, "subject": "system:serviceaccount:default:cart", "audiences": []string{exchangeAudience}}}, nil)
	w.grant(t, "/subscriptions/"+w.sub+"/resourceGroups/rg", readerRole, identity.Properties.PrincipalID)
	for _, name := range []string{"cart", "cash"} {
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{"azure.workload.identity/client-id": w.client}}}
		if _, err := w.kube.client.CoreV1().ServiceAccounts("default").Create(t.Context(), account, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// discovered follows the issuer's documents as a stranger does.
func (w *workloads) discovered(t *testing.T) {
	var discovery struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	w.anybody(t, strings.TrimSuffix(w.issuer, "/")+"/.well-known/openid-configuration", &discovery)
	var keys jose.JSONWebKeySet
	w.anybody(t, discovery.Keys, &keys)
	if discovery.Issuer != w.issuer || len(keys.Keys) != 1 || !keys.Keys[0].IsPublic() {
		t.Errorf("%+v has %d keys", discovery, len(keys.Keys))
	}
}

func (w *workloads) anybody(t *testing.T, url string, into any) {
	t.Helper()
	resp, err := w.http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %v", url, resp.Status, err)
	}
}

// pod runs the program under a service account and waits until it runs.
func (w *workloads) pod(t *testing.T, name, account string, labelled bool) {
	t.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{ServiceAccountName: account, Containers: []corev1.Container{{
		Name: "c", Image: "registry." + w.Env["BASTIDE_DOMAIN"] + "/workload:1", Command: []string{"/workload", "wait"}}}}}
	if labelled {
		p.Labels = map[string]string{"azure.workload.identity/use": "true"}
	}
	if _, err := w.kube.client.CoreV1().Pods("default").Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.kubectl(t, "wait", "--for=condition=Ready", "pod/"+name, "--timeout=90s")
}

// reads has the program in a pod read; want is in its answer or its error.
func (w *workloads) reads(t *testing.T, pod, kind, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	out, errs, err := w.Try(ctx, "kubectl", "--kubeconfig", w.config, "exec", pod, "--", "/workload", "read", kind, w.target)
	if !strings.Contains(out+errs, want) {
		t.Errorf("%s reads with its %s credential: %v %s%s, want %s", pod, kind, err, out, errs, want)
	}
}

func (w *workloads) refused(t *testing.T) {
	w.reads(t, "other", "workload", "AADSTS700213")
	w.reads(t, "unlabelled", "workload", "no client ID")
	out, errs, err := w.Try(t.Context(), "kubectl", "--kubeconfig", w.config, "exec", "unlabelled", "--", "/workload", "read", "default", w.target)
	if err == nil && strings.HasPrefix(out, "200") {
		t.Errorf("a pod that doesn't ask for an identity reads: %s%s", out, errs)
	}
	bad := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "proxied", Labels: map[string]string{"azure.workload.identity/use": "true"},
		Annotations: map[string]string{"azure.workload.identity/inject-proxy-sidecar": "true"}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "x"}}}}
	if _, err := w.kube.client.CoreV1().Pods("default").Create(t.Context(), bad, metav1.CreateOptions{}); err == nil || !strings.Contains(err.Error(), "inject-proxy-sidecar") {
		t.Errorf("the proxy: %v", err)
	}
}

// kubelogin signs in with a service account's token, as it does in a pod.
func (w *workloads) kubelogin(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(w.kubectl(t, "create", "token", "cart", "--audience", exchangeAudience)), 0o600); err != nil {
		t.Fatal(err)
	}
	out := w.Run(t, "kubelogin", "get-token", "--login", "workloadidentity", "--server-id", "6dae42f8-4368-4678-94ff-3960e28e3630", "--client-id", w.client,
		"--tenant-id", w.Env["AZURE_TENANT_ID"], "--federated-token-file", token, "--authority-host", w.Env["AZURE_AUTHORITY_HOST"], "--disable-instance-discovery", "--disable-environment-override")
	var credential struct{ Status struct{ Token string } }
	if err := json.Unmarshal([]byte(out), &credential); err != nil || strings.Count(credential.Status.Token, ".") != 2 {
		t.Errorf("%v %s", err, out)
	}
}

// rotates: what a pod holds is good until the next rotation but one.
func (w *workloads) rotates(t *testing.T) {
	rotate := func() {
		t.Helper()
		poller, err := w.clusters(t).BeginRotateServiceAccountSigningKeys(t.Context(), "rg", w.name, nil)
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		if _, err := poller.PollUntilDone(t.Context(), everySecond); err != nil {
			t.Fatal(err)
		}
		t.Logf("rotated in %v", time.Since(begin))
	}
	rotate()
	w.reads(t, "good", "workload", "200 ")
	w.pod(t, "next", "cart", true)
	w.reads(t, "next", "workload", "200 ")
	rotate()
	w.reads(t, "good", "workload", "AADSTS50013")
	w.reads(t, "next", "workload", "200 ")
	w.pod(t, "new", "cart", true)
	w.reads(t, "new", "workload", "200 ")
	if err := w.settled(t.Context()); err != nil {
		t.Error(err)
	}
}

// settled tells whether the cluster still does what clusters do: its own pods'
// tokens were signed by a key that is gone.
func (w *workloads) settled(ctx context.Context) error {
	out, errs, err := w.Try(ctx, "kubectl", "--kubeconfig", w.config, "-n", "kube-system", "get", "pods", "-o", "wide")
	if err != nil || strings.Contains(out, "CrashLoop") {
		return fmt.Errorf("%w: %s%s", err, out, errs)
	}
	return nil
}
