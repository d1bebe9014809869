// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bastide.dev/bundle"
	"bastide.dev/controlplane"
	"bastide.dev/pki"
	"bastide.dev/supervise"
)

// cloud is the little of Azure that cloud-provider-azure needs: a token service
// and documents that are kept as they are put.
type cloud struct {
	*httptest.Server
	secret string

	mu        sync.Mutex // guards what follows
	documents map[string]object
	requests  []string
	etag      int
}

const (
	cloudGroup    = "/subscriptions/sub/resourceGroups/MC_g_c_eastus/providers/"
	scaleSet      = cloudGroup + "Microsoft.Compute/virtualMachineScaleSets/aks-a-12345678-vmss"
	cloudNode     = "aks-a-12345678-vmss000000"
	cloudNIC      = scaleSet + "/virtualMachines/0/networkInterfaces/nic"
	securityGroup = cloudGroup + "Microsoft.Network/networkSecurityGroups/aks-agentpool-nsg"
)

// cloud starts one within a control plane's namespace and puts it into the spec.
func (r *rig) cloud(spec *controlplane.Spec) *cloud {
	r.t.Helper()
	pair, err := pki.NewCA("cloud", time.Hour)
	if err != nil {
		r.t.Fatal(err)
	}
	ca, err := pki.OpenCA(pair)
	if err != nil {
		r.t.Fatal(err)
	}
	leaf, err := ca.Issue(pki.Request{CommonName: "cloud", IPs: []netip.Addr{spec.Address}, Server: true, Lifetime: time.Hour})
	if err != nil {
		r.t.Fatal(err)
	}
	certificate, err := leaf.TLS()
	if err != nil {
		r.t.Fatal(err)
	}
	c := &cloud{secret: "the-cloud's-own-secret", documents: map[string]object{}}
	c.Server = httptest.NewUnstartedServer(c)
	c.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
	err = supervise.InNetns(filepath.Join(r.dir, spec.Namespace), func() error {
		c.Listener.Close()
		c.Listener, err = net.Listen("tcp", net.JoinHostPort(spec.Address.String(), "8443"))
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	c.StartTLS()
	r.t.Cleanup(c.Close)
	c.populate()
	spec.Cloud = &controlplane.Cloud{Bundle: bundle.CloudControllerVersion, Endpoint: c.URL, Login: c.URL, CA: ca.Certificate(),
		Tenant: "tenant", Subscription: "sub", ClientID: "11111111-1111-1111-1111-111111111111", Secret: c.secret, Location: "eastus",
		Group: "MC_g_c_eastus", VNetGroup: "MC_g_c_eastus", VNet: "aks-vnet", Subnet: "aks-subnet", NSG: "aks-agentpool-nsg", ScaleSet: "aks-a-12345678-vmss",
		BackendPoolType: controlplane.NodeIPConfiguration}
	return c
}

func (c *cloud) populate() {
	nics := func() object {
		return object{"networkInterfaceConfigurations": []any{object{"name": "nic", "properties": object{"primary": true,
			"ipConfigurations": []any{object{"name": "ipconfig1", "properties": object{"primary": true}}}}}}}
	}
	c.keep(scaleSet, object{"name": "aks-a-12345678-vmss", "location": "eastus", "properties": object{"provisioningState": "Succeeded",
		"virtualMachineProfile": object{"osProfile": object{"computerNamePrefix": "aks-a-12345678-vmss"}, "networkProfile": nics()}}})
	c.keep(scaleSet+"/virtualMachines/0", object{"name": "aks-a-12345678-vmss_0", "instanceId": "0", "location": "eastus", "properties": object{
		"provisioningState": "Succeeded", "osProfile": object{"computerName": cloudNode}, "networkProfileConfiguration": nics(),
		"networkProfile": object{"networkInterfaces": []any{object{"id": cloudNIC, "properties": object{"primary": true}}}},
		"instanceView":   object{"platformFaultDomain": 0, "statuses": []any{object{"code": "PowerState/running"}}}}})
	c.keep(cloudNIC, object{"name": "nic", "location": "eastus", "properties": object{"primary": true,
		"ipConfigurations": []any{object{"name": "ipconfig1", "properties": object{"primary": true, "privateIPAddress": "10.224.0.5"}}}}})
	c.keep(securityGroup, object{"name": "aks-agentpool-nsg", "location": "eastus", "properties": object{"securityRules": []any{}}})
}

// keep stores a document; the provider writes paths in whatever case.
func (c *cloud) keep(id string, d object) {
	c.etag++
	d["id"], d["etag"] = id, fmt.Sprintf(`W/"%d"`, c.etag)
	c.documents[strings.ToLower(id)] = d
}

func (c *cloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	status, answer := c.answer(r)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer) // to a client that may be gone
}

func (c *cloud) answer(r *http.Request) (int, any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests = append(c.requests, r.Method+" "+r.URL.String())
	switch r.URL.Path {
	case "/adfs/.well-known/openid-configuration":
		return 200, object{"issuer": c.URL + "/adfs", "authorization_endpoint": c.URL + "/adfs/oauth2/authorize", "token_endpoint": c.URL + "/adfs/oauth2/token"}
	case "/adfs/oauth2/token":
		if r.FormValue("grant_type") != "client_credentials" || r.FormValue("client_secret") != c.secret || r.FormValue("scope") != c.URL+"/.default openid offline_access profile" {
			return 401, object{"error": "invalid_client", "error_description": "refused " + r.FormValue("scope")}
		}
		return 200, object{"token_type": "Bearer", "access_token": "token", "expires_in": 3600}
	}
	if r.Header.Get("Authorization") != "Bearer token" {
		return 401, object{"error": object{"code": "AuthenticationFailed"}}
	}
	if strings.HasSuffix(r.URL.Path, "/providers/Microsoft.Compute") {
		return 200, object{"resourceTypes": []any{object{"resourceType": "virtualMachines", "zoneMappings": []any{object{"location": "East US", "zones": []any{}}}}}}
	}
	return c.document(r)
}

func (c *cloud) document(r *http.Request) (int, any) {
	key := strings.ToLower(r.URL.Path)
	found := c.documents[key]
	switch r.Method {
	case "PUT":
		var body object
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			return 400, object{}
		}
		if match := r.Header.Get("If-Match"); match != "" && (found == nil || match != found["etag"]) {
			return 412, object{"error": object{"code": "PreconditionFailed"}}
		}
		switch {
		case found == nil:
			c.keep(r.URL.Path, body)
		case strings.Contains(key, "microsoft.compute"): // these change in part
			merge(found, body)
			c.keep(found["id"].(string), found)
		default:
			c.keep(found["id"].(string), body)
		}
		return 200, c.complete(c.documents[key])
	case "DELETE":
		delete(c.documents, key)
		return 200, nil
	}
	if found != nil {
		return 200, c.complete(found)
	}
	if strings.Count(key, "/")%2 == 0 {
		return 404, object{"error": object{"code": "ResourceNotFound"}}
	}
	list := []any{}
	for other, d := range c.documents {
		if rest, ok := strings.CutPrefix(other, key+"/"); ok && !strings.Contains(rest, "/") {
			list = append(list, c.complete(d))
		}
	}
	return 200, object{"value": list}
}

// complete adds what a server knows: children's ids, addresses.
func (c *cloud) complete(d object) object {
	key := d["id"].(string)
	properties, _ := d["properties"].(object)
	if properties == nil {
		properties = object{}
		d["properties"] = properties
	}
	properties["provisioningState"] = "Succeeded"
	if strings.Contains(key, "/publicIPAddresses/") {
		properties["ipAddress"] = "192.88.99.10"
	}
	for _, kind := range []string{"backendAddressPools", "frontendIPConfigurations", "probes", "loadBalancingRules"} {
		children, _ := properties[kind].([]any)
		for _, child := range children {
			child.(object)["id"] = key + "/" + kind + "/" + child.(object)["name"].(string)
		}
	}
	return d
}

func merge(into, from object) {
	for name, value := range from {
		inner, ok := value.(object)
		if have, is := into[name].(object); ok && is {
			merge(have, inner)
			continue
		}
		into[name] = value
	}
}

func (c *cloud) asked(part string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, request := range c.requests {
		if strings.Contains(request, part) {
			return true
		}
	}
	return false
}

// get reads a document as JSON.
func (c *cloud) get(key string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	data, _ := json.Marshal(c.documents[strings.ToLower(key)]) // of what was decoded
	return string(data)
}

func (u *user) cloudNode(name string) {
	u.t.Helper()
	eventually(u.t, "node "+name+" is registered", func() bool {
		code, _ := u.do("POST", "/api/v1/nodes", object{"metadata": object{"name": name}, "spec": object{"providerID": "azure://" + scaleSet + "/virtualMachines/0"},
			"status": object{"addresses": []any{object{"type": "InternalIP", "address": "10.224.0.5"}}, "conditions": []any{object{"type": "Ready", "status": "True", "reason": "Test", "message": "test"}}}})
		return code == 201 || code == 409
	})
}

// TestCloudController runs the real one against a cloud of the test's.
func TestCloudController(t *testing.T) {
	r := newRig(t)
	spec := r.spec("cloudy")
	c := r.cloud(&spec)
	r.apply(spec)
	r.until("cloudy", "ready", ready)
	served := time.Now()
	eventually(t, "it has authenticated", func() bool { return c.asked("/providers/Microsoft.Compute?") })
	t.Logf("authenticated %v after the API server was ready", time.Since(served))
	admin := r.admin(spec)
	admin.cloudNode(cloudNode)
	balances(t, c, admin)
	withdraws(t, c, admin)
	t.Run("a dead cloud doesn't fail the control plane", func(t *testing.T) { survivesCloud(t, r, c, spec) })
	t.Run("it goes when the spec has none", func(t *testing.T) { goes(t, r, spec) })
}

// TestCloudControllerRoutes has nodes in the pool by address, and pod ranges in a route table.
func TestCloudControllerRoutes(t *testing.T) {
	r := newRig(t)
	spec := r.spec("routed")
	c := r.cloud(&spec)
	spec.Nodes = []controlplane.Node{{Name: cloudNode, Address: netip.MustParseAddr("10.224.0.5"), Pods: []netip.Prefix{netip.MustParsePrefix("10.244.3.0/24")}}}
	spec.Cloud.BackendPoolType, spec.Cloud.Routes, spec.Cloud.RouteTable = controlplane.NodeIP, true, "aks-routes"
	spec.Cloud.ClusterCIDR = netip.MustParsePrefix("10.244.0.0/16")
	r.apply(spec)
	r.until("routed", "ready", ready)
	admin := r.admin(spec)
	admin.cloudNode(cloudNode)
	begin := time.Now()
	eventually(t, "the node has its route", func() bool {
		table := c.get(cloudGroup + "Microsoft.Network/routeTables/aks-routes")
		return strings.Contains(table, `"addressPrefix":"10.244.3.0/24"`) && strings.Contains(table, `"nextHopIpAddress":"10.224.0.5"`)
	})
	t.Logf("the node has its route after %v", time.Since(begin))
	eventually(t, "the node's network is available", func() bool {
		return strings.Contains(string(admin.must("GET", "/api/v1/nodes/"+cloudNode, nil)), "RouteCreated")
	})
	t.Logf("and says so after %v", time.Since(begin))
	admin.must("POST", "/api/v1/namespaces/default/services", object{"metadata": object{"name": "web"},
		"spec": object{"type": "LoadBalancer", "selector": object{"app": "web"}, "ports": []any{object{"port": 80}}}})
	eventually(t, "the service has its address", func() bool {
		return strings.Contains(string(admin.must("GET", service, nil)), `"ip":"192.88.99.10"`)
	})
	pool := c.get(cloudGroup + "Microsoft.Network/loadBalancers/kubernetes/backendAddressPools/kubernetes")
	if !strings.Contains(pool, `"ipAddress":"10.224.0.5"`) || !strings.Contains(pool, "/virtualNetworks/aks-vnet") {
		t.Errorf("pool %s", pool)
	}
}

const service = "/api/v1/namespaces/default/services/web"

func balances(t *testing.T, c *cloud, admin *user) {
	begin := time.Now()
	admin.must("POST", "/api/v1/namespaces/default/services", object{"metadata": object{"name": "web"},
		"spec": object{"type": "LoadBalancer", "selector": object{"app": "web"}, "ports": []any{object{"port": 80}}, "loadBalancerSourceRanges": []any{"198.51.100.0/24"}}})
	eventually(t, "the service has its address", func() bool {
		return strings.Contains(string(admin.must("GET", service, nil)), `"ip":"192.88.99.10"`)
	})
	t.Logf("the service has its address after %v", time.Since(begin))
	for key, want := range map[string][]string{
		cloudGroup + "Microsoft.Network/loadBalancers/kubernetes": {`"frontendPort":80`, `"enableFloatingIP":true`, `"disableOutboundSnat":true`},
		securityGroup:                   {`"sourceAddressPrefix":"198.51.100.0/24"`, `"destinationAddressPrefix":"192.88.99.10"`, `"priority":500`},
		scaleSet:                        {"backendAddressPools/kubernetes", `"computerNamePrefix"`},
		scaleSet + "/virtualMachines/0": {"backendAddressPools/kubernetes"},
	} {
		for _, w := range want {
			if !strings.Contains(c.get(key), w) {
				t.Errorf("%s has no %s: %s", key, w, c.get(key))
			}
		}
	}
}

func withdraws(t *testing.T, c *cloud, admin *user) {
	admin.must("DELETE", service, nil)
	eventually(t, "nothing is left of the service", func() bool {
		code, _ := admin.do("GET", service, nil)
		return code == 404 && !strings.Contains(c.get(securityGroup), "198.51.100.0") && c.get(cloudGroup+"Microsoft.Network/loadBalancers/kubernetes") == "null"
	})
}

func survivesCloud(t *testing.T, r *rig, c *cloud, spec controlplane.Spec) {
	c.mu.Lock()
	c.secret = "another"
	c.mu.Unlock()
	for range 3 {
		status := r.until(spec.ID, "running its cloud controller", func(s controlplane.Status) bool { return pid(s, controlplane.CloudController) != 0 })
		before := pid(status, controlplane.CloudController)
		if err := unix.Kill(before, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		r.until(spec.ID, "rid of it", func(s controlplane.Status) bool { return pid(s, controlplane.CloudController) != before })
	}
	if status := r.Status(spec.ID); status.Phase != controlplane.Ready {
		t.Errorf("%+v", status)
	}
	c.mu.Lock()
	c.secret = spec.Cloud.Secret
	c.requests = nil
	c.mu.Unlock()
	eventually(t, "it is back", func() bool { return c.asked("/providers/Microsoft.Compute?") })
}

func goes(t *testing.T, r *rig, spec controlplane.Spec) {
	azure := r.Plane.dir(spec.ID, configDir, controlplane.CloudController, "azure.json")
	info, err := os.Stat(azure)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	spec.Cloud = nil
	r.apply(spec)
	status := r.until(spec.ID, "ready", ready)
	if pid(status, controlplane.CloudController) != 0 || len(status.Processes) != 4 {
		t.Errorf("%+v", status.Processes)
	}
	if _, err := os.Stat(azure); err == nil {
		t.Error("its secret stays")
	}
}
