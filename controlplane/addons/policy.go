// SPDX-License-Identifier: Apache-2.0

package addons

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

//go:embed policy
var policies embed.FS

// Policy is what a Kubernetes release creates in every new cluster by itself,
// a second after it begins to serve: default roles and priority classes.
// Created at once, it lets controllers and nodes begin that much earlier; the
// release finds it there, and adds what may be missing. It is the release's own,
// read back from it by a test with -update. Empty for an unknown release.
func Policy(version string) ([]*unstructured.Unstructured, error) {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 3 {
		return nil, nil
	}
	data, err := policies.ReadFile(PolicyFile(version))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var objects []*unstructured.Unstructured
	for _, document := range strings.Split(string(data), "\n---\n") {
		o := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(document), &o.Object); err != nil {
			return nil, fmt.Errorf("read policy of %s: %w", version, err)
		}
		if len(o.Object) > 0 {
			objects = append(objects, o)
		}
	}
	return objects, nil
}

// PolicyFile is where the policy of a release is kept, below this package.
func PolicyFile(version string) string { return "policy/v" + version + ".yaml" }
