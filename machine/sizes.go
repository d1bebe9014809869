// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"slices"
	"strings"
)

// Size is an Azure VM size, as far as a machine has use for it.
type Size struct {
	Name   string
	CPUs   int
	Memory int64 // bytes
}

// Sizes lists the sizes a machine can have, by name. The figures are those of
// Azure's VM size documents; that the machine beneath has fewer CPUs doesn't
// matter, they are limits.
func Sizes() []Size {
	return []Size{
		{"Standard_A2_v2", 2, 4 * gibibyte},
		{"Standard_A2m_v2", 2, 16 * gibibyte},
		{"Standard_A4_v2", 4, 8 * gibibyte},
		{"Standard_B1ms", 1, 2 * gibibyte},
		{"Standard_B1s", 1, 1 * gibibyte},
		{"Standard_B2as_v2", 2, 8 * gibibyte},
		{"Standard_B2ms", 2, 8 * gibibyte},
		{"Standard_B2s", 2, 4 * gibibyte},
		{"Standard_B2s_v2", 2, 8 * gibibyte},
		{"Standard_B4as_v2", 4, 16 * gibibyte},
		{"Standard_B4ms", 4, 16 * gibibyte},
		{"Standard_B4s_v2", 4, 16 * gibibyte},
		{"Standard_B8ms", 8, 32 * gibibyte},
		{"Standard_D16s_v3", 16, 64 * gibibyte},
		{"Standard_D16s_v5", 16, 64 * gibibyte},
		{"Standard_D2_v2", 2, 7 * gibibyte},
		{"Standard_D2_v3", 2, 8 * gibibyte},
		{"Standard_D2ads_v5", 2, 8 * gibibyte},
		{"Standard_D2as_v4", 2, 8 * gibibyte},
		{"Standard_D2as_v5", 2, 8 * gibibyte},
		{"Standard_D2ds_v4", 2, 8 * gibibyte},
		{"Standard_D2ds_v5", 2, 8 * gibibyte},
		{"Standard_D2s_v3", 2, 8 * gibibyte},
		{"Standard_D2s_v4", 2, 8 * gibibyte},
		{"Standard_D2s_v5", 2, 8 * gibibyte},
		{"Standard_D2s_v6", 2, 8 * gibibyte},
		{"Standard_D3_v2", 4, 14 * gibibyte},
		{"Standard_D4_v3", 4, 16 * gibibyte},
		{"Standard_D4ads_v5", 4, 16 * gibibyte},
		{"Standard_D4as_v4", 4, 16 * gibibyte},
		{"Standard_D4as_v5", 4, 16 * gibibyte},
		{"Standard_D4ds_v4", 4, 16 * gibibyte},
		{"Standard_D4ds_v5", 4, 16 * gibibyte},
		{"Standard_D4s_v3", 4, 16 * gibibyte},
		{"Standard_D4s_v4", 4, 16 * gibibyte},
		{"Standard_D4s_v5", 4, 16 * gibibyte},
		{"Standard_D4s_v6", 4, 16 * gibibyte},
		{"Standard_D8_v3", 8, 32 * gibibyte},
		{"Standard_D8ads_v5", 8, 32 * gibibyte},
		{"Standard_D8as_v4", 8, 32 * gibibyte},
		{"Standard_D8as_v5", 8, 32 * gibibyte},
		{"Standard_D8ds_v4", 8, 32 * gibibyte},
		{"Standard_D8ds_v5", 8, 32 * gibibyte},
		{"Standard_D8s_v3", 8, 32 * gibibyte},
		{"Standard_D8s_v4", 8, 32 * gibibyte},
		{"Standard_D8s_v5", 8, 32 * gibibyte},
		{"Standard_D8s_v6", 8, 32 * gibibyte},
		{"Standard_DS2_v2", 2, 7 * gibibyte},
		{"Standard_DS3_v2", 4, 14 * gibibyte},
		{"Standard_DS4_v2", 8, 28 * gibibyte},
		{"Standard_E2as_v5", 2, 16 * gibibyte},
		{"Standard_E2s_v3", 2, 16 * gibibyte},
		{"Standard_E2s_v5", 2, 16 * gibibyte},
		{"Standard_E4as_v5", 4, 32 * gibibyte},
		{"Standard_E4s_v3", 4, 32 * gibibyte},
		{"Standard_E4s_v5", 4, 32 * gibibyte},
		{"Standard_E8as_v5", 8, 64 * gibibyte},
		{"Standard_E8s_v3", 8, 64 * gibibyte},
		{"Standard_E8s_v5", 8, 64 * gibibyte},
		{"Standard_F2s_v2", 2, 4 * gibibyte},
		{"Standard_F4s_v2", 4, 8 * gibibyte},
		{"Standard_F8s_v2", 8, 16 * gibibyte},
	}
}

const gibibyte = 1 << 30

// SizeByName finds a size, whatever the case of its name.
func SizeByName(name string) (Size, bool) {
	sizes := Sizes()
	i := slices.IndexFunc(sizes, func(s Size) bool { return strings.EqualFold(s.Name, name) })
	if i < 0 {
		return Size{}, false
	}
	return sizes[i], true
}
