// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// systemRoots are where Linux distributions keep their certificate authorities.
var systemRoots = []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"}

// Variable is one environment variable.
type Variable struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Environment is what makes az, the SDKs, OpenTofu and kubectl use the instance.
// lookup is os.Getenv: lists that the user has already are extended.
func (i Instance) Environment(s Secrets, lookup func(string) string) []Variable {
	excluded := "." + i.Domain
	for _, name := range []string{"NO_PROXY", "no_proxy"} {
		if old := lookup(name); old != "" && !strings.Contains(","+old+",", ","+excluded+",") {
			excluded = old + "," + excluded
			break
		} else if old != "" {
			excluded = old
			break
		}
	}
	bundle := i.Bundle()
	env := []Variable{
		{"AZURE_CONFIG_DIR", i.AzureConfigDir()},
		{"AZURE_CORE_COLLECT_TELEMETRY", "no"},
		{"REQUESTS_CA_BUNDLE", bundle},
		{"SSL_CERT_FILE", bundle},
		{"CURL_CA_BUNDLE", bundle},
		{"NODE_EXTRA_CA_CERTS", bundle},
		{"AZURE_TENANT_ID", i.TenantID},
		{"AZURE_SUBSCRIPTION_ID", i.SubscriptionID},
		{"AZURE_CLIENT_ID", i.ClientID},
		{"AZURE_CLIENT_SECRET", s.ClientSecret},
		{"AZURE_AUTHORITY_HOST", i.Authority() + "/"},
		{"ARM_TENANT_ID", i.TenantID},
		{"ARM_SUBSCRIPTION_ID", i.SubscriptionID},
		{"ARM_CLIENT_ID", i.ClientID},
		{"ARM_CLIENT_SECRET", s.ClientSecret},
		{"ARM_METADATA_HOSTNAME", strings.TrimPrefix(i.ResourceManager(), "https://")},
		{"KUBECONFIG", i.Kubeconfig()},
		{"NO_PROXY", excluded},
		{"no_proxy", excluded},
	}
	if path := lookup("PATH"); i.BinDir != "" && !strings.Contains(":"+path+":", ":"+i.BinDir+":") {
		env = append(env, Variable{"PATH", strings.TrimSuffix(i.BinDir+":"+path, ":")})
	}
	return env
}

// Login is the command that signs az in as the instance's service principal.
func (i Instance) Login(s Secrets) []string {
	return []string{"az", "login", "--service-principal", "--username", i.ClientID, "--password=" + s.ClientSecret, "--tenant", i.TenantID}
}

// Shell is a shell's syntax.
type Shell string

// The shells that are known. Sh is right for bash, zsh and dash.
const (
	Sh   Shell = "sh"
	Fish Shell = "fish"
)

// Render writes variables as commands of the shell, for eval.
func Render(shell Shell, variables []Variable) (string, error) {
	if shell != Sh && shell != Fish {
		return "", fmt.Errorf("shell %q isn't known: use %s or %s", shell, Sh, Fish)
	}
	var b strings.Builder
	for _, v := range variables {
		switch shell {
		case Sh:
			fmt.Fprintf(&b, "export %s=%s\n", v.Name, Quote(shell, v.Value))
		case Fish:
			value := Quote(shell, v.Value)
			if v.Name == "PATH" { // a list in fish
				parts := strings.Split(v.Value, ":")
				for n := range parts {
					parts[n] = Quote(shell, parts[n])
				}
				value = strings.Join(parts, " ")
			}
			fmt.Fprintf(&b, "set -gx %s %s\n", v.Name, value)
		}
	}
	return b.String(), nil
}

// RenderCommand writes a command as a comment that can be pasted.
func RenderCommand(shell Shell, args []string) string {
	quoted := make([]string, len(args))
	for n, a := range args {
		quoted[n] = Quote(shell, a)
	}
	return "# " + strings.Join(quoted, " ") + "\n"
}

// Quote makes a word that the shell reads as text.
func Quote(shell Shell, text string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:=@,+"
	if text != "" && strings.Trim(text, plain) == "" {
		return text
	}
	if shell == Fish {
		return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(text) + "'"
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// WriteToolFiles writes what the environment points to: the bundle of
// certificate authorities and az's configuration with the cloud's addresses.
// Where files exist, what az keeps in them besides is left alone.
func (i Instance) WriteToolFiles() error {
	ca, err := os.ReadFile(i.CAFile)
	if err != nil {
		return fmt.Errorf("read the instance's CA: %w", err)
	}
	var bundle bytes.Buffer
	for _, path := range systemRoots {
		if data, err := os.ReadFile(path); err == nil {
			bundle.Write(bytes.TrimRight(data, "\n"))
			bundle.WriteByte('\n')
			break
		}
	}
	bundle.Write(ca)
	if err := writeFile(i.Bundle(), bundle.Bytes(), 0o644); err != nil {
		return err
	}
	dir := i.AzureConfigDir()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make az's configuration: %w", err)
	}
	if err := writeFile(filepath.Join(dir, "clouds.config"), []byte(i.cloud()), 0o644); err != nil {
		return err
	}
	config := filepath.Join(dir, "config")
	if _, err := os.Stat(config); err == nil {
		return nil
	}
	return writeFile(config, []byte("[cloud]\nname = AzureCloud\n\n[core]\ncollect_telemetry = no\n"), 0o600)
}

// cloud is az's own file of addresses. The cloud keeps the name AzureCloud, on
// which parts of the CLI branch. The authority ends in /adfs: for any other,
// MSAL wants a word from Microsoft first.
func (i Instance) cloud() string {
	arm, suffix := i.ResourceManager(), "."+i.Domain
	var b strings.Builder
	b.WriteString("[AzureCloud]\n")
	for _, v := range []Variable{
		{"endpoint_management", arm},
		{"endpoint_resource_manager", arm},
		{"endpoint_active_directory", i.Authority() + "/adfs"},
		{"endpoint_active_directory_resource_id", arm},
		{"endpoint_active_directory_graph_resource_id", i.Graph() + "/"},
		{"endpoint_microsoft_graph_resource_id", i.Graph() + "/"},
		{"suffix_keyvault_dns", ".vault" + suffix},
		{"suffix_acr_login_server_endpoint", ".azurecr" + suffix},
	} {
		fmt.Fprintf(&b, "%s = %s\n", v.Name, v.Value)
	}
	return b.String() + "\n"
}
