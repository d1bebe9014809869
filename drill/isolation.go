// SPDX-License-Identifier: Apache-2.0

package drill

func isolationDrills() []Drill { return nil }
