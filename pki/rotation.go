// SPDX-License-Identifier: Apache-2.0

package pki

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// ErrNoSuccessor says that an authority may not sign its successor's certificate.
var ErrNoSuccessor = errors.New("the authority can't vouch for a successor")

// NewRoot is NewCA for an authority that can be replaced without its clients
// noticing: it may vouch for its successor (CrossSign). Successors want another
// name each, so that a verifier never takes one for the other.
func NewRoot(name string, lifetime time.Duration) (Pair, error) {
	return newAuthority(name, lifetime, false)
}

// CrossSign makes a certificate that vouches for a successor: whoever trusts
// this authority alone believes what the successor signed, once the server shows
// it between its own certificate and the root. It gives this authority no power
// over who trusts the successor.
func (ca *CA) CrossSign(successor []byte) ([]byte, error) {
	if ca.cert.MaxPathLenZero && ca.cert.MaxPathLen == 0 {
		return nil, fmt.Errorf("cross-sign: %q: %w", ca.cert.Subject.CommonName, ErrNoSuccessor)
	}
	certs, err := Certificates(successor)
	if err != nil {
		return nil, fmt.Errorf("cross-sign: %w", err)
	}
	next := certs[0]
	switch {
	case !next.IsCA || next.CheckSignatureFrom(next) != nil:
		return nil, fmt.Errorf("cross-sign: %q is no authority of its own", next.Subject.CommonName)
	case bytes.Equal(next.RawSubject, ca.cert.RawSubject):
		return nil, fmt.Errorf("cross-sign: %q has its predecessor's name", next.Subject.CommonName)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		RawSubject:            next.RawSubject,
		NotBefore:             time.Now().Add(-skew),
		NotAfter:              next.NotAfter,
		KeyUsage:              next.KeyUsage,
		BasicConstraintsValid: true,
		IsCA:                  true,
		SubjectKeyId:          next.SubjectKeyId,
	}
	if template.NotAfter.After(ca.cert.NotAfter) {
		template.NotAfter = ca.cert.NotAfter
	}
	return sign(template, ca.cert, next.PublicKey, ca.key)
}

// WithChain puts certificates behind a pair's own, for those who know only an
// authority before the one that issued it.
func (p Pair) WithChain(chain []byte) Pair {
	if len(chain) > 0 {
		p.Certificate = append(bytes.Clone(p.Certificate), chain...)
	}
	return p
}

// HasChain tells whether a certificate is followed by exactly this chain.
func HasChain(certificate, chain []byte) bool {
	have, err := Certificates(certificate)
	if err != nil {
		return false
	}
	want, err := Certificates(chain)
	if err != nil {
		want = nil
	}
	if len(have) != len(want)+1 {
		return false
	}
	for i := range want {
		if !bytes.Equal(have[i+1].Raw, want[i].Raw) {
			return false
		}
	}
	return true
}

// Ends is when a PEM certificate, the first of its chain, ends; zero when it can't be read.
func Ends(certificate []byte) time.Time {
	certs, err := Certificates(certificate)
	if err != nil {
		return time.Time{}
	}
	return certs[0].NotAfter
}

// Name is the common name in a PEM certificate, the first of its chain; "" when
// it can't be read.
func Name(certificate []byte) string {
	certs, err := Certificates(certificate)
	if err != nil {
		return ""
	}
	return certs[0].Subject.CommonName
}
