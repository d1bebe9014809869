// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"bastide.dev/fault"
)

// Version is a Kubernetes release.
type Version struct{ Major, Minor, Patch int }

// ParseVersion reads "1.36.3" in full.
func ParseVersion(s string) (Version, error) {
	parts := strings.Split(s, ".")
	numbers := make([]int, len(parts))
	for i, part := range parts {
		n, err := strconv.Atoi(part)
		if err != nil || n < 0 || strconv.Itoa(n) != part {
			return Version{}, fmt.Errorf("cluster: version %q isn't of the form 1.36.3", s)
		}
		numbers[i] = n
	}
	if len(numbers) != 3 {
		return Version{}, fmt.Errorf("cluster: version %q isn't of the form 1.36.3", s)
	}
	return Version{numbers[0], numbers[1], numbers[2]}, nil
}

func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Patch) }

// MarshalText makes a version a string in JSON.
func (v Version) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads it back.
func (v *Version) UnmarshalText(text []byte) error {
	parsed, err := ParseVersion(string(text))
	*v = parsed
	return err
}

// MinorString is "1.36".
func (v Version) MinorString() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// Compare orders versions.
func (v Version) Compare(o Version) int {
	return cmp.Or(cmp.Compare(v.Major, o.Major), cmp.Compare(v.Minor, o.Minor), cmp.Compare(v.Patch, o.Patch))
}

// skew is how many minors a kubelet may be behind its API server
// (Kubernetes' version skew policy).
const skew = 3

// Versions are the releases an instance has, in order, oldest first.
type Versions []Version

// NewVersions sorts the releases of a catalogue; what isn't a version is an error.
func NewVersions(texts []string) (Versions, error) {
	versions := make(Versions, 0, len(texts))
	for _, text := range texts {
		v, err := ParseVersion(text)
		if err != nil {
			return nil, err
		}
		versions = append(versions, v)
	}
	slices.SortFunc(versions, Version.Compare)
	return slices.Compact(versions), nil
}

// minors lists the newest patch of each minor, oldest first.
func (vs Versions) minors() []Version {
	var newest []Version
	for _, v := range vs {
		if n := len(newest); n > 0 && newest[n-1].MinorString() == v.MinorString() {
			newest[n-1] = v
			continue
		}
		newest = append(newest, v)
	}
	return newest
}

// newPool lists what a new pool may have under an API server: what is supported,
// and its server's own minor in any case.
func (vs Versions) newPool(server Version) []Version {
	var can []Version
	for _, v := range vs.forPool(server) {
		if vs.supports(v) || v.Minor == server.Minor {
			can = append(can, v)
		}
	}
	return can
}

// Default is what a request without a version gets: the newest patch of the
// minor before the newest, as AKS's N-1; of a single minor, that one.
func (vs Versions) Default() (Version, bool) {
	minors := vs.minors()
	if len(minors) == 0 {
		return Version{}, false
	}
	return minors[max(0, len(minors)-2)], true
}

// Find resolves "1.36.3", the alias "1.36" (its newest patch), or "" (the default).
func (vs Versions) Find(text string) (Version, bool) {
	if text == "" {
		return vs.Default()
	}
	if v, err := ParseVersion(text); err == nil {
		return v, slices.Contains(vs, v)
	}
	for _, v := range vs.minors() {
		if v.MinorString() == text {
			return v, true
		}
	}
	return Version{}, false
}

// list names the versions for a message.
func (vs Versions) list() string {
	if len(vs) == 0 {
		return "none is built yet"
	}
	names := make([]string, len(vs))
	for i, v := range vs {
		names[i] = v.String()
	}
	return strings.Join(names, ", ")
}

// window is how many minors before the newest one are supported (AKS's N-2).
const window = 2

// supported are the releases that new clusters may have.
func (vs Versions) supported() Versions {
	var can Versions
	for _, v := range vs {
		if vs.supports(v) {
			can = append(can, v)
		}
	}
	return can
}

// supports tells whether a release is within the support window.
func (vs Versions) supports(v Version) bool {
	if len(vs) == 0 {
		return false
	}
	newest := vs[len(vs)-1]
	return v.Major == newest.Major && v.Minor >= newest.Minor-window
}

// upgrades lists the versions that an API server of version v can go to: newer
// patches and the next minor. That one may be out of support itself: it is the
// only way up from one that is longer.
func (vs Versions) upgrades(v Version) []Version {
	var to []Version
	for _, o := range vs {
		if o.Compare(v) > 0 && o.Major == v.Major && o.Minor <= v.Minor+1 {
			to = append(to, o)
		}
	}
	return to
}

// poolUpgrades lists the versions that a pool of version v can go to under an
// API server: kubelets may skip minors, nodes are made anew.
func (vs Versions) poolUpgrades(v, server Version) []Version {
	var to []Version
	for _, o := range vs.forPool(server) {
		if o.Compare(v) > 0 {
			to = append(to, o)
		}
	}
	return to
}

// forPool lists the versions that a pool may have beside an API server of version v.
func (vs Versions) forPool(v Version) []Version {
	var can []Version
	for _, o := range vs {
		if o.Compare(v) <= 0 && o.Major == v.Major && o.Minor >= v.Minor-skew {
			can = append(can, o)
		}
	}
	return can
}

func (vs Versions) unknown(text, location, target string) *fault.Error {
	return fault.New(fault.Invalid, "K8sVersionNotSupported",
		"Version %s is not supported in %s. Versions that exist: %s. Use [az aks get-versions -l %s] to list them.",
		text, location, vs.supported().list(), location).At(target)
}
