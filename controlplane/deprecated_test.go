// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestDeprecatedInAudit(t *testing.T) {
	const line = `{"kind":"Event","userAgent":"old-ctl/1.0\u0007 (linux)","objectRef":{"resource":"flowschemas","apiGroup":"flowcontrol.apiserver.k8s.io","apiVersion":"v1beta3"},` +
		`"requestReceivedTimestamp":"2026-11-21T10:00:00.5Z","annotations":{"k8s.io/deprecated":"true","k8s.io/removed-release":"1.37"}}`
	u, ok := ReadDeprecated([]byte(line))
	if !ok || u.Removed != "1.37" || u.Resource != "flowschemas" || u.Agents[0] != "old-ctl/1.0 (linux)" || u.Last.Hour() != 10 {
		t.Errorf("%+v, %v", u, ok)
	}
	for name, other := range map[string]string{
		"no use":      strings.Replace(line, `"k8s.io/deprecated":"true"`, `"k8s.io/deprecated":"false"`, 1),
		"no release":  strings.Replace(line, "1.37", "", 1),
		"nonsense":    strings.Replace(line, "1.37", "1.37; rm", 1),
		"no resource": strings.Replace(line, "flowschemas", "", 1),
		"cut":         line[:100],
		// A request's body isn't the API server's word.
		"in a body": `{"objectRef":{"resource":"pods","apiVersion":"v1"},"requestObject":{"annotations":{"k8s.io/deprecated":"true","k8s.io/removed-release":"1.37"}}}`,
	} {
		if u, ok := ReadDeprecated([]byte(other)); ok {
			t.Errorf("%s: %+v", name, u)
		}
	}
}

func TestDeprecatedInMetrics(t *testing.T) {
	const text = `# HELP apiserver_requested_deprecated_apis [STABLE] Gauge
apiserver_requested_deprecated_apis{group="",removed_release="",resource="endpoints",subresource="",version="v1"} 1
apiserver_requested_deprecated_apis{group="g",removed_release="1.37",resource="things",subresource="",version="v1beta1"} 1
apiserver_request_total{code="200",group="g",resource="things",verb="GET",version="v1beta1"} 3
apiserver_request_total{code="404",group="g",resource="things",verb="GET",version="v1beta1"} 2
apiserver_request_total{code="200",group="g",resource="things",verb="GET",version="v1"} 9
apiserver_requested_deprecated_apis{group="g"`
	var c DeprecatedCounts
	for line := range strings.Lines(text) {
		c.Line(line)
	}
	all := c.All()
	if len(all) != 1 || all[0].Requests != 5 || all[0].Removed != "1.37" || all[0].Group != "g" {
		t.Errorf("%+v", all)
	}
	var none DeprecatedCounts
	if len(none.All()) != 0 {
		t.Error("uses of nothing")
	}
}

func TestDeprecatedUsesAreBounded(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	var uses []DeprecatedUse
	for n := range 3 * deprecatedUses {
		one := DeprecatedUse{Version: "v1", Resource: fmt.Sprintf("r%d", n%(2*deprecatedUses)), Removed: "1.37", Last: now.Add(time.Duration(n-1000) * time.Second), Agents: []string{fmt.Sprint(n)}}
		uses = AddDeprecated(uses, one, now)
	}
	if len(uses) != deprecatedUses {
		t.Errorf("%d uses", len(uses))
	}
	one := DeprecatedUse{Version: "v1", Resource: "x", Removed: "1.37", Last: now.Add(time.Hour)}
	for n := range 3 * deprecatedAgents {
		one.Agents = []string{fmt.Sprint(n)}
		uses = AddDeprecated(uses, one, now)
	}
	last := uses[len(uses)-1]
	if last.Resource != "x" || len(last.Agents) != deprecatedAgents || !last.Last.Equal(now) {
		t.Errorf("%+v", last)
	}
	if uses = AddDeprecated(uses, one, now.Add(2*deprecatedLife)); len(uses) != 1 {
		t.Errorf("%d uses are remembered for ever", len(uses))
	}
	if printable(strings.Repeat("é", 500)+"\n") != strings.Repeat("é", agentLength) {
		t.Error("a user agent isn't bounded")
	}
}
