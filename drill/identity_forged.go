// SPDX-License-Identifier: Apache-2.0

package drill

import (
	"context"
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"strings"
)

// forgery is a way to make a token that nobody issued.
type forgery struct {
	what string
	make func(f *forger) (string, error)
}

// forger has what an attacker has: a true token to look at, the published keys,
// and a key of their own.
type forger struct {
	token   string // true
	header  object
	payload object
	own     *rsa.PrivateKey
	public  *rsa.PublicKey // the tenant's
}

func forgeries() []forgery {
	return []forgery{
		{"no signature (alg none)", func(f *forger) (string, error) {
			return encode(object{"typ": "JWT", "alg": "none", "kid": f.header["kid"]}, f.payload, nil), nil
		}},
		{"the public key as an HMAC's secret", func(f *forger) (string, error) {
			der, err := x509.MarshalPKIXPublicKey(f.public)
			if err != nil {
				return "", err
			}
			return encode(merged(f.header, object{"alg": "HS256"}), f.payload, func(text []byte) ([]byte, error) {
				mac := hmac.New(sha256.New, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
				mac.Write(text)
				return mac.Sum(nil), nil
			}), nil
		}},
		{"a key of the attacker's under the tenant's key id", func(f *forger) (string, error) { return encode(f.header, f.payload, f.sign), nil }},
		{"a key of the attacker's in the header (jwk)", func(f *forger) (string, error) {
			return encode(merged(f.header, object{"jwk": jwk(&f.own.PublicKey)}), f.payload, f.sign), nil
		}},
		{"a key of the attacker's at an address (jku)", func(f *forger) (string, error) {
			return encode(merged(f.header, object{"jku": "https://attacker.example/keys", "kid": "attacker"}), f.payload, f.sign), nil
		}},
		{"a key id that is a path", func(f *forger) (string, error) {
			return encode(merged(f.header, object{"kid": "../../../../dev/null"}), f.payload, f.sign), nil
		}},
		{"another tenant's token", func(f *forger) (string, error) {
			other := newGUID()
			issuer, _ := f.payload["iss"].(string)
			tenant, _ := f.payload["tid"].(string)
			return encode(merged(f.header, object{"kid": "other"}), merged(f.payload, object{"tid": other, "iss": strings.ReplaceAll(issuer, tenant, other)}), f.sign), nil
		}},
		{"other contents under a true signature", func(f *forger) (string, error) {
			parts := strings.Split(f.token, ".")
			text, err := json.Marshal(merged(f.payload, object{"name": "Administrator"}))
			parts[1] = base64.RawURLEncoding.EncodeToString(text)
			return strings.Join(parts, "."), err
		}},
	}
}

// forgedToken turns from a true token to forged ones, at both doors.
func forgedToken(ctx context.Context, s *Stage) (*Scene, error) {
	c, err := s.Integrated(ctx)
	if err != nil {
		return nil, err
	}
	person, err := s.Person(ctx, "victim")
	if err != nil {
		return nil, err
	}
	for role, scope := range map[string]string{roleReader: s.groupID(), roleKubeReader: c.ID} {
		if _, err := s.grant(ctx, person.ID, "User", role, scope); err != nil {
			return nil, err
		}
	}
	scene := &Scene{Untimed: true}
	forged := false
	for _, door := range []struct{ name, resource string }{{"Resource Manager", s.Instance.ResourceManager()}, {"the API server", serverApplication}} {
		token, err := s.signIn(ctx, person, door.resource, nil)
		if err != nil {
			return nil, err
		}
		f, err := s.newForger(ctx, token)
		if err != nil {
			return nil, err
		}
		for _, way := range forgeries() {
			made, err := way.make(f)
			if err != nil {
				return nil, err
			}
			now := func() string {
				if forged {
					return made
				}
				return token
			}
			who := "an attacker as " + person.Name + ", " + way.what
			if door.resource == serverApplication {
				scene.Attacks = append(scene.Attacks, c.asks(who, "GET", "/api/v1/namespaces/default/pods", nil, now))
			} else {
				scene.Attacks = append(scene.Attacks, s.readsARM(who, s.groupID(), groupVersion, now))
			}
		}
	}
	scene.On = func(context.Context) error {
		forged = true
		s.note("Verification can't be switched off: the attacks turn from true tokens to forged ones, which differ in what is named.")
		return nil
	}
	scene.Off = func(context.Context) error { forged = false; return nil }
	return scene, nil
}

// newForger learns what an attacker can.
func (s *Stage) newForger(ctx context.Context, token string) (*forger, error) {
	f := &forger{token: token}
	var err error
	if f.payload, err = claims(token); err != nil {
		return nil, err
	}
	head, _, _ := strings.Cut(token, ".")
	text, err := base64.RawURLEncoding.DecodeString(head)
	if err != nil {
		return nil, fmt.Errorf("token: %w", err)
	}
	if err := json.Unmarshal(text, &f.header); err != nil {
		return nil, fmt.Errorf("token: %w", err)
	}
	if f.own, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		return nil, fmt.Errorf("forge: %w", err)
	}
	f.public, err = s.published(ctx, f.header["kid"])
	return f, err
}

// published is the tenant's public key of a name.
func (s *Stage) published(ctx context.Context, name any) (*rsa.PublicKey, error) {
	answer, err := s.send(ctx, "GET", s.Instance.Authority()+"/"+s.Instance.TenantID+"/discovery/v2.0/keys", "", nil, nil)
	if err != nil {
		return nil, err
	}
	var set struct {
		Keys []struct{ Kid, N, E string }
	}
	if err := json.Unmarshal(answer.Body, &set); err != nil {
		return nil, fmt.Errorf("published keys: %w", err)
	}
	for _, k := range set.Keys {
		n, err1 := base64.RawURLEncoding.DecodeString(k.N)
		e, err2 := base64.RawURLEncoding.DecodeString(k.E)
		if k.Kid == name && err1 == nil && err2 == nil {
			return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}, nil
		}
	}
	return nil, errors.New("the key of the token isn't published")
}

func (f *forger) sign(text []byte) ([]byte, error) {
	sum := sha256.Sum256(text)
	return rsa.SignPKCS1v15(rand.Reader, f.own, crypto.SHA256, sum[:])
}

func jwk(key *rsa.PublicKey) object {
	return object{"kty": "RSA", "n": base64.RawURLEncoding.EncodeToString(key.N.Bytes()), "e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes())}
}

// encode writes a token; without sign it has no signature.
func encode(header, payload object, sign func([]byte) ([]byte, error)) string {
	part := func(o object) string {
		text, err := json.Marshal(maps.Clone(o))
		if err != nil {
			return ""
		}
		return base64.RawURLEncoding.EncodeToString(text)
	}
	text := part(header) + "." + part(payload)
	if sign == nil {
		return text + "."
	}
	signature, err := sign([]byte(text))
	if err != nil {
		return text + "."
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}
