// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"bastide.dev/fault"
	"bastide.dev/pki"
)

func sample(t *testing.T) Spec {
	t.Helper()
	ca := func(name string) KeyPair {
		pair, err := pki.NewCA(name, 24*time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return KeyPair(pair)
	}
	return Spec{ID: "c1", Version: "1.36.3", Etcd: "3.6.16", Namespace: "c1", Address: netip.MustParseAddr("10.224.0.4"), Endpoint: "c1.hcp.test",
		Public: netip.MustParseAddr("192.88.99.7"), Issuer: "https://issuer", ServiceCIDR: netip.MustParsePrefix("10.0.0.0/16"),
		DNSServiceIP: netip.MustParseAddr("10.0.0.10"), ClusterDomain: "cluster.local",
		Keys: Keys{CA: ca("ca"), FrontProxyCA: ca("fp"), EtcdCA: ca("etcd"), ServiceAccounts: []byte("SIGNER"), SecretsEncryption: bytes.Repeat([]byte("k"), 32),
			BootstrapTokenID: "abcdef", BootstrapTokenCode: "0123456789abcdef"}}
}

func TestValidateNamesEveryProblem(t *testing.T) {
	s := sample(t)
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	s.ID, s.DNSServiceIP, s.Keys.CA.Key = "../x", netip.MustParseAddr("10.1.0.10"), s.Keys.EtcdCA.Key
	var targets []string
	for _, d := range fault.From(s.Validate()).Details {
		targets = append(targets, d.Target)
	}
	if got := fmt.Sprint(targets); got != "[id dnsServiceIP keys.ca]" {
		t.Errorf("targets %s", got)
	}
}

func sampleCloud() *Cloud {
	return &Cloud{Bundle: "1.34.3", Endpoint: "https://management.test", Login: "https://login.test", CA: []byte("CLOUD CA"), Tenant: "t", Subscription: "s", ClientID: "c",
		Secret: "CLIENT-SECRET", Location: "eastus", Group: "MC_g_c_eastus", VNetGroup: "MC_g_c_eastus", VNet: "v", Subnet: "n", NSG: "nsg", ScaleSet: "aks-a-1-vmss",
		BackendPoolType: NodeIPConfiguration}
}

func TestCloudMayBeLeftOut(t *testing.T) {
	s := sample(t)
	without, err := Compile(s, Dirs{Config: "/c", Etcd: "/e", Audit: "/a"})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range without.Files {
		if f.Program == CloudController {
			t.Errorf("file %s for nobody", f.Name)
		}
	}
	if len(without.Programs) != 4 || len(s.Programs()) != 4 {
		t.Errorf("%d programs", len(without.Programs))
	}
	s.Cloud = &Cloud{Routes: true}
	if got := len(fault.From(s.Validate()).Details); got != 17 {
		t.Errorf("%d problems: %v", got, fault.From(s.Validate()).Details)
	}
}

func TestCloudConfiguration(t *testing.T) {
	s := sample(t)
	s.Cloud = sampleCloud()
	get := func() (args string, files map[string]string) {
		t.Helper()
		plan, err := Compile(s, Dirs{Config: "/c", Etcd: "/e", Audit: "/a"})
		if err != nil {
			t.Fatal(err)
		}
		files = map[string]string{}
		for _, f := range plan.Files {
			if f.Program == CloudController {
				files[f.Name] = string(f.Data)
			}
		}
		last := plan.Programs[4]
		if last.Name != CloudController || last.Version != "1.34.3" {
			t.Fatalf("%+v", last)
		}
		return strings.Join(append(last.Args, last.Env...), "\n"), files
	}
	args, files := get()
	for _, want := range []string{"--cloud-config=/c/cloud-controller-manager/azure.json", "--controllers=cloud-node-lifecycle-controller,service-lb-controller\n",
		"--configure-cloud-routes=false", "AZURE_ENVIRONMENT_FILEPATH=/c/cloud-controller-manager/environment.json", "SSL_CERT_FILE=/c/cloud-controller-manager/cloud-ca.crt"} {
		if !strings.Contains(args, want) {
			t.Errorf("no %q in\n%s", want, args)
		}
	}
	for file, want := range map[string]string{"azure.json": `"aadClientSecret": "CLIENT-SECRET"`, "environment.json": `"activeDirectoryEndpoint": "https://login.test/"`, "cloud-ca.crt": "CLOUD CA"} {
		if !strings.Contains(files[file], want) {
			t.Errorf("%s has no %s:\n%s", file, want, files[file])
		}
	}
	if strings.Contains(files["azure.json"], `"routeTableName"`) {
		t.Error("a route table that there isn't")
	}
	s.Cloud.Routes, s.Cloud.RouteTable, s.Cloud.ClusterCIDR = true, "rt", netip.MustParsePrefix("10.244.0.0/16")
	args, files = get()
	if !strings.Contains(args, "node-route-controller") || !strings.Contains(args, "--cluster-cidr=10.244.0.0/16") || !strings.Contains(files["azure.json"], `"routeTableResourceGroup": "MC_g_c_eastus"`) {
		t.Errorf("%s\n%s", args, files["azure.json"])
	}
}

func TestPlanHoldsNoSecretInArguments(t *testing.T) {
	s := sample(t)
	s.Cloud = sampleCloud()
	plan, err := Compile(s, Dirs{Config: "/c", Etcd: "/e", Audit: "/a"})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range plan.Programs {
		all := strings.Join(p.Args, " ") + strings.Join(p.Env, " ")
		for _, secret := range []string{"PRIVATE", "SIGNER", "kkkk", "CLIENT-SECRET", s.Keys.BootstrapTokenCode} {
			if strings.Contains(all, secret) {
				t.Errorf("%s has %q in its arguments", p.Name, secret)
			}
		}
	}
	// Each program gets what it needs and nothing else.
	has := map[string]bool{}
	for _, f := range plan.Files {
		has[f.Program+"/"+f.Name] = true
	}
	for file, want := range map[string]bool{ControllerManager + "/signer.key": true, APIServer + "/signer.key": false, Scheduler + "/signer.key": false, Etcd + "/signer.key": false,
		APIServer + "/encryption.yaml": true, ControllerManager + "/encryption.yaml": false, Scheduler + "/sa.key": false} {
		if has[file] != want {
			t.Errorf("%s: %v, want %v", file, has[file], want)
		}
	}
}

func TestInputsChangeWithWhatIsReadOnce(t *testing.T) {
	s := sample(t)
	inputs := func(s Spec, pinned string) string {
		t.Helper()
		plan, err := Compile(s, Dirs{Config: "/c", Etcd: "/e", Audit: "/a"})
		if err != nil {
			t.Fatal(err)
		}
		digest, err := plan.Inputs(APIServer, map[string][]byte{"kubelet-client": []byte(pinned)})
		if err != nil {
			t.Fatal(err)
		}
		return digest
	}
	first := inputs(s, "one")
	if inputs(s, "one") != first {
		t.Error("the same spec gives another digest")
	}
	if inputs(s, "two") == first {
		t.Error("a pinned certificate doesn't count")
	}
	nodes := s
	nodes.Nodes = []Node{{Name: "n"}}
	if inputs(nodes, "one") != first {
		t.Error("a node restarts the API server")
	}
	key := s
	key.Keys.SecretsEncryption = bytes.Repeat([]byte("x"), 32)
	if inputs(key, "one") == first {
		t.Error("another encryption key goes unnoticed")
	}
}

func TestKubeconfig(t *testing.T) {
	s := sample(t)
	data, err := Kubeconfig(Credential{Cluster: "c1", User: "clusterAdmin_rg_c1", Server: "https://c1.hcp.test:443", CA: pki.Pair(s.Keys.CA),
		CommonName: "masterclient", Organizations: []string{MastersGroup}, Lifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		CurrentContext string `json:"current-context"`
		Contexts       []struct {
			Name    string
			Context struct{ Cluster, User string }
		}
		Clusters []struct {
			Name    string
			Cluster struct {
				Server string
				CA     []byte `json:"certificate-authority-data"`
			}
		}
		Users []struct {
			Name string
			User struct {
				Certificate []byte `json:"client-certificate-data"`
				Key         []byte `json:"client-key-data"`
			}
		}
	}
	if err := yaml.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if got.CurrentContext != "c1" || got.Contexts[0].Context.User != "clusterAdmin_rg_c1" || got.Users[0].Name != "clusterAdmin_rg_c1" ||
		got.Clusters[0].Cluster.Server != "https://c1.hcp.test:443" || !bytes.Equal(got.Clusters[0].Cluster.CA, s.Keys.CA.Certificate) {
		t.Errorf("%s", data)
	}
	leaf, _, err := pki.Parse(pki.Pair{Certificate: got.Users[0].User.Certificate, Key: got.Users[0].User.Key})
	if err != nil || leaf.Subject.CommonName != "masterclient" || leaf.Subject.Organization[0] != MastersGroup {
		t.Errorf("%v, %v", leaf.Subject, err)
	}
}

// TestIssuersInOrder: the first issuer signs, the others' tokens stay good, and
// so do those of retired keys.
func TestIssuersInOrder(t *testing.T) {
	s := sample(t)
	flags := func() string {
		t.Helper()
		plan, err := Compile(s, Dirs{Config: "/c", Etcd: "/e", Audit: "/a"})
		if err != nil {
			t.Fatal(err)
		}
		var found []string
		for _, arg := range plan.Programs[1].Args {
			if strings.HasPrefix(arg, "--service-account-") {
				found = append(found, strings.TrimPrefix(arg, "--service-account-"))
			}
		}
		return strings.Join(found, " ")
	}
	const key = "/c/kube-apiserver/sa.key"
	if got, want := flags(), "issuer=https://issuer key-file="+key+" signing-key-file="+key; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	private, err := pki.NewSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	public, err := pki.PublicPEM(private)
	if err != nil {
		t.Fatal(err)
	}
	s.Issuer, s.FormerIssuers, s.KeysURL, s.Keys.RetiredServiceAccounts = "https://new/", []string{"https://issuer"}, "https://new/keys", [][]byte{public}
	if got, want := flags(), "issuer=https://new/ issuer=https://issuer jwks-uri=https://new/keys key-file="+key+
		" key-file=/c/kube-apiserver/sa-retired.pub signing-key-file="+key; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	s.KeysURL, s.Keys.RetiredServiceAccounts, s.WorkloadIdentity = "http://new/keys", [][]byte{private}, &WorkloadIdentity{Authority: "https://login"}
	var targets []string
	for _, d := range fault.From(s.Validate()).Details {
		targets = append(targets, d.Target)
	}
	if got := fmt.Sprint(targets); got != "[keysURL keys.retiredServiceAccounts workloadIdentity.tenant workloadIdentity.authority workloadIdentity.ca]" {
		t.Errorf("targets %s", got)
	}
}
