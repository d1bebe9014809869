// SPDX-License-Identifier: Apache-2.0

package signin

import (
	"strings"
	"testing"
	"time"

	"bastide.dev/fault"
	"bastide.dev/identity"
)

func TestFilter(t *testing.T) {
	e := Entry{ID: "1", Time: noon, Flow: identity.FlowDevice, Kind: identity.UserKind, Principal: alice, Name: "Alice.O'Hara@test", ClientID: identity.AppCLI, Address: "10.1.2.3", Code: 50126, AccessStatus: "failure"}
	for filter, want := range map[string]bool{
		"": true, "userPrincipalName eq 'alice.o''hara@test'": true, "userPrincipalName ne 'x'": true, "startswith(userPrincipalName,'alice')": true, "startswith(ipAddress, '10.2.')": false,
		"status/errorCode ne 0": true, "status/errorCode eq 50126 and ipAddress eq '10.1.2.4'": false, "ipAddress eq '10.1.2.4' or appId eq '" + identity.AppCLI + "'": true,
		"createdDateTime ge 2026-08-01T12:00:00Z": true, "createdDateTime gt 2026-08-01T12:00:00Z": false, "createdDateTime lt 2026-08-02": true,
		"signInEventTypes/any(t: t eq 'interactiveUser')": true, "signInEventTypes/any(t:t eq 'servicePrincipal')": false, "not (status/errorCode eq 0)": true,
		"isInteractive eq true": true, "(appId eq 'x' or appId eq 'y') and status/errorCode gt 5": false, "servicePrincipalId eq '" + alice + "'": false, "authenticationProtocol eq 'deviceCode'": true,
		"appId eq 'x' and status/errorCode eq 1 or userId eq '" + alice + "'": true,
	} {
		f, err := ParseFilter(filter)
		if err != nil {
			t.Errorf("%s: %v", filter, err)
			continue
		}
		if f.Match(&e) != want {
			t.Errorf("%s: %v", filter, !want)
		}
	}
	for _, filter := range []string{"shoeSize eq 1", "appId", "appId eq", "appId eq x", "appId like 'x'", "(appId eq 'x'", "appId eq 'x')", "appId eq 'x' and", "appId eq 'x", "status/errorCode eq 'x'", "status/errorCode eq 99999999999999999999",
		"createdDateTime ge yesterday", "signInEventTypes eq 'x'", "signInEventTypes/any(t:u eq 'x')", "not", "startswith(status/errorCode)", strings.Repeat("(", 100), strings.Repeat("not ", 100) + "appId eq 'x'", strings.Repeat("x", 3000), "appId eq 'x' \x00"} {
		if _, err := ParseFilter(filter); !fault.Is(err, fault.Invalid) {
			t.Errorf("%.50s: %v", filter, err)
		}
	}
}

// TestFilterSince: batches from before are skipped, so this mustn't claim too much.
func TestFilterSince(t *testing.T) {
	day := time.Date(2026, 8, 1, 0, 0, 0, 0, time.UTC)
	for filter, want := range map[string]time.Time{
		"createdDateTime ge 2026-08-01": day, "appId eq 'x' and (createdDateTime gt 2026-08-01)": day, "createdDateTime ge 2026-08-01 or appId eq 'x'": {}, "not (createdDateTime ge 2026-08-01)": {},
		"createdDateTime le 2026-08-01": {}, "appId eq 'x' or createdDateTime ge 2026-08-01": {}, "(appId eq 'x' or createdDateTime ge 2026-08-02) and createdDateTime ge 2026-08-01": day,
	} {
		if f, err := ParseFilter(filter); err != nil || !f.Since.Equal(want) {
			t.Errorf("%s: %v %v", filter, f.Since, err)
		}
	}
}

// FuzzFilter feeds what people type: understood or refused, and never more than there is to compare.
func FuzzFilter(f *testing.F) {
	for _, seed := range []string{"status/errorCode ne 0", "a/any(b:b eq 'c')", "not (appId eq 'x') and createdDateTime ge 2026-08-01T00:00:00Z", "startswith(appId,'x')", "(("} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, filter string) {
		parsed, err := ParseFilter(filter)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("%q: %v", filter, err)
			}
			return
		}
		e := Entry{Time: noon, Name: "x"}
		if parsed.Match(&e) && e.Time.Before(parsed.Since) {
			t.Errorf("%q matches what Since %v leaves out", filter, parsed.Since)
		}
	})
}
