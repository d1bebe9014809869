// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"strings"
	"testing"

	"bastide.dev/fault"
	"bastide.dev/resource"
)

// A pool with the tag has the image that it names, whatever is newest.
func TestImageTag(t *testing.T) {
	f := newFleet(t, 2) // of 12.1; 12.2 is the newest now
	tagged := func(tags string) string { return `{"properties":{"count":2,"tags":` + tags + `}}` }

	op := f.begin("PUT", workPool, tagged(`{"Bastide-Node-Image":"Debian-12.0","team":"a"}`))
	f.end(op, resource.Succeeded)
	f.rest(2, "12.0")
	if got := get(f.view(workPool, testVersion), "properties.nodeImageVersion"); got != "Debian-12.0" {
		t.Errorf("the pool has image %v", got)
	}

	// Neither an upgrade of the image nor a request without tags changes it.
	f.end(f.begin("POST", workPool+"/upgradeNodeImageVersion", ""), resource.Succeeded)
	f.rest(2, "12.0")
	f.end(f.begin("PUT", workPool, `{"properties":{"count":3}}`), resource.Succeeded)
	f.rest(3, "12.0")
	if got := get(f.view(workPool, testVersion), "properties.tags."+ImageTag); got != "12.0" {
		t.Errorf("the pool's tag is %v", got)
	}

	// Without the tag it gets the newest.
	f.end(f.begin("PUT", workPool, `{"properties":{"count":3,"tags":{"team":"a"}}}`), resource.Succeeded)
	f.rest(3, "12.2")
}

func TestImageTagNamesNoImage(t *testing.T) {
	w := newWorld(t)
	w.must("PUT", testCluster, azBody(1), resource.Succeeded)
	for _, image := range []string{"latest", "../../etc", "Debian-13.1", "Debian-Debian-12.1"} {
		_, _, err := w.do(t.Context(), "PUT", testPool, `{"properties":{"count":1,"tags":{"bastide-node-image":"`+image+`"}}}`)
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "isn't on this instance's machine") {
			t.Errorf("%s: %v", image, err)
		}
	}
}
