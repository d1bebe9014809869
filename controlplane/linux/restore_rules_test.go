// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"bytes"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"bastide.dev/controlplane"
)

func rulesOf(t *testing.T, source string) *rules {
	t.Helper()
	r, err := newRules(&controlplane.Spec{ID: "c1", Nodes: []controlplane.Node{{Name: "here"}, {Name: "going", Removed: true}},
		Keys:    controlplane.Keys{SecretsEncryption: bytes.Repeat([]byte{1}, 32)},
		Restore: &controlplane.Restore{Source: source, Secrets: bytes.Repeat([]byte{2}, 32)}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// What each kind of restore leaves out, by its key alone or by where a pod is.
func TestWhatARestoreLeavesOut(t *testing.T) {
	same, foreign := rulesOf(t, "c1"), rulesOf(t, "c2")
	pod := func(node string) []byte {
		value, err := same.codec.encode(&corev1.Pod{Spec: corev1.PodSpec{NodeName: node}}, "Pod")
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
	for _, c := range []struct {
		key           string
		value         []byte
		same, foreign bool // stays
	}{
		{"configmaps/default/mine", nil, true, true},
		{"configmaps/default/kube-root-ca.crt", nil, true, false},
		{"configmaps/kube-system/extension-apiserver-authentication", nil, false, false},
		{"configmaps/default/extension-apiserver-authentication", nil, true, true},
		{"minions/here", nil, true, false},
		{"leases/kube-node-lease/here", nil, true, false},
		{"leases/kube-system/apiserver-abc", nil, false, false},
		{"leases/default/leader", nil, true, true},
		{"masterleases/10.0.0.1", nil, false, false},
		{"certificatesigningrequests/csr-1", nil, true, false},
		{"secrets/kube-system/bootstrap-token-abcdef", []byte("not even read"), false, false},
		{"services/endpoints/default/kubernetes", nil, true, false},
		{"services/endpoints/default/other", nil, true, true},
		{"endpointslices/default/kubernetes", nil, true, false},
		{"pods/default/a", pod("here"), true, false},
		{"pods/default/b", pod("going"), false, false},
		{"pods/default/c", pod("elsewhere"), false, false},
		{"pods/default/d", pod(""), true, true},
		{"example.com/pods/default/c", []byte(`{"spec":{"nodeName":"elsewhere"}}`), true, true},
	} {
		for r, want := range map[*rules]bool{same: c.same, foreign: c.foreign} {
			value := c.value
			if value == nil {
				value = []byte("k8s\x00anything")
			}
			kept, err := r.judge(rootKey+c.key, value)
			if err != nil || (kept != nil) != want || want && !bytes.Equal(kept, value) {
				t.Errorf("%s, of another cluster %v: %q, %v", c.key, r.foreign, kept, err)
			}
		}
	}
	if _, err := same.judge(rootKey+"pods/default/x", []byte("damaged")); err == nil || strings.Contains(err.Error(), "damaged") {
		t.Errorf("a pod that can't be read: %v", err)
	}
}

// Secrets change hands: sealed by the one key, then by the other, and opened by
// neither anybody else's nor when a bit is another.
func TestSecretsChangeHands(t *testing.T) {
	r := rulesOf(t, "c2")
	seal := func(o *corev1.Secret, key []byte) []byte {
		plain, err := r.codec.encode(o, "Secret")
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := sealSecret(plain, key)
		if err != nil {
			t.Fatal(err)
		}
		return sealed
	}
	open := func(value, key []byte) (*corev1.Secret, error) {
		plain, _, err := openSecret(value, key)
		if err != nil {
			return nil, err
		}
		var o runtime.Object = &corev1.Secret{}
		return o.(*corev1.Secret), r.codec.decode("test", plain, o)
	}
	key := rootKey + "secrets/default/s"
	value := seal(&corev1.Secret{Data: map[string][]byte{"word": []byte("treasure")}}, r.from)
	moved, err := r.judge(key, value)
	if err != nil {
		t.Fatal(err)
	}
	if o, err := open(moved, r.to); err != nil || string(o.Data["word"]) != "treasure" {
		t.Errorf("it reads %v, %v", o, err)
	}
	if _, err := open(moved, r.from); err == nil {
		t.Error("the source's key still opens it")
	}
	token := seal(&corev1.Secret{Type: corev1.SecretTypeServiceAccountToken, Data: map[string][]byte{"token": []byte("t"), "ca.crt": []byte("c"), "namespace": []byte("n")}}, r.from)
	if token, err = r.judge(key, token); err != nil {
		t.Fatal(err)
	}
	if o, err := open(token, r.to); err != nil || len(o.Data) != 1 || string(o.Data["namespace"]) != "n" {
		t.Errorf("a token of the other cluster reads %v, %v", o, err)
	}
	for name, bad := range map[string][]byte{
		"flipped": append(bytes.Clone(value[:len(value)-1]), value[len(value)-1]^1), "cut": value[:60],
		"another key's": seal(&corev1.Secret{}, r.to), "another provider's": []byte("k8s:enc:kms:v2:x:abc"), "nothing": []byte("k8s:enc:"),
	} {
		if kept, err := r.judge(key, bad); err == nil {
			t.Errorf("%s: %q", name, kept)
		}
	}
}
