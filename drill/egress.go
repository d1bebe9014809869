// SPDX-License-Identifier: Apache-2.0

package drill

func egressDrills() []Drill { return nil }
