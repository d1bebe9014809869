// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"crypto/x509"
	"encoding/json"
	"testing"
)

// signingKey reads the instance's newest key from its store, as a thief would.
func (w world) signingKey(t *testing.T) any {
	t.Helper()
	records, _, err := w.store.List(t.Context(), "secrets/identity/keys/")
	if err != nil || len(records) == 0 {
		t.Fatal(records, err)
	}
	var document struct {
		PKCS8 []byte `json:"pkcs8"`
	}
	if err := json.Unmarshal(records[len(records)-1].Value, &document); err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParsePKCS8PrivateKey(document.PKCS8)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
