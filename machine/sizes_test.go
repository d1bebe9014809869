// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"strings"
	"testing"
)

func TestSizes(t *testing.T) {
	seen := map[string]bool{}
	for _, size := range Sizes() {
		if size.CPUs < 1 || size.Memory < 1<<30 || seen[strings.ToLower(size.Name)] {
			t.Errorf("%+v", size)
		}
		seen[strings.ToLower(size.Name)] = true
	}
	size, ok := SizeByName("standard_d2S_v5")
	if !ok || size.Name != "Standard_D2s_v5" || size.CPUs != 2 || size.Memory != 8<<30 {
		t.Errorf("SizeByName = %+v, %v", size, ok)
	}
	if _, ok := SizeByName("Standard_Nothing"); ok {
		t.Error("found a size that isn't")
	}
}
