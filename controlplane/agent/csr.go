// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"bastide.dev/controlplane"
	"bastide.dev/pki"
)

const (
	servingSigner = "kubernetes.io/kubelet-serving"
	clientSigner  = "kubernetes.io/kube-apiserver-client-kubelet"
	bootstrappers = "system:bootstrappers"
	nodeUser      = "system:node:"

	kubeletLife = 365 * 24 * time.Hour // as the controller manager's default
)

// request is what a CertificateSigningRequest asks for, and who asks.
type request struct {
	signer string
	user   string
	groups []string
	usages []string
	pem    []byte
	// lifetime is what the request asks for; 0: the signer's choice.
	lifetime time.Duration
}

// verdict is what becomes of a request: neither means that it waits.
type verdict struct {
	approve, deny bool
	reason        string
}

// judge decides on the certificates of kubelets: a node gets them for its own
// name and address, and only when the spec expects the node. Upstream lets
// whoever holds a bootstrap token become any node; here it has to be one that
// is expected.
func judge(r request, spec *controlplane.Spec) verdict {
	deny := func(format string, args ...any) verdict {
		return verdict{deny: true, reason: fmt.Sprintf(format, args...)}
	}
	block, _ := pem.Decode(r.pem)
	if block == nil {
		return deny("the request is not PEM")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil || csr.CheckSignature() != nil {
		return deny("the request is malformed or its signature is wrong")
	}
	name, isNode := strings.CutPrefix(csr.Subject.CommonName, nodeUser)
	if !isNode || !slices.Equal(csr.Subject.Organization, []string{controlplane.NodesGroup}) {
		return deny("the subject is not a node")
	}
	if len(csr.EmailAddresses) > 0 || len(csr.URIs) > 0 {
		return deny("a node has no e-mail addresses and no URIs")
	}
	node := find(spec, name)
	if r.signer == servingSigner {
		return judgeServing(r, csr, name, node)
	}
	if !slices.Contains(r.groups, bootstrappers) {
		return verdict{} // a node's renewal: the controller manager's
	}
	switch {
	case len(csr.DNSNames) > 0 || len(csr.IPAddresses) > 0:
		return deny("a client certificate has no names")
	case !usages(r.usages, "client auth"):
		return deny("the usages are not a client's")
	case node == nil:
		return verdict{} // its spec may be on its way
	case node.Removed:
		return deny("node %s is being removed", name)
	}
	return verdict{approve: true, reason: "the node is expected"}
}

func judgeServing(r request, csr *x509.CertificateRequest, name string, node *controlplane.Node) verdict {
	deny := func(format string, args ...any) verdict {
		return verdict{deny: true, reason: fmt.Sprintf(format, args...)}
	}
	switch {
	case r.user != nodeUser+name || !slices.Contains(r.groups, controlplane.NodesGroup):
		return deny("only node %s itself may ask for its certificate", name)
	case node == nil || node.Removed:
		return deny("node %s is not expected", name)
	case !usages(r.usages, "server auth"):
		return deny("the usages are not a server's")
	case len(csr.DNSNames)+len(csr.IPAddresses) == 0:
		return deny("the request has no names")
	}
	for _, dns := range csr.DNSNames {
		if dns != name {
			return deny("the name %s is not node %s's", dns, name)
		}
	}
	for _, ip := range csr.IPAddresses {
		if a, ok := netip.AddrFromSlice(ip); !ok || a.Unmap() != node.Address {
			return deny("the address %s is not node %s's", ip, name)
		}
	}
	return verdict{approve: true, reason: "the name and address are the node's own"}
}

// usages tells whether a request asks for exactly what a kubelet needs.
func usages(have []string, main string) bool {
	for _, u := range have {
		if u != main && u != "digital signature" && u != "key encipherment" {
			return false
		}
	}
	return slices.Contains(have, main) && slices.Contains(have, "digital signature")
}

func (s *session) csrSeen(o *unstructured.Unstructured) {
	signer, _, _ := unstructured.NestedString(o.Object, "spec", "signerName")
	if signer != servingSigner && signer != clientSigner {
		return
	}
	decided, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(decided) > 0 {
		delete(s.csrs, o.GetName())
		return
	}
	s.csrs[o.GetName()] = o
	s.queue.Add(keyCSR + o.GetName())
}

func (s *session) csrGone(o *unstructured.Unstructured) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.csrs, o.GetName())
}

func (s *session) decideCSR(ctx context.Context, name string) error {
	s.mu.Lock()
	o := s.csrs[name]
	s.mu.Unlock()
	if o == nil {
		return nil
	}
	r := requestOf(o)
	v := judge(r, s.current())
	if !v.approve && !v.deny {
		return nil
	}
	decision := "Approved"
	if v.deny {
		decision = "Denied"
	}
	o = o.DeepCopy()
	now := time.Now().UTC().Format(time.RFC3339)
	err := unstructured.SetNestedSlice(o.Object, []any{map[string]any{"type": decision, "status": "True", "reason": "BastideNodePolicy",
		"message": v.reason, "lastUpdateTime": now}}, "status", "conditions")
	if err != nil {
		return err
	}
	requests := s.client.Resource(schema.GroupVersionResource{Group: "certificates.k8s.io", Version: "v1", Resource: "certificatesigningrequests"})
	o, err = requests.Update(ctx, o, metav1.UpdateOptions{FieldManager: "bastide"}, "approval")
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil // it changed: the watch brings it again
	}
	if err != nil {
		return err
	}
	s.Logger.Info("certificate request decided", "request", name, "signer", r.signer, "user", r.user, "decision", decision, "reason", v.reason)
	if !v.approve {
		return nil
	}
	return s.sign(ctx, requests, o, r)
}

// sign issues what was approved. The controller manager would do so too; in a
// new cluster it comes a second later, which every first node would wait for.
func (s *session) sign(ctx context.Context, requests dynamic.ResourceInterface, o *unstructured.Unstructured, r request) error {
	ca, err := pki.OpenCA(pki.Pair(s.current().Keys.CA))
	if err != nil {
		return fmt.Errorf("sign request %s: %w", o.GetName(), err)
	}
	block, _ := pem.Decode(r.pem)
	csr, err := x509.ParseCertificateRequest(block.Bytes) // judge has parsed it before
	if err != nil {
		return fmt.Errorf("sign request %s: %w", o.GetName(), err)
	}
	certificate, err := ca.Certify(csr.PublicKey, leafOf(csr, r))
	if err != nil {
		return fmt.Errorf("sign request %s: %w", o.GetName(), err)
	}
	if err := unstructured.SetNestedField(o.Object, base64.StdEncoding.EncodeToString(certificate), "status", "certificate"); err != nil {
		return err
	}
	_, err = requests.UpdateStatus(ctx, o, metav1.UpdateOptions{FieldManager: "bastide"})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil // the controller manager was quicker
	}
	return err
}

// leafOf is the certificate that an approved request gets: what it names, for
// as long as it asks, a year at most.
func leafOf(csr *x509.CertificateRequest, r request) pki.Request {
	leaf := pki.Request{
		CommonName: csr.Subject.CommonName, Organizations: csr.Subject.Organization, DNS: csr.DNSNames,
		Server: r.signer == servingSigner, Client: r.signer == clientSigner, Lifetime: kubeletLife,
	}
	if r.lifetime > 0 && r.lifetime < leaf.Lifetime {
		leaf.Lifetime = r.lifetime
	}
	for _, ip := range csr.IPAddresses {
		if address, ok := netip.AddrFromSlice(ip); ok {
			leaf.IPs = append(leaf.IPs, address.Unmap())
		}
	}
	return leaf
}

func requestOf(o *unstructured.Unstructured) request {
	text := func(field string) string { v, _, _ := unstructured.NestedString(o.Object, "spec", field); return v }
	list := func(field string) []string {
		v, _, _ := unstructured.NestedStringSlice(o.Object, "spec", field)
		return v
	}
	seconds, _, _ := unstructured.NestedInt64(o.Object, "spec", "expirationSeconds")
	r := request{lifetime: time.Duration(seconds) * time.Second, signer: text("signerName"), user: text("username"), groups: list("groups"), usages: list("usages")}
	if data, err := base64.StdEncoding.DecodeString(text("request")); err == nil {
		r.pem = data
	}
	return r
}
