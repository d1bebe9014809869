// SPDX-License-Identifier: Apache-2.0

package pki

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
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

// Succeed makes the authority that follows this one: a root of the given name
// whose certificate is followed by the chain that leads to it from this one and
// all those before.
func (ca *CA) Succeed(name string, lifetime time.Duration) (Pair, error) {
	next, err := NewRoot(name, lifetime)
	if err != nil {
		return Pair{}, err
	}
	vouched, err := ca.CrossSign(next.Certificate)
	if err != nil {
		return Pair{}, err
	}
	next.Certificate = slices.Concat(next.Certificate, vouched, ca.recent())
	return next, nil
}

// maxChain bounds what servers show of the authorities before.
const maxChain = 4

func (ca *CA) recent() []byte {
	certs, err := Certificates(ca.chain)
	if err != nil {
		return nil
	}
	var kept []byte
	for _, c := range certs[:min(len(certs), maxChain-1)] {
		kept = append(kept, encode("CERTIFICATE", c.Raw)...)
	}
	return kept
}

// chainOf are the certificates behind the first, PEM.
func chainOf(certificate []byte) ([]byte, error) {
	certs, err := Certificates(certificate)
	if err != nil {
		return nil, err
	}
	var chain []byte
	for _, c := range certs[1:] {
		if !c.IsCA {
			return nil, fmt.Errorf("%q in the chain is no authority", c.Subject.CommonName)
		}
		chain = append(chain, encode("CERTIFICATE", c.Raw)...)
	}
	return chain, nil
}

func hasChain(certificate, chain []byte) bool {
	have, err := chainOf(certificate)
	return err == nil && bytes.Equal(have, chain)
}

// First is the first certificate of a chain alone, PEM: what to trust of an
// authority. What can't be read is returned as it is.
func First(chain []byte) []byte {
	certs, err := Certificates(chain)
	if err != nil {
		return chain
	}
	return encode("CERTIFICATE", certs[0].Raw)
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
