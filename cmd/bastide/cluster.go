// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	"bastide.dev/client"
	"bastide.dev/instance"
	"bastide.dev/resource"
)

// clusterAt finds a cluster that is named GROUP/CLUSTER or by its id, and the way
// to the instance.
func clusterAt(g *global, name string) (*client.Client, resource.ID, error) {
	if err := clusterForm(name); err != nil {
		return nil, resource.ID{}, err
	}
	c, in, err := g.connect()
	if err != nil {
		return nil, resource.ID{}, err
	}
	id, err := clusterID(in, name)
	return c, id, err
}

// clusterForm refuses a name that can't be a cluster's, before anybody is asked.
func clusterForm(name string) error {
	if !strings.Contains(name, "/") {
		return usageError{fmt.Errorf("cluster %q: say GROUP/CLUSTER or a resource id, which begins with a slash", name)}
	}
	return nil
}

func clusterID(in *instance.Instance, name string) (resource.ID, error) {
	if err := clusterForm(name); err != nil {
		return resource.ID{}, err
	}
	scope, err := accessScope(in, name)
	if err != nil {
		return resource.ID{}, err
	}
	id, err := resource.ParseID(scope)
	if err != nil || !id.IsType("Microsoft.ContainerService/managedClusters") {
		return resource.ID{}, usageError{fmt.Errorf("%q isn't a cluster", name)}
	}
	return id, nil
}
