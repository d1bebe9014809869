// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	aks "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"

	"bastide.dev/arm"
	"bastide.dev/controlplane"
	"bastide.dev/fault"
	"bastide.dev/resource"
)

const testPool = testCluster + "/agentPools/nodepool1"

// shelf is a catalogue that changes while the service runs.
type shelf struct {
	versions []string
	mu       sync.Mutex // guards image
	image    string
}

// renew puts another node image there.
func (s *shelf) renew(image string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.image = image
}

func (s *shelf) Kubernetes() []string { return s.versions }

func (s *shelf) Parts(version string) (Parts, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Parts{Etcd: "3.6.16", Image: s.image, Layers: []string{"runtime@1", "kubernetes@" + version}}, nil
}

func (*shelf) HasImage(version string) bool { return strings.HasPrefix(version, "12.") }

func newShelf(w *world) *shelf {
	s := &shelf{versions: []string{"1.36.3", "1.35.4", "1.34.4"}, image: "12.1"}
	w.p.Catalogue = s
	return s
}

// versioned is the test's cluster of a version, with its one pool.
func versioned(t *testing.T, version, pool string) string {
	t.Helper()
	text := strings.Replace(azBody(1), `"kubernetesVersion":""`, `"kubernetesVersion":"`+version+`"`, 1)
	return strings.Replace(text, `"orchestratorVersion":""`, `"orchestratorVersion":"`+pool+`"`, 1)
}

// refusing makes the host's control planes stay at 1.35.4 and, with a reason,
// refuse what is newer.
func refusing(w *world, reason string) {
	w.host.Told = func(status *controlplane.Status) {
		if status.Version == "v1.36.3" {
			status.Version, status.Refused = "v1.35.4", reason
		}
	}
}

func TestControlPlaneAloneIsUpgraded(t *testing.T) {
	w := newWorld(t)
	w.must("PUT", testCluster, azBody(1), resource.Succeeded)
	w.must("PUT", testCluster, versioned(t, "1.36", "1.35.4"), resource.Succeeded)
	body := w.view(testCluster, testVersion)
	for path, want := range map[string]any{"properties.kubernetesVersion": "1.36.3", "properties.currentKubernetesVersion": "1.36.3"} {
		if got := get(body, path); got != want {
			t.Errorf("%s is %v, want %v", path, got, want)
		}
	}
	if got := get(w.view(testPool, testVersion), "properties.currentOrchestratorVersion"); got != "1.35.4" {
		t.Errorf("the pool runs %v", got)
	}
	if spec := w.host.Planes[w.state().ID]; spec.Version != "1.36.3" {
		t.Errorf("the control plane is of %s", spec.Version)
	}
	for _, m := range w.host.Machines {
		if !slices.Contains(m.Layers, "kubernetes@1.35.4") {
			t.Errorf("the node is made of %v", m.Layers)
		}
	}
	// What is left out, null, or only the minor keeps what is.
	for _, text := range []string{"", "1.36", "1.36.3"} {
		if _, plan, err := w.do(t.Context(), "PUT", testCluster, versioned(t, text, "")); err != nil || plan.Async {
			t.Errorf("version %q: %v, %v", text, plan, err)
		}
	}
}

// A control plane that refuses goes back, and with it all that was to follow.
func TestRefusedUpgradeGoesBack(t *testing.T) {
	w := newWorld(t)
	w.must("PUT", testCluster, azBody(1), resource.Succeeded)
	before := w.host.Machines
	refusing(w, "it wasn't ready within 60 s")
	op, plan, err := w.do(t.Context(), "PUT", testCluster, versioned(t, "1.36.3", "1.36.3"))
	if err != nil || plan.State != resource.Upgrading {
		t.Fatalf("%+v, %v", plan, err)
	}
	w.settle()
	w.ended(op, resource.Failed)
	operation, err := w.p.ops.Get(t.Context(), op)
	if err != nil || operation.Error.Code != "ControlPlaneUpgradeFailed" || !strings.Contains(operation.Error.Message, "it wasn't ready within 60 s") {
		t.Errorf("the operation says %+v, %v", operation.Error, err)
	}
	body := w.view(testCluster, testVersion)
	for path, want := range map[string]any{
		"properties.kubernetesVersion": "1.35.4", "properties.currentKubernetesVersion": "1.35.4", "properties.provisioningState": "Failed",
	} {
		if got := get(body, path); got != want {
			t.Errorf("%s is %v, want %v", path, got, want)
		}
	}
	if got := get(w.view(testPool, testVersion), "properties.orchestratorVersion"); got != "1.35.4" {
		t.Errorf("the pool is to be of %v", got)
	}
	if spec := w.host.Planes[w.state().ID]; spec.Version != "1.35.4" {
		t.Errorf("the control plane is still asked for %s", spec.Version)
	}
	if !reflect.DeepEqual(before, w.host.Machines) {
		t.Error("machines changed though their control plane wasn't upgraded")
	}
	// Another try goes through once nothing refuses any more.
	w.host.Told = nil
	w.must("PUT", testCluster, versioned(t, "1.36.3", "1.35.4"), resource.Succeeded)
}

// As long as the control plane isn't upgraded nothing is shown as if it were, and
// nothing else may be begun.
func TestUpgradeUnderWay(t *testing.T) {
	w := newWorld(t)
	w.must("PUT", testCluster, azBody(1), resource.Succeeded)
	refusing(w, "")
	op, _, err := w.do(t.Context(), "PUT", testCluster, versioned(t, "1.36.3", "1.36.3"))
	if err != nil {
		t.Fatal(err)
	}
	w.settle()
	w.ended(op, arm.InProgress)
	if got := get(w.view(testCluster, testVersion), "properties.currentKubernetesVersion"); got != "1.35.4" {
		t.Errorf("it runs %v", got)
	}
	if got := get(w.view(testPool, testVersion), "properties.currentOrchestratorVersion"); got != "1.35.4" {
		t.Errorf("the pool runs %v", got)
	}
	all, err := ReadProgress(t.Context(), w.memory)
	if err != nil || len(all) != 1 || all[0].Operation != op || all[0].Total != 1 || all[0].Done != 0 || !strings.Contains(all[0].Waits, "1.35.4") {
		t.Errorf("progress: %+v, %v", all, err)
	}
	loaded := w.load(t)
	if parts, version, err := w.p.made(loaded, loaded.pools[0]); err != nil || version.String() != "1.35.4" || !slices.Contains(parts.Layers, "kubernetes@1.35.4") {
		t.Errorf("a node made now is of %s, %v, %v", version, parts, err)
	}
	if _, err := w.begin(upgrade{ControlPlane: Version{1, 36, 3}}); !fault.Is(err, fault.Conflict) {
		t.Errorf("a second upgrade: %v", err)
	}
}

func (w *world) load(t *testing.T) *whole {
	t.Helper()
	loaded, err := w.p.load(t.Context(), w.document(t.Context(), resource.MustParseID(testCluster)))
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

func TestDeprecatedUseBlocks(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	use := controlplane.DeprecatedUse{Group: "flowcontrol.apiserver.k8s.io", Version: "v1beta3", Resource: "flowschemas", Removed: "1.36", Last: now.Add(-time.Hour), Agents: []string{"old/1"}}
	later, long, plain := use, use, use
	later.Removed = "1.37"
	long.Last = now.Add(-13 * time.Hour)
	plain.Removed = ""
	override := func(force bool, until time.Time) string {
		return fmt.Sprintf(`"upgradeSettings":{"overrideSettings":{"forceUpgrade":%v,"until":%q}},`, force, until.Format(time.RFC3339))
	}
	for name, c := range map[string]struct {
		use     controlplane.DeprecatedUse
		more    string
		version string
		blocked bool
	}{
		"used":               {use, "", "1.36.3", true},
		"removed later":      {later, "", "1.36.3", false},
		"long ago":           {long, "", "1.36.3", false},
		"not removed":        {plain, "", "1.36.3", false},
		"forced":             {use, override(true, now.Add(time.Hour)), "1.36.3", false},
		"forced until past":  {use, override(true, now.Add(-time.Hour)), "1.36.3", true},
		"not forced":         {use, override(false, now.Add(time.Hour)), "1.36.3", true},
		"only a new patch":   {use, "", "1.35.9", false},
		"no other version":   {use, "", "1.35.4", false},
		"forced without end": {use, `"upgradeSettings":{"overrideSettings":{"forceUpgrade":true}},`, "1.36.3", true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			newShelf(w).versions = []string{"1.36.3", "1.35.9", "1.35.4"}
			w.p.Now = func() time.Time { return now }
			w.host.Told = func(s *controlplane.Status) { s.Deprecated = []controlplane.DeprecatedUse{c.use} }
			w.must("PUT", testCluster, versioned(t, "1.35.4", "1.35.4"), resource.Succeeded)
			body := strings.Replace(versioned(t, c.version, "1.35.4"), `"properties":{`, `"properties":{`+c.more, 1)
			_, _, err := w.do(t.Context(), "PUT", testCluster, body)
			if !c.blocked {
				if err != nil {
					t.Error(err)
				}
				return
			}
			f := fault.From(err)
			if f == nil || f.Code != "UpgradeBlockedOnDeprecatedAPIUsage" || !strings.Contains(f.Message, "flowcontrol.apiserver.k8s.io.flowschemas.v1beta3") || !strings.Contains(f.Message, "old/1") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestUpgradeRules(t *testing.T) {
	for _, c := range []struct {
		from, pool       string // what is
		to, poolTo, code string // what is asked; "" is accepted
	}{
		{"1.34.4", "1.34.4", "1.36.3", "1.34.4", "OperationNotAllowed"},
		{"1.34.4", "1.34.4", "1.35", "1.35", ""},
		{"1.34.4", "1.34.4", "1.35.4", "1.34.4", ""},
		{"1.35.4", "1.33.7", "1.36.9", "1.36.9", ""}, // pools skip minors
		{"1.36.3", "1.36.3", "1.35.4", "1.35.4", "OperationNotAllowed"},
		{"1.36.9", "1.36.9", "1.36.3", "1.36.3", "OperationNotAllowed"},
		{"1.35.4", "1.35.4", "1.35.4", "1.36.3", "NodePoolMcVersionIncompatible"},
		{"1.35.4", "1.35.4", "1.35.4", "1.34.4", "OperationNotAllowed"},
		{"1.35.4", "1.35.4", "1.35.5", "1.35.4", "K8sVersionNotSupported"},
		{"1.35.4", "1.35.4", "1.35.4", "1.35.5", "AgentPoolK8sVersionNotSupported"},
		{"1.33.7", "1.33.7", "1.34.4", "1.34.4", ""}, // out of support: up is the only way
	} {
		t.Run(strings.Join([]string{c.from, c.pool, c.to, c.poolTo}, " "), func(t *testing.T) {
			w := newWorld(t)
			s := newShelf(w)
			s.versions = []string{c.from, c.pool} // the world when it was made
			w.must("PUT", testCluster, versioned(t, c.from, c.pool), resource.Succeeded)
			s.versions = []string{"1.37.1", "1.36.9", "1.36.3", "1.35.4", "1.34.4", "1.33.7"}
			_, plan, err := w.do(t.Context(), "PUT", testCluster, versioned(t, c.to, c.poolTo))
			if c.code == "" {
				if err != nil || !plan.Async || plan.State != resource.Upgrading {
					t.Errorf("%+v, %v", plan, err)
				}
				return
			}
			if !slices.ContainsFunc(problems(err), func(f *fault.Error) bool { return f.Code == c.code }) {
				t.Errorf("got %v, want %s", err, c.code)
			}
		})
	}
}

func TestKubeletsStayWithinThreeMinors(t *testing.T) {
	w := newWorld(t)
	s := newShelf(w)
	s.versions = []string{"1.33.7"}
	w.must("PUT", testCluster, versioned(t, "1.33.7", "1.33.7"), resource.Succeeded)
	s.versions = []string{"1.37.1", "1.36.9", "1.35.4", "1.34.4", "1.33.7"}
	for _, next := range []string{"1.34.4", "1.35.4", "1.36.9"} {
		w.must("PUT", testCluster, versioned(t, next, "1.33.7"), resource.Succeeded)
	}
	_, _, err := w.do(t.Context(), "PUT", testCluster, versioned(t, "1.37.1", "1.33.7"))
	if p := problems(err); len(p) != 1 || p[0].Code != "NodePoolMcVersionIncompatible" || p[0].Target != "properties.agentPoolProfiles[0].orchestratorVersion" {
		t.Errorf("four minors behind: %v", err)
	}
	profile, err := w.p.clusterUpgrades(t.Context(), &arm.Request{ID: resource.MustParseID(testCluster + "/upgradeProfiles/default"), Parent: w.document(t.Context(), resource.MustParseID(testCluster))})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(profile)
	if want := `"kubernetesVersion":"1.33.7","name":"nodepool1","osType":"Linux","upgrades":[{"isPreview":false,"kubernetesVersion":"1.34.4"},{"isPreview":false,"kubernetesVersion":"1.35.4"},{"isPreview":false,"kubernetesVersion":"1.36.9"}]`; err != nil || !strings.Contains(string(raw), want) {
		t.Errorf("upgrade profile: %s, %v", raw, err)
	}
	if want := `"kubernetesVersion":"1.36.9","osType":"Linux","upgrades":[{"isPreview":false,"kubernetesVersion":"1.37.1"}]`; !strings.Contains(string(raw), want) {
		t.Errorf("upgrade profile: %s", raw)
	}
}

// What is out of support can't be made any more, and isn't offered.
func TestSupportWindow(t *testing.T) {
	w := newWorld(t)
	s := newShelf(w)
	s.versions = []string{"1.36.3", "1.35.4", "1.34.4", "1.33.7"}
	_, _, err := w.do(t.Context(), "PUT", testCluster, versioned(t, "1.33.7", ""))
	if p := problems(err); len(p) != 1 || p[0].Code != "K8sVersionNotSupported" || strings.Contains(p[0].Message, "1.33.7, ") {
		t.Errorf("a new cluster of 1.33.7: %v", err)
	}
	w.must("PUT", testCluster, versioned(t, "1.34.4", ""), resource.Succeeded)
	_, _, err = w.do(t.Context(), "PUT", testCluster+"/agentPools/old", `{"properties":{"count":1,"orchestratorVersion":"1.33.7"}}`)
	if p := problems(err); len(p) != 1 || p[0].Code != "AgentPoolK8sVersionNotSupported" {
		t.Errorf("a new pool of 1.33.7: %v", err)
	}
	offered := func() string {
		t.Helper()
		location := resource.SubscriptionID(testSubscription).Resource(Namespace, "locations", "eastus")
		list, err := w.p.kubernetesVersions(t.Context(), &arm.Request{ID: location})
		if err != nil {
			t.Fatal(err)
		}
		raw, err := json.Marshal(list)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	if text := offered(); strings.Contains(text, `"1.33`) || !strings.Contains(text, `"isDefault":true,"isPreview":false,"patchVersions":{"1.35.4"`) {
		t.Errorf("offered: %s", text)
	}
	// A bundle that is built while the service runs is there, and moves the window.
	s.versions = append(s.versions, "1.37.0")
	if text := offered(); strings.Contains(text, `"1.34`) || !strings.Contains(text, `"isDefault":true,"isPreview":false,"patchVersions":{"1.36.3":{"upgrades":["1.37.0"]}`) {
		t.Errorf("offered with a new bundle: %s", text)
	}
	// A cluster that fell out of it lives on, and grows.
	w.must("PUT", testPool, `{"properties":{"count":2}}`, resource.Succeeded)
	w.must("PUT", testCluster+"/agentPools/more", `{"properties":{"count":1}}`, resource.Succeeded)
}

func TestNodeImageUpgrade(t *testing.T) {
	w := newWorld(t)
	s := newShelf(w)
	w.must("PUT", testCluster, azBody(1), resource.Succeeded)
	op, plan, err := w.do(t.Context(), "POST", testPool+"/upgradeNodeImageVersion", "")
	if err != nil || plan.State != "UpgradingNodeImageVersion" {
		t.Fatalf("%+v, %v", plan, err)
	}
	w.settle()
	w.ended(op, resource.Succeeded) // it has the newest
	operation, err := w.p.ops.Get(t.Context(), op)
	if err != nil || !strings.Contains(string(operation.Output), `"nodeImageVersion":"Debian-12.1"`) || !strings.Contains(string(operation.Output), `"provisioningState":"Succeeded"`) {
		t.Errorf("the answer is %s, %v", operation.Output, err)
	}

	s.renew("12.2")
	w.must("PUT", testPool, `{"properties":{"count":2}}`, resource.Succeeded)
	for _, n := range w.load(t).pools[0].Nodes {
		if n.Parts.Image != "12.1" {
			t.Errorf("node %s was made of image %s before an upgrade", n.Name, n.Parts.Image)
		}
	}
	profile, err := w.p.poolUpgrades(t.Context(), &arm.Request{ID: resource.MustParseID(testPool + "/upgradeProfiles/default"), Parent: w.document(t.Context(), resource.MustParseID(testPool))})
	if err != nil || *profile.(aks.AgentPoolUpgradeProfile).Properties.LatestNodeImageVersion != "Debian-12.2" {
		t.Errorf("upgrade profile: %+v, %v", profile, err)
	}
	if got := get(w.view(testPool, testVersion), "properties.nodeImageVersion"); got != "Debian-12.1" {
		t.Errorf("the pool has image %v", got)
	}
	if _, _, err := w.do(t.Context(), "POST", testPool+"/upgradeNodeImageVersion", ""); err != nil {
		t.Fatal(err)
	}
	if target := w.load(t).pools[0].Target; target.Image != "12.2" {
		t.Errorf("the pool is to have image %s", target.Image)
	}
	// A pool beside it has the newest image at once: blue and green.
	if _, _, err := w.do(t.Context(), "PUT", testCluster+"/agentPools/green", `{"properties":{"count":1}}`); err != nil {
		t.Fatal(err)
	}
	if target := w.load(t).pool("green").Target; target.Image != "12.2" {
		t.Errorf("a new pool is to have image %s", target.Image)
	}
}
