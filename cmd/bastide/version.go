// SPDX-License-Identifier: Apache-2.0

package main

import "runtime/debug"

// stamp is set by the linker to the released version.
var stamp string

func version() string {
	if stamp != "" {
		return stamp
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "devel"
}
