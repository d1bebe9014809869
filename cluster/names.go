// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// Every name of a cluster derives from its uid, which is drawn once at its
// creation: a cluster deleted and made again under the same name shares none.

// shortID names a cluster's units: a letter and twelve hex digits, no dash, so
// that what precedes a unit's first dash is the cluster.
func shortID(uid string) string { return "c" + digest(uid, "unit")[:12] }

// unitOwner is the shortID in a unit's name.
func unitOwner(unit string) string {
	owner, _, _ := strings.Cut(unit, "-")
	return owner
}

// nodeDigits are the eight digits in all node names of a cluster.
func nodeDigits(uid string) string {
	sum := sha256.Sum256([]byte(uid + "/nodes"))
	return fmt.Sprintf("%08d", 10000000+binary.BigEndian.Uint32(sum[:4])%90000000)
}

// nodeName is a node's name in Kubernetes: aks-{pool}-{8 digits}-vmss{6 base36}.
func nodeName(pool, digits string, number int64) string {
	return fmt.Sprintf("aks-%s-%s-vmss%s", pool, digits, base36(number))
}

// machineID names a node's machine, unique on the instance.
func machineID(id, pool string, number int64) string {
	return id + "-" + pool + "-" + base36(number)
}

func base36(number int64) string {
	s := strconv.FormatInt(number, 36)
	return strings.Repeat("0", max(0, 6-len(s))) + s
}

// fqdn is an API server's public name.
func fqdn(dnsPrefix, uid, location, domain string) string {
	return fmt.Sprintf("%s-%s.hcp.%s.%s", strings.ToLower(dnsPrefix), digest(uid, "fqdn")[:8], location, domain)
}

func digest(uid, purpose string) string {
	sum := sha256.Sum256([]byte(uid + "/" + purpose))
	return hex.EncodeToString(sum[:])
}
