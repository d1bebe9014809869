// SPDX-License-Identifier: Apache-2.0

// Package bastide holds no code: its test holds the architecture's one-way
// dependencies, so that an edge that nobody decided on fails the build.
package bastide

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "bastide.dev/"

// edges says which packages of this module each may import. A sub-package not
// listed has its parent's row, and may import its parent.
var edges = map[string]string{
	"fault":    "",
	"resource": "fault",

	// Foundations.
	"store":     "fault resource",
	"reconcile": "fault resource",
	"pki":       "fault resource",
	"supervise": "fault resource cgroup",
	"cgroup":    "fault",
	"bundle":    "fault",
	"nodeimage": "fault bundle",
	"instance":  "fault",
	"rbac":      "fault",
	"stream":    "",
	"backup":    "fault",

	// Pure cores of cluster's.
	"maintenance": "fault",
	"roll":        "fault",

	// Mechanism: no arm, no store, no provider.
	"ruleset":      "fault",
	"dataplane":    "fault ruleset",
	"netpolicy":    "fault ruleset",
	"machine":      "fault cgroup bundle nodeimage",
	"node":         "fault supervise pki cgroup netpolicy machine",
	"controlplane": "fault supervise pki cgroup bundle reconcile admission autoscale reboots",
	"admission":    "fault",
	"autoscale":    "fault",
	"reboots":      "fault",
	"metadata":     "fault dataplane", // it answers what the data plane knows by address
	"host":         "fault store pki machine controlplane dataplane ruleset metadata",

	// Providers: not each other.
	"cluster":         "fault resource store reconcile pki machine node controlplane dataplane host arm oidc autoscale maintenance roll reboots",
	"network":         "fault resource store reconcile dataplane ruleset host arm",
	"compute":         "fault resource store reconcile machine node host arm metadata",
	"managedidentity": "fault resource store arm",
	"authorization":   "fault resource store arm rbac",
	"pim":             "fault resource store arm rbac",
	"pull":            "",
	"why":             "fault dataplane ruleset netpolicy host",
	"identity":        "fault resource store pki arm",
	"registry":        "fault",
	"oidc":            "fault store pki", // what clusters publish of their issuers
	"guard":           "fault",
	"mirror":          "fault",

	// Front door and clients.
	"arm":    "fault resource store",
	"client": "fault resource",
	"drill":  "fault client resource stream",

	"bench":     "",
	"testcloud": "*",
	"cmd":       "*",
}

// http lists who may touch net/http: front doors, clients, the way between serve
// and host, and the policy agent and a control plane's agent, which are small
// clients of their API server.
const http = "controlplane metadata admission oidc arm identity registry mirror guard client host netpolicy pull testcloud bench cmd"

func TestDependencyDirections(t *testing.T) {
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		row, ok := rowOf(name)
		if !ok {
			t.Errorf("%s isn't in the table of directions: decide what it may import", name)
			continue
		}
		for _, imported := range p.Imports {
			if imported == "net/http" && !allowed(http, root(name)) {
				t.Errorf("%s imports net/http: only %s may", name, http)
			}
			target, ours := strings.CutPrefix(imported, module)
			if ours && root(target) != root(name) && !allowed(row, root(target)) {
				t.Errorf("%s imports %s: it may import only %q", name, target, row)
			}
			if root(name) == "resource" || root(name) == "fault" {
				if strings.Contains(strings.SplitN(imported, "/", 2)[0], ".") && !ours {
					t.Errorf("%s imports %s: it lives on the standard library alone", name, imported)
				}
			}
		}
	}
}

func TestEveryRowIsAPackage(t *testing.T) {
	var roots []string
	for _, p := range packages(t) {
		roots = append(roots, root(strings.TrimPrefix(p.ImportPath, module)))
	}
	for name := range edges {
		if !slices.Contains(roots, name) {
			t.Errorf("the table of directions names %s, which is no package", name)
		}
	}
}

func rowOf(name string) (string, bool) {
	for ; name != "."; name = path.Dir(name) {
		if row, ok := edges[name]; ok {
			return row, true
		}
	}
	return "", false
}

func allowed(row, name string) bool {
	return row == "*" || slices.Contains(strings.Fields(row), name)
}

func root(name string) string {
	first, _, _ := strings.Cut(name, "/")
	return first
}

type listed struct {
	ImportPath string
	Imports    []string
}

func packages(t *testing.T) []listed {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "./...")
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	var all []listed
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		if p.ImportPath != strings.TrimSuffix(module, "/") {
			all = append(all, p)
		}
	}
}
