// SPDX-License-Identifier: Apache-2.0

package testcloud_test

import (
	"os"
	"testing"

	"bastide.dev/testcloud"
)

func TestMain(m *testing.M) { os.Exit(testcloud.Main(m)) }
