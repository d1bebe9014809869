// SPDX-License-Identifier: Apache-2.0

//go:build bench

package bench

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"bastide.dev/nodeimage"
)

const (
	turns          = 30 // of each change, in each direction
	services       = 9
	networkVersion = "2024-05-01"
	webImage       = nodeimage.WebImage
	aksRanges      = "AKS: 78 s (azure-cli's recording), “up to 2 min”"
)

// scene is a cluster with two nodes and a pod on each, and a client on the
// instance's Internet.
type scene struct {
	*outsider
	*kube
	r        *report
	client   netip.Addr // the terminal's
	terminal string     // its network namespace
	server   netip.AddrPort
	near     pod // on the first node
	far      pod // on the second
	nsg      string
	ruled    bool // rules and policies that traffic isn't about are there
}

const sceneName = "net"

// benchNetwork measures network security: how soon changes hold, and what
// traffic pays for rules.
func benchNetwork(t *testing.T, r *report, o *outsider) {
	if err := moreFiles(); err != nil {
		r.problem(err)
	}
	s := &scene{outsider: o, r: r}
	if err := s.set(); err != nil {
		r.problem(fmt.Errorf("network: %w", err))
		return
	}
	for _, part := range []struct {
		name string
		do   func() error
	}{
		{"ranges", s.benchRanges}, {"services", s.benchServices}, {"traffic", s.benchTraffic},
		{"policies", s.benchPolicies}, {"rules", func() error { return benchRules(r) }},
	} {
		t.Run(part.name, func(t *testing.T) {
			o.t = t
			begin := time.Now()
			if err := part.do(); err != nil {
				r.problem(fmt.Errorf("%s: %w", part.name, err))
			}
			say("%s: measured in %.0f s", part.name, time.Since(begin).Seconds())
		})
	}
	o.t = t
	if _, err := o.remove(sceneName); err != nil {
		r.problem(err)
	}
}

// body is the cluster, open to the ranges given, or to all.
func (s *scene) body(ranges ...string) map[string]any {
	body := oneNode(sceneName)
	properties := body["properties"].(map[string]any)
	properties["agentPoolProfiles"] = []any{agentPool(2)}
	properties["networkProfile"] = map[string]any{"networkPlugin": "azure", "networkPluginMode": "overlay", "networkPolicy": "calico"}
	properties["apiServerAccessProfile"] = map[string]any{"authorizedIPRanges": append([]string{}, ranges...)}
	return body
}

// set makes what is measured at.
func (s *scene) set() error {
	if _, err := s.change(http.MethodPut, s.clusterPath(sceneName), s.body()); err != nil {
		return err
	}
	var cluster struct {
		Properties struct{ FQDN, NodeResourceGroup string }
	}
	if err := s.read(s.address(s.clusterPath(sceneName)), &cluster); err != nil {
		return err
	}
	if err := s.terminalAt("outside"); err != nil {
		return err
	}
	var list struct{ Value []struct{ ID string } }
	groups := "/subscriptions/" + s.cloud.Env["AZURE_SUBSCRIPTION_ID"] + "/resourceGroups/" + cluster.Properties.NodeResourceGroup + "/providers/Microsoft.Network/networkSecurityGroups"
	if err := s.read(s.base()+groups+"?api-version="+networkVersion, &list); err != nil {
		return err
	}
	if len(list.Value) != 1 {
		return fmt.Errorf("the cluster has %d security groups", len(list.Value))
	}
	s.nsg = list.Value[0].ID
	var err error
	if s.kube, err = s.outsider.kube(sceneName); err != nil {
		return err
	}
	if s.server, err = addressOf(cluster.Properties.FQDN, 443); err != nil {
		return err
	}
	nodes, err := s.nodes()
	if err != nil {
		return err
	}
	if len(nodes) != 2 {
		return fmt.Errorf("the cluster has %d nodes", len(nodes))
	}
	if s.near, err = s.run("default", "near", nodes[0]); err != nil {
		return err
	}
	s.far, err = s.run("default", "far", nodes[1])
	return err
}

func (s *scene) base() string { return s.outsider.base }

// terminalAt makes a client on the instance's Internet.
func (s *scene) terminalAt(name string) error {
	var terminal struct {
		Properties struct{ Address, Namespace string }
	}
	path := s.group + "/providers/Bastide.Network/terminals/" + name
	if _, err := s.changeAt(http.MethodPut, s.base()+path+"?api-version=2026-11-01", map[string]any{}); err != nil {
		return err
	}
	if err := s.read(s.base()+path+"?api-version=2026-11-01", &terminal); err != nil {
		return err
	}
	s.terminal = filepath.Join("/run/bastide", instanceName, "netns", terminal.Properties.Namespace)
	var err error
	s.client, err = netip.ParseAddr(terminal.Properties.Address)
	return err
}

func (s *scene) read(address string, into any) error {
	resp, answer := s.outsider.send(http.MethodGet, address, nil)
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s %s", address, resp.Status, answer)
	}
	return json.Unmarshal(answer, into)
}

// turnsOf does a change and its opposite, again and again, and adds the figures
// of how long each took to hold.
func (s *scene) turnsOf(target netip.AddrPort, from string, final bool, change func(accepted bool) error) (on, off []turn, err error) {
	for range turns {
		for _, accepted := range []bool{false, true} {
			t, err := watch(from, target, accepted, final, func() error { return change(accepted) })
			if err != nil {
				return on, off, err
			}
			if accepted {
				on = append(on, t)
			} else {
				off = append(off, t)
			}
		}
	}
	return on, off, nil
}

// addTurns adds the figure of one change: the 95th percentile of when it held.
func (s *scene) addTurns(name string, target float64, beside string, all []turn) {
	var effects, answers []float64
	for _, t := range all {
		effects, answers = append(effects, t.effect), append(answers, t.answer)
	}
	say("%s: p50 %.1f ms, p95 %.1f ms; answered: p50 %.1f ms", name, Median(effects), Percentile(effects, 95), Median(answers))
	s.r.add(NewTail(name, "ms", 95, effects).Against(AtMost, target).
		With(beside, fmt.Sprintf("median %.1f ms; the request's own answer, median: %.1f ms", Median(effects), Median(answers))))
}

// benchRanges takes a client out of the authorised ranges, and in again.
func (s *scene) benchRanges() error {
	others := []string{"198.51.100.0/24", "100.64.7.0/24"}
	on, off, err := s.turnsOf(s.server, s.terminal, true, func(accepted bool) error {
		ranges := others
		if accepted {
			ranges = append(others[:2:2], s.client.String()+"/32")
		}
		_, err := s.change(http.MethodPut, s.clusterPath(sceneName), s.body(ranges...))
		return err
	})
	s.addTurns("authorised range taken away: PUT sent to first refused packet, p95", 150, aksRanges, off)
	s.addTurns("authorised range added: PUT sent to first accepted packet, p95", 150, aksRanges, on)
	_, open := s.change(http.MethodPut, s.clusterPath(sceneName), s.body())
	s.kube.http.CloseIdleConnections() // the ranges have cut them
	if err == nil {
		err = open
	}
	return err
}

// benchGroup shuts a client out of a public address's port by a rule of the
// cluster's security group, and lets it in again.
func (s *scene) benchGroup(name string, at netip.AddrPort) error {
	address := s.base() + s.nsg + "/securityRules/bench?api-version=" + networkVersion
	rule := func(accepted bool) error {
		access := map[bool]string{true: "Allow", false: "Deny"}[accepted]
		_, err := s.changeAt(http.MethodPut, address, map[string]any{"properties": map[string]any{"priority": 499, "direction": "Inbound", "access": access,
			"protocol": "Tcp", "sourceAddressPrefix": s.client.String(), "sourcePortRange": "*", "destinationAddressPrefix": "*", "destinationPortRange": fmt.Sprint(at.Port())}})
		return err
	}
	on, off, err := s.turnsOf(at, s.terminal, true, rule)
	s.addTurns(name+", now denying: PUT sent to first refused packet, p95", 100, "", off)
	s.addTurns(name+", now allowing: PUT sent to first accepted packet, p95", 100, "", on)
	_, removed := s.changeAt(http.MethodDelete, address, nil)
	if err == nil {
		err = removed
	}
	return err
}
