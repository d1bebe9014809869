// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/connrotation"

	"bastide.dev/controlplane"
	"bastide.dev/pki"
)

const (
	probeUser = "bastide:host"
	probeLife = time.Hour
	probeTime = 5 * time.Second
)

// slotClient asks the API server of one slot, in charge or not.
type slotClient struct {
	api    rest.Interface
	hangUp func()
}

func dialSlot(spec controlplane.Spec, netns string, slot controlplane.Slot) (*slotClient, error) {
	ca, err := pki.OpenCA(pki.Pair(spec.Keys.CA))
	if err != nil {
		return nil, err
	}
	leaf, err := ca.Issue(pki.Request{CommonName: probeUser, Organizations: []string{controlplane.MastersGroup}, Client: true, Lifetime: probeLife})
	if err != nil {
		return nil, err
	}
	dialer := connrotation.NewDialer(Dialer(netns))
	config := &rest.Config{Host: "https://127.0.0.1:" + strconv.Itoa(int(slot.Port())), QPS: -1, UserAgent: probeUser, Dial: dialer.DialContext, WarningHandler: rest.NoWarnings{},
		TLSClientConfig: rest.TLSClientConfig{CAData: spec.Keys.Trust().CA, CertData: leaf.Certificate, KeyData: leaf.Key},
		ContentConfig:   rest.ContentConfig{NegotiatedSerializer: serializer.NewCodecFactory(runtime.NewScheme()).WithoutConversion()}}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	api, err := rest.UnversionedRESTClientForConfigAndClient(config, client)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	return &slotClient{api: api, hangUp: dialer.CloseAll}, nil
}

func (c *slotClient) get(ctx context.Context, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	body, err := c.api.Get().AbsPath(path).Do(ctx).Raw()
	if err != nil {
		if failing := failing(string(body)); failing != "" {
			return nil, fmt.Errorf("%s: %s", path, failing)
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return body, nil
}

// failing keeps the lines of a health report that say what isn't well.
func failing(report string) string {
	var lines []string
	for line := range strings.Lines(report) {
		if strings.HasPrefix(line, "[-]") {
			lines = append(lines, strings.TrimSpace(strings.TrimPrefix(line, "[-]")))
		}
	}
	return strings.Join(lines, ", ")
}

// good tells whether the API server may be in charge: all its own checks pass, it
// is the version that was asked for, and it reads what the cluster has.
func (c *slotClient) good(ctx context.Context, version string) error {
	if _, err := c.get(ctx, "/readyz"); err != nil {
		return err
	}
	body, err := c.get(ctx, "/version")
	if err != nil {
		return err
	}
	var is struct {
		GitVersion string `json:"gitVersion"`
	}
	if err := json.Unmarshal(body, &is); err != nil {
		return fmt.Errorf("/version: %w", err)
	}
	if is.GitVersion != "v"+version {
		return fmt.Errorf("it says that it is %q", is.GitVersion)
	}
	if _, err := c.get(ctx, "/api/v1/namespaces/kube-system"); err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	return nil
}

// executing is how many requests the API server works on or has in its queues,
// this one left out, and watches that are set up.
func (c *slotClient) executing(ctx context.Context) (int, error) {
	body, err := c.get(ctx, "/debug/api_priority_and_fairness/dump_priority_levels")
	if err != nil {
		return 0, err
	}
	n, err := countExecuting(string(body))
	return max(n-1, 0), err
}

// countExecuting adds up a table of priority levels.
func countExecuting(table string) (int, error) {
	reader := csv.NewReader(strings.NewReader(table))
	reader.TrimLeadingSpace, reader.FieldsPerRecord = true, -1
	rows, err := reader.ReadAll()
	if err != nil || len(rows) == 0 {
		return 0, fmt.Errorf("read priority levels: %d rows, %w", len(rows), err)
	}
	sum := 0
	for _, column := range []string{"WaitingRequests", "ExecutingRequests"} {
		i := slices.Index(rows[0], column)
		if i < 0 {
			return 0, fmt.Errorf("read priority levels: no column %s", column)
		}
		for _, row := range rows[1:] {
			if i >= len(row) {
				continue
			}
			if n, err := strconv.Atoi(strings.TrimSpace(row[i])); err == nil { // "<none>" stands in levels without queues
				sum += n
			}
		}
	}
	return sum, nil
}
