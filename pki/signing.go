// SPDX-License-Identifier: Apache-2.0

package pki

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
)

// PublicPEM is the public half, PEM, of what NewSigningKey made.
func PublicPEM(private []byte) ([]byte, error) {
	block, _ := pem.Decode(private)
	if block == nil || block.Type != "RSA PRIVATE KEY" {
		return nil, errors.New("parse signing key: no PEM private key")
	}
	key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("parse signing key: malformed") // no cause: it could quote a secret
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("encode public key: %w", err)
	}
	return encode("PUBLIC KEY", der), nil
}

// ParsePublic reads what PublicPEM returned.
func ParsePublic(public []byte) (crypto.PublicKey, error) {
	block, _ := pem.Decode(public)
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, errors.New("parse public key: no PEM public key")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse public key: %w", err)
	}
	return key, nil
}

// SigningKeyID is the id by which a Kubernetes API server names a public key in
// the tokens that it signs.
func SigningKeyID(public crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("encode public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return base64.RawURLEncoding.EncodeToString(sum[:]), nil
}
