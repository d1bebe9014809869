// SPDX-License-Identifier: Apache-2.0

// Package pki issues and renews every certificate of Bastide: the instance's
// own, each host's, and all of a control plane's. It keeps nothing: authorities
// and leaves go in and out as PEM, and the caller decides where they rest.
//
// Every package may import it; it imports the standard library alone.
package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"time"
)

// skew is how far back certificates start, for verifiers whose clock is late.
const skew = 5 * time.Minute

// Pair is a certificate (leaf first, when it is a chain) and its private key, PEM.
type Pair struct {
	Certificate []byte `json:"certificate"`
	Key         []byte `json:"key"`
}

// Request is what a leaf certificate should say.
type Request struct {
	CommonName    string
	Organizations []string
	DNS           []string
	IPs           []netip.Addr
	Server        bool // may serve TLS
	Client        bool // may authenticate as a client
	Lifetime      time.Duration
}

// CA is an authority that can issue.
type CA struct {
	cert *x509.Certificate
	key  crypto.Signer
	// chain leads from the authorities before to this one; it follows what is issued.
	chain []byte
}

// NewCA makes a self-signed authority (ECDSA P-256) that can sign leaves, but
// no further authorities.
func NewCA(name string, lifetime time.Duration) (Pair, error) {
	return newAuthority(name, lifetime, true)
}

func newAuthority(name string, lifetime time.Duration, last bool) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("make key of %s: %w", name, err)
	}
	serial, err := newSerial()
	if err != nil {
		return Pair{}, err
	}
	now := time.Now()
	id, err := keyID(key.Public())
	if err != nil {
		return Pair{}, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             now.Add(-skew),
		NotAfter:              now.Add(lifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        last,
		SubjectKeyId:          id,
	}
	certificate, err := sign(template, template, key.Public(), key)
	if err != nil {
		return Pair{}, err
	}
	return pairOf(certificate, key)
}

// OpenCA makes an authority of its PEM pair. The key must belong to the certificate.
// Certificates behind it are those of CrossSign, and go with all that is issued.
func OpenCA(pair Pair) (*CA, error) {
	cert, key, err := Parse(pair)
	if err != nil {
		return nil, fmt.Errorf("open CA: %w", err)
	}
	if !cert.IsCA {
		return nil, fmt.Errorf("open CA: %q is not an authority", cert.Subject.CommonName)
	}
	chain, err := chainOf(pair.Certificate)
	if err != nil {
		return nil, fmt.Errorf("open CA: %w", err)
	}
	return &CA{cert: cert, key: key, chain: chain}, nil
}

// Issue makes a new key and a certificate for it. The leaf never outlives its authority.
func (ca *CA) Issue(r Request) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("make key of %s: %w", r.CommonName, err)
	}
	certificate, err := ca.Certify(key.Public(), r)
	if err != nil {
		return Pair{}, err
	}
	return pairOf(certificate, key)
}

// Certify makes a certificate for a key that somebody else holds.
func (ca *CA) Certify(public crypto.PublicKey, r Request) ([]byte, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	if r.Lifetime <= 0 || !r.Server && !r.Client {
		return nil, fmt.Errorf("certificate of %q has no lifetime or no use", r.CommonName)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: r.CommonName, Organization: r.Organizations},
		NotBefore:             now.Add(-skew),
		NotAfter:              now.Add(r.Lifetime),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		DNSNames:              r.DNS,
	}
	if template.NotAfter.After(ca.cert.NotAfter) {
		template.NotAfter = ca.cert.NotAfter
	}
	for _, ip := range r.IPs {
		template.IPAddresses = append(template.IPAddresses, net.IP(ip.AsSlice()))
	}
	if r.Server {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	if r.Client {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	leaf, err := sign(template, ca.cert, public, ca.key)
	return append(leaf, ca.chain...), err
}

// Pool trusts this authority alone.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	return pool
}

// Certificate is the authority's own, PEM.
func (ca *CA) Certificate() []byte { return encode("CERTIFICATE", ca.cert.Raw) }

// Pool trusts every certificate of a PEM bundle.
func Pool(bundle []byte) (*x509.CertPool, error) {
	certs, err := Certificates(bundle)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	for _, c := range certs {
		pool.AddCert(c)
	}
	return pool, nil
}

// Bundle joins PEM certificates to one bundle without repeats, the first first:
// while an authority is rotated, both the old and the new are trusted.
func Bundle(pems ...[]byte) ([]byte, error) {
	seen := map[[32]byte]bool{}
	var out []byte
	for _, p := range pems {
		if len(bytes.TrimSpace(p)) == 0 {
			continue
		}
		certs, err := Certificates(p)
		if err != nil {
			return nil, err
		}
		for _, c := range certs {
			if sum := sha256.Sum256(c.Raw); !seen[sum] {
				seen[sum] = true
				out = append(out, encode("CERTIFICATE", c.Raw)...)
			}
		}
	}
	return out, nil
}

// Certificates parses a PEM bundle, which must hold at least one certificate.
func Certificates(bundle []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for rest := bundle; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parse certificate: %w", err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, errors.New("parse certificate: no PEM certificate")
	}
	return certs, nil
}

// Parse returns a pair's leaf and key, and refuses a key that isn't the leaf's.
func Parse(pair Pair) (*x509.Certificate, crypto.Signer, error) {
	c, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	if err != nil {
		return nil, nil, fmt.Errorf("parse key pair: %w", err)
	}
	key, ok := c.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, nil, errors.New("parse key pair: key cannot sign")
	}
	return c.Leaf, key, nil
}

// TLS is the pair as crypto/tls wants it.
func (p Pair) TLS() (tls.Certificate, error) { return tls.X509KeyPair(p.Certificate, p.Key) }

// Due tells whether a certificate is to be renewed: no more than a third of its
// life is left, or it can't be read.
func Due(certificate []byte, now time.Time) bool {
	return !now.Before(RenewAt(certificate))
}

// RenewAt is when two thirds of a certificate's life are over; the zero time
// when it can't be read.
func RenewAt(certificate []byte) time.Time {
	certs, err := Certificates(certificate)
	if err != nil {
		return time.Time{}
	}
	life := certs[0].NotAfter.Sub(certs[0].NotBefore)
	return certs[0].NotAfter.Add(-life / 3)
}

// IssuedBy tells whether the authority signed the certificate.
func (ca *CA) IssuedBy(certificate []byte) bool {
	certs, err := Certificates(certificate)
	return err == nil && certs[0].CheckSignatureFrom(ca.cert) == nil
}

// Current tells whether a pair still is what Issue(r) would make: signed by this
// authority, with the same names and uses, and not due for renewal.
func (ca *CA) Current(pair Pair, r Request, now time.Time) bool {
	cert, _, err := Parse(pair)
	if err != nil || Due(pair.Certificate, now) || cert.CheckSignatureFrom(ca.cert) != nil || !hasChain(pair.Certificate, ca.chain) {
		return false
	}
	var ips []netip.Addr
	for _, ip := range cert.IPAddresses {
		if a, ok := netip.AddrFromSlice(ip); ok {
			ips = append(ips, a.Unmap())
		}
	}
	return cert.Subject.CommonName == r.CommonName &&
		slices.Equal(cert.Subject.Organization, r.Organizations) &&
		slices.Equal(cert.DNSNames, r.DNS) && slices.Equal(ips, r.IPs) &&
		slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageServerAuth) == r.Server &&
		slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageClientAuth) == r.Client
}

// NewSigningKey makes the PEM private key that signs service-account tokens:
// RSA, since those who federate with a cluster expect RS256.
func NewSigningKey() ([]byte, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("make signing key: %w", err)
	}
	return encode("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key)), nil
}

// Fingerprint is the SHA-256 of a PEM certificate's DER, in hex.
func Fingerprint(certificate []byte) string {
	certs, err := Certificates(certificate)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(certs[0].Raw)
	return hex.EncodeToString(sum[:])
}

func sign(template, parent *x509.Certificate, public crypto.PublicKey, signer crypto.Signer) ([]byte, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		return nil, fmt.Errorf("sign certificate of %q: %w", template.Subject.CommonName, err)
	}
	return encode("CERTIFICATE", der), nil
}

func pairOf(certificate []byte, key *ecdsa.PrivateKey) (Pair, error) {
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return Pair{}, fmt.Errorf("encode key: %w", err)
	}
	return Pair{Certificate: certificate, Key: encode("EC PRIVATE KEY", private)}, nil
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func keyID(public crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("encode public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return sum[:20], nil
}

func newSerial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make serial number: %w", err)
	}
	return n.Add(n, big.NewInt(1)), nil
}
