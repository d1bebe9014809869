// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/nacl/secretbox"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"

	"bastide.dev/controlplane"
)

// machineKeys are what tells of the machines that a cluster has: it is taken from
// the cluster as it is, for no backup knows it.
func machineKeys() []string {
	return []string{rootKey + "minions/", rootKey + "csinodes/", rootKey + "leases/kube-node-lease/",
		rootKey + "certificatesigningrequests/", rootKey + "secrets/kube-system/bootstrap-token-"}
}

// rules say what becomes of each object of a backup.
type rules struct {
	foreign  bool            // the backup is of another cluster
	nodes    map[string]bool // that there are
	from, to []byte          // the keys that seal Secrets, in the backup and from now on
	codec    codec
	secrets  int64 // that were opened
}

func newRules(spec *controlplane.Spec) (*rules, error) {
	codec, err := newCodec()
	if err != nil {
		return nil, err
	}
	r := &rules{foreign: spec.Restore.Source != spec.ID, nodes: map[string]bool{}, from: spec.Restore.Secrets, to: spec.Keys.SecretsEncryption, codec: codec}
	for _, n := range spec.Nodes {
		r.nodes[n.Name] = !n.Removed && !r.foreign // another cluster's pods are on none of these
	}
	return r, nil
}

// judge returns an object as it shall be; nil: it shall not be. What it can't
// read of what has to be changed is an error: the backup is of no use then.
func (r *rules) judge(key string, value []byte) ([]byte, error) {
	below := strings.TrimPrefix(key, rootKey)
	if r.stale(below) {
		return nil, nil
	}
	switch {
	case strings.HasPrefix(below, "secrets/"):
		return r.secret(key, value)
	case strings.HasPrefix(below, "pods/"):
		var pod corev1.Pod
		if err := r.codec.decode(key, value, &pod); err != nil {
			return nil, err
		}
		if pod.Spec.NodeName != "" && !r.nodes[pod.Spec.NodeName] {
			return nil, nil
		}
	case r.foreign && strings.HasPrefix(below, "services/specs/"):
		return r.service(key, value)
	}
	return value, nil
}

// stale tells what neither cluster wants: what API servers say of themselves, the
// authorities that they publish, which they would add to instead of replacing,
// and keys to the cluster of then.
func (r *rules) stale(below string) bool {
	for _, prefix := range []string{"masterleases/", "leases/kube-system/apiserver-", "secrets/kube-system/bootstrap-token-"} {
		if strings.HasPrefix(below, prefix) {
			return true
		}
	}
	if below == "configmaps/kube-system/extension-apiserver-authentication" {
		return true
	}
	if !r.foreign {
		return false
	}
	for _, prefix := range []string{"minions/", "csinodes/", "leases/kube-node-lease/", "certificatesigningrequests/", "csistoragecapacities/"} {
		if strings.HasPrefix(below, prefix) {
			return true
		}
	}
	name := below[strings.LastIndexByte(below, '/')+1:]
	return strings.HasPrefix(below, "configmaps/") && name == "kube-root-ca.crt" ||
		below == "services/endpoints/default/kubernetes" || below == "endpointslices/default/kubernetes"
}

// service takes a load balancer's addresses off: they lead to the other cluster.
func (r *rules) service(key string, value []byte) ([]byte, error) {
	var s corev1.Service
	if err := r.codec.decode(key, value, &s); err != nil {
		return nil, err
	}
	if len(s.Status.LoadBalancer.Ingress) == 0 {
		return value, nil
	}
	s.Status.LoadBalancer = corev1.LoadBalancerStatus{}
	return r.codec.encode(&s, "Service")
}

// secret opens a Secret, which proves the key, and seals it with the cluster's own.
func (r *rules) secret(key string, value []byte) ([]byte, error) {
	plain, sealed, err := openSecret(value, r.from)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	var s corev1.Secret
	if err := r.codec.decode(key, plain, &s); err != nil {
		return nil, err
	}
	r.secrets++
	if r.foreign && s.Type == corev1.SecretTypeServiceAccountToken {
		// It was signed with keys that don't count here. Without one it gets another.
		delete(s.Data, corev1.ServiceAccountTokenKey)
		delete(s.Data, corev1.ServiceAccountRootCAKey)
		if plain, err = r.codec.encode(&s, "Secret"); err != nil {
			return nil, err
		}
	} else if !sealed || bytes.Equal(r.from, r.to) {
		return value, nil
	}
	return sealSecret(plain, r.to)
}

// sealedBy begins what the API server's secretbox provider sealed with a key.
func sealedBy(key []byte) []byte {
	return []byte("k8s:enc:secretbox:v1:" + controlplane.EncryptionKeyName(key) + ":")
}

const nonceSize = 24

func openSecret(value, key []byte) (plain []byte, sealed bool, err error) {
	if !bytes.HasPrefix(value, []byte("k8s:enc:")) {
		return value, false, nil
	}
	box, ours := bytes.CutPrefix(value, sealedBy(key))
	if !ours || len(box) < nonceSize+secretbox.Overhead || len(key) != 32 {
		return nil, true, errors.New("it is sealed with another key")
	}
	plain, ok := secretbox.Open(nil, box[nonceSize:], (*[nonceSize]byte)(box), (*[32]byte)(key))
	if !ok {
		return nil, true, errors.New("it is sealed with another key, or damaged")
	}
	return plain, true, nil
}

func sealSecret(plain, key []byte) ([]byte, error) {
	if len(key) != 32 {
		return nil, errors.New("the key for secrets isn't 32 bytes long")
	}
	var nonce [nonceSize]byte
	_, _ = rand.Read(nonce[:]) // never fails
	return secretbox.Seal(append(sealedBy(key), nonce[:]...), plain, &nonce, (*[32]byte)(key)), nil
}

// codec reads and writes objects of the core group as the API server keeps them.
type codec struct {
	decoder runtime.Decoder
	encoder runtime.Encoder
}

func newCodec() (codec, error) {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return codec{}, fmt.Errorf("read objects: %w", err)
	}
	return codec{serializer.NewCodecFactory(scheme).UniversalDeserializer(), protobuf.NewSerializer(scheme, scheme)}, nil
}

func (c codec) decode(key string, value []byte, into runtime.Object) error {
	if _, _, err := c.decoder.Decode(value, nil, into); err != nil {
		return fmt.Errorf("%s can't be read", key) // no cause: it could quote what is in it
	}
	return nil
}

func (c codec) encode(o runtime.Object, kind string) ([]byte, error) {
	o.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: kind})
	var out bytes.Buffer
	if err := c.encoder.Encode(o, &out); err != nil {
		return nil, fmt.Errorf("write %s: %w", kind, err)
	}
	return out.Bytes(), nil
}
