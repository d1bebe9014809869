// SPDX-License-Identifier: Apache-2.0

package admission

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // OpenSSL's name of a certificate's file, no protection
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A pod gets the certificate that signs for the token service as an annotation
// of its own, which the kubelet puts into files: no object has to be kept in
// each namespace. SSL_CERT_DIR adds to the system's bundle instead of replacing
// it, for Go and for what uses OpenSSL (Python's ssl, curl, .NET); it keeps the
// directories that distributions have. Node.js has a variable of its own.
const (
	trustAnnotation = "bastide.dev/instance-ca"
	trustVolume     = "azure-identity-ca"
	trustMount      = "/var/run/secrets/azure/ca"
	trustFile       = "ca.crt"
	trustDirs       = trustMount + ":/etc/ssl/certs:/etc/pki/tls/certs"
)

// trust is what pods are to trust; nil: nothing more than they do.
type trust struct {
	pem   []byte
	names []string // of files for OpenSSL, which finds certificates by a digest of their subject
}

func newTrust(bundle []byte) (*trust, error) {
	if len(bytes.TrimSpace(bundle)) == 0 {
		return nil, nil
	}
	t := &trust{pem: bundle}
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("the instance's CA: %w", err)
		}
		hash, err := subjectHash(certificate.RawSubject)
		if err != nil {
			return nil, fmt.Errorf("the instance's CA: %w", err)
		}
		if name := hash + ".0"; !slices.Contains(t.names, name) {
			t.names = append(t.names, name)
		}
	}
	if len(t.names) == 0 {
		return nil, errors.New("the instance's CA isn't a PEM certificate")
	}
	return t, nil
}

// environment points a container's libraries to the certificate, unless it says
// itself whom it trusts.
func (t *trust) environment(c container) []variable {
	var env []variable
	if t == nil {
		return nil
	}
	if !c.sets("SSL_CERT_FILE") {
		env = append(env, variable{"SSL_CERT_DIR", trustDirs})
	}
	return append(env, variable{"NODE_EXTRA_CA_CERTS", trustMount + "/" + trustFile})
}

func (t *trust) volume() object {
	field := object{"fieldPath": "metadata.annotations['" + trustAnnotation + "']"}
	var items []any
	for _, name := range append([]string{trustFile}, t.names...) {
		items = append(items, object{"path": name, "fieldRef": field})
	}
	return object{"name": trustVolume, "projected": object{"sources": []any{object{"downwardAPI": object{"items": items}}}}}
}

// subjectHash is what `openssl x509 -subject_hash` prints: of SHA-1 over the
// name's parts, each text as UTF-8 in lower case with single spaces, the first
// four bytes, lowest first.
func subjectHash(subject []byte) (string, error) {
	var name []asn1.RawValue
	if _, err := asn1.Unmarshal(subject, &name); err != nil {
		return "", fmt.Errorf("subject: %w", err)
	}
	digest := sha1.New() //nolint:gosec // as above
	for _, set := range name {
		part, err := canonical(set.Bytes)
		if err != nil {
			return "", fmt.Errorf("subject: %w", err)
		}
		digest.Write(part)
	}
	return hex.EncodeToString(binary.BigEndian.AppendUint32(nil, binary.LittleEndian.Uint32(digest.Sum(nil)))), nil
}

// canonical encodes the attributes of one relative distinguished name anew.
func canonical(set []byte) ([]byte, error) {
	var all []byte
	for rest := set; len(rest) > 0; {
		var attribute struct {
			Type  asn1.ObjectIdentifier
			Value asn1.RawValue
		}
		var err error
		if rest, err = asn1.Unmarshal(rest, &attribute); err != nil {
			return nil, err
		}
		if tag := attribute.Value.Tag; tag == asn1.TagUTF8String || tag == asn1.TagPrintableString || tag == asn1.TagIA5String {
			text := strings.Map(lower, strings.Join(strings.Fields(string(attribute.Value.Bytes)), " "))
			attribute.Value = asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: []byte(text)}
		}
		encoded, err := asn1.Marshal(attribute)
		if err != nil {
			return nil, err
		}
		all = append(all, encoded...)
	}
	return asn1.Marshal(asn1.RawValue{Tag: asn1.TagSet, IsCompound: true, Bytes: all})
}

// lower is OpenSSL's idea of lower case: ASCII's.
func lower(r rune) rune {
	if r >= 'A' && r <= 'Z' {
		return r + 'a' - 'A'
	}
	return r
}
