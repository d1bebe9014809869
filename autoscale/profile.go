// SPDX-License-Identifier: Apache-2.0

package autoscale

import "time"

// The expanders: how one pool is chosen of several that would help.
const (
	Random     = "random"
	LeastWaste = "least-waste"
	MostPods   = "most-pods"
	ByPriority = "priority"
)

// Profile is AKS's autoScalerProfile.
type Profile struct {
	Scan          time.Duration `json:"scan"`
	AfterAdd      time.Duration `json:"afterAdd"`
	AfterDelete   time.Duration `json:"afterDelete"`
	AfterFailure  time.Duration `json:"afterFailure"`
	Unneeded      time.Duration `json:"unneeded"`
	Unready       time.Duration `json:"unready"`
	Threshold     float64       `json:"threshold"` // of utilization
	Grace         time.Duration `json:"grace"`     // that pods are given to end
	Balance       bool          `json:"balance"`
	Expander      string        `json:"expander"`
	SkipLocal     bool          `json:"skipLocal"`
	SkipSystem    bool          `json:"skipSystem"`
	EmptyBulk     int           `json:"emptyBulk"`
	PodDelay      time.Duration `json:"podDelay"`
	Provision     time.Duration `json:"provision"`
	UnreadyCount  int           `json:"unreadyCount"`
	UnreadyShare  int           `json:"unreadyShare"` // percent
	IgnoreDaemons bool          `json:"ignoreDaemons"`
}

// DefaultProfile is AKS's ("Use the cluster autoscaler in AKS", its table of settings).
func DefaultProfile() Profile {
	return Profile{Scan: 10 * time.Second, AfterAdd: 10 * time.Minute, AfterDelete: 10 * time.Second, AfterFailure: 3 * time.Minute,
		Unneeded: 10 * time.Minute, Unready: 20 * time.Minute, Threshold: 0.5, Grace: 10 * time.Minute, Expander: Random,
		SkipSystem: true, EmptyBulk: 10, Provision: 15 * time.Minute, UnreadyCount: 3, UnreadyShare: 45}
}

// Priority is one entry of the priority expander's: pools whose names match
// Pattern are preferred by Value, the higher the better.
type Priority struct {
	Value   int
	Pattern string
}
