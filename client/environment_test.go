// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"bastide.dev/client"
)

func example(t *testing.T) client.Instance {
	t.Helper()
	dir := t.TempDir()
	i := client.Instance{Name: "x", Domain: "d.test", Address: netip.MustParseAddr("192.88.99.1"), StateDir: dir, BinDir: dir + "/bin",
		TenantID: "11111111-1111-1111-1111-111111111111", SubscriptionID: "22222222-2222-2222-2222-222222222222", ClientID: "33333333-3333-3333-3333-333333333333",
		CAFile: filepath.Join(dir, "ca.pem")}
	_, ca := certificate(t, i.Hosts())
	if err := os.WriteFile(i.CAFile, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	return i
}

func TestShellReadsWhatWasMeant(t *testing.T) {
	i := example(t)
	for _, secret := range []string{"plain", "with space", `q'uo"te`, "$(touch /nowhere)", "`id`", `back\slash`, "a;b&c|d", "!x", "", "line\nbreak", "-dash", "~"} {
		variables := i.Environment(client.Secrets{ClientSecret: secret}, func(name string) string {
			return map[string]string{"PATH": "/usr/bin:/bin", "NO_PROXY": "localhost"}[name]
		})
		text, err := client.Render(client.Sh, variables)
		if err != nil {
			t.Fatal(err)
		}
		for _, shell := range []string{"sh", "bash"} {
			out, err := exec.CommandContext(t.Context(), shell, "-euc", text+`printf '%s|%s|%s|%s' "$AZURE_CLIENT_SECRET" "$ARM_CLIENT_SECRET" "$NO_PROXY" "$PATH"`).CombinedOutput()
			if want := secret + "|" + secret + "|localhost,.d.test|" + i.BinDir + ":/usr/bin:/bin"; err != nil || string(out) != want {
				t.Errorf("%s: %q, want %q, %v", shell, out, want, err)
			}
		}
		line := strings.TrimPrefix(client.RenderCommand(client.Sh, i.Login(client.Secrets{ClientSecret: secret})), "# ")
		out, err := exec.CommandContext(t.Context(), "sh", "-euc", `az() { for a in "$@"; do printf '[%s]' "$a"; done; }; `+line).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "[--password="+secret+"]") {
			t.Errorf("%q %v", out, err)
		}
	}
}

func TestFish(t *testing.T) {
	text, err := client.Render(client.Fish, []client.Variable{{Name: "A", Value: `it's a \`}, {Name: "PATH", Value: "/a b:/c"}})
	if want := `set -gx A 'it\'s a \\'` + "\nset -gx PATH '/a b' /c\n"; err != nil || text != want {
		t.Errorf("%q, want %q, %v", text, want, err)
	}
	if _, err := client.Render("tcsh", nil); err == nil {
		t.Error("an unknown shell is rendered")
	}
}

func TestEnvironmentDoesNotGrow(t *testing.T) {
	i := example(t)
	env := map[string]string{"PATH": "/bin", "NO_PROXY": "a"}
	for range 2 {
		for _, v := range i.Environment(client.Secrets{}, func(name string) string { return env[name] }) {
			env[v.Name] = v.Value
		}
	}
	if env["PATH"] != i.BinDir+":/bin" || env["NO_PROXY"] != "a,.d.test" {
		t.Errorf("PATH=%s NO_PROXY=%s", env["PATH"], env["NO_PROXY"])
	}
}

// TestAzReadsItsFiles asks the machine's own az what it understood.
func TestAzReadsItsFiles(t *testing.T) {
	i := example(t)
	for range 2 { // a second time changes nothing
		if err := i.WriteToolFiles(); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "az", "cloud", "show")
	cmd.Env = os.Environ()
	for _, v := range i.Environment(client.Secrets{ClientSecret: "x"}, os.Getenv) {
		cmd.Env = append(cmd.Env, v.Name+"="+v.Value)
	}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("az cloud show: %v %s", err, out)
	}
	var shown struct {
		Name      string            `json:"name"`
		IsActive  bool              `json:"isActive"`
		Endpoints map[string]string `json:"endpoints"`
		Suffixes  map[string]string `json:"suffixes"`
	}
	if err := json.Unmarshal(out, &shown); err != nil {
		t.Fatal(err)
	}
	if shown.Name != "AzureCloud" || !shown.IsActive || shown.Endpoints["resourceManager"] != i.ResourceManager() || shown.Endpoints["management"] != i.ResourceManager() ||
		shown.Endpoints["activeDirectory"] != i.Authority()+"/adfs" || shown.Endpoints["microsoftGraphResourceId"] != i.Graph()+"/" || shown.Suffixes["keyvaultDns"] != ".vault.d.test" {
		t.Errorf("az reads %+v", shown)
	}
	ca, err := os.ReadFile(i.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	if bundle, err := os.ReadFile(i.Bundle()); err != nil || !strings.HasSuffix(string(bundle), string(ca)) {
		t.Errorf("the bundle lacks the instance's CA: %v", err)
	}
}
